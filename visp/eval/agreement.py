"""How far two scores of the same frames agree, and how far one tells frames apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from visp.eval.metrics import mean_defined
from visp.eval.rank import Levels, kendall_tau_b


def agreement(first: Sequence[npt.NDArray[np.floating]], second: Sequence[npt.NDArray[np.floating]]) -> float:
    """Return Kendall's tau-b between two scores of the same frames, mean over videos; nan where undefined for all.

    Args:
        first: One (T_i,) array per video. Frames with nan on either side are left out.
        second: Likewise.
    """
    taus = []
    for one, other in zip(first, second, strict=True):
        known = ~(np.isnan(one) | np.isnan(other))
        taus.append(kendall_tau_b(Levels(one[known]), Levels(other[known])) if known.any() else math.nan)
    return mean_defined(taus)


def spread_within_video(logits: Sequence[npt.NDArray[np.floating]]) -> float:
    """Return the standard deviation of the logits over a video's frames, mean over videos."""
    return float(np.mean([values.std() for values in logits]))
