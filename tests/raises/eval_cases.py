"""Errors of `visp.eval`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.raises.case import Case

SHOTS = np.array([[0, 4], [5, 9]])
PICKS = np.array([0, 5])
SCORES = np.array([0.2, 0.8])
NOT_FINITE = np.array([0.2, np.nan])
USERS = np.array([[0, 1, 1, 0], [1, 1, 0, 0]])
ANNOTATION = {"user_summary": np.eye(2, 10), "change_points": SHOTS, "n_frames": 10, "picks": PICKS}
TVSUM = {"protocol": "csta", "benchmark": "tvsum"}
SUMME = {"protocol": "csta", "benchmark": "summe"}


def bad_shots(name: str, call: Any) -> list[Case]:
    """Each way in which shots can be wrong, for a function that takes them."""
    wrong = {
        r"shots \(S, 2\) .* at least one": np.zeros((0, 2), int),
        "must not be negative, got shot 0 of frames -1": [[-1, 4], [5, 9]],
        "must not end before they start": [[0, 4], [5, 3]],
        "the first shot must start at frame 0": [[1, 4], [5, 9]],
        "got a gap": [[0, 3], [5, 9]],
        "got an overlap": [[0, 5], [5, 9]],
    }

    def case(message: str, shots: Any) -> Case:
        return Case(name, ValueError, message, lambda this, _: call(this, shots))

    return [case(message, shots) for message, shots in wrong.items()]


def evaluation(name: str, call: Any) -> list[Case]:
    """The refusals that `evaluate` and `baselines` share, of a video called v."""
    return [
        Case(name, ValueError, "benchmark must be one of",
             lambda this, _: call(this, ANNOTATION, {"protocol": "csta", "benchmark": "cosum"})),
        Case(name, ValueError, "v: the annotations lack picks",
             lambda this, _: call(this, {k: v for k, v in ANNOTATION.items() if k != "picks"}, TVSUM)),
        Case(name, ValueError, "v: .*needs the annotators' raw scores",
             lambda this, _: call(this, ANNOTATION, {"protocol": "otani", "benchmark": "tvsum"})),
        Case(name, ValueError, "v: the first shot must start",
             lambda this, _: call(this, {**ANNOTATION, "change_points": SHOTS + 1}, SUMME)),
    ]  # fmt: skip


EVALUATION = [
    Case("visp.eval.evaluate", ValueError, "at least one", lambda this, _: this({}, {}, **SUMME)),
    Case("visp.eval.evaluate", ValueError, "only in predictions: .*v",
         lambda this, _: this({"v": SCORES}, {"w": ANNOTATION}, **SUMME)),
    *evaluation("visp.eval.evaluate", lambda this, annotation, how: this({"v": SCORES}, {"v": annotation}, **how)),
    *evaluation("visp.eval.baselines", lambda this, annotation, how: this("v", annotation, **how)),
    Case("visp.eval.rank_correlation", ValueError, "protocol must be one of",
         lambda this, _: this(SCORES, USERS, protocol="dsnet", benchmark="summe")),
    Case("visp.eval.rank_correlation", ValueError, r"expected scores \(T,\), got shape \(1, 2\)",
         lambda this, _: this(SCORES[None], USERS, picks=PICKS, **TVSUM)),
    Case("visp.eval.rank_correlation", ValueError, "differ in length: 2 and 1",
         lambda this, _: this(SCORES, USERS, picks=PICKS[:1], **TVSUM)),
    Case("visp.eval.rank_correlation", ValueError, "the scores hold values that are not finite",
         lambda this, _: this(NOT_FINITE, USERS, picks=PICKS, **TVSUM)),
    Case("visp.eval.f_score", ValueError, "the summary and the user summaries differ in length: 3 and 4",
         lambda this, _: this([0, 1, 1], USERS, "max")),
    Case("visp.eval.f_score", ValueError, "the summary must hold only 0 and 1, got 2",
         lambda this, _: this([0, 2, 1, 0], USERS, "max")),
    Case("visp.eval.f_score", ValueError, "over_users must be .* 'median'",
         lambda this, _: this(USERS[0], USERS, "median")),
    Case("visp.eval.human_consistency", ValueError, "at least 2 annotators, got 1",
         lambda this, _: this(USERS[:1], "csta", "summe")),
    Case("visp.eval.human_consistency", ValueError, "scores on summe compares with gtscore",
         lambda this, _: this(USERS, "scores", "summe")),
    Case("visp.eval.human_consistency", ValueError, "benchmark must be one of",
         lambda this, _: this(USERS, "csta", "cosum")),
]  # fmt: skip

SEGMENTATION = [
    Case("visp.eval.kts.kts", ValueError, r"features \(N, d\) .* \(3,\)", lambda this, _: this(np.ones(3))),
    Case("visp.eval.kts.kts", ValueError, "real numbers, got complex128",
         lambda this, _: this(np.ones((3, 2), complex))),
    Case("visp.eval.kts.kts", ValueError, "not finite, .* first at frame 1",
         lambda this, _: this([[0.0], [np.inf]])),
    Case("visp.eval.kts.kts", ValueError, "vmax must be", lambda this, _: this(np.ones((3, 2)), vmax=-1)),
    Case("visp.eval.kts.kts", ValueError, "desc_rate must be", lambda this, _: this(np.ones((3, 2)), desc_rate=0)),
    Case("visp.eval.kts.kts", ValueError, "3 frames cannot be cut into segments of 2 to 2 frames",
         lambda this, _: this(np.ones((3, 2)), min_length=2, max_length=2)),
    Case("visp.eval.kts_from_kernel", ValueError, r"a square kernel .*\(2, 3\)", lambda this, _: this(np.ones((2, 3)))),
    Case("visp.eval.kts_from_kernel", ValueError, "must be symmetric, got",
         lambda this, _: this([[1.0, 2.0], [0.0, 1.0]])),
    Case("visp.eval.kts_from_kernel", ValueError, "real numbers", lambda this, _: this(np.ones((2, 2), complex))),
    Case("visp.eval.kts_from_kernel", ValueError, "not finite, first at row 0",
         lambda this, _: this([[np.nan, 0], [0, 1]])),
    Case("visp.eval.kts_from_kernel", ValueError, "diagonal must not be negative, got -1 at frame 1",
         lambda this, _: this([[1, 0], [0, -1]])),
    Case("visp.eval.kts_from_kernel", ValueError, "max_change_points",
         lambda this, _: this(np.eye(3), max_change_points=-1)),
    Case("visp.eval.knapsack.knapsack", ValueError, "values must be finite and at least 0, got -1",
         lambda this, _: this([-1], [1], 1)),
    Case("visp.eval.knapsack.knapsack", ValueError, "values must be finite .* nan",
         lambda this, _: this([np.nan], [1], 1)),
    Case("visp.eval.knapsack.knapsack", ValueError, "weights must be whole .* 0", lambda this, _: this([1], [0], 1)),
    Case("visp.eval.knapsack.knapsack", ValueError, "weights must be whole .* 1.5",
         lambda this, _: this([1], [1.5], 1)),
    Case("visp.eval.knapsack.knapsack", ValueError, "of the same S", lambda this, _: this([1], [1, 1], 1)),
    Case("visp.eval.knapsack.knapsack", ValueError, "capacity must be .* -1", lambda this, _: this([1], [1], -1)),
    Case("visp.eval.knapsack.knapsack", ValueError, "capacity must be .* 1.5", lambda this, _: this([1], [1], 1.5)),
]  # fmt: skip

SUMMARIES = [
    Case("visp.eval.make_summary", ValueError, "not finite", lambda this, _: this(NOT_FINITE, SHOTS, 10, PICKS)),
    Case("visp.eval.make_summary", ValueError, "the budget must be .* 0",
         lambda this, _: this(SCORES, SHOTS, 10, PICKS, budget=0)),
    Case("visp.eval.make_summary", ValueError, "a score for each of the 2 picks",
         lambda this, _: this(np.ones(3), SHOTS, 10, PICKS)),
    *bad_shots("visp.eval.make_summary", lambda this, shots: this(SCORES, shots, 10, PICKS)),
    Case("visp.eval.choose_shots", ValueError, "not finite",
         lambda this, _: this(NOT_FINITE, SHOTS, 10, PICKS, capacity=5)),
    Case("visp.eval.choose_shots", ValueError, "a score for each of the 2 picks",
         lambda this, _: this(np.ones(3), SHOTS, 10, PICKS, capacity=5)),
    Case("visp.eval.choose_shots", ValueError, "capacity must be .* -1",
         lambda this, _: this(SCORES, SHOTS, 10, PICKS, capacity=-1)),
    *bad_shots("visp.eval.choose_shots", lambda this, shots: this(SCORES, shots, 10, PICKS, capacity=5)),
    Case("visp.eval.shot_scores", ValueError, "expected finite frame scores",
         lambda this, _: this(np.full(10, np.nan), SHOTS)),
    *bad_shots("visp.eval.shot_scores", lambda this, shots: this(np.ones(10), shots)),
    Case("visp.eval.upsample_scores", ValueError, "a score for each of the 4 picks",
         lambda this, _: this(SCORES, [0, 2, 4, 6], 10)),
    Case("visp.eval.upsample_scores", ValueError, "a score for each of the 2 picks",
         lambda this, _: this(np.ones(3), PICKS, 10)),
    Case("visp.eval.upsample_scores", ValueError, "not finite", lambda this, _: this(NOT_FINITE, PICKS, 10)),
    Case("visp.eval.upsample_scores", ValueError, "picks must be whole frame numbers from 0 to 4",
         lambda this, _: this(SCORES, PICKS, 4)),
    Case("visp.eval.upsample_scores", ValueError, "picks must ascend", lambda this, _: this(SCORES, [5, 0], 10)),
    *bad_shots("visp.eval.check_shots", lambda this, shots: this(shots)),
    Case("visp.eval.check_shots", ValueError, "in the 9 frames 0 to 8", lambda this, _: this(SHOTS, 9)),
    Case("visp.eval.shots_from_change_points", ValueError, "change_points must ascend",
         lambda this, _: this([5, 3], 10)),
    Case("visp.eval.shots_from_change_points", ValueError, "change_points must be between",
         lambda this, _: this([12], 10)),
    Case("visp.eval.shots_from_change_points", ValueError, "picks must ascend",
         lambda this, _: this([1], 10, [5, 0])),
    Case("visp.eval.shots_from_change_points", ValueError, "picks must be",
         lambda this, _: this([1], 10, [0, 12])),
    Case("visp.eval.shots_from_breaks", ValueError, "breaks that end with the number of frames, got none",
         lambda this, _: this([])),
    Case("visp.eval.shots_from_breaks", ValueError, "breaks must ascend", lambda this, _: this([5, 3])),
    Case("visp.eval.shots_from_breaks", ValueError, "breaks must be at least 1", lambda this, _: this([0, 3])),
    *bad_shots("visp.eval.shots_to_breaks", lambda this, shots: this(shots)),
]  # fmt: skip

HIGHLIGHTS = [
    Case("visp.eval.highlights.average_precision", ValueError, r"shapes \(2,\) and \(3,\)",
         lambda this, _: this(SCORES, [0, 1, 0])),
    Case("visp.eval.highlights.average_precision", ValueError, "finite scores",
         lambda this, _: this(NOT_FINITE, [0, 1])),
    Case("visp.eval.highlights.interpolated_precision", ValueError, r"shapes \(2,\) and \(3,\)",
         lambda this, _: this(SCORES, [0, 1, 0])),
    Case("visp.eval.highlights.interpolated_precision", ValueError, "finite scores",
         lambda this, _: this(NOT_FINITE, [0, 1])),
    Case("visp.eval.highlights.highlight_precision", ValueError, r"scores and truth \(T,\)",
         lambda this, _: this(SCORES, np.ones(3), 0.5)),
    Case("visp.eval.highlights.highlight_precision", ValueError, r"a share in \(0, 1\]",
         lambda this, _: this(SCORES, SCORES, 1.5)),
    Case("visp.eval.highlights.mean_of_batches", ValueError, "batch_size must be at least 1, got 0",
         lambda this, _: this([0.5], 0)),
    Case("visp.eval.highlights.evaluate_highlights", ValueError, "the same videos, at least one",
         lambda this, _: this({}, {})),
    Case("visp.eval.highlights.evaluate_highlights", ValueError, "the same videos",
         lambda this, _: this({"v": SCORES}, {"w": SCORES})),
    Case("visp.eval.highlights.evaluate_highlights", ValueError, "v: expected scores and truth",
         lambda this, _: this({"v": SCORES}, {"v": np.ones(3)})),
    Case("visp.eval.highlights.evaluate_rated", ValueError, "at least one query", lambda this, _: this({}, [])),
    Case("visp.eval.highlights.evaluate_rated", ValueError, "no scores of 1 videos .* v",
         lambda this, _: this({}, [("v", np.ones((2, 3)))])),
    Case("visp.eval.highlights.evaluate_rated", ValueError, "v: expected scores",
         lambda this, _: this({"v": SCORES}, [("v", np.ones((3, 3)))])),
    Case("visp.eval.highlights.hit_at_1", ValueError, r"scores \(n,\) and ratings \(n, raters\)",
         lambda this, _: this(SCORES, np.ones((3, 2)))),
]  # fmt: skip

CASES = [*EVALUATION, *SEGMENTATION, *SUMMARIES, *HIGHLIGHTS]
