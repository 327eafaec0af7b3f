"""Penalties that keep a summary small and binary (Section 3.4), and the multiplier that finds its own weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Reduction = Literal["mean", "sum"]


def size_penalty(selections: Sequence[Tensor], reduction: Reduction = "mean") -> Tensor:
    """R_size of Section 3.4, the l1 norm of the selection, averaged over videos.

    Args:
        selections: One (T_i,) selection in (0, 1) a video.
        reduction: ``"mean"`` over the frames of a video (then it is the kept share), or the paper's ``"sum"``.

    Returns:
        Scalar.
    """
    return _over_videos(selections, reduction)


def binary_penalty(selections: Sequence[Tensor], reduction: Reduction = "mean") -> Tensor:
    """R_binary of Section 3.4, y (1 - y), zero for a 0/1 selection; averaged over videos.

    Args:
        selections: One (T_i,) selection in (0, 1) a video.
        reduction: ``"mean"`` over the frames of a video, or the paper's ``"sum"``.

    Returns:
        Scalar.
    """
    return _over_videos([selection * (1 - selection) for selection in selections], reduction)


def _over_videos(values: Sequence[Tensor], reduction: Reduction) -> Tensor:
    reduce = torch.mean if reduction == "mean" else torch.sum
    return torch.stack([reduce(value) for value in values]).mean()


class SizeConstraint(nn.Module):
    """Holds the kept share at a target by a damped, bounded Lagrange multiplier (the beta_size of Eq. 10).

    The penalty is ``multiplier * (m - target) + damping * KL(target || p)``, where m is the mean of the selection,
    p the mean of sigmoid(logits), and the divergence that between two Bernoulli distributions. The multiplier
    integrates the excess of m, within bounds, so that it cannot wind up; the divergence reacts at once. Near the
    target it is a quadratic damping; far from it its gradient with respect to the logits does not vanish with the
    sigmoid's, so that a summarizer which drops or keeps everything is pulled back.

    Args:
        target: Share of the frames to keep, in (0, 1).
        step_size: Step of the dual ascent.
        damping: Weight of the divergence.
        bound: The multiplier stays within plus and minus this.

    Attributes:
        multiplier: Scalar buffer, saved with the state.

    Raises:
        ValueError: If the target is not in (0, 1).
    """

    multiplier: Tensor

    def __init__(self, target: float, *, step_size: float = 0.05, damping: float = 5.0, bound: float = 5.0) -> None:
        super().__init__()
        if not 0 < target < 1:
            raise ValueError(f"size_target must be a share in (0, 1), got {target!r}")
        self.target = target
        self.step_size = step_size
        self.damping = damping
        self.bound = bound
        self.register_buffer("multiplier", torch.zeros(()))

    def forward(self, kept_share: Tensor, logits: Sequence[Tensor]) -> Tensor:
        """Compute the penalty; in training mode, step the multiplier afterwards.

        Args:
            kept_share: m, the mean of the relaxed selection over frames, then videos; scalar.
            logits: One (T_i,) tensor of logits a video.

        Returns:
            Scalar.
        """
        excess = kept_share - self.target
        expected = torch.stack([torch.sigmoid(video.double()).mean() for video in logits]).clamp(1e-300, 1 - 1e-15)
        cross_entropy = -self.target * expected.log() - (1 - self.target) * torch.log1p(-expected)  # (N,)
        divergence = cross_entropy.mean() - self._entropy()
        penalty = self.multiplier.clone() * excess + self.damping * divergence.to(kept_share.dtype)
        if self.training:
            with torch.no_grad():
                self.multiplier.add_(self.step_size * excess.nan_to_num()).clamp_(-self.bound, self.bound)
        return penalty

    def _entropy(self) -> float:
        return -self.target * math.log(self.target) - (1 - self.target) * math.log(1 - self.target)

    def extra_repr(self) -> str:
        """Show the settings in ``print(pretrainer)``."""
        return f"target={self.target}, step_size={self.step_size}, damping={self.damping}, bound={self.bound}"
