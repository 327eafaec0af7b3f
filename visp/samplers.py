"""Relaxed samples of a summary: logits in, a selection in (0, 1) out (Section 3.3 of the ViSP paper).

Every sampler is called as ``sampler(logits, generator)``. All noise comes from ``generator``, drawn on the
generator's device, so that one seed gives one selection whatever else draws random numbers.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from visp.utils.noise import uniform


@runtime_checkable
class Sampler(Protocol):
    """Draws a relaxed summary from the logits of one video."""

    def __call__(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Return the selection (T,) in (0, 1) for logits (T,)."""


class _TemperatureSampler:
    def __init__(self, temperature: float = 0.5) -> None:
        self.temperature = temperature

    @property
    def temperature(self) -> float:
        """The paper's lambda; a schedule may set it during training."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        if not 0 < value < float("inf"):
            raise ValueError(f"temperature must be positive and finite, got {value!r}")
        self._temperature = float(value)


class ConcreteSampler(_TemperatureSampler):
    """Binary Concrete relaxation, Eq. 6: sigma((log eps - log(1 - eps) + alpha) / lambda), eps ~ U(0, 1).

    Args:
        temperature: lambda > 0; the paper searches (0.05, 5). Lower is closer to a 0/1 draw.

    Raises:
        ValueError: If the temperature is not positive and finite.
    """

    def __call__(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one relaxed summary.

        Args:
            logits: (T,) real numbers, alpha.
            generator: Source of the noise.

        Returns:
            (T,) selection in (0, 1), differentiable in ``logits``.
        """
        eps = _open_uniform(logits, generator)
        return torch.sigmoid((eps.log() - torch.log1p(-eps) + logits) / self.temperature)


class GumbelSoftmaxSampler(_TemperatureSampler):
    """Gumbel-Softmax over the two classes "keep" (logit alpha) and "drop" (logit 0), Jang et al. 2016.

    The difference of two independent Gumbel variables is logistic, so the selection has the same
    distribution as :class:`ConcreteSampler`'s at the same temperature; only the draws differ.

    Args:
        temperature: lambda > 0.

    Raises:
        ValueError: If the temperature is not positive and finite.
    """

    def __call__(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one relaxed summary.

        Args:
            logits: (T,) real numbers, alpha.
            generator: Source of the noise.

        Returns:
            (T,) selection in (0, 1), the first class of the softmax, differentiable in ``logits``.
        """
        classes = torch.stack([logits, torch.zeros_like(logits)])  # (2, T)
        gumbel = -torch.log(-torch.log(_open_uniform(classes, generator)))
        return torch.softmax((classes + gumbel) / self.temperature, dim=0)[0]


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
    """Uniform noise in the open interval (0, 1), with the shape, dtype and device of ``like``."""
    info = torch.finfo(like.dtype)
    return uniform(like, generator).clamp(info.tiny, 1 - info.eps)
