"""Noise from a generator of its own, on the device where it is used."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw uniform noise in [0, 1).

    It is made on the generator's device, so one seed gives the same noise on every device, and sent to a GPU without
    waiting for it.

    Args:
        like: What the noise is for.
        generator: Source of the noise.

    Returns:
        Noise of the shape, dtype and device of ``like``.
    """
    page_locked = like.is_cuda and generator.device.type == "cpu"  # only such memory is copied without waiting
    noise = torch.rand(
        like.shape, generator=generator, device=generator.device, dtype=like.dtype, pin_memory=page_locked
    )
    return noise.to(like.device, non_blocking=page_locked)
