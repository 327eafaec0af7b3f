"""Rank correlation between frame scores and what users chose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats


@dataclass(frozen=True)
class RankCorrelation:
    """Rank correlation of one video's scores with each user.

    Attributes:
        tau: Kendall's tau-b, mean over the users for whom it is defined; nan if there is none.
        rho: Spearman's rho, likewise.
        tau_per_user: (U,), nan where undefined.
        rho_per_user: (U,), nan where undefined.
        num_undefined: Number of users for whom the correlation is undefined because a side is constant.
    """

    tau: float
    rho: float
    tau_per_user: npt.NDArray[np.float64]
    rho_per_user: npt.NDArray[np.float64]
    num_undefined: int


def rank_correlation(scores: npt.ArrayLike, annotations: npt.ArrayLike) -> RankCorrelation:
    """Correlate frame scores with each user's annotation of the same frames.

    Args:
        scores: (T,) predicted scores or logits.
        annotations: (U, T) one row a user, in the users' own units.

    Returns:
        tau and rho for each user and their means.

    Raises:
        ValueError: If the shapes do not fit or a value is not finite.
    """
    predicted = np.asarray(scores, dtype=np.float64)
    users = np.asarray(annotations, dtype=np.float64)
    if predicted.ndim != 1 or users.ndim != 2 or users.shape[1] != len(predicted) or users.size == 0:
        raise ValueError(
            f"expected scores (T,) and annotations (U, T) of the same T, got {predicted.shape} and {users.shape}"
        )
    for name, values in (("scores", predicted), ("annotations", users)):
        if not np.isfinite(values).all():
            raise ValueError(f"the {name} hold values that are not finite")
    constant = (np.ptp(users, axis=1) == 0) | (np.ptp(predicted) == 0)
    tau = np.full(len(users), np.nan)
    rho = np.full(len(users), np.nan)
    for index in np.flatnonzero(~constant):
        tau[index] = stats.kendalltau(predicted, users[index]).statistic
        rho[index] = stats.spearmanr(predicted, users[index]).statistic
    return RankCorrelation(
        tau=float(np.nan if constant.all() else np.nanmean(tau)),
        rho=float(np.nan if constant.all() else np.nanmean(rho)),
        tau_per_user=tau,
        rho_per_user=rho,
        num_undefined=int(constant.sum()),
    )
