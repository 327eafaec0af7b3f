"""Keep the activations of one video at a time: drop them after the forward pass, compute them again in backward."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_Output = TypeVar("_Output")


def recomputed(module: nn.Module, function: Callable[..., _Output], *args: object) -> _Output:
    """Call ``function(*args)``, which runs ``module``, without keeping its activations for backward.

    The recomputation starts from the buffers that the module had at the first pass and leaves no trace in
    them, so running statistics are updated once. Dropout repeats its mask (torch restores the global random
    state); any other noise must come in through ``args``.
    """
    if not torch.is_grad_enabled():
        return function(*args)
    before = {(owner, name): _Before(buffer) for owner in module.modules() for name, buffer in owner._buffers.items()}
    first_pass = _Buffers()
    output = checkpoint(function, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), first_pass))
    first_pass.snapshot = {place: was.copy for place, was in before.items() if was.changed_in(*place)}
    return cast(_Output, output)


class _Before:
    """A buffer as it was before the first pass."""

    def __init__(self, buffer: Tensor | None) -> None:
        self.buffer = buffer
        self.version = 0 if buffer is None else buffer._version
        self.copy = None if buffer is None else buffer.clone()

    def changed_in(self, owner: nn.Module, name: str) -> bool:
        if owner._buffers.get(name) is not self.buffer:
            return True
        if self.buffer is None or self.copy is None:
            return False
        # Batch normalisation updates its running statistics without moving their version counter.
        updates_quietly = owner.training and isinstance(owner, nn.modules.batchnorm._NormBase)
        return updates_quietly or self.buffer._version != self.version or not torch.equal(self.buffer, self.copy)


class _Buffers:
    """A context in which modules see copies of a snapshot of their buffers, and keep their own afterwards."""

    def __init__(self) -> None:
        self.snapshot: dict[tuple[nn.Module, str], Tensor | None] = {}
        self._current: dict[tuple[nn.Module, str], Tensor | None] = {}

    def __enter__(self) -> None:
        for (owner, name), buffer in self.snapshot.items():
            self._current[owner, name] = owner._buffers.get(name)
            owner._buffers[name] = None if buffer is None else buffer.clone()

    def __exit__(self, *exception: object) -> None:
        for (owner, name), buffer in self._current.items():
            owner._buffers[name] = buffer
        self._current.clear()
