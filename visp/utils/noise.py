"""Noise that depends on a seed, a step and a purpose alone, never on what ran before it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor, nn

_GLOBAL_GENERATOR = threading.RLock()


class Purpose(IntEnum):
    """What a step of pretraining draws noise for."""

    SELECTION = 0
    GATE = 1
    RANDOM_SELECTION = 2
    RANDOM_GATE = 3
    DONORS = 4


class Noise(nn.Module):
    """The source of all noise of a pretraining run; its state is (seed, step), saved with the module that holds it.

    Args:
        seed: At least 0; by default drawn from torch's global generator.

    Raises:
        ValueError: If the seed is negative.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        if seed is not None and seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        self.seed = int(torch.randint(2**62, ())) if seed is None else seed
        self.step = 0

    def generator(self, purpose: Purpose, video: int = 0, contrast: int = 0) -> torch.Generator:
        """Return a generator for one purpose, video and contrast at the current step.

        Args:
            purpose: What the noise is for.
            video: Index of the video in the batch.
            contrast: Number of the contrast, for what each draws of its own.
        """
        return keyed_generator(self.seed, self.step, video, purpose, *([contrast] if contrast else []))

    def get_extra_state(self) -> Tensor:
        """Return (seed, step) as part of ``state_dict()``."""
        return torch.tensor([self.seed, self.step])

    def set_extra_state(self, state: Tensor) -> None:
        """Take up the noise of a saved state."""
        self.seed, self.step = state.tolist()


def keyed_generator(*key: int) -> torch.Generator:
    """Return a generator on the CPU whose noise is independent for every key of whole numbers, each at least 0."""
    return torch.Generator().manual_seed(seed_of(*key))


def seed_of(*key: int, spawn_key: tuple[int, ...] = ()) -> int:
    """Return a seed of 64 bits for a key of whole numbers, each at least 0; another ``spawn_key`` gives another one."""
    return int(np.random.SeedSequence(key, spawn_key=spawn_key).generate_state(1, np.uint64)[0])


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global generator for what takes no other one, such as the first weights of a module and dropout.

    The generator is put back as it was. One thread is inside at a time, so that two threads make what each makes alone.

    Args:
        seed: The seed.
        device: A GPU whose generator is to be put back too.
    """
    devices = [] if device is None or device.type != "cuda" else [device]
    with _GLOBAL_GENERATOR, torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw uniform noise in [0, 1).

    It is made on the generator's device, so one seed gives the same noise on every device, and copied to a GPU
    without waiting for it.

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


def bernoulli(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """Draw 0 or 1 for each probability."""
    return (uniform(probabilities, generator) < probabilities).to(probabilities.dtype)
