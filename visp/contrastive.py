"""InfoNCE and the bound on mutual information (Eq. 2 and 3 of the ViSP paper)."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from visp.regularizers import Reduction


@runtime_checkable
class Similarity(Protocol):
    """Compares every summary with every candidate."""

    def __call__(self, summaries: Tensor, candidates: Tensor) -> Tensor:
        """Return (N, M) similarities of summaries (N, e) and candidates (M, e)."""


class InnerProduct:
    """The paper's similarity: E(X_s)^T E(X_o)."""

    def __call__(self, summaries: Tensor, candidates: Tensor) -> Tensor:
        """Return (N, M) inner products of (N, e) and (M, e)."""
        return summaries @ candidates.T


class Cosine:
    """The cosine over a temperature: bounded, so that the loss cannot be lowered by longer embeddings alone.

    Args:
        temperature: Divides the cosine; > 0. Similarities lie within plus and minus 1 / temperature.

    Raises:
        ValueError: If the temperature is not positive.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        if not temperature > 0:
            raise ValueError(f"the cosine's temperature must be positive, got {temperature!r}")
        self.temperature = temperature

    def __call__(self, summaries: Tensor, candidates: Tensor) -> Tensor:
        """Return (N, M) scaled cosines of (N, e) and (M, e)."""
        return F.normalize(summaries, dim=-1) @ F.normalize(candidates, dim=-1).T / self.temperature


def info_nce(
    summaries: Tensor,
    videos: Tensor,
    random_summaries: Tensor | None = None,
    *,
    similarity: Similarity | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """InfoNCE of Eq. 3: summary i must pick out video i among all videos and, if given, random summaries.

    Computed in float32 (float64 for float64 embeddings), whatever the autocast.

    Args:
        summaries: (N, e) embeddings of the summaries, E(X_s).
        videos: (N, e) embeddings of the videos, E(X_o), in the same order.
        random_summaries: (N, e) embeddings of random summaries, E(X_r), the hard negatives.
        similarity: Defaults to the paper's :class:`InnerProduct`.
        reduction: ``"mean"`` over the batch, or Eq. 3's literal ``"sum"``.

    Returns:
        Scalar loss, in nats.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if summaries.ndim != 2 or summaries.shape != videos.shape:
        raise ValueError(
            f"expected summaries and videos of one shape (N, e), got {tuple(summaries.shape)} and {tuple(videos.shape)}"
        )
    if random_summaries is not None and random_summaries.shape != videos.shape:
        raise ValueError(
            f"expected random summaries of shape {tuple(videos.shape)}, got {tuple(random_summaries.shape)}"
        )
    similarity = similarity or InnerProduct()
    candidates = videos if random_summaries is None else torch.cat([videos, random_summaries])
    with torch.autocast(summaries.device.type, enabled=False):
        similarities = similarity(at_least_float32(summaries), at_least_float32(candidates))  # (N, N or 2N)
        targets = torch.arange(len(summaries), device=summaries.device)
        return F.cross_entropy(similarities, targets, reduction=reduction)


def mi_lower_bound(info_nce_mean: Tensor, num_videos: int) -> Tensor:
    """The bound of Eq. 2: I(X_s; X_o) >= log N - L_N, in nats, with the batch mean of L_N.

    With hard negatives the loss is higher and the bound looser, but it holds: N stays the number of videos.
    """
    return math.log(num_videos) - info_nce_mean


def at_least_float32(tensor: Tensor) -> Tensor:
    """Widen half precision to float32; leave float32 and float64 as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
