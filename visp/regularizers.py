"""Penalties that keep a summary small and binary (Section 3.4 of the ViSP paper)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Reduction = Literal["mean", "sum"]


def size_penalty(selections: Sequence[Tensor], reduction: Reduction = "mean") -> Tensor:
    """Compute R_size of Section 3.4, the l1 norm of the selection, averaged over videos.

    Args:
        selections: One (T_i,) selection in (0, 1) per video.
        reduction: ``"mean"`` over the frames of a video (then it is the keep ratio), or the paper's ``"sum"``.

    Returns:
        Scalar.
    """
    return _over_videos(selections, reduction)


def binary_penalty(selections: Sequence[Tensor], reduction: Reduction = "mean") -> Tensor:
    """Compute R_binary of Section 3.4, y (1 - y), zero for a 0/1 selection; averaged over videos.

    Args:
        selections: One (T_i,) selection in (0, 1) per video.
        reduction: ``"mean"`` over the frames of a video, or the paper's ``"sum"``.

    Returns:
        Scalar.
    """
    return _over_videos([selection * (1 - selection) for selection in selections], reduction)


@runtime_checkable
class SizeRule(Protocol):
    """Weighs the size of summaries: the last term of Eq. 10."""

    weight: Tensor
    """beta_size as it stands; scalar."""

    def __call__(self, selections: Sequence[Tensor], logits: Sequence[Tensor], reduction: Reduction) -> Tensor:
        """Return the weighted penalty, a scalar, for one selection and one tensor of logits (T_i,) per video."""


class FixedSize(nn.Module):
    """Weigh the size penalty by a fixed beta_size, as Eq. 10 does.

    Args:
        weight: beta_size >= 0; the paper searches (0.01, 1000) for a sum over frames, about 300 times the weight of
            a mean.

    Raises:
        ValueError: If the weight is negative or not finite.
    """

    weight: Tensor

    def __init__(self, weight: float) -> None:
        super().__init__()
        if not 0 <= weight < math.inf:
            raise ValueError(f"the weight of the size penalty must be at least 0 and finite, got {weight!r}")
        self.register_buffer("weight", torch.tensor(float(weight)), persistent=False)

    def forward(self, selections: Sequence[Tensor], logits: Sequence[Tensor], reduction: Reduction) -> Tensor:
        """Return beta_size R_size of Eq. 10, a scalar.

        Args:
            selections: One (T_i,) selection in (0, 1) per video.
            logits: Not used: the penalty depends on the selections alone.
            reduction: ``"mean"`` over the frames of a video, or the paper's ``"sum"``; then the mean over videos.
        """
        return self.weight * size_penalty(selections, reduction)

    def extra_repr(self) -> str:
        """Show the setting in ``print(pretrainer)``."""
        return f"weight={self.weight.item():g}"


class TargetSize(nn.Module):
    """Hold the keep ratio at a target by a damped, bounded Lagrange multiplier (the beta_size of Eq. 10).

    The penalty is ``weight * (m - target) + damping * KL(target || p)``, where m is the mean of the selection,
    p the mean of sigmoid(logits), and the divergence that between two Bernoulli distributions. The weight
    integrates the excess of m, within bounds, so that it cannot wind up; the divergence reacts at once. Near the
    target it is a quadratic damping; far from it its gradient with respect to the logits does not vanish with the
    sigmoid's, so that a summarizer which drops or keeps everything is pulled back.

    Args:
        target: Share of the frames to keep, in (0, 1).
        step_size: Step of the dual ascent.
        damping: Weight of the divergence.
        bound: The multiplier stays within plus and minus this.

    Attributes:
        weight: The multiplier, a scalar buffer, saved with the state.

    Raises:
        ValueError: If the target is not in (0, 1).
    """

    weight: Tensor

    def __init__(self, target: float, *, step_size: float = 0.05, damping: float = 5.0, bound: float = 5.0) -> None:
        super().__init__()
        if not 0 < target < 1:
            raise ValueError(f"the share of frames to keep must be in (0, 1), got {target!r}")
        self.target = target
        self.step_size = step_size
        self.damping = damping
        self.bound = bound
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, selections: Sequence[Tensor], logits: Sequence[Tensor], reduction: Reduction = "mean") -> Tensor:
        """Compute the penalty; in training mode, step the multiplier afterwards.

        Args:
            selections: One (T_i,) selection in (0, 1) per video.
            logits: One (T_i,) tensor of logits per video.
            reduction: Not used: the target is a share of the frames.

        Returns:
            Scalar.
        """
        excess = size_penalty(selections) - self.target
        expected = torch.stack([torch.sigmoid(video.double()).mean() for video in logits]).clamp(1e-300, 1 - 1e-15)
        cross_entropy = -self.target * expected.log() - (1 - self.target) * torch.log1p(-expected)  # (N,)
        divergence = (cross_entropy.mean() - self._entropy()).to(excess.dtype)
        penalty = self.weight.clone() * excess + self.damping * divergence
        if self.training:
            with torch.no_grad():
                self.weight.add_(self.step_size * excess.nan_to_num()).clamp_(-self.bound, self.bound)
        return penalty

    def _entropy(self) -> float:
        return -self.target * math.log(self.target) - (1 - self.target) * math.log(1 - self.target)

    def extra_repr(self) -> str:
        """Show the settings in ``print(pretrainer)``."""
        return f"target={self.target}, step_size={self.step_size}, damping={self.damping}, bound={self.bound}"


def _over_videos(values: Sequence[Tensor], reduction: Reduction) -> Tensor:
    reduce = torch.mean if reduction == "mean" else torch.sum
    return torch.stack([reduce(value) for value in values]).mean()
