"""From a selection to the frames of a summary, so that gradients reach the selection (Eq. 8 and 9).

A gradient flow first makes a gate (T,) of the selection, with whatever noise it needs, and then applies it to the
frames, a pure function. Frames may have trailing axes, (T, ...): the gate is one number per frame.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from visp.utils.noise import bernoulli


def gated(frames: Tensor, gate: Tensor) -> Tensor:
    """Multiply frame by frame, Eq. 8: X_s = X_o * Y. A dropped frame's features go to zero.

    Args:
        frames: (T, ...) features of the video.
        gate: (T,) in [0, 1].

    Returns:
        (T, ...) summary frames.
    """
    return frames * _per_frame(gate, frames)


def marginalized(frames: Tensor, gate: Tensor, donors: Tensor) -> Tensor:
    """Replace dropped frames by another video's, Eq. 9: X_s = X_o * Y + Z * (1 - Y).

    Z are frames of ``donors`` at the same relative position, taken as they are (nearest frame).

    Args:
        frames: (T, ...) features of the video.
        gate: (T,) in [0, 1].
        donors: (T', ...) features of another video, of any length.

    Returns:
        (T, ...) summary frames.
    """
    keep = _per_frame(gate, frames)
    return frames * keep + resampled(donors, len(frames)) * (1 - keep)


def straight_through(selection: Tensor, generator: torch.Generator) -> Tensor:
    """Draw 0 or 1 forward, with the gradient of the selection backward (Bengio et al. 2013).

    Args:
        selection: (T,) in [0, 1], the probabilities of the draw.
        generator: Source of the draw.

    Returns:
        (T,) gate of 0 and 1.
    """
    return bernoulli(selection.detach(), generator) + (selection - selection.detach())


@runtime_checkable
class GradientFlow(Protocol):
    """Makes the frames of a summary from a video and a selection."""

    needs_donors: bool
    """Whether the flow must be given the frames of another video."""

    def gate(self, selection: Tensor, generator: torch.Generator) -> Tensor:
        """Return the gate (T,) of a selection (T,); all noise comes from the generator."""

    def __call__(self, frames: Tensor, gate: Tensor, donors: Tensor | None) -> Tensor:
        """Return the summary's frames, of the shape of ``frames`` (T, ...)."""


class Gating:
    """Gate the frames by the selection itself, :func:`gated` (Eq. 8); the default."""

    needs_donors = False

    def gate(self, selection: Tensor, generator: torch.Generator) -> Tensor:
        """Return the selection (T,)."""
        return selection

    def __call__(self, frames: Tensor, gate: Tensor, donors: Tensor | None) -> Tensor:
        """Return ``gated(frames, gate)``; ``donors`` are not used."""
        return gated(frames, gate)


class StraightThrough(Gating):
    """Gate the frames by a draw of 0 and 1 (:func:`straight_through`, Bengio et al. 2013): whole frames and zeros."""

    def gate(self, selection: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the gate (T,) of 0 and 1 with the probabilities of a selection (T,), all noise from the generator."""
        return straight_through(selection, generator)


class Marginalization:
    """Replace dropped frames by another video's, :func:`marginalized` (Eq. 9); for features whose zero means something.

    Raises:
        ValueError: When called without donors.
    """

    needs_donors = True

    def gate(self, selection: Tensor, generator: torch.Generator) -> Tensor:
        """Return the selection (T,)."""
        return selection

    def __call__(self, frames: Tensor, gate: Tensor, donors: Tensor | None) -> Tensor:
        """Return ``marginalized(frames, gate, donors)``.

        Raises:
            ValueError: If there are no donors.
        """
        if donors is None:
            raise ValueError("marginalization needs donor frames from another video, got None")
        return marginalized(frames, gate, donors)


def resampled(frames: Tensor, length: int) -> Tensor:
    """Take ``length`` frames at equal relative positions: (T', ...) to (length, ...), nearest frame."""
    positions = (2 * torch.arange(length, device=frames.device) + 1) * len(frames) // (2 * length)
    return frames[positions]


def _per_frame(gate: Tensor, frames: Tensor) -> Tensor:
    return gate.to(frames.dtype).reshape(-1, *[1] * (frames.ndim - 1))
