from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.eval.shots import check_shots, shots_from_breaks, shots_from_change_points, shots_to_breaks


@st.composite
def ascending(draw: st.DrawFn) -> list[int]:
    """Breaks of a video of up to 40 frames, the last of them its number of frames."""
    return sorted(draw(st.sets(st.integers(1, 40), min_size=1)))


@given(ascending())
def test_breaks_make_shots_that_cover_each_frame_once(breaks: list[int]) -> None:
    shots = shots_from_breaks(breaks)
    frames = [frame for first, last in shots for frame in range(first, last + 1)]
    assert frames == list(range(breaks[-1]))
    assert len(shots) == len(breaks)


@given(ascending())
def test_breaks_survive_the_way_there_and_back(breaks: list[int]) -> None:
    assert shots_to_breaks(shots_from_breaks(breaks)).tolist() == breaks


@given(ascending())
def test_shots_made_here_pass_the_check(breaks: list[int]) -> None:
    shots = shots_from_breaks(breaks)
    checked = check_shots(shots, breaks[-1])
    assert checked.tolist() == shots.tolist()
    assert checked.dtype == np.int64


@given(ascending())
def test_change_points_of_every_frame_are_the_breaks_within(breaks: list[int]) -> None:
    *change_points, n_frames = breaks
    assert shots_from_change_points(change_points, n_frames).tolist() == shots_from_breaks(breaks).tolist()


@given(ascending(), st.integers(1, 15), st.integers(0, 4))
def test_a_change_point_starts_a_shot_at_its_pick(breaks: list[int], stride: int, offset: int) -> None:
    *change_points, n_sampled = breaks
    picks = offset + stride * np.arange(n_sampled)
    n_frames = int(picks[-1]) + stride
    shots = shots_from_change_points(change_points, n_frames, picks)
    assert shots[:, 0].tolist() == [0, *(picks[c] for c in change_points)]
    assert shots[-1, 1] == n_frames - 1
    assert check_shots(shots, n_frames).tolist() == shots.tolist()


def test_shots_are_inclusive() -> None:
    assert shots_from_change_points([2, 3], 100, [0, 15, 30, 45, 60]).tolist() == [[0, 29], [30, 44], [45, 99]]
    assert shots_from_breaks([30, 45, 100]).tolist() == [[0, 29], [30, 44], [45, 99]]


def test_no_change_point_is_one_shot() -> None:
    assert shots_from_change_points([], 7).tolist() == [[0, 6]]
    assert shots_from_change_points(np.zeros(0, np.int64), 7, [0, 3, 6]).tolist() == [[0, 6]]


def test_shots_may_end_before_the_video() -> None:
    assert check_shots([[0, 3], [4, 7]], 10).tolist() == [[0, 3], [4, 7]]


def test_whole_numbers_of_any_type_are_shots() -> None:
    for dtype in (np.uint8, np.int32, np.float32):
        assert check_shots(np.array([[0, 3], [4, 4]], dtype=dtype)).dtype == np.int64


BAD_SHOTS: list[tuple[Any, str]] = [
    ([[0, 3], [5, 9]], r"follow one another, got a gap between shot 0 of frames 0 to 3 and shot 1 of frames 5 to 9"),
    ([[0, 3], [3, 9]], r"got an overlap between shot 0 of frames 0 to 3 and shot 1 of frames 3 to 9"),
    ([[0, 3], [4, 3]], r"must not end before they start, got shot 1 of frames 4 to 3"),
    ([[0, 3], [4, 6], [7, -2]], r"must not be negative, got shot 2 of frames 7 to -2"),
    ([[-1, 3]], r"must not be negative, got shot 0 of frames -1 to 3"),
    ([[1, 3]], r"the first shot must start at frame 0, got shot 0 of frames 1 to 3"),
    ([[0, 3], [4, 9], [10, 12]], r"in the 9 frames 0 to 8, got shot 1 of frames 4 to 9"),
    ([[0, 3.5]], r"expected shots \(S, 2\) of whole numbers, got 3.5"),
    ([[0, np.nan]], r"of whole numbers, got nan"),
    ([["0", "3"]], r"of whole numbers, got <U1"),
    ([0, 3], r"expected shots \(S, 2\), got \(2,\)"),
    ([[0, 3, 4]], r"expected shots \(S, 2\) of first and last frames, at least one, got \(1, 3\)"),
    (np.zeros((0, 2)), r"at least one, got \(0, 2\)"),
]


@pytest.mark.parametrize(("shots", "message"), BAD_SHOTS, ids=[bad[1][-30:] for bad in BAD_SHOTS])
def test_bad_shots_are_refused_with_their_rows_and_frames(shots: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_shots(shots, 9)


BAD_BREAKS: list[tuple[Any, str]] = [
    ([], "expected breaks that end with the number of frames, got none"),
    ([3, 3], "breaks must ascend, got 3 at 0 and 3 at 1"),
    ([0, 3], "breaks must be at least 1, got 0 to 3"),
    ([[3]], r"expected breaks \(S,\), got \(1, 1\)"),
]


@pytest.mark.parametrize(("breaks", "message"), BAD_BREAKS, ids=[bad[1] for bad in BAD_BREAKS])
def test_bad_breaks_are_refused(breaks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shots_from_breaks(breaks)


BAD_CHANGE_POINTS: list[tuple[tuple[Any, ...], str]] = [
    (([0, 2], 5), "change_points must be between 1 and 4, got 0 to 2"),
    (([2, 5], 5), "change_points must be between 1 and 4, got 2 to 5"),
    (([2, 1], 5), "change_points must ascend, got 2 at 0 and 1 at 1"),
    (([2], 50, [0, 15]), "change_points must be between 1 and 1, got 2 to 2"),
    (([1], 50, [0, 50]), "picks must be between 0 and 49, got 0 to 50"),
    (([1], 50, [15, 15]), "picks must ascend, got 15 at 0 and 15 at 1"),
    (([1], 0), "n_frames must be at least 1, got 0"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_CHANGE_POINTS, ids=[bad[1] for bad in BAD_CHANGE_POINTS])
def test_bad_change_points_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shots_from_change_points(*arguments)
