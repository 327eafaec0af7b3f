"""Training and evaluation mode for the length of a block; afterwards every module is in the mode it was in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(module: object) -> Iterator[None]:
    """Put a module into evaluation mode; what is no module is left alone."""
    if not isinstance(module, nn.Module):
        yield
        return
    modes = _modes(module)
    try:
        module.eval()
        yield
    finally:
        _restore(modes)


@contextmanager
def training_mode(module: nn.Module, *wholes: nn.Module) -> Iterator[None]:
    """Put a module into training mode, but leave what its user has put into evaluation mode, as a frozen BatchNorm.

    A part in evaluation mode stays in it if the whole that it belongs to is in training mode. A whole that is itself
    in evaluation mode, as after use, goes into training mode with all its parts, unless none of its parameters
    requires a gradient.

    Args:
        module: What is trained, such as an objective.
        *wholes: The modules inside it that their user sees as wholes, such as the summarizer and the encoder
            without their adapters; outer ones first.
    """
    modes = _modes(module)
    try:
        for whole in (module, *wholes):
            parameters = list(whole.parameters())
            frozen = bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
            parts = list(whole.modules()) if modes[whole] or frozen else []
            whole.train()
            _restore({part: False for part in parts if not modes[part]})
        yield
    finally:
        _restore(modes)


def _modes(module: nn.Module) -> dict[nn.Module, bool]:
    return {part: part.training for part in module.modules()}


def _restore(modes: dict[nn.Module, bool]) -> None:
    for part, training in modes.items():
        part.training = training
