"""Files of weights: whole at any moment, read without running code."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visp.adapters import AdaptedSummarizer
from visp.inputs import Standardization, beside, carry
from visp.utils.files import replacing


class CheckpointError(ValueError):
    """A file that should be a checkpoint is not one, or belongs to another run."""


def save_state(state: object, path: str | os.PathLike[str]) -> None:
    """Save tensors and plain values with ``torch.save``, atomically.

    Args:
        state: State dicts, numbers, strings, lists and dicts of them.
        path: Where to; an older file there is replaced at once or not at all.
    """
    with replacing(Path(path)) as file:
        torch.save(state, file)


def load_state(path: str | os.PathLike[str], *, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Load what :func:`save_state` wrote, with ``weights_only=True``: no code in the file is run.

    Args:
        path: The file.
        map_location: Device of the tensors.

    Returns:
        The saved dict.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file cannot be loaded or holds no dict.
    """
    try:
        state = torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} is not a file that torch can load as weights: {reason}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, expected a dict")
    return state


def own_module(summarizer: nn.Module) -> nn.Module:
    """Return the user's module, whatever it was wrapped in for training: an adapter, DDP, torch.compile."""
    wrappers: tuple[tuple[type[nn.Module], Callable[[Any], nn.Module]], ...] = (
        (AdaptedSummarizer, lambda wrapper: wrapper.module),
        (nn.parallel.DistributedDataParallel, lambda wrapper: wrapper.module),
        (torch._dynamo.eval_frame.OptimizedModule, lambda wrapper: wrapper._orig_mod),
    )
    for kind, unwrap in wrappers:
        if isinstance(summarizer, kind):
            return own_module(unwrap(summarizer))
    return summarizer


def own_state_dict(summarizer: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of the user's module, under its own keys."""
    return dict(own_module(summarizer).state_dict())


def load_weights(summarizer: nn.Module, weights: str | os.PathLike[str] | Mapping[str, Tensor]) -> None:
    """Load weights such as ``weights.pt`` of a run into a summarizer, in place.

    If a file ``weights.standardization.pt`` lies beside ``weights.pt``, the summarizer standardizes its inputs with it.

    Args:
        summarizer: The user's module, or what it is wrapped in.
        weights: A file, or a state dict under the module's own keys.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file cannot be loaded, or names or shapes are not those of the module; the message
            lists them.
    """
    state = weights if isinstance(weights, Mapping) else load_state(weights)
    source = "the state dict" if isinstance(weights, Mapping) else weights
    try:
        own_module(summarizer).load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{source} does not fit the summarizer: {error}") from error
    if not isinstance(weights, Mapping):
        kept = beside(Path(weights))
        carry(summarizer, Standardization(**load_state(kept)) if kept.exists() else None)


def state_hash(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a state dict: its tensors' names, shapes, types and values."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
