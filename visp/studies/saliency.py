"""Figure 8 of the paper: what several models, and the users, find important in one video."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import nn

from visp.data import VideoSource
from visp.plots import plot_saliency
from visp.prediction import predict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THUMBNAILS = 6


def saliency_rows(
    videos: VideoSource, name: str, summarizers: Mapping[str, nn.Module]
) -> dict[str, npt.NDArray[np.floating]]:
    """Return the scores (T,) of a video by model, and the users' mean importance first, where the file gives it.

    Raises:
        ValueError: If the video is not in the file.
    """
    if name not in videos.names:
        raise ValueError(f"no video is named {name!r}; there are {', '.join(videos.names[:5])} and others")
    index = list(videos.names).index(name)
    gtscore = videos.record(index).gtscore
    rows = {} if gtscore is None else {"users": np.asarray(gtscore)}
    return {**rows, **{label: predict(model, videos[index]) for label, model in summarizers.items()}}


def thumbnails(
    path: str | os.PathLike[str], picks: npt.NDArray[np.integer], scores: npt.NDArray[np.floating]
) -> dict[int, npt.NDArray[np.uint8]]:
    """Read from the video the best-scored frame of each of six equal parts, by sampled frame.

    Args:
        path: The video file (needs ``pip install "visp[video]"``).
        picks: (T,) the frame of the video of each sampled frame.
        scores: (T,) whose highest are shown.

    Raises:
        ValueError: If the video has fewer frames than the picks say.
    """
    from visp.video.decode import iter_sampled_frames

    parts = np.array_split(np.arange(len(picks)), min(THUMBNAILS, len(picks)))
    steps = {int(picks[best]): int(best) for part in parts for best in [part[np.argmax(scores[part])]]}
    found = {}
    for frame in iter_sampled_frames(path, fps=None):
        if frame.index in steps:
            found[steps[frame.index]] = frame.image
        if len(found) == len(steps):
            return found
    raise ValueError(f"{path} has fewer frames than the file of features says: frame {max(steps)} is not there")


def draw_saliency(
    rows: Mapping[str, npt.NDArray[np.floating]],
    figure: Figure,
    *,
    share: float = 0.15,
    images: Mapping[int, npt.NDArray[np.uint8]] | None = None,
) -> None:
    """Draw the rows, one below the other, each with its highest share in the strong colour."""
    figure.set_size_inches(8, 0.8 + 0.6 * len(rows) + (1.2 if images else 0))
    ax = plot_saliency(rows, figure.subplots(), share=share, thumbnails=images)
    ax.set_title(f"strong colour: the highest {share:.0%} of a row", fontsize="small")
