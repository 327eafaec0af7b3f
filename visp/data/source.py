"""What training and evaluation need of a set of videos, and what the datasets share."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from visp.data.record import VideoRecord
from visp.data.stored import H5SchemaError


@runtime_checkable
class VideoSource(Protocol):
    """What training and evaluation need of a set of videos."""

    @property
    def names(self) -> Sequence[str]:
        """A unique name for each video."""
        ...

    @property
    def lengths(self) -> Sequence[int]:
        """Number of sampled frames T of each video."""
        ...

    @property
    def feature_dim(self) -> int:
        """Feature dimension d of every video."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any:
        """Return the frames (T, d) of one video, or a `Video` where it carries side inputs."""
        ...

    def record(self, index: int) -> VideoRecord:
        """Return the whole record of one video."""
        ...


@runtime_checkable
class ReadsParts(Protocol):
    """What a set of videos may do besides: give a part of a video without reading the rest."""

    def part(self, index: int, start: int, stop: int) -> Any:
        """Return frames ``start`` to ``stop``, without the last, of one video."""
        ...


def refuse_duplicates(names: Sequence[str], what: str) -> None:
    """Refuse names that are given twice."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{what} given twice: {', '.join(twice)}")


def checked_stride(stride: int) -> int:
    """Return a stride that is at least 1."""
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")
    return stride


def checked_index(index: int, length: int) -> int:
    """Return the place that an index means, which may count from the end."""
    position = operator.index(index)
    if not -length <= position < length:
        raise IndexError(f"video {position} of {length}")
    return position % length


def check_part(start: int, stop: int, length: int) -> None:
    """Refuse a part that a video of so many frames does not have."""
    if not 0 <= start < stop <= length:
        raise IndexError(f"frames {start} to {stop} of {length}")


def length_after(stride: int, length: int) -> int:
    """Return how many of so many frames every ``stride``-th ones are."""
    return -(-length // stride)


def as_tensor(rows: np.ndarray[Any, np.dtype[Any]], dtype: torch.dtype, where: str) -> Tensor:
    """Return rows as a tensor of finite values."""
    native = rows.astype(rows.dtype.newbyteorder("="), copy=False)  # torch takes no other byte order
    tensor = torch.from_numpy(native).to(dtype)
    refuse_non_finite(tensor, where)
    return tensor


def refuse_non_finite(features: Tensor, where: str) -> None:
    """Refuse values that are not finite in the type that is used, such as 1e300 in float32."""
    if not torch.isfinite(features).all():
        raise H5SchemaError(f"{where}: values that are not finite in {str(features.dtype).removeprefix('torch.')}")
