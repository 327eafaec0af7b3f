"""Scores of a trained summarizer, of one video or of many, also of videos too long for one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from visp.calls import run_summarizer
from visp.side_inputs import Video, frames_of, placed
from visp.utils.modes import evaluation_mode


def predict(
    summarizer: Callable[..., Any],
    features: Tensor | Video | npt.NDArray[np.floating],
    segment_length: int | None = None,
    overlap: int = 0,
) -> npt.NDArray[np.float32]:
    """Score the frames of one video.

    With ``segment_length`` the video is cut into segments that are scored apart and joined, the ViSP paper's way
    of handling hour-long videos (Appendix .4, 5,000 frames). Where segments overlap, a frame's score is the mean.

    Args:
        summarizer: Maps frames (T, d) to logits (T,). A module is put into evaluation mode for the call.
        features: (T, d) features of the video, or a video that carries side inputs, which segments get their part of.
        segment_length: Largest number of frames in a pass; by default the whole video is one.
        overlap: Number of frames that neighbouring segments share, in [0, segment_length).

    Returns:
        (T,) scores in [0, 1], the sigmoid of the logits.

    Raises:
        ValueError: If the features are not (T, d) or not finite, an option is out of its range, or the summarizer
            does not return one finite logit per frame, or writes into its input.
        TypeError: If what the summarizer returns is not a tensor or not floating point.
    """
    video = features if isinstance(features, Video) else torch.as_tensor(features)
    frames: Tensor = frames_of(video)
    if frames.ndim < 2 or len(frames) == 0 or not frames.is_floating_point():
        raise ValueError(
            f"expected floating-point features (T, d) with T >= 1, got {frames.dtype} {tuple(frames.shape)}"
        )
    if not torch.isfinite(frames).all():
        raise ValueError("the features hold values that are not finite (NaN or infinity)")
    segments = list(_segments(len(frames), segment_length, overlap))
    parameter = next(summarizer.parameters(), None) if isinstance(summarizer, nn.Module) else None
    if parameter is not None:
        video = placed(video, parameter)
    total = torch.zeros(len(frames), dtype=torch.float64)
    count = torch.zeros(len(frames), dtype=torch.float64)
    with evaluation_mode(summarizer), torch.no_grad():
        for start, stop in segments:
            logits = run_summarizer(summarizer, _copy(video[start:stop]))
            if not torch.isfinite(logits).all():
                raise ValueError(f"the summarizer's logits of frames {start} to {stop - 1} are not all finite")
            total[start:stop] += torch.sigmoid(logits.float()).double().cpu()
            count[start:stop] += 1
    scores: npt.NDArray[np.float32] = (total / count).numpy().astype(np.float32)
    return scores


def _copy(video: Tensor | Video) -> Tensor | Video:
    return video.clone() if isinstance(video, Tensor) else video.map(Tensor.clone)


def segment_bounds(length: int, segment_length: int | None) -> list[tuple[int, int]]:
    """Cut a video into segments of equal length, give or take a frame.

    Args:
        length: T, number of frames.
        segment_length: Largest number of frames in a segment; None for one segment.

    Returns:
        Half-open (start, stop) bounds that cover all frames.

    Raises:
        ValueError: If ``segment_length`` is less than 1.
    """
    return list(_segments(length, segment_length, 0))


def _segments(length: int, segment_length: int | None, overlap: int) -> Iterator[tuple[int, int]]:
    if segment_length is None:
        if overlap:
            raise ValueError(f"overlap={overlap} needs segment_length")
        segment_length = length
    if segment_length < 1 or not 0 <= overlap < segment_length:
        raise ValueError(
            "expected segment_length >= 1 and 0 <= overlap < segment_length, got "
            f"segment_length={segment_length} and overlap={overlap}"
        )
    number = max(1, -(-(length - overlap) // (segment_length - overlap)))
    starts = np.linspace(0, length - overlap, number + 1).round().astype(int)
    for start, following in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        yield start, following + overlap
