"""Pretraining on fixed pseudo-summaries, the baseline that ViSP is compared with ("FSA", Table 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visp.contracts import check_logits
from visp.contrastive import at_least_float32


class PseudoSummaryOutput(NamedTuple):
    """What one step of :class:`PseudoSummaryPretrainer` gives; scalars."""

    loss: Tensor
    """Binary cross-entropy in nats, mean over frames, then videos."""
    keep_ratio: Tensor
    """Mean probability of keeping a frame, over frames, then videos."""


class PseudoSummaryPretrainer(nn.Module):
    """Trains a summarizer to predict given 0/1 labels a frame, by binary cross-entropy.

    The labels may come from anywhere: another method's pseudo-summaries, or :func:`top_share` of any score.

    Args:
        summarizer: Maps frames (T, ...) to logits (T,).
    """

    def __init__(self, summarizer: nn.Module) -> None:
        super().__init__()
        self.summarizer = summarizer

    def forward(self, videos: Sequence[Tensor], pseudo_summaries: Sequence[Tensor]) -> PseudoSummaryOutput:
        """Compute the loss of one batch.

        Args:
            videos: Videos of (T_i, ...) frames.
            pseudo_summaries: One (T_i,) tensor of 0 and 1 a video, 1 for a frame of the summary.

        Returns:
            The loss and the mean probability of keeping a frame.

        Raises:
            ValueError: If the numbers of videos or frames disagree, or a label is neither 0 nor 1.
        """
        if len(videos) == 0 or len(videos) != len(pseudo_summaries):
            raise ValueError(
                f"expected one pseudo-summary a video, got {len(videos)} videos and "
                f"{len(pseudo_summaries)} pseudo-summaries"
            )
        losses, kept = [], []
        for index, (frames, labels) in enumerate(zip(videos, pseudo_summaries, strict=True)):
            if labels.shape != (len(frames),):
                raise ValueError(f"pseudo-summary {index}: expected shape ({len(frames)},), got {tuple(labels.shape)}")
            if not ((labels == 0) | (labels == 1)).all():
                raise ValueError(f"pseudo-summary {index}: expected labels 0 and 1 only")
            logits = self.summarizer(frames)
            check_logits(logits, frames, self.summarizer)
            logits = at_least_float32(logits)
            losses.append(F.binary_cross_entropy_with_logits(logits, labels.to(logits)))
            kept.append(torch.sigmoid(logits.detach()).mean())
        return PseudoSummaryOutput(torch.stack(losses).mean(), torch.stack(kept).mean())


def top_share(scores: Tensor, share: float = 0.15) -> Tensor:
    """Label the best-scored frames 1: a pseudo-summary from any frame score.

    Args:
        scores: (T,) importance scores.
        share: Share of the frames to keep, in (0, 1]; at least one frame is kept.

    Returns:
        (T,) float tensor of 0 and 1.

    Raises:
        ValueError: If the share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share!r}")
    labels = torch.zeros(len(scores), device=scores.device)
    labels[torch.topk(scores, max(1, round(share * len(scores)))).indices] = 1
    return labels
