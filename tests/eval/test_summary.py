from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from visp.eval.summary import choose_shots, make_summary, shot_scores, upsample_scores

Video = tuple[list[float], list[int], int]

SHOTS = [[0, 9], [10, 39], [40, 49], [50, 99]]
PICKS = np.arange(0, 100, 10)


def slow_upsample(scores: list[float], picks: list[int], n_frames: int) -> list[float]:
    """Section by section: from each pick up to the next one, or to the end of the video."""
    bounds = picks if picks[-1] == n_frames else [*picks, n_frames]
    frames = [0.0] * n_frames
    for i in range(len(bounds) - 1):
        for frame in range(bounds[i], bounds[i + 1]):
            frames[frame] = float(np.float32(scores[i])) if i < len(scores) else 0.0
    return frames


@st.composite
def videos(draw: st.DrawFn) -> Video:
    n_frames = draw(st.integers(2, 40))
    picks = sorted(draw(st.sets(st.integers(0, n_frames), min_size=2)))
    missing = draw(st.integers(0, 1))
    size = len(picks) - missing
    return draw(st.lists(st.floats(0, 1), min_size=size, max_size=size)), picks, n_frames


@given(videos())
def test_upsampled_scores_equal_a_slow_loop(video: Video) -> None:
    upsampled = upsample_scores(*video)
    assert upsampled.dtype == np.float32
    assert upsampled.tolist() == slow_upsample(*video)


def test_one_missing_score_counts_as_0() -> None:
    assert upsample_scores([0.5, 0.25], [1, 3, 5], 7).tolist() == [0, 0.5, 0.5, 0.25, 0.25, 0, 0]


@pytest.mark.parametrize("number", [1, 4, 0])
def test_other_numbers_of_scores_than_picks_are_refused_with_both(number: int) -> None:
    with pytest.raises(ValueError, match=rf"each of the 3 picks .* got scores of shape \({number},\)"):
        upsample_scores(np.ones(number), [0, 2, 4], 6)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_scores_that_are_not_finite_in_float32_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="scores hold values that are not finite"):
        upsample_scores([0.5, value], [0, 2], 4)


@pytest.mark.parametrize(
    ("picks", "message"),
    [
        ([0, 7], "whole frame numbers from 0 to 6"),
        ([-1, 3], "whole frame numbers from 0 to 6"),
        ([0, 1.5], "whole frame numbers from 0 to 6"),
        ([0, np.inf], "whole frame numbers from 0 to 6"),
        ([3, 3], "ascend strictly"),
        ([3, 0], "ascend strictly"),
        ([[0, 3]], r"expected picks \(T,\)"),
        ([], r"expected picks \(T,\)"),
    ],
)
def test_picks_that_do_not_fit_the_video_are_refused(picks: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        upsample_scores([0.5, 0.5], picks, 6)  # type: ignore[arg-type]


def test_a_shot_scores_the_float32_mean_of_its_frames() -> None:
    frame_scores = np.random.default_rng(0).random(100, dtype=np.float32)
    scores = shot_scores(frame_scores, SHOTS)
    assert scores.dtype == np.float64
    assert scores.tolist() == [float(frame_scores[start : end + 1].mean()) for start, end in SHOTS]
    exact = [math.fsum(frame_scores[start : end + 1].tolist()) / (end + 1 - start) for start, end in SHOTS]
    np.testing.assert_allclose(scores, exact, rtol=1e-6)


def test_shot_scores_refuse_what_is_not_finite() -> None:
    with pytest.raises(ValueError, match="expected finite frame scores"):
        shot_scores([0.5, np.nan], [[0, 1]])


@pytest.mark.parametrize(
    "shots",
    [[[0, 9], [11, 99]], [[0, 9], [9, 99]], [[0, 99], [100, 90]], [[5, 99]], [[0, 100]]],
    ids=["gap", "overlap", "negative length", "late start", "past the end"],
)
def test_shots_that_do_not_cut_the_video_are_refused(shots: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="shot"):
        make_summary(np.ones(10), shots, 100, PICKS)
    with pytest.raises(ValueError, match="shot"):
        shot_scores(np.ones(100), shots)


def test_the_best_shots_within_the_budget_are_kept() -> None:
    scores = [0.2, 0.9, 0.9, 0.9, 0.7, 0.3, 0.3, 0.3, 0.3, 0.3]
    summary = make_summary(scores, SHOTS, 100, PICKS, budget=0.4)
    assert summary.selected.tolist() == [1, 2]
    assert summary.selection.tolist() == [0] * 10 + [1] * 40 + [0] * 50
    assert summary.selection.dtype == np.uint8
    assert summary.share == 0.4


def test_by_default_the_summary_keeps_15_percent() -> None:
    summary = make_summary(
        np.linspace(0.1, 1, 20), [[start, start + 4] for start in range(0, 200, 5)], 200, np.arange(0, 200, 10)
    )
    assert summary.share == 0.15
    assert summary.selection[-30:].all()


def test_shots_may_end_before_the_video() -> None:
    summary = make_summary(np.ones(10), [[0, 9], [10, 79]], 100, PICKS, budget=1.0)
    assert summary.selection.tolist() == [1] * 80 + [0] * 20
    assert summary.share == 0.8


def test_the_budget_is_a_share_of_the_shots_or_of_the_video() -> None:
    scores, shots = np.ones(10), [[0, 14], [15, 89]]
    assert make_summary(scores, shots, 100, PICKS, budget_base="n_frames").selected.tolist() == [0]
    with pytest.warns(UserWarning, match="no shot fits into 0.15 of 90 frames, which is 13"):
        assert make_summary(scores, shots, 100, PICKS, budget_base="last_shot").selected.tolist() == []


@given(st.integers(1, 60), st.integers(0, 60))
@example(29, 42)  # 0.29 * 100 is just below 29
def test_an_empty_summary_names_the_shortest_shot_and_a_budget_that_holds_it(length: int, longer: int) -> None:
    n_frames = 2 * length + longer
    shots = [[0, length + longer - 1], [length + longer, n_frames - 1]]
    with pytest.warns(UserWarning, match="the summary is empty") as caught:
        summary = make_summary([1.0], shots, n_frames, [0], budget=1e-6)
    assert (summary.selected.tolist(), summary.selection.sum(), summary.share) == ([], 0, 0)
    found = re.search(r"shortest shot, (\d), has (\d+) frames and needs a budget of (\S+)", str(caught[0].message))
    assert found is not None
    assert (int(found[1]), int(found[2])) == (1 if longer else 0, length)
    assert make_summary([1.0], shots, n_frames, [0], budget=float(found[3])).share > 0


def test_scores_below_a_thousandth_still_choose_the_best_shots() -> None:
    scores = [1e-5] * 5 + [2e-5] * 5
    assert make_summary(scores, [[0, 49], [50, 99]], 100, PICKS, budget=0.5).selected.tolist() == [1]


@given(videos(), st.integers(1, 6), st.integers(0, 40))
def test_chosen_shots_equal_a_search_through_every_choice(video: Video, parts: int, capacity: int) -> None:
    scores, picks, n_frames = video
    signed = [score - 0.5 for score in scores]
    starts = sorted({0, *(n_frames * part // parts for part in range(parts))})
    shots = [[start, stop - 1] for start, stop in itertools.pairwise([*starts, n_frames])]
    frames = slow_upsample(signed, picks, n_frames)
    means = [sum(frames[start : end + 1]) / (end + 1 - start) for start, end in shots]
    chosen = choose_shots(signed, shots, n_frames, picks, capacity=capacity)
    np.testing.assert_allclose(chosen.scores, means, rtol=1e-5, atol=1e-6)

    def total(choice: Iterable[int]) -> float:
        return sum(float(chosen.scores[shot]) for shot in choice)

    fitting = [
        choice
        for size in range(len(shots) + 1)
        for choice in itertools.combinations(range(len(shots)), size)
        if sum(shots[shot][1] - shots[shot][0] + 1 for shot in choice) <= capacity
    ]
    assert tuple(chosen.selected.tolist()) in fitting
    assert total(chosen.selected.tolist()) == pytest.approx(max(map(total, fitting)), abs=1e-12)


def test_lengths_in_other_units_decide_what_fits() -> None:
    chosen = choose_shots(np.ones(10), SHOTS, 100, PICKS, capacity=2, lengths=[3, 3, 1, 1])
    assert chosen.selected.tolist() == [2, 3]


def test_a_shot_of_negative_mean_is_never_worth_taking() -> None:
    scores = [-0.2, -3, -3, -3, 0.7, -0.3, 0.1, -0.3, -0.3, -0.3]
    assert make_summary(scores, SHOTS, 100, PICKS, budget=1.0).selected.tolist() == [
        shot for shot, score in enumerate(shot_scores(upsample_scores(scores, PICKS, 100), SHOTS)) if score > 0
    ]


def test_a_summary_without_a_shot_worth_taking_says_so() -> None:
    with pytest.warns(UserWarning, match="no shot has a mean score above 0, the highest is -1"):
        assert make_summary(np.full(10, -1.0), SHOTS, 100, PICKS).share == 0


@pytest.mark.parametrize("budget", [0, -0.1, 1.5, np.nan])
def test_a_budget_that_is_no_share_is_refused(budget: float) -> None:
    with pytest.raises(ValueError, match=r"budget must be a share in \(0, 1\]"):
        make_summary(np.ones(10), SHOTS, 100, PICKS, budget=budget)


def test_an_unknown_budget_base_is_refused() -> None:
    with pytest.raises(ValueError, match="budget_base must be 'last_shot' or 'n_frames', got 'shots'"):
        make_summary(np.ones(10), SHOTS, 100, PICKS, budget_base="shots")  # type: ignore[arg-type]


def test_a_summary_cannot_be_changed() -> None:
    summary = make_summary(np.ones(10), SHOTS, 100, PICKS)
    with pytest.raises(FrozenInstanceError):
        summary.share = 0.5  # type: ignore[misc]
