from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from visp.eval import rank
from visp.eval.rank import Levels, kendall_tau_b, spearman_rho

VALUES = st.one_of(st.integers(-2, 2).map(float), st.floats(-1e6, 1e6))
PAIRS = st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=30)


@given(PAIRS)
def test_both_measures_equal_scipy_bit_for_bit(pairs: list[tuple[float, float]]) -> None:
    first, second = np.array(pairs).T
    one, other = Levels(first), Levels(second)
    if one.constant or other.constant:
        assert np.isnan([kendall_tau_b(one, other), spearman_rho(one, other)]).all()
    else:
        assert kendall_tau_b(one, other) == stats.kendalltau(first, second).statistic
        assert spearman_rho(one, other) == stats.spearmanr(first, second).statistic


def test_a_long_video_with_few_ratings_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    scores, ratings = np.repeat(rng.random(700), 15), rng.integers(1, 6, size=10_500).astype(float)
    assert kendall_tau_b(Levels(scores), Levels(ratings)) == stats.kendalltau(scores, ratings).statistic
    assert spearman_rho(Levels(scores), Levels(ratings)) == stats.spearmanr(scores, ratings).statistic


def test_tables_too_large_are_left_to_scipy(monkeypatch: Any) -> None:
    first, second = np.random.default_rng(0).random((2, 50))
    small = kendall_tau_b(Levels(first), Levels(second))
    monkeypatch.setattr(rank, "LARGEST_TABLE", 10)
    assert kendall_tau_b(Levels(first), Levels(second)) == pytest.approx(small, abs=1e-15)
