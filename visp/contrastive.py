"""What a summary is compared with, InfoNCE, and the bound on mutual information (Eq. 2 and 3 of the ViSP paper).

A contrast cuts every video into pieces. The summary of each piece must be recognised among the pieces it is compared
with: the whole videos of the batch (Eq. 3 as the paper has it), or the windows of its own video.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

Span = tuple[int, int]
"""First frame of a piece of a video, and the frame after its last."""


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


@dataclass(frozen=True)
class Cosine:
    """The cosine over a temperature: bounded, so that the loss cannot be lowered by longer embeddings alone.

    Args:
        temperature: Divides the cosine; > 0. Similarities lie within plus and minus 1 / temperature.

    Raises:
        ValueError: If the temperature is not positive.
    """

    temperature: float = 0.1

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"the cosine's temperature must be positive, got {self.temperature!r}")

    def __call__(self, summaries: Tensor, candidates: Tensor) -> Tensor:
        """Return (N, M) scaled cosines of (N, e) and (M, e)."""
        return F.normalize(summaries, dim=-1) @ F.normalize(candidates, dim=-1).T / self.temperature


@runtime_checkable
class Contrast(Protocol):
    """What the summaries of a batch are compared with; its loss has the weight ``weight`` if it has one, else 1."""

    @property
    def within_video(self) -> bool:
        """Whether a piece is compared with those of its own video alone, or with those of all videos of the batch."""

    def spans(self, length: int) -> Sequence[Span]:
        """Return the pieces of a video of ``length`` frames, at least one: (first frame, frame after the last)."""


@dataclass(frozen=True)
class Videos:
    """Recognise each video among the videos of the batch: Eq. 3, the paper's contrast."""

    within_video = False

    def spans(self, length: int) -> Sequence[Span]:
        """Return the whole video as the one piece."""
        return [(0, length)]


@dataclass(frozen=True)
class Windows:
    """Recognise each window of a video among its windows: Eq. 2 and 3 with negatives that share the scene.

    The summarizer still sees the whole video; only what the encoder embeds is cut. A video with a single window
    teaches nothing here.

    Args:
        frames: Least number of frames in a window, at least 1; windows are as equal as can be. By default a video of
            T frames is cut into about sqrt(T) windows of about sqrt(T) frames, which at 1 to 4 frames per second and
            1 to 10 minutes is 5 to 25 seconds.
        within_video: With False, every window is compared with those of all videos of the batch.
        weight: Of the loss, beside those of other contrasts; at least 0.

    Raises:
        ValueError: If ``frames`` is less than 1, or the weight is negative or not finite.
    """

    frames: int | None = None
    within_video: bool = True
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"the weight of a contrast must be at least 0 and finite, got {self.weight!r}")
        if self.frames is not None and self.frames < 1:
            raise ValueError(f"a window must have at least 1 frame, got {self.frames}")

    def spans(self, length: int) -> Sequence[Span]:
        """Return the windows of a video of ``length`` frames: (first frame, frame after the last)."""
        number = max(1, length // (self.frames or max(2, math.isqrt(length))))
        borders = [length * index // number for index in range(number + 1)]
        return list(pairwise(borders))


def info_nce(
    summaries: Tensor,
    originals: Tensor,
    randoms: Tensor | None = None,
    *,
    similarity: Similarity | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """Compute InfoNCE of Eq. 3: summary i must pick out piece i among all pieces and, if given, random summaries.

    Computed in float32 (float64 for float64 embeddings), whatever the autocast.

    Args:
        summaries: (N, e) embeddings of the summaries, E(X_s).
        originals: (N, e) embeddings of the videos or windows, E(X_o), in the same order.
        randoms: (N, e) embeddings of random summaries, E(X_r), the hard negatives.
        similarity: Defaults to the paper's :class:`InnerProduct`.
        reduction: ``"mean"`` over the summaries, Eq. 3's literal ``"sum"``, or ``"none"``.

    Returns:
        Loss in nats, a scalar, or (N,) for ``"none"``.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if summaries.ndim != 2 or summaries.shape != originals.shape:
        raise ValueError(
            f"expected summaries and originals of one shape (N, e), got {tuple(summaries.shape)} and "
            f"{tuple(originals.shape)}"
        )
    if randoms is not None and randoms.shape != originals.shape:
        raise ValueError(f"expected random summaries of shape {tuple(originals.shape)}, got {tuple(randoms.shape)}")
    similarity = similarity or InnerProduct()
    candidates = originals if randoms is None else torch.cat([originals, randoms])
    with torch.autocast(summaries.device.type, enabled=False):
        similarities = similarity(at_least_float32(summaries), at_least_float32(candidates))  # (N, N or 2N)
        targets = torch.arange(len(summaries), device=summaries.device)
        return F.cross_entropy(similarities, targets, reduction=reduction)


def losses_of_pieces(
    embeddings: Sequence[Sequence[Tensor]], within_video: bool, similarity: Similarity | None = None
) -> list[Tensor]:
    """Compute InfoNCE, Eq. 3, for every piece of every video.

    Args:
        embeddings: The summaries, the originals and, with hard negatives, the random summaries: of each, one (K_i, e)
            tensor per video.
        within_video: As in :class:`Contrast`.
        similarity: Defaults to the paper's :class:`InnerProduct`.

    Returns:
        One (K_i,) tensor of losses in nats per video.
    """
    if within_video:
        videos = zip(*embeddings, strict=True)
        return [info_nce(*pieces, similarity=similarity, reduction="none") for pieces in videos]
    losses = info_nce(*(torch.cat(list(part)) for part in embeddings), similarity=similarity, reduction="none")
    return list(torch.split(losses, [len(video) for video in embeddings[0]]))


class Recognition(NamedTuple):
    """How well the summaries of a batch are recognised under one contrast; scalars in nats."""

    loss: Tensor
    """Eq. 3, reduced as asked for."""
    info_nce: Tensor
    """Mean of Eq. 3 over the pieces of a video, then over videos, so that long videos count as much as short ones."""
    ceiling: float
    """log N of Eq. 2, averaged over videos; N is the number of pieces that each is compared with."""


def recognition(losses: Sequence[Tensor], within_video: bool, reduction: Literal["mean", "sum"]) -> Recognition:
    """Reduce the losses of all videos to the one of the batch, and to what explains it (Eq. 2 and 3).

    Args:
        losses: One (K_i,) tensor in nats per video, as :func:`losses_of_pieces` returns them.
        within_video: As in :class:`Contrast`.
        reduction: ``"mean"`` over the pieces of a video, then over videos, or Eq. 3's literal ``"sum"``.

    Returns:
        The loss, the mean of InfoNCE and its ceiling.
    """
    counts = [len(video) for video in losses]
    mean = torch.stack([video.mean() for video in losses]).mean()
    ceiling = sum(map(math.log, counts)) / len(counts) if within_video else math.log(sum(counts))
    return Recognition(mean if reduction == "mean" else torch.cat(list(losses)).sum(), mean, ceiling)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor of any shape in at least float32: half precision is widened, float32 and float64 stay."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
