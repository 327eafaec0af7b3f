"""The batches of an epoch: random, or of videos of similar length."""

from __future__ import annotations

from collections.abc import Sequence

import torch

LENGTH_JITTER = 0.1
"""Videos whose lengths differ by less than about twice this share may change places in the order of lengths."""


def epoch_batches(
    num_videos: int, num_batches: int, generator: torch.Generator, *, lengths: Sequence[int] | None = None
) -> list[list[int]]:
    """Cut the videos into batches as equal in number as can be, in an order of the generator's.

    Args:
        num_videos: Number of videos.
        num_batches: Number of batches, at most ``num_videos``.
        generator: Source of the order.
        lengths: Number of frames T of each video; the videos of a batch then have similar lengths, and its
            order and that of the batches stay random.

    Returns:
        Indices of the videos, each once, by batch.
    """
    if lengths is None:
        order = torch.randperm(num_videos, generator=generator)
        return [batch.tolist() for batch in order.tensor_split(num_batches)]
    jitter = 1 + LENGTH_JITTER * (2 * torch.rand(num_videos, generator=generator, dtype=torch.float64) - 1)
    order = torch.argsort(torch.tensor(lengths) * jitter)
    batches = [batch[torch.randperm(len(batch), generator=generator)] for batch in order.tensor_split(num_batches)]
    return [batches[index].tolist() for index in torch.randperm(num_batches, generator=generator).tolist()]
