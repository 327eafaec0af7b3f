"""From scores at the sampled frames to a summary: upsampling, shot scores, budget and knapsack."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from visp.eval.knapsack import knapsack
from visp.eval.shots import check_shots

BudgetBase = Literal["last_shot", "n_frames"]


@dataclass(frozen=True)
class ChosenShots:
    """What the knapsack made of a video's scores.

    Attributes:
        scores: (S,) mean score of each shot.
        selected: Indices of the chosen shots, ascending.
    """

    scores: npt.NDArray[np.float64]
    selected: npt.NDArray[np.intp]


@dataclass(frozen=True)
class Summary:
    """The shots that were chosen from one video.

    Attributes:
        selection: (n_frames,) of 0 and 1, 1 for the frames of the chosen shots. Where the shots end before
            ``n_frames``, the frames after the last shot are 0.
        selected: Indices of the chosen shots, ascending.
        share: Share of the video's frames that the summary keeps, in [0, 1].
    """

    selection: npt.NDArray[np.uint8]
    selected: npt.NDArray[np.intp]
    share: float


def check_picks(picks: npt.ArrayLike, last: int) -> npt.NDArray[np.intp]:
    """Return the picks (T,) as whole numbers.

    Raises:
        ValueError: If there are none, or they are not whole, do not ascend strictly or leave [0, ``last``].
    """
    frames = np.asarray(picks)
    if frames.ndim != 1 or frames.size == 0:
        raise ValueError(f"expected picks (T,), at least one, got shape {frames.shape}")
    if not ((frames >= 0) & (frames <= last) & (frames == np.floor(frames))).all():
        raise ValueError(f"picks must be whole frame numbers from 0 to {last}, got {frames}")
    if not (np.diff(frames.astype(np.intp)) > 0).all():
        raise ValueError(f"picks must ascend strictly, got {frames}")
    return frames.astype(np.intp)


def upsample_scores(scores: npt.ArrayLike, picks: npt.ArrayLike, n_frames: int) -> npt.NDArray[np.float32]:
    """Give every frame the score of the sampled frame at or before it.

    Args:
        scores: (T,) scores at the sampled frames. Exactly one missing at the end counts as 0.
        picks: (T,) frame index of each sampled frame, ascending. The frames before the first get 0.
        n_frames: Number of frames of the video.

    Returns:
        (n_frames,) in float32, as in every public code.

    Raises:
        ValueError: If two or more scores are missing, there are more scores than picks, a score is not finite, or the
            picks do not fit the video.
    """
    frames = check_picks(picks, n_frames)
    with np.errstate(over="ignore"):
        values = np.asarray(scores, dtype=np.float32)
    if values.ndim != 1 or len(frames) - len(values) not in (0, 1):
        raise ValueError(
            f"expected a score for each of the {len(frames)} picks (one missing at the end counts as 0), "
            f"got scores of shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError("the scores hold values that are not finite in float32")
    upsampled = np.zeros(n_frames, dtype=np.float32)
    steps = np.diff(frames, append=n_frames)[: len(values)]
    held = np.repeat(values, steps)
    upsampled[frames[0] : frames[0] + len(held)] = held
    return upsampled


def shot_scores(frame_scores: npt.ArrayLike, shots: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the mean score (S,) of each shot: a mean in float32, then widened, as the field computes it.

    Args:
        frame_scores: (n_frames,) one score per frame.
        shots: (S, 2) first and last frame of each shot, inclusive.

    Raises:
        ValueError: If a score is not finite or the shots are refused by :func:`visp.eval.shots.check_shots`.
    """
    scores = np.asarray(frame_scores, dtype=np.float32)
    if scores.ndim != 1 or not np.isfinite(scores).all():
        raise ValueError(f"expected finite frame scores (n_frames,), got shape {scores.shape}")
    checked = check_shots(shots, len(scores))
    return np.array([scores[start : end + 1].mean() for start, end in checked], dtype=np.float64)


def choose_shots(
    scores: npt.ArrayLike,
    shots: npt.ArrayLike,
    n_frames: int,
    picks: npt.ArrayLike,
    *,
    capacity: int,
    lengths: npt.ArrayLike | None = None,
) -> ChosenShots:
    """Choose the shots of greatest total score whose total length is within the capacity.

    The scores are held until the next sampled frame, the score of a shot is the mean over its frames, and the knapsack
    maximises their sum. A shot whose score is 0 or less adds nothing and is never chosen.

    Args:
        scores: (T,) finite scores or logits at the sampled frames.
        shots: (S, 2) first and last frame of each shot, inclusive, without gaps; they may end before ``n_frames``.
        n_frames: Number of frames of the video.
        picks: (T,) frame index of each score.
        capacity: Largest total length.
        lengths: (S,) length of each shot in whole units of the capacity; by default its number of frames.

    Returns:
        The score of every shot, and which shots were chosen.

    Raises:
        ValueError: If scores, picks and shots do not fit, a score is not finite, or the capacity is negative; see
            :func:`upsample_scores` and :func:`visp.eval.shots.check_shots`.
    """
    checked = check_shots(shots, n_frames)
    worth = shot_scores(upsample_scores(scores, picks, n_frames), checked)
    sizes = checked[:, 1] - checked[:, 0] + 1 if lengths is None else lengths
    return ChosenShots(worth, knapsack(np.maximum(worth, 0), sizes, capacity))


def make_summary(
    scores: npt.ArrayLike,
    shots: npt.ArrayLike,
    n_frames: int,
    picks: npt.ArrayLike,
    *,
    budget: float = 0.15,
    budget_base: BudgetBase = "last_shot",
) -> Summary:
    """Choose the shots of the best summary within the budget.

    See :func:`choose_shots`. Shots of a mean score of 0 or less are never chosen. Warns where the summary is empty,
    because no shot fits the budget or none has a score above 0.

    Args:
        scores: (T,) finite scores or logits at the sampled frames. The sigmoid of logits makes every shot worth taking.
        shots: (S, 2) first and last frame of each shot, inclusive, without gaps; they may end before ``n_frames``.
        n_frames: Number of frames of the video.
        picks: (T,) frame index of each score.
        budget: Longest summary as a share of the video, in (0, 1].
        budget_base: What the share is of: ``"last_shot"``, the frames up to the end of the last shot (CSTA, PGL-SUM,
            CA-SUM, AC-SUM-GAN), or ``"n_frames"`` (VASNet, MSVA, DSNet, vsumm-reinforce). Rounded down.

    Returns:
        The chosen shots, and the frames (n_frames,) that they keep.

    Raises:
        ValueError: If a score is not finite, the budget is out of its range, or scores, picks and shots do not fit; see
            :func:`upsample_scores` and :func:`visp.eval.shots.check_shots`.
    """
    if not 0 < budget <= 1:
        raise ValueError(f"the budget must be a share in (0, 1], got {budget!r}")
    if budget_base not in ("last_shot", "n_frames"):
        raise ValueError(f"budget_base must be 'last_shot' or 'n_frames', got {budget_base!r}")
    checked = check_shots(shots, n_frames)
    lengths = checked[:, 1] - checked[:, 0] + 1
    base = int(checked[-1, 1]) + 1 if budget_base == "last_shot" else n_frames
    capacity = int(base * budget)
    chosen = choose_shots(scores, checked, n_frames, picks, capacity=capacity)
    if lengths.min() > capacity:
        shortest = int(lengths.argmin())
        warnings.warn(
            f"no shot fits into {budget:g} of {base} frames, which is {capacity}, and the summary is empty: the "
            f"shortest shot, {shortest}, has {lengths[shortest]} frames and needs a budget of "
            f"{_budget_for(int(lengths[shortest]), base):g}",
            stacklevel=2,
        )
    elif chosen.scores.max() <= 0:
        warnings.warn(
            f"no shot has a mean score above 0, the highest is {chosen.scores.max():g}, and the summary is empty; the "
            "sigmoid of logits is above 0",
            stacklevel=2,
        )
    selection = np.zeros(n_frames, dtype=np.uint8)
    for start, end in checked[chosen.selected]:
        selection[start : end + 1] = 1
    return Summary(selection, chosen.selected, float(selection.mean()))


def _budget_for(length: int, base: int) -> float:
    """Return the least budget of four decimals that holds ``length`` of ``base`` frames."""
    budget = math.ceil(1e4 * length / base) / 1e4
    return budget if int(base * budget) >= length else budget + 1e-4
