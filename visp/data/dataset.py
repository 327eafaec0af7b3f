"""Videos of h5 files as a torch dataset, read when asked for; and as a dataset, videos of whatever form."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from visp.data.digest import combined, digest_of
from visp.data.h5 import H5Contents, dims, group_of, listed, open_h5, record_from_group, validate_h5
from visp.data.index import DigestIndex, contents_of, shapes_of
from visp.data.memory import InMemoryDataset
from visp.data.record import VideoRecord
from visp.data.schema import dataset, features_shape, read_numbers, read_value
from visp.data.side import KNOWN, SideInputs, With, rows_of
from visp.data.source import (
    VideoSource,
    as_tensor,
    check_part,
    checked_index,
    checked_stride,
    length_after,
    refuse_duplicates,
    refuse_non_finite,
)
from visp.data.stored import H5SchemaError, holds, names_of, reading

OPEN_FILES = 64
"""Most files that a process keeps open; systems allow some hundreds."""


class VideoDataset(Dataset[Any]):
    """The videos of one or several h5 files; item i is the features of video i, (T_i, d).

    Features may be tokens of each frame, (T_i, L, d).

    Files are validated once, here, and then opened by each process when it first reads, so the dataset may be
    given to ``DataLoader`` workers, forked or spawned. A video is in memory only while it is used.

    Args:
        paths: One h5 file or several.
        keys: Names of the videos to use, in this order; all of them by default. Names are as in ``names``.
        stride: Takes every ``stride``-th sampled frame.
        dtype: Type of the tensors.
        validate: ``"full"`` checks every value of every file, which reads it all; ``"shapes"`` only that each video has
            features (T, d) that the file holds. Values that are not finite in ``dtype`` are refused whenever a video
            is read.
        index: A JSON file that keeps what was found; files that have not changed since are not opened again. Made if
            need be.
        with_: Names of arrays that each video carries beside its features, which makes item i a
            :class:`visp.data.Video`. ``change_points`` come as the first and last row of each shot and ``picks`` one
            per row; of another array a mapping says what it is, ``{"audio": "frames"}`` or ``{"text": "whole"}``;
            a name alone is of the whole video.

    Attributes:
        names: The group name of each video; ``file-stem/group`` with several files, or the whole path in
            place of the stem where two files have the same stem.
        lengths: Number of sampled frames T of each video, after ``stride``.
        feature_dim: Feature dimension d.
        stride: As given.
        dtype: As given.

    Raises:
        FileNotFoundError: A file does not exist.
        H5SchemaError: Files break the schema, or their feature dimensions disagree.
        KeyError: One of ``keys`` names no video.
        ValueError: ``stride`` is less than 1, ``paths`` is empty, a file or a key is given twice, ``validate`` is
            unknown, ``index`` is a file of another kind, or ``with_`` names an unknown kind.
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        keys: Sequence[str] | None = None,
        stride: int = 1,
        dtype: torch.dtype = torch.float32,
        validate: Literal["full", "shapes"] = "full",
        index: str | os.PathLike[str] | None = None,
        with_: With = (),
    ) -> None:
        self._side = SideInputs(with_)
        if validate not in ("full", "shapes"):
            raise ValueError(f"validate must be 'full' or 'shapes', got {validate!r}")
        self.stride = checked_stride(stride)
        self.dtype = dtype
        self._index = index
        files = [Path(p) for p in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
        if not files:
            raise ValueError("no h5 file was given")
        refuse_duplicates([str(path) for path in files], "files")
        contents = contents_of(files, validate_h5 if validate == "full" else shapes_of, index)
        _refuse_other_dims(contents)
        self.feature_dim = contents[0].feature_dim
        _warn_of_mixed_provenance(contents, self._side.kinds)
        self._provenance = [content.provenance for content in contents]

        videos = _named_videos(contents)
        if keys is not None:
            keys = [keys] if isinstance(keys, str) else keys
            refuse_duplicates(keys, "keys")
            unknown = [key for key in keys if key not in videos]
            if unknown:
                raise KeyError(f"no video is named {', '.join(map(repr, unknown))}; {listed(videos)}")
            videos = {key: videos[key] for key in keys}
        self.names = tuple(videos)
        self.lengths = tuple(length_after(stride, content.lengths[key]) for content, key in videos.values())
        self._places = [(content.path, key) for content, key in videos.values()]
        self._handles: dict[int, dict[Path, h5py.File]] = {}
        if self._side:
            self._check_side()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Any:
        return self._read(index, None)

    def part(self, index: int, start: int, stop: int) -> Any:
        """Return frames ``start`` to ``stop``, without the last, of one video, as ``self[index][start:stop]`` does.

        Only their rows are read.

        Raises:
            IndexError: There is no such video, or it has no such frames.
        """
        check_part(start, stop, self.lengths[checked_index(index, len(self))])
        return self._read(index, (start, stop))

    def _read(self, index: int, part: tuple[int, int] | None) -> Any:
        path, key = self._places[checked_index(index, len(self))]
        with _video_of(path, key):
            group = group_of(self._file(path), key)
            if not holds(group, "features"):
                raise H5SchemaError(f"{path}: {key}: no 'features'")
            data = dataset(group, "features")
            features_shape(group)
            rows = slice(0, len(data)) if part is None else rows_of(*part, self.stride)
            if rows.stop > len(data):
                raise H5SchemaError(f"{path}: {key}/features: {len(data)} rows, where there were more")
            # Of chunks HDF5 picks rows one by one, which takes longer than reading all of them.
            step = self.stride if data.chunks is None else 1
            values = data[rows.start : rows.stop : step][:: self.stride // step]
            frames = as_tensor(values.copy() if step < self.stride else values, self.dtype, f"{path}: {key}/features")
            if not self._side:
                return frames

            def read(name: str, rows: slice) -> Any:
                if not holds(group, name):
                    return None
                if name in KNOWN:
                    values = read_value(group, name)
                    return values.shape, values[rows]
                return tuple(dataset(group, name).shape), read_numbers(group, name, rows)

            return self._side.beside(frames, len(data), read, self.stride, f"{path}: {key}", part)

    def record(self, index: int) -> VideoRecord:
        """Return the whole record of one video, strided, with features (T, d) in float32.

        Raises:
            IndexError: There is no such video.
            H5SchemaError: The file no longer holds the video, or holds features that are not finite.
            OSError: The video cannot be read.
        """
        path, key = self._places[checked_index(index, len(self))]
        with _video_of(path, key):
            record = record_from_group(group_of(self._file(path), key), self._side.kinds)
        refuse_non_finite(torch.from_numpy(record.features), f"{path}: {key}/features")
        return record.every(self.stride)

    @property
    def provenance(self) -> dict[str, str]:
        """How the features were made, by name of the attribute, where all files say the same."""
        first, *others = self._provenance
        return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}

    def content_hash(self) -> str:
        """Return a text that changes with names, features or labels of the videos, whatever ``stride`` and ``dtype``.

        It changes with the side inputs of ``with_``, too. Whole files are read for it, once: with an ``index``, it
        keeps the hash of each video.
        """
        with DigestIndex(self._index) as known:
            digests = []
            for path, key in self._places:
                entry = "\n".join((key, *self._side.kinds))
                if (digest := known.get(path, entry)) is None:
                    with _video_of(path, key):
                        digest = digest_of(record_from_group(group_of(self._file(path), key), self._side.kinds))
                    known.put(path, entry, digest)
                digests.append(digest)
        return combined(self.names, digests, self._side.kinds)

    def close(self) -> None:
        """Close this process's files; the next read opens them again."""
        for files in self._handles.values():
            for file in files.values():
                file.close()
        self._handles = {}

    def __enter__(self) -> VideoDataset:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": {}}

    def _check_side(self) -> None:
        """Refuse videos without a side input, or whose shape is not that of its kind; no values are read."""
        for path, key in self._places:
            with _video_of(path, key):
                group = group_of(self._file(path), key)
                for name in self._side.kinds:
                    if not holds(group, name):
                        raise H5SchemaError(f"{path}: {key}: no {name!r}; {listed(names_of(group))}")
                    shape, length = tuple(dataset(group, name).shape), features_shape(group)[0]
                    try:
                        self._side.check(name, shape, length)
                    except ValueError as error:
                        raise H5SchemaError(f"{path}: {key}: {error}") from error
        self.close()

    def _file(self, path: Path) -> h5py.File:
        pid = os.getpid()
        if pid not in self._handles:
            # A forked process must not read through its parent's handles: they share a position in the file.
            self.close()
            self._handles[pid] = {}
        files = self._handles[pid]
        file = files.pop(path, None) or open_h5(path)
        files[path] = file  # the last used comes last
        if len(files) > OPEN_FILES:
            files.pop(next(iter(files))).close()
        return file


def as_dataset(videos: object) -> VideoSource:
    """Return videos as a dataset, whatever form they have.

    Args:
        videos: A dataset; the path of an h5 file, or a list of them; or a list of records, or of features (T, d) as
            tensors or arrays of floats, which are then named ``video_1``, ``video_2``, ...

    Raises:
        TypeError: They have another form, such as a generator, which can be read only once; the message says which.
        ValueError: As of the datasets.
    """
    if isinstance(videos, VideoSource):
        return videos
    if isinstance(videos, str | os.PathLike):
        return VideoDataset(videos)
    if not isinstance(videos, list | tuple):
        raise TypeError(
            f"videos is of type {type(videos).__name__}, expected a dataset, the path of an h5 file, or a list of "
            "paths, of records or of features (T, d)"
            + ("; it can be read only once, so make it a list" if isinstance(videos, Iterator) else "")
        )
    if not videos:
        raise ValueError("no video was given")
    for kind in (VideoRecord, str | os.PathLike, Tensor | np.ndarray):
        if all(isinstance(video, kind) for video in videos):
            break
    else:
        kinds = dict.fromkeys(type(video).__name__ for video in videos)
        raise TypeError(f"a list of {', '.join(kinds)}, expected one of paths, of records or of features (T, d)")
    if kind is VideoRecord:
        return InMemoryDataset(videos)
    if isinstance(videos[0], str | os.PathLike):
        return VideoDataset(videos)
    return InMemoryDataset([_as_record(f"video_{i}", features) for i, features in enumerate(videos, start=1)])


def collate_videos(batch: Sequence[Tensor]) -> list[Tensor]:
    """Keep a batch a list, for ``DataLoader(..., collate_fn=collate_videos)``: videos differ in length.

    Args:
        batch: Videos of (T_i, d) features each, or whatever the items of the dataset are.

    Returns:
        The same, neither stacked nor padded.
    """
    return list(batch)


def _refuse_other_dims(contents: Sequence[H5Contents]) -> None:
    examples = {content.feature_shape: content.path for content in reversed(contents)}
    if len(examples) > 1:
        said = ", ".join(f"{path} has {dims(shape)}" for shape, path in reversed(examples.items()))
        raise H5SchemaError(f"feature dimensions disagree: {said}")


def _warn_of_mixed_provenance(contents: Sequence[H5Contents], side: Collection[str]) -> None:
    """Warn of files that were made in different ways; attributes of a stream, ``name/...``, count where it is read."""
    known = [content for content in contents if content.provenance]
    differences = []
    for attribute in dict.fromkeys(name for content in known for name in content.provenance):
        stream, slash, _ = attribute.partition("/")
        if slash and stream not in side:
            continue
        examples: dict[str | None, Path] = {}
        for content in known:
            examples.setdefault(content.provenance.get(attribute), content.path)
        if len(examples) > 1:
            places = (f"{'not given' if value is None else repr(value)} in {path}" for value, path in examples.items())
            differences.append(f"  {attribute}: {', '.join(places)}")
    if differences:
        message = "\n".join(["the files' features were not made in the same way:", *differences])
        warnings.warn(message, UserWarning, stacklevel=3)


def _named_videos(contents: Sequence[H5Contents]) -> dict[str, tuple[H5Contents, str]]:
    if len(contents) == 1:
        return {key: (contents[0], key) for key in contents[0].keys}
    stems = [content.path.stem for content in contents]
    if len(set(stems)) < len(stems):
        stems = [str(content.path) for content in contents]
    return {
        f"{stem}/{key}": (content, key) for stem, content in zip(stems, contents, strict=True) for key in content.keys
    }


def _as_record(name: str, features: Tensor | np.ndarray[Any, Any]) -> VideoRecord:
    tensor = torch.as_tensor(features).detach().cpu()
    if not tensor.is_floating_point():
        raise TypeError(f"{name}: expected features (T, d) of floats, got {tensor.dtype}")
    return VideoRecord(name, (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())


@contextmanager
def _video_of(path: Path, key: str) -> Iterator[None]:
    try:
        with reading(f"{path}: {key}"):
            yield
    except H5SchemaError as error:
        if isinstance(error.__cause__, OSError):
            raise OSError(str(error)) from error
        raise
