"""Tiny videos, modules and scalar functions that several test files share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

LENGTHS = (3, 5, 4, 7, 3, 6, 2, 5)
"""Lengths of a batch of 8 videos: at 8, the pretrainer does not warn."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def make_videos(
    lengths: Sequence[int] = LENGTHS,
    trailing: tuple[int, ...] = (4,),
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    return [normal(length, *trailing, seed=1000 * seed + index, dtype=dtype) for index, length in enumerate(lengths)]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


class LinearSummarizer(nn.Module):
    """(T, ...) frames of ``size`` numbers each to logits (T,)."""

    def __init__(self, size: int = 4, seed: int = 1) -> None:
        super().__init__()
        self.score = nn.Linear(size, 1)
        fill(self, seed)

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.score(frames.flatten(1)).squeeze(-1)
        return logits


class MeanEncoder(nn.Module):
    """(T, ...) frames of ``size`` numbers each to the mean (e,) of their images under a linear map."""

    def __init__(self, size: int = 4, embedding_dim: int = 3, seed: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(size, embedding_dim)
        fill(self, seed)

    def forward(self, frames: Tensor) -> Tensor:
        embedded: Tensor = self.embed(frames.flatten(1))
        return embedded.mean(dim=0)


def fill(module: nn.Module, seed: int) -> None:
    """Set the parameters to values that do not depend on the global random state."""
    noise = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=noise, dtype=torch.float64))


def gradients(module: nn.Module) -> dict[str, Tensor | None]:
    return {
        name: None if parameter.grad is None else parameter.grad.clone()
        for name, parameter in module.named_parameters()
    }
