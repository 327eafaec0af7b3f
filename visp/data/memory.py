"""Videos in memory as a torch dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from visp.data.digest import combined, digest_of
from visp.data.h5 import dims
from visp.data.record import VideoRecord
from visp.data.schema import FEATURES_NDIM
from visp.data.side import SideInputs, With, rows_of
from visp.data.source import as_tensor, check_part, checked_index, checked_stride, length_after, refuse_duplicates


class InMemoryDataset(Dataset[Any]):
    """Records in memory, with the interface of `VideoDataset`.

    Args:
        records: The videos.
        stride: Takes every ``stride``-th sampled frame.
        dtype: Type of the tensors.
        with_: As in `VideoDataset`, of the records' ``side`` and of their own arrays.

    Attributes:
        names: The name of each record.
        lengths: Number of sampled frames T of each video, after ``stride``.
        feature_dim: Feature dimension d.
        stride: As given.
        dtype: As given.

    Raises:
        ValueError: ``stride`` is less than 1, there is no record, two have one name, or features are not
            (T, d), or (T, L, d), with T at least 1 and one d.
    """

    def __init__(
        self,
        records: Sequence[VideoRecord],
        *,
        stride: int = 1,
        dtype: torch.dtype = torch.float32,
        with_: With = (),
    ) -> None:
        self._side = SideInputs(with_)
        self.stride = checked_stride(stride)
        self.dtype = dtype
        if not records:
            raise ValueError("no record was given")
        refuse_duplicates([record.name for record in records], "records")
        for record in records:
            if record.features.ndim not in FEATURES_NDIM or 0 in record.features.shape:
                raise ValueError(f"{record.name}: expected features (T, d), got shape {record.features.shape}")
        first = records[0]
        self.feature_dim = first.features.shape[-1]
        for record in records:
            if record.features.shape[1:] != first.features.shape[1:]:
                raise ValueError(
                    f"feature dimensions disagree: {first.name} has {dims(first.features.shape[1:])}, "
                    f"{record.name} has {dims(record.features.shape[1:])}"
                )
        self.names = tuple(record.name for record in records)
        self.lengths = tuple(length_after(stride, len(record.features)) for record in records)
        self._records = tuple(records)
        if self._side:
            for index in range(len(self)):
                self[index]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Any:
        return self._read(index, None)

    def part(self, index: int, start: int, stop: int) -> Any:
        """Return frames ``start`` to ``stop``, without the last, of one video, as ``self[index][start:stop]`` does.

        Raises:
            IndexError: There is no such video, or it has no such frames.
        """
        check_part(start, stop, self.lengths[checked_index(index, len(self))])
        return self._read(index, (start, stop))

    def _read(self, index: int, part: tuple[int, int] | None) -> Any:
        record = self._records[checked_index(index, len(self))]
        of_part = slice(None) if part is None else rows_of(*part, self.stride)
        frames = as_tensor(record.features[of_part][:: self.stride].copy(), self.dtype, f"{record.name}: features")
        if not self._side:
            return frames

        def read(name: str, rows: slice) -> Any:
            found = record.side.get(name, getattr(record, name, None))
            if found is None:
                return None
            values = np.asarray(found)
            return values.shape, values[rows] if values.ndim else values

        return self._side.beside(frames, len(record.features), read, self.stride, record.name, part)

    def record(self, index: int) -> VideoRecord:
        """Return the whole record of one video, strided; its arrays are those that were given.

        Raises:
            IndexError: There is no such video.
        """
        return self._records[checked_index(index, len(self))].every(self.stride)

    def content_hash(self) -> str:
        """Return the hash that `VideoDataset.content_hash` gives the same videos."""
        records = [
            replace(record, side={name: record.side[name] for name in self._side.kinds if name in record.side})
            for record in self._records
        ]
        return combined(self.names, [digest_of(record) for record in records], self._side.kinds)
