"""From a selection to the frames of a summary, so that gradients reach the selection (Eq. 8 and 9).

Every gradient flow is called as ``flow(frames, selection, donors, generator)`` and returns summary frames of
the shape of ``frames``. Frames may have trailing axes, (T, ...): the gate is one number a frame.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from visp.utils.noise import uniform


@runtime_checkable
class GradientFlow(Protocol):
    """Makes the frames of a summary from a video and a selection."""

    needs_donors: bool
    """Whether :meth:`__call__` must be given the frames of another video."""

    def __call__(self, frames: Tensor, selection: Tensor, donors: Tensor | None, generator: torch.Generator) -> Tensor:
        """Return the summary's frames, of the shape of ``frames``."""


class Gating:
    """Frame-wise multiplication, Eq. 8: X_s = X_o * Y. A dropped frame's features go to zero."""

    needs_donors = False

    def __call__(self, frames: Tensor, selection: Tensor, donors: Tensor | None, generator: torch.Generator) -> Tensor:
        """Gate the frames.

        Args:
            frames: (T, ...) features of the video.
            selection: (T,) in [0, 1].
            donors: Not used.
            generator: Not used.

        Returns:
            (T, ...) summary frames.
        """
        return frames * _per_frame(selection, frames)


class Marginalization:
    """Dropped frames are replaced by another video's, Eq. 9: X_s = X_o * Y + Z * (1 - Y).

    For features in which zero means something. Z are frames of ``donors`` at the same relative position,
    taken as they are (nearest frame), so the donor may have any length.
    """

    needs_donors = True

    def __call__(self, frames: Tensor, selection: Tensor, donors: Tensor | None, generator: torch.Generator) -> Tensor:
        """Mix the frames with the donor's.

        Args:
            frames: (T, ...) features of the video.
            selection: (T,) in [0, 1].
            donors: (T', ...) features of another video.
            generator: Not used.

        Returns:
            (T, ...) summary frames.

        Raises:
            ValueError: If there is no donor.
        """
        if donors is None:
            raise ValueError("marginalization needs donor frames from another video, got None")
        keep = _per_frame(selection, frames)
        return frames * keep + resample(donors, len(frames)) * (1 - keep)


class StraightThrough:
    """A Bernoulli draw forward, the gradient of the relaxed value backward (Bengio et al. 2013).

    The summary holds whole frames and zeros; the gradient is that of :class:`Gating`.
    """

    needs_donors = False

    def __call__(self, frames: Tensor, selection: Tensor, donors: Tensor | None, generator: torch.Generator) -> Tensor:
        """Draw a 0/1 selection and gate the frames with it.

        Args:
            frames: (T, ...) features of the video.
            selection: (T,) in [0, 1], the probabilities of the draw.
            donors: Not used.
            generator: Source of the draw.

        Returns:
            (T, ...) summary frames.
        """
        hard = bernoulli(selection.detach(), generator)
        return frames * _per_frame(hard + (selection - selection.detach()), frames)


def bernoulli(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """Draw 0 or 1 for each probability, with noise made on the generator's device."""
    return (uniform(probabilities, generator) < probabilities).to(probabilities.dtype)


def resample(frames: Tensor, length: int) -> Tensor:
    """Take ``length`` frames at equal relative positions: (T', ...) to (length, ...), nearest frame."""
    positions = (2 * torch.arange(length, device=frames.device) + 1) * len(frames) // (2 * length)
    return frames[positions]


def _per_frame(selection: Tensor, frames: Tensor) -> Tensor:
    return selection.to(frames.dtype).reshape(-1, *[1] * (frames.ndim - 1))
