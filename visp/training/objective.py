"""What :func:`visp.pretrain` needs of an objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from typing_extensions import Protocol


class Losses(Protocol):
    """What one step of an objective gives, such as a named tuple of scalars."""

    @property
    def loss(self) -> Tensor:
        """What to minimise."""
        ...

    def _asdict(self) -> dict[str, Tensor]: ...


class Objective(Protocol):
    """A module whose ``forward`` is the loss of one batch."""

    summarizer: nn.Module

    def __call__(self, videos: list[Any]) -> Losses:
        """Return the loss of a batch, and what explains it."""
        ...

    def describe(self) -> Mapping[str, str]:
        """Return the options of the objective as text, for logs and to compare runs."""
        ...


def check_objective(objective: object) -> nn.Module:
    """Return the objective as a module, or refuse it."""
    if not isinstance(objective, nn.Module) or not all(hasattr(objective, name) for name in ("summarizer", "describe")):
        raise TypeError(
            f"{type(objective).__name__} is no objective: expected a module with `summarizer` and `describe()`"
        )
    return objective
