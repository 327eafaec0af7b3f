"""Simple properties of frames that scores may follow. No labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

APART = 8
"""Frames no more than that many steps away belong to the same moment and are not asked for the nearest other frame."""

SMOOTHING = 5
"""Number of frames over which the change from frame to frame is averaged."""

_ROWS = 1024  # frames whose distances to all others are in memory at once


def cues(videos: Sequence[Floats]) -> dict[str, list[Floats]]:
    """Return by name, for each video, one value per frame (T,); nan where a frame has none.

    Args:
        videos: (T_i, d) features, standardized as in training: distances are of what the summarizer sees. Of tokens
            (T_i, L, d), those of a frame are one vector.
    """
    videos = [video.reshape(len(video), -1) for video in videos]
    center = np.concatenate([video.mean(axis=0, keepdims=True) * len(video) for video in videos]).sum(axis=0)
    center = center / sum(len(video) for video in videos)
    return {
        "distance from the corpus mean": [_norms(video - center) for video in videos],
        "distance from the video's own mean": [_norms(video - video.mean(axis=0)) for video in videos],
        "distance to the nearest other frame": [nearest_other(video) for video in videos],
        "change from frame to frame": [frame_change(video) for video in videos],
        "position in the video": [np.arange(len(video), dtype=np.float64) for video in videos],
    }


def nearest_other(video: Floats, apart: int = APART) -> Floats:
    """Return the distance (T,) of each frame to the nearest one more than ``apart`` steps away; nan if there is none.

    Args:
        video: (T, d) features.
        apart: Number of steps, at least 0.
    """
    frames = video.astype(np.float64)
    squares = np.square(frames).sum(axis=1)
    steps = np.arange(len(frames))
    nearest = np.full(len(frames), np.nan)
    for start in range(0, len(frames), _ROWS):
        rows = slice(start, start + _ROWS)
        squared = squares[rows, None] + squares - 2 * frames[rows] @ frames.T
        squared[np.abs(steps[rows, None] - steps) <= apart] = np.inf
        least = squared.min(axis=1)
        nearest[rows] = np.where(np.isinf(least), np.nan, np.sqrt(np.maximum(least, 0)))
    return nearest


def frame_change(video: Floats, smoothing: int = SMOOTHING) -> Floats:
    """Return how much the video changes around each frame (T,): the mean distance between neighbours near it.

    Args:
        video: (T, d) features.
        smoothing: Number of frames, odd; the window is centred and cut at the ends of the video.
    """
    steps = _norms(np.diff(video.astype(np.float64), axis=0))
    if len(steps) == 0:
        return np.full(len(video), np.nan)
    # At a frame: the mean of the steps to and from it, which there is one of at either end.
    at_frame = (np.append(steps[0], steps) + np.append(steps, steps[-1])) / 2
    kernel = np.ones(smoothing)
    total = np.convolve(at_frame, kernel, mode="full")[smoothing // 2 :][: len(video)]
    count = np.convolve(np.ones(len(video)), kernel, mode="full")[smoothing // 2 :][: len(video)]
    changes: Floats = total / count
    return changes


def _norms(rows: Floats) -> Floats:
    norms: Floats = np.sqrt(np.square(rows).sum(axis=1))
    return norms
