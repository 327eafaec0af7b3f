from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.eval.knapsack import knapsack

Items = tuple[list[float], list[int], int]


@st.composite
def items(draw: st.DrawFn, tied: bool = False) -> Items:
    number = draw(st.integers(0, 14))
    value = st.integers(0, 3).map(float) if tied else st.one_of(st.just(0.0), st.floats(1e-9, 1.0))
    values = draw(st.lists(value, min_size=number, max_size=number))
    weights = draw(st.lists(st.integers(1, 12), min_size=number, max_size=number))
    return values, weights, draw(st.integers(0, 60))


def best_of_all_subsets(values: list[float], weights: list[int], capacity: int) -> float:
    return max(
        sum(values[i] for i in subset)
        for size in range(len(values) + 1)
        for subset in combinations(range(len(values)), size)
        if sum(weights[i] for i in subset) <= capacity
    )


def slow_table(values: list[float], weights: list[int], capacity: int) -> list[int]:
    """K[i][w], the greatest value of the first i items within weight w; item i is in where K[i][w] != K[i-1][w]."""
    table = [[0.0] * (capacity + 1)]
    for value, weight in zip(values, weights, strict=True):
        above = table[-1]
        table.append([max(above[w], value + above[w - weight] if weight <= w else 0) for w in range(capacity + 1)])
    chosen, w = [], capacity
    for i in range(len(values), 0, -1):
        if table[i][w] != table[i - 1][w]:
            chosen.append(i - 1)
            w -= weights[i - 1]
    return chosen[::-1]


@given(items())
def test_no_subset_that_fits_is_worth_more(drawn: Items) -> None:
    values, weights, capacity = drawn
    chosen = knapsack(values, weights, capacity)
    assert sum(weights[i] for i in chosen) <= capacity
    assert sum(values[i] for i in chosen) == pytest.approx(best_of_all_subsets(values, weights, capacity), rel=1e-12)


@given(st.one_of(items(), items(tied=True)))
def test_the_choice_is_that_of_the_plain_programme_under_ties_too(drawn: Items) -> None:
    assert knapsack(*drawn).tolist() == slow_table(*drawn)


def test_a_video_of_many_shots_gets_the_choice_of_the_plain_programme() -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.random(60).round(1).tolist(), rng.integers(1, 80, size=60).tolist()
    assert knapsack(values, weights, 700).tolist() == slow_table(values, weights, 700)


def test_values_below_a_thousandth_are_not_cut_off() -> None:
    assert knapsack([0.0004, 0.0005, 0.0006], [1, 1, 1], 1).tolist() == [2]


def test_among_equal_choices_the_earlier_item_wins() -> None:
    assert knapsack([0.5, 0.5, 0.5], [2, 2, 2], 4).tolist() == [0, 1]


def test_items_of_no_value_are_left_out() -> None:
    assert knapsack([0.0, 1.0, 0.0], [1, 1, 1], 10).tolist() == [1]


def test_items_heavier_than_the_capacity_are_left_out() -> None:
    assert knapsack([9.0, 1.0, 9.0], [5, 2, 4], 3).tolist() == [1]


@pytest.mark.parametrize("capacity", [0, 3])
def test_nothing_to_choose_from_is_an_empty_choice(capacity: int) -> None:
    chosen = knapsack([], [], capacity)
    assert chosen.shape == (0,)
    assert np.issubdtype(chosen.dtype, np.integer)


def test_room_for_everything_takes_everything_whatever_the_capacity() -> None:
    assert knapsack([0.1, 0.2], [3, 4], 10**15).tolist() == [0, 1]


def test_whole_weights_may_come_as_floats() -> None:
    assert knapsack([1.0, 2.0, 3.0], np.array([2.0, 3.0, 1e300]), 3).tolist() == [1]


@pytest.mark.parametrize(
    ("values", "weights", "capacity", "message"),
    [
        ([1, -0.5], [1, 1], 1, "values must be finite and at least 0, got -0.5"),
        ([1, np.nan], [1, 1], 1, "values must be finite and at least 0, got nan"),
        ([1, np.inf], [1, 1], 1, "values must be finite and at least 0, got inf"),
        ([1, 1], [1, 0], 1, "weights must be whole numbers of at least 1, got 0"),
        ([1, 1], [1, 2.5], 1, "weights must be whole numbers of at least 1, got 2.5"),
        ([1, 1], [1, np.inf], 1, "weights must be whole numbers of at least 1, got inf"),
        ([1, 1], [1, 1, 1], 1, r"same S, got \(2,\) and \(3,\)"),
        ([[1, 1]], [[1, 1]], 1, r"same S, got \(1, 2\) and \(1, 2\)"),
        ([1], [1], -1, "capacity must be a whole number of at least 0, got -1"),
        ([1], [1], 1.5, "capacity must be a whole number of at least 0, got 1.5"),
    ],
)
def test_what_is_no_knapsack_is_refused(values: object, weights: object, capacity: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        knapsack(values, weights, capacity)  # type: ignore[arg-type]
