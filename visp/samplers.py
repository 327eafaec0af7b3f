"""Relaxed samples of a summary: logits in, a selection in (0, 1) out (Section 3.3 of the ViSP paper).

The formulas are functions of logits and noise; the samplers draw the noise, always from the generator they are
given, so that one seed gives one selection whatever else draws random numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from visp.utils.noise import uniform


def concrete(logits: Tensor, eps: Tensor, temperature: float) -> Tensor:
    """Binary Concrete relaxation, Eq. 6: sigma((log eps - log(1 - eps) + alpha) / lambda).

    Args:
        logits: (T,) alpha.
        eps: (T,) uniform noise in the open interval (0, 1).
        temperature: lambda > 0.

    Returns:
        (T,) selection in (0, 1).
    """
    return torch.sigmoid((eps.log() - torch.log1p(-eps) + logits) / temperature)


def gumbel_softmax(logits: Tensor, eps: Tensor, temperature: float) -> Tensor:
    """Gumbel-Softmax over the classes "keep" (logit alpha) and "drop" (logit 0), Jang et al. 2016.

    Args:
        logits: (T,) alpha.
        eps: (2, T) uniform noise in the open interval (0, 1).
        temperature: lambda > 0.

    Returns:
        (T,) selection in (0, 1), the first class of the softmax.
    """
    classes = torch.stack([logits, torch.zeros_like(logits)])  # (2, T)
    return torch.softmax((classes - torch.log(-torch.log(eps))) / temperature, dim=0)[0]


@runtime_checkable
class Sampler(Protocol):
    """Draws a relaxed summary from the logits of one video."""

    def __call__(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Return the selection (T,) in (0, 1) for logits (T,), all noise from the generator."""


@dataclass
class _TemperatureSampler:
    temperature: float = 0.5

    def __setattr__(self, name: str, value: float) -> None:
        if name == "temperature" and not 0 < value < float("inf"):
            raise ValueError(f"temperature must be positive and finite, got {value!r}")
        super().__setattr__(name, value)


class ConcreteSampler(_TemperatureSampler):
    """Draw by :func:`concrete`, Eq. 6; the default.

    Args:
        temperature: lambda > 0; the paper searches (0.05, 5). Lower is closer to a 0/1 draw. A schedule may set it
            during training.

    Raises:
        ValueError: If the temperature is not positive and finite.
    """

    def __call__(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the selection (T,) in (0, 1) for logits (T,); differentiable in the logits."""
        return concrete(logits, _open_uniform(logits, generator), self.temperature)


class GumbelSoftmaxSampler(_TemperatureSampler):
    """Draw by :func:`gumbel_softmax` (Jang et al. 2016).

    The difference of two independent Gumbel variables is logistic, so the selection has the same
    distribution as :class:`ConcreteSampler`'s at the same temperature; only the draws differ.

    Args:
        temperature: lambda > 0.

    Raises:
        ValueError: If the temperature is not positive and finite.
    """

    def __call__(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the selection (T,) in (0, 1) for logits (T,); differentiable in the logits."""
        eps = _open_uniform(logits.expand(2, -1), generator)
        return gumbel_softmax(logits, eps, self.temperature)


class SigmoidSampler(_TemperatureSampler):
    """No sampling: sigma(alpha / lambda), the paper's "(-) Concrete" ablation (Table 3).

    Args:
        temperature: lambda > 0; here it only scales the gradient (Section 4.3).

    Raises:
        ValueError: If the temperature is not positive and finite.
    """

    def __call__(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Return the selection (T,) in (0, 1) for logits (T,); ``generator`` is not used."""
        return torch.sigmoid(logits / self.temperature)


def _open_uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw uniform noise in the open interval (0, 1), with the shape, dtype and device of ``like``."""
    info = torch.finfo(like.dtype)
    return uniform(like, generator).clamp(info.tiny, 1 - info.eps)
