"""Figures of scores: functions take an ``ax`` and return it (needs matplotlib, ``pip install "visp[plot]"``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#BBBBBB"
"""Colours that colour-blind readers can tell apart (Okabe and Ito)."""


def plot_scores(
    scores: npt.ArrayLike, importance: npt.ArrayLike, ax: Axes, *, label: str = "scores", title: str = ""
) -> Axes:
    """Draw a video's frame scores over its true importance.

    Args:
        scores: (T,) predicted scores, in any unit: drawn as ranks between 0 and 1.
        importance: (T,) true importance in [0, 1], drawn as filled steps.
        ax: Where to draw.
        label: Name of the scores in the legend.
        title: Title of the axes.

    Returns:
        The axes.
    """
    predicted, truth = np.asarray(scores), np.asarray(importance)
    ranks = (rankdata(predicted) - 1) / max(1, len(predicted) - 1)
    frames = np.arange(len(truth))
    ax.fill_between(frames, truth, step="mid", color=GREY, label="importance", linewidth=0)
    ax.plot(frames, ranks, color=BLUE, linewidth=1.2, label=label)
    ax.set(xlim=(-0.5, len(truth) - 0.5), ylim=(0, 1.02), title=title)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
