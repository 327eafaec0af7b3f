from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from visp.eval import rank_correlation

Values = list[float]


def sign(value: float) -> int:
    return (value > 0) - (value < 0)


def slow_tau_b(first: Sequence[float], second: Sequence[float]) -> float:
    """(concordant - discordant) / sqrt(pairs untied in the one * pairs untied in the other)."""
    balance = untied_first = untied_second = 0
    for i in range(len(first)):
        for j in range(i):
            one, other = sign(first[i] - first[j]), sign(second[i] - second[j])
            balance += one * other
            untied_first += abs(one)
            untied_second += abs(other)
    return balance / math.sqrt(untied_first * untied_second) if untied_first and untied_second else math.nan


def slow_ranks(values: Sequence[float]) -> Values:
    """Rank from 1, tied values sharing the mean of theirs."""
    return [sum(x < y for x in values) + (sum(x == y for x in values) + 1) / 2 for y in values]


def slow_rho(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's correlation of the ranks."""
    one, other = slow_ranks(first), slow_ranks(second)
    center = (len(one) + 1) / 2
    covariance = sum((x - center) * (y - center) for x, y in zip(one, other, strict=True))
    spread = math.sqrt(sum((x - center) ** 2 for x in one) * sum((y - center) ** 2 for y in other))
    return covariance / spread if spread else math.nan


@st.composite
def scored_videos(draw: st.DrawFn) -> tuple[Values, list[Values]]:
    length = draw(st.integers(1, 12))
    tied = st.integers(-2, 2).map(float)
    distinct = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
    scores = draw(st.lists(st.one_of(tied, distinct), min_size=length, max_size=length))
    users = draw(st.lists(st.lists(tied, min_size=length, max_size=length), min_size=1, max_size=4))
    return scores, users


@given(scored_videos())
def test_tau_and_rho_equal_a_slow_loop(video: tuple[Values, list[Values]]) -> None:
    scores, users = video
    result = rank_correlation(scores, users)
    np.testing.assert_allclose(result.tau_per_user, [slow_tau_b(scores, user) for user in users], atol=1e-12)
    np.testing.assert_allclose(result.rho_per_user, [slow_rho(scores, user) for user in users], atol=1e-12)


@given(scored_videos())
def test_means_are_over_the_users_for_whom_it_is_defined(video: tuple[Values, list[Values]]) -> None:
    scores, users = video
    result = rank_correlation(scores, users)
    defined = [tau for tau in (slow_tau_b(scores, user) for user in users) if not math.isnan(tau)]
    assert result.num_undefined == len(users) - len(defined)
    assert result.tau == pytest.approx(sum(defined) / len(defined) if defined else math.nan, abs=1e-12, nan_ok=True)


def test_tau_and_rho_equal_scipy_on_a_long_video() -> None:
    rng = np.random.default_rng(0)
    scores, users = rng.normal(size=500).round(1), rng.integers(0, 5, size=(3, 500))
    result = rank_correlation(scores, users)
    assert result.tau_per_user.tolist() == [stats.kendalltau(scores, user).statistic for user in users]
    assert result.rho_per_user.tolist() == [stats.spearmanr(scores, user).statistic for user in users]
    assert result.rho == pytest.approx(result.rho_per_user.mean())
    assert result.num_undefined == 0


@pytest.mark.parametrize(
    ("scores", "users"),
    [([1.0, 2.0, 3.0], [[1, 1, 1], [0, 0, 0]]), ([2.0, 2.0, 2.0], [[1, 2, 3], [3, 2, 1]]), ([1.0], [[1], [2]])],
    ids=["constant users", "constant scores", "one frame"],
)
def test_all_undefined_gives_nan_without_a_warning(scores: Values, users: list[list[int]]) -> None:
    result = rank_correlation(scores, users)
    assert math.isnan(result.tau)
    assert math.isnan(result.rho)
    assert result.num_undefined == 2
    assert np.isnan(result.tau_per_user).all()


def test_a_constant_user_is_counted_and_left_out() -> None:
    result = rank_correlation([1, 2, 3], [[1, 2, 3], [5, 5, 5]])
    assert (result.tau, result.rho, result.num_undefined) == (1.0, 1.0, 1)
    np.testing.assert_array_equal(result.tau_per_user, [1.0, np.nan])


@pytest.mark.parametrize(
    ("scores", "users"),
    [
        (np.zeros(3), np.zeros((2, 4))),
        (np.zeros(3), np.zeros(3)),
        (np.zeros((3, 1)), np.zeros((2, 3))),
        (np.zeros(3), np.zeros((0, 3))),
    ],
    ids=["other T", "no user axis", "scores of two axes", "no users"],
)
def test_shapes_that_do_not_fit_are_refused(scores: object, users: object) -> None:
    with pytest.raises(ValueError, match=r"expected scores \(T,\) and annotations \(U, T\)"):
        rank_correlation(scores, users)  # type: ignore[arg-type]


def test_a_video_without_frames_is_refused() -> None:
    with pytest.raises(ValueError, match=r"zero-size|expected"):
        rank_correlation(np.zeros(0), np.zeros((1, 0)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_name(value: float) -> None:
    with pytest.raises(ValueError, match="the scores hold values that are not finite"):
        rank_correlation([1, value], [[1, 2]])
    with pytest.raises(ValueError, match="the annotations hold values that are not finite"):
        rank_correlation([1, 2], [[1, value]])
