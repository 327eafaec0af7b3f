"""Shots of a video: inclusive rows of first and last frame, as in the field's files, and half-open breaks."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def shots_from_change_points(
    change_points: npt.ArrayLike, n_frames: int, picks: npt.ArrayLike | None = None
) -> IntArray:
    """Turn change points into shots.

    Args:
        change_points: (m,) first sampled index of segments 1..m, ascending, as in :class:`visp.eval.KTSResult`.
        n_frames: Number of frames of the video.
        picks: (T,) frame of each sampled index, ascending; every frame is sampled if not given.

    Returns:
        (m + 1, 2) first and last frame of each shot, inclusive. A change point at sampled index c starts a shot at
        frame ``picks[c]``; the first shot starts at 0, the last ends at ``n_frames - 1``.

    Raises:
        ValueError: If the change points or the picks are not ascending, or out of the video.
    """
    n_frames = operator.index(n_frames)
    if n_frames < 1:
        raise ValueError(f"n_frames must be at least 1, got {n_frames}")
    starts = _whole(change_points, "change_points (m,)", ndim=1)
    n_sampled = n_frames
    if picks is not None:
        frames = _whole(picks, "picks (T,)", ndim=1)
        _check_ascending(frames, "picks", 0, n_frames)
        n_sampled = len(frames)
    _check_ascending(starts, "change_points", 1, n_sampled)
    if picks is not None:
        starts = frames[starts]
    return shots_from_breaks(np.append(starts, n_frames))


def shots_from_breaks(breaks: npt.ArrayLike) -> IntArray:
    """Turn half-open breaks that end with the number of frames (the convention of ruptures) into shots.

    Args:
        breaks: (S,) one past the last frame of each shot, ascending.

    Returns:
        (S, 2) first and last frame of each shot, inclusive.

    Raises:
        ValueError: If there are no breaks, or they do not ascend from above 0.
    """
    ends = _whole(breaks, "breaks (S,)", ndim=1)
    if len(ends) == 0:
        raise ValueError("expected breaks that end with the number of frames, got none")
    _check_ascending(ends, "breaks", 1, None)
    return np.stack([np.append(0, ends[:-1]), ends - 1], axis=1)


def shots_to_breaks(shots: npt.ArrayLike) -> IntArray:
    """Turn shots into half-open breaks, the inverse of :func:`shots_from_breaks`.

    Args:
        shots: (S, 2) first and last frame of each shot, inclusive.

    Returns:
        (S,) one past the last frame of each shot.

    Raises:
        ValueError: If the shots are refused by :func:`check_shots`.
    """
    return check_shots(shots)[:, 1] + 1


def check_shots(shots: npt.ArrayLike, n_frames: int | None = None) -> IntArray:
    """Check that shots cover the video from frame 0, one after the other.

    Args:
        shots: (S, 2) first and last frame of each shot, inclusive.
        n_frames: Number of frames of the video; shots may end before it, not after.

    Returns:
        (S, 2) the shots as integers.

    Raises:
        ValueError: If there is none, a frame is negative, a shot ends before it starts, the first does not start at 0,
            there is a gap or an overlap between a shot and the next, or shots go on past the video.
    """
    rows = _whole(shots, "shots (S, 2)", ndim=2)
    if rows.shape[1] != 2 or len(rows) == 0:
        raise ValueError(f"expected shots (S, 2) of first and last frames, at least one, got {rows.shape}")
    first, last = rows[:, 0], rows[:, 1]
    if rows.min() < 0:
        row = int(rows.min(axis=1).argmin())
        raise ValueError(f"frames of shots must not be negative, got {_name(rows, row)}")
    backward = np.flatnonzero(last < first)
    if len(backward):
        raise ValueError(f"shots must not end before they start, got {_name(rows, int(backward[0]))}")
    if first[0] != 0:
        raise ValueError(f"the first shot must start at frame 0, got {_name(rows, 0)}")
    broken = np.flatnonzero(first[1:] != last[:-1] + 1)
    if len(broken):
        row = int(broken[0])
        what = "a gap" if first[row + 1] > last[row] + 1 else "an overlap"
        raise ValueError(
            f"shots must follow one another, got {what} between {_name(rows, row)} and {_name(rows, row + 1)}"
        )
    if n_frames is not None and last[-1] >= n_frames:
        row = int(np.flatnonzero(last >= n_frames)[0])
        raise ValueError(f"shots must lie in the {n_frames} frames 0 to {n_frames - 1}, got {_name(rows, row)}")
    return rows


def _name(rows: IntArray, row: int) -> str:
    return f"shot {row} of frames {rows[row, 0]} to {rows[row, 1]}"


def _whole(values: npt.ArrayLike, name: str, ndim: int) -> IntArray:
    array: npt.NDArray[Any] = np.asarray(values)
    if array.ndim != ndim:
        raise ValueError(f"expected {name}, got {array.shape}")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"expected {name} of whole numbers, got {array.dtype}")
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int64)
    if (whole != array).any():
        raise ValueError(f"expected {name} of whole numbers, got {array[whole != array][0]}")
    return whole


def _check_ascending(values: IntArray, name: str, low: int, high: int | None) -> None:
    """Refuse values that do not ascend strictly, or are not in [low, high)."""
    falls = np.flatnonzero(np.diff(values) <= 0)
    if len(falls):
        i = int(falls[0])
        raise ValueError(f"{name} must ascend, got {values[i]} at {i} and {values[i + 1]} at {i + 1}")
    if len(values) and (values[0] < low or (high is not None and values[-1] >= high)):
        limits = f"at least {low}" if high is None else f"between {low} and {high - 1}"
        raise ValueError(f"{name} must be {limits}, got {values[0]} to {values[-1]}")
