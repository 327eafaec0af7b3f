"""Files of a run: written under a temporary name and renamed, read without running code."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from visp.adapters import AdaptedSummarizer


class CheckpointError(ValueError):
    """A file that should be a checkpoint is not one, or belongs to another run."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the place of ``path`` when the block ends well, and vanishes if not."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def save(state: object, path: str | os.PathLike[str]) -> None:
    """Save tensors and plain values with ``torch.save``, atomically.

    Args:
        state: State dicts, numbers, strings, lists and dicts of them.
        path: Where to; an older file there is replaced at once or not at all.
    """
    with replacing(Path(path)) as file:
        torch.save(state, file)


def load(path: str | os.PathLike[str], *, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Load what :func:`save` wrote, with ``weights_only=True``: no code in the file is run.

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


def own_state_dict(summarizer: nn.Module) -> dict[str, Tensor]:
    """Return the user's module's state dict, under its own keys, whatever it was wrapped in for pretraining."""
    wrappers: tuple[tuple[type[nn.Module], Callable[[Any], nn.Module]], ...] = (
        (AdaptedSummarizer, lambda wrapper: wrapper.module),
        (nn.parallel.DistributedDataParallel, lambda wrapper: wrapper.module),
        (torch._dynamo.eval_frame.OptimizedModule, lambda wrapper: wrapper._orig_mod),
    )
    for kind, unwrap in wrappers:
        if isinstance(summarizer, kind):
            return own_state_dict(unwrap(summarizer))
    return dict(summarizer.state_dict())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
