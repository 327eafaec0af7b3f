from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from visp.eval.metrics import f_score, human_consistency, rank_correlation
from visp.eval.summary import Summary, make_summary

Values = Sequence[float]
Measure = Callable[[Values, Values], float]

N_FRAMES = 100
PICKS = np.arange(0, N_FRAMES, 15)
RNG = np.random.default_rng(0)
SCORES = RNG.random(len(PICKS)).astype(np.float32)
RATINGS = np.repeat(RNG.integers(1, 6, size=(4, 20)), 5, axis=1)  # TVSum's: 1 to 5
KEPT = np.repeat(RNG.integers(0, 2, size=(5, 20)), 5, axis=1)
SHOTS = [[start, start + 9] for start in range(0, N_FRAMES, 10)]
SUMMARY = make_summary(SCORES, SHOTS, N_FRAMES, PICKS, budget=0.4)


def sign(value: float) -> int:
    return (value > 0) - (value < 0)


def slow_tau_b(first: Values, second: Values) -> float:
    """(concordant - discordant) / sqrt(pairs untied in the one * pairs untied in the other)."""
    balance = untied_first = untied_second = 0
    for i in range(len(first)):
        for j in range(i):
            one, other = sign(first[i] - first[j]), sign(second[i] - second[j])
            balance += one * other
            untied_first += abs(one)
            untied_second += abs(other)
    return balance / math.sqrt(untied_first * untied_second) if untied_first and untied_second else math.nan


def slow_ranks(values: Values) -> list[float]:
    """Rank from 1, tied values sharing the mean of theirs."""
    return [sum(x < y for x in values) + (sum(x == y for x in values) + 1) / 2 for y in values]


def slow_rho(first: Values, second: Values) -> float:
    """Pearson's correlation of the ranks."""
    one, other = slow_ranks(first), slow_ranks(second)
    center = (len(one) + 1) / 2
    covariance = sum((x - center) * (y - center) for x, y in zip(one, other, strict=True))
    spread = math.sqrt(sum((x - center) ** 2 for x in one) * sum((y - center) ** 2 for y in other))
    return covariance / spread if spread else math.nan


def upsampled(scores: npt.NDArray[np.floating]) -> list[float]:
    return [float(scores[frame // 15]) for frame in range(N_FRAMES)]


def mean_of_rows(rows: npt.NDArray[np.integer]) -> list[float]:
    return [sum(column) / len(rows) for column in rows.T.tolist()]


def csta_tvsum(measure: Measure) -> list[float]:
    return [measure(SCORES.tolist(), [value / max(user) for value in user][::15]) for user in RATINGS.tolist()]


def csta_summe(measure: Measure) -> list[float]:
    return [measure(SUMMARY.selection.tolist(), mean_of_rows(KEPT))]


def otani_tvsum(measure: Measure) -> list[float]:
    return [measure(upsampled(SCORES), user) for user in RATINGS.tolist()]


def scores_tvsum(measure: Measure) -> list[float]:
    return [measure(upsampled(SCORES), [(value - 1) / 4 for value in user]) for user in RATINGS.tolist()]


def scores_summe(measure: Measure) -> list[float]:
    return [measure(upsampled(SCORES), upsampled(KEPT.mean(axis=0)[PICKS]))]


PROTOCOLS: dict[tuple[str, str], tuple[Callable[[Measure], list[float]], Any, npt.NDArray[np.number]]] = {
    ("csta", "tvsum"): (csta_tvsum, SCORES, RATINGS),
    ("csta", "summe"): (csta_summe, SUMMARY, KEPT),
    ("otani", "tvsum"): (otani_tvsum, SCORES, RATINGS),
    ("msva", "tvsum"): (csta_summe, SUMMARY, KEPT),
    ("msva", "summe"): (csta_summe, SUMMARY, KEPT),
    ("scores", "tvsum"): (scores_tvsum, SCORES, RATINGS),
    ("scores", "summe"): (scores_summe, SCORES, KEPT.mean(axis=0)[None, PICKS]),
}


@pytest.mark.parametrize(("protocol", "benchmark"), PROTOCOLS)
def test_each_protocol_equals_its_slow_reference(protocol: Any, benchmark: Any) -> None:
    reference, prediction, annotations = PROTOCOLS[protocol, benchmark]
    result = rank_correlation(
        prediction, annotations, protocol=protocol, benchmark=benchmark, picks=PICKS, n_frames=N_FRAMES
    )
    np.testing.assert_allclose(result.tau_per_user, reference(slow_tau_b), atol=1e-12)
    np.testing.assert_allclose(result.rho_per_user, reference(slow_rho), atol=1e-12)
    assert result.tau == pytest.approx(np.mean(reference(slow_tau_b)))
    assert result.rho == pytest.approx(np.mean(reference(slow_rho)))
    assert (result.num_undefined, result.protocol, result.benchmark) == (0, protocol, benchmark)


def test_a_summary_and_its_vector_are_the_same_prediction() -> None:
    whole = rank_correlation(SUMMARY, KEPT, protocol="csta", benchmark="summe")
    assert rank_correlation(SUMMARY.selection, KEPT, protocol="csta", benchmark="summe").tau == whole.tau


def test_users_who_chose_nothing_count_in_the_mean_of_the_users() -> None:
    kept = np.concatenate([KEPT, np.zeros((1, N_FRAMES))])
    with_idle = rank_correlation(SUMMARY, kept, protocol="msva", benchmark="tvsum")
    assert with_idle.tau == rank_correlation(SUMMARY, KEPT, protocol="msva", benchmark="tvsum").tau
    assert with_idle.num_undefined == 0


@st.composite
def scored_videos(draw: st.DrawFn) -> tuple[list[float], list[list[float]]]:
    length = draw(st.integers(1, 12))
    tied = st.integers(-2, 2).map(float)
    distinct = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
    scores = draw(st.lists(st.one_of(tied, distinct), min_size=length, max_size=length))
    users = draw(st.lists(st.lists(tied, min_size=length, max_size=length), min_size=1, max_size=4))
    return scores, users


@given(scored_videos())
def test_tau_and_rho_equal_a_slow_loop_under_ties(video: tuple[list[float], list[list[float]]]) -> None:
    scores, users = video
    frames = np.repeat(users, 15, axis=1)
    result = rank_correlation(scores, frames, protocol="csta", benchmark="tvsum")
    taus = [slow_tau_b(scores, user) for user in users]
    np.testing.assert_allclose(result.tau_per_user, taus, atol=1e-12)
    np.testing.assert_allclose(result.rho_per_user, [slow_rho(scores, user) for user in users], atol=1e-12)
    defined = [tau for tau in taus if not math.isnan(tau)]
    assert result.num_undefined == len(users) - len(defined)
    assert result.tau == pytest.approx(sum(defined) / len(defined) if defined else math.nan, abs=1e-12, nan_ok=True)


def test_tau_and_rho_equal_scipy_on_a_long_video() -> None:
    rng = np.random.default_rng(0)
    scores, users = rng.normal(size=500).round(1), rng.integers(1, 6, size=(3, 7500))
    result = rank_correlation(scores, users, protocol="csta", benchmark="tvsum")
    assert result.tau_per_user.tolist() == [stats.kendalltau(scores, user[::15]).statistic for user in users]
    assert result.rho_per_user.tolist() == [stats.spearmanr(scores, user[::15]).statistic for user in users]


def test_constant_scores_leave_every_user_undefined_without_a_warning() -> None:
    result = rank_correlation(np.full(len(PICKS), 0.5), RATINGS, protocol="csta", benchmark="tvsum")
    assert math.isnan(result.tau)
    assert math.isnan(result.rho)
    assert np.isnan(result.tau_per_user).all()
    assert result.num_undefined == len(RATINGS)


def test_an_empty_summary_is_undefined_without_a_warning() -> None:
    result = rank_correlation(np.zeros(N_FRAMES), KEPT, protocol="csta", benchmark="summe")
    assert math.isnan(result.tau)
    assert result.num_undefined == 1


def test_a_user_of_zeros_is_counted_and_left_out() -> None:
    users = np.concatenate([KEPT, np.zeros((1, N_FRAMES))])
    result = rank_correlation(SCORES, users, protocol="csta", benchmark="tvsum")
    assert result.num_undefined == 1
    assert np.isnan(result.tau_per_user[-1])
    assert result.tau == rank_correlation(SCORES, KEPT, protocol="csta", benchmark="tvsum").tau


def test_csta_reads_the_annotation_at_picks_of_another_sampling() -> None:
    picks = np.arange(0, N_FRAMES, 6)
    scores = np.random.default_rng(1).random(len(picks))
    result = rank_correlation(scores, RATINGS, protocol="csta", benchmark="tvsum", picks=picks, n_frames=N_FRAMES)
    assert result.tau_per_user.tolist() == [stats.kendalltau(scores, user[picks]).statistic for user in RATINGS]


def test_upsampling_counts_one_missing_score_as_0() -> None:
    whole = np.append(SCORES[:-1], 0)
    short = rank_correlation(SCORES[:-1], RATINGS, protocol="otani", benchmark="tvsum", picks=PICKS)
    assert short.tau == rank_correlation(whole, RATINGS, protocol="otani", benchmark="tvsum", picks=PICKS).tau


@pytest.mark.parametrize("picks", [None, PICKS, PICKS[:-1]], ids=["none", "all", "as many"])
def test_csta_on_tvsum_takes_no_missing_score(picks: npt.NDArray[np.integer] | None) -> None:
    with pytest.raises(ValueError, match=r"the sampled frames of the 100 annotated differ .* 6 and 7"):
        rank_correlation(SCORES[:-1], RATINGS, protocol="csta", benchmark="tvsum", picks=picks)


def test_csta_on_tvsum_takes_no_score_too_many() -> None:
    picks = np.arange(8) * 15
    with pytest.raises(ValueError, match="differ in length: 8 and 7"):
        rank_correlation(np.arange(8), RATINGS, protocol="csta", benchmark="tvsum", picks=picks)


@pytest.mark.parametrize(
    ("prediction", "annotations", "options", "message"),
    [
        (
            SCORES,
            RATINGS,
            {"protocol": "otani", "benchmark": "summe"},
            "'otani' is not defined for 'summe'; .* csta, msva",
        ),
        (SCORES, RATINGS, {"protocol": "best", "benchmark": "summe"}, "protocol must be one of csta, .* got 'best'"),
        (
            SCORES,
            RATINGS,
            {"protocol": "csta", "benchmark": "SumMe"},
            "benchmark must be one of summe, tvsum, mrhisum, qfvs, got 'SumMe'",
        ),
        (SCORES, RATINGS, {"protocol": "otani", "benchmark": "tvsum"}, "upsampled to all frames, which needs picks"),
        (SCORES, KEPT[:1, :7], {"protocol": "scores", "benchmark": "summe", "picks": PICKS}, "needs n_frames"),
        (
            SCORES,
            KEPT,
            {"protocol": "scores", "benchmark": "summe", "picks": PICKS, "n_frames": 100},
            r"gtscore as one row \(1, T\), got \(5, 100\)",
        ),
        (
            SCORES,
            KEPT[:1, :9],
            {"protocol": "scores", "benchmark": "summe", "picks": PICKS, "n_frames": 100},
            r"each of the 7 picks .* shape \(9,\)",
        ),
        (
            SCORES[:5],
            RATINGS,
            {"protocol": "scores", "benchmark": "tvsum", "picks": PICKS},
            r"each of the 7 picks .* shape \(5,\)",
        ),
        (
            SCORES,
            RATINGS,
            {"protocol": "csta", "benchmark": "tvsum", "picks": PICKS + 1, "n_frames": 101},
            "the video and the annotations differ in length: 101 and 100",
        ),
        (SCORES, RATINGS, {"protocol": "csta", "benchmark": "tvsum", "picks": PICKS + 10}, "from 0 to 99"),
        (SCORES, KEPT, {"protocol": "csta", "benchmark": "summe"}, "on summe a summary .*, must hold only 0 and 1"),
        (SUMMARY, RATINGS, {"protocol": "msva", "benchmark": "tvsum"}, "the user summaries, must hold only 0 and 1"),
        (SUMMARY, KEPT[:, :99], {"protocol": "msva", "benchmark": "tvsum"}, "differ in length: 100 and 99"),
        (SUMMARY, RATINGS, {"protocol": "csta", "benchmark": "tvsum"}, r"scores at the picks \(T,\), got a Summary"),
        (SCORES, RATINGS[0], {"protocol": "csta", "benchmark": "tvsum"}, r"expected annotations \(U, n_frames\)"),
        (SCORES, RATINGS[:0], {"protocol": "csta", "benchmark": "tvsum"}, r"expected annotations \(U, n_frames\)"),
        (
            SCORES[None],
            RATINGS,
            {"protocol": "csta", "benchmark": "tvsum"},
            r"expected scores \(T,\), got shape \(1, 7\)",
        ),
        ([], RATINGS, {"protocol": "csta", "benchmark": "tvsum"}, r"expected scores \(T,\), got shape \(0,\)"),
        (
            SCORES * np.nan,
            RATINGS,
            {"protocol": "csta", "benchmark": "tvsum"},
            "the scores hold values that are not finite",
        ),
        (
            SCORES,
            RATINGS * np.nan,
            {"protocol": "csta", "benchmark": "tvsum"},
            "the annotations hold values that are not",
        ),
    ],
)
def test_what_a_protocol_cannot_compare_is_refused(
    prediction: object, annotations: object, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rank_correlation(prediction, annotations, **options)  # type: ignore[arg-type]


def slow_agreement(measure: Measure, users: npt.NDArray[np.integer]) -> list[float]:
    """Each user with every other one, then averaged."""
    rows = users.tolist()
    return [
        float(np.mean([measure(held_out, other) for j, other in enumerate(rows) if j != i]))
        for i, held_out in enumerate(rows)
    ]


@pytest.mark.parametrize(("protocol", "stride"), [("otani", 1), ("scores", 1), ("csta", 15)])
def test_on_tvsum_each_annotator_is_held_against_each_of_the_others(protocol: Any, stride: int) -> None:
    result = human_consistency(RATINGS, protocol, "tvsum")
    np.testing.assert_allclose(result.tau_per_user, slow_agreement(slow_tau_b, RATINGS[:, ::stride]), atol=1e-12)
    np.testing.assert_allclose(result.rho_per_user, slow_agreement(slow_rho, RATINGS[:, ::stride]), atol=1e-12)
    assert result.tau == pytest.approx(result.tau_per_user.mean())


@pytest.mark.parametrize(("protocol", "benchmark"), [("csta", "summe"), ("msva", "summe"), ("msva", "tvsum")])
def test_where_summaries_are_compared_each_user_is_held_against_the_mean_of_the_others(
    protocol: Any, benchmark: Any
) -> None:
    result = human_consistency(KEPT, protocol, benchmark)
    others = [mean_of_rows(np.delete(KEPT, index, axis=0)) for index in range(len(KEPT))]
    pairs = list(zip(KEPT.tolist(), others, strict=True))
    np.testing.assert_allclose(result.tau_per_user, [slow_tau_b(*pair) for pair in pairs], atol=1e-12)
    np.testing.assert_allclose(result.rho_per_user, [slow_rho(*pair) for pair in pairs], atol=1e-12)
    assert (result.protocol, result.benchmark) == (protocol, benchmark)


def test_an_annotator_who_is_constant_is_left_out_of_the_consistency() -> None:
    result = human_consistency(np.concatenate([RATINGS, np.full((1, N_FRAMES), 3)]), "otani", "tvsum")
    assert result.num_undefined == 1
    assert result.tau == pytest.approx(human_consistency(RATINGS, "otani", "tvsum").tau)


@pytest.mark.parametrize(
    ("annotations", "protocol", "benchmark", "message"),
    [
        (RATINGS[:1], "otani", "tvsum", "leave-one-out needs at least 2 annotators, got 1"),
        (KEPT, "scores", "summe", "scores on summe compares with gtscore"),
        (KEPT, "otani", "summe", "'otani' is not defined for 'summe'"),
        (RATINGS, "csta", "summe", "the user summaries must hold only 0 and 1"),
    ],
)
def test_a_consistency_that_is_not_defined_is_refused(
    annotations: npt.NDArray[np.integer], protocol: Any, benchmark: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        human_consistency(annotations, protocol, benchmark)


def slow_f_score(summary: Values, user: Values) -> float:
    overlap = sum(1 for one, other in zip(summary, user, strict=True) if one and other)
    if overlap == 0:
        return 0.0
    precision, recall = overlap / sum(summary), overlap / sum(user)
    return 2 * precision * recall / (precision + recall)


bits = st.integers(0, 1)


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(
            st.lists(bits, min_size=n, max_size=n),
            st.lists(st.lists(bits, min_size=n, max_size=n).filter(any), min_size=1, max_size=4),
        )
    )
)
def test_f_score_equals_a_slow_loop(drawn: tuple[list[int], list[list[int]]]) -> None:
    summary, users = drawn
    scores = [slow_f_score(summary, user) for user in users]
    assert f_score(summary, users, "max") == pytest.approx(max(scores), abs=1e-12)
    assert f_score(summary, users, "mean") == pytest.approx(sum(scores) / len(scores), abs=1e-12)


def test_f_score_takes_a_summary() -> None:
    summary = Summary(np.array([1, 1, 0, 0], dtype=np.uint8), np.array([0], dtype=np.intp), 0.5)
    assert f_score(summary, [[1, 1, 0, 0], [0, 1, 1, 0]], over_users="max") == 1.0
    assert f_score(summary, [[1, 1, 0, 0], [0, 1, 1, 0]], over_users="mean") == 0.75


def test_an_empty_summary_scores_0() -> None:
    assert f_score([0, 0], [[1, 0], [1, 1]], "max") == 0.0


def test_users_without_frames_score_0_with_one_warning() -> None:
    message = r"users \[1, 2\] chose no frame and score 0"
    with pytest.warns(UserWarning, match=message) as caught:
        assert f_score([1, 0], [[1, 0], [0, 0], [0, 0], [1, 0]], "mean") == 0.5
    assert len(caught) == 1
    with pytest.warns(UserWarning, match=message):
        assert f_score([0, 0], [[1, 0], [0, 0], [0, 0]], "max") == 0.0


@pytest.mark.parametrize(
    ("summary", "users", "over_users", "message"),
    [
        ([1, 0, 1], [[1, 0]], "max", "the summary and the user summaries differ in length: 3 and 2"),
        ([1, 0.5], [[1, 0]], "max", "the summary must hold only 0 and 1, got 0.5"),
        ([1, 0], [[1, 3]], "max", "the user summaries must hold only 0 and 1, got 3"),
        ([1, 0], [[1, np.nan]], "max", "the annotations hold values that are not finite"),
        ([1, np.nan], [[1, 0]], "max", "the summary must hold only 0 and 1, got nan"),
        ([[1, 0]], [[1, 0]], "max", r"expected the summary as one vector \(n_frames,\), got shape \(1, 2\)"),
        ([1, 0], [1, 0], "max", r"expected annotations \(U, n_frames\)"),
        ([1, 0], [[1, 0]], "avg", "over_users must be 'max' or 'mean', got 'avg'"),
    ],
)
def test_what_has_no_f_score_is_refused(summary: object, users: object, over_users: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        f_score(summary, users, over_users)  # type: ignore[arg-type]
