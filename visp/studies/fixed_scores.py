"""A summarizer whose scores do not learn, as the control of a pretraining run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class FrozenScores(nn.Module):
    """A frozen summarizer, its logits shifted so that each video's mean probability is the share to keep.

    Under it InfoNCE shows what the encoder learns by itself, and a run with a learning summarizer what is due to
    the summarizer.

    Args:
        summarizer: Maps frames (T, d) to logits (T,); frozen in place: evaluation mode, no gradient.
        share: Mean probability of keeping a frame, in (0, 1).
    """

    def __init__(self, summarizer: nn.Module, share: float) -> None:
        super().__init__()
        self.summarizer = summarizer.requires_grad_(False).eval()
        self.share = share

    def train(self, mode: bool = True) -> FrozenScores:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, frames: Tensor, *side: Mapping[str, Tensor]) -> Tensor:
        """Return the shifted logits (T,) of frames (T, d), and of side inputs where there are some."""
        logits: Tensor = self.summarizer(frames, *side)
        low, high = logits.min() - 20, logits.max() + 20
        for _ in range(50):
            middle = (low + high) / 2
            if torch.sigmoid(logits - middle).mean() > self.share:
                low = middle
            else:
                high = middle
        return logits - low
