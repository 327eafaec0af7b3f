"""The field's h5 schema, ``/video_i/{features, picks, ...}``: read, write, validate."""

from __future__ import annotations

import os
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from visp._version import __version__
from visp.data.record import VideoRecord

_INTEGER_ARRAYS = ("picks", "change_points", "n_frame_per_seg")
_OTHER_ARRAYS = ("gtscore", "user_summary", "gtsummary")
_SCALARS = ("n_frames", "n_steps")
_DATASETS = tuple(f.name for f in fields(VideoRecord) if f.name not in ("name", "provenance"))
_VALUES_AT_ONCE = 2**20  # values read together when looking for non-finite ones


class H5SchemaError(ValueError):
    """A file that does not hold what the field's h5 schema says."""


@dataclass(frozen=True)
class H5Summary:
    """What a valid file holds.

    Attributes:
        path: The file.
        keys: Group names in natural order: video_1, video_2, video_10.
        lengths: Number of sampled frames T of each video, by group name.
        feature_dim: Feature dimension d, the same for every video.
        provenance: The attributes of the file's root, as text.
    """

    path: Path
    keys: tuple[str, ...]
    lengths: dict[str, int]
    feature_dim: int
    provenance: dict[str, str]


def read_record(path: str | os.PathLike[str], key: str) -> VideoRecord:
    """Reads one video.

    Args:
        path: An h5 file of the field's schema.
        key: Group name, such as ``"video_1"``.

    Returns:
        The video, with ``features`` (T, d) as float32. Its ``provenance`` holds the attributes of the group;
        those of the file are in ``validate_h5(path).provenance``.

    Raises:
        FileNotFoundError: There is no such file.
        KeyError: The file has no such group.
        H5SchemaError: The file is not HDF5, or the group's contents do not have the expected form.
    """
    with open_h5(path) as file:
        if key not in file:
            raise KeyError(f"{path}: no {key!r}; {listed(sorted(file, key=_natural))}")
        try:
            return record_from_group(file[key])
        except (OSError, RuntimeError) as error:
            raise H5SchemaError(f"{path}: {key} cannot be read ({error})") from error


def write_h5(
    path: str | os.PathLike[str],
    records: Iterable[VideoRecord],
    *,
    provenance: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Writes videos in the field's schema, one at a time; arrays keep their dtype.

    The file appears under its name only when it is complete: after a failure an existing file is as it was.

    Args:
        path: The file to write.
        records: The videos; an iterator is consumed one record at a time.
        provenance: How the features were made; written as attributes of the file beside ``visp_version``.
        overwrite: Replaces an existing file.

    Raises:
        FileExistsError: The file exists and ``overwrite`` is false.
        FileNotFoundError: The folder does not exist.
        ValueError: There is no record, two have one name, or a name is not fit for a group.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; pass overwrite=True to replace it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent}")
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with h5py.File(unfinished, "x") as file:
            _write_attributes(file, {**(provenance or {}), "visp_version": __version__})
            for record in records:
                _write_record(file, record)
            if not len(file):
                raise ValueError(f"{path}: no records to write")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def validate_h5(path: str | os.PathLike[str]) -> H5Summary:
    """Checks a whole file in one pass; memory does not grow with the length of the videos' features.

    Only ``features`` must be there. The optional keys are checked where present, against ``features``,
    ``n_frames`` and each other. Whole numbers stored as floats are accepted.

    Args:
        path: An h5 file of the field's schema.

    Returns:
        The file's keys, lengths, feature dimension and provenance.

    Raises:
        FileNotFoundError: There is no such file.
        H5SchemaError: The file cannot be read as HDF5, or breaks the schema; the message lists every problem
            by group and key.
    """
    path = Path(path)
    problems: list[str] = []
    shapes: dict[str, tuple[int, int]] = {}
    with open_h5(path) as file:
        try:
            keys = tuple(sorted((k for k in file if file.get(k, getclass=True) is h5py.Group), key=_natural))
            provenance = _read_attributes(file)
        except (OSError, RuntimeError) as error:
            raise _unreadable(path, error) from error
        if not keys:
            problems.append("no groups: expected one a video, such as video_1")
        for key in keys:
            try:
                check = _GroupCheck(file[key])
            except (OSError, RuntimeError, KeyError) as error:
                problems.append(f"{key}: cannot be read ({error})")
                continue
            problems += check.problems
            if check.shape is not None:
                shapes[key] = check.shape
    dims = Counter(d for _, d in shapes.values())
    feature_dim = dims.most_common(1)[0][0] if dims else 0
    example = next((key for key, (_, d) in shapes.items() if d == feature_dim), "")
    for key, (_, d) in shapes.items():
        if d != feature_dim:
            problems.append(f"{key}/features: d = {d}, but {example} has d = {feature_dim}")
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise H5SchemaError("\n  ".join([f"{path}: {count}", *problems]))
    return H5Summary(path, keys, {key: length for key, (length, _) in shapes.items()}, feature_dim, provenance)


def open_h5(path: str | os.PathLike[str]) -> h5py.File:
    """Opens a file for reading.

    Raises:
        FileNotFoundError: There is no such file.
        H5SchemaError: The file is not HDF5, or is cut short.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return h5py.File(path, "r")
    except (PermissionError, IsADirectoryError, BlockingIOError):
        raise
    except (OSError, RuntimeError) as error:
        raise _unreadable(path, error) from error


def record_from_group(group: h5py.Group) -> VideoRecord:
    """Reads the video of an open group; ``read_record`` says what comes back.

    Raises:
        H5SchemaError: A value does not have the expected form; the message names file, group and key.
        OSError: The file's bytes cannot be read.
    """
    name = group.name.lstrip("/")
    if not isinstance(group, h5py.Group) or "features" not in group:
        raise H5SchemaError(f"{group.file.filename}: {name}: no 'features'")
    values: dict[str, Any] = {}
    for key in _DATASETS:
        if key in group:
            try:
                values[key] = _read_value(group[key], key)
            except H5SchemaError as error:
                raise H5SchemaError(f"{group.file.filename}: {name}/{key}: {error}") from None
    return VideoRecord(name=name, provenance=_read_attributes(group), **values)


def listed(names: Iterable[str], limit: int = 5) -> str:
    """Says in a few words which names exist, for error messages."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return "there is " + (", ".join(names[:limit]) + more if names else "nothing")


class _GroupCheck:
    """The problems of one group, and the shape (T, d) of its features where they have one."""

    def __init__(self, group: h5py.Group) -> None:
        self.group = group
        self.problems: list[str] = []
        self.shape: tuple[int, int] | None = None
        self.n_frames: int | None = None
        self.shots: npt.NDArray[np.integer] | None = None
        if "features" not in group:
            self.problems.append(f"{group.name[1:]}: no 'features'")
        # In this order: features, n_frames and change_points are what later ones are checked against.
        checks = {
            "features": self._features,
            "n_frames": self._n_frames,
            "n_steps": self._n_steps,
            "picks": self._picks,
            "gtscore": self._frame_values,
            "gtsummary": self._frame_values,
            "user_summary": self._user_summary,
            "change_points": self._change_points,
            "n_frame_per_seg": self._n_frame_per_seg,
            "video_name": self._video_name,
        }
        for key, check in checks.items():
            if key not in group:
                continue
            try:
                found = check(_dataset(group[key]))
            except H5SchemaError as error:
                found = [str(error)]
            except (OSError, RuntimeError) as error:
                found = [f"cannot be read ({error})"]
            self.problems += [f"{group.name[1:]}/{key}: {problem}" for problem in found]

    def _features(self, data: h5py.Dataset) -> list[str]:
        if data.ndim != 2:
            return [f"expected (T, d) floats, got shape {data.shape}"]
        if data.dtype.kind != "f" or data.dtype.itemsize > 8:
            return [f"expected (T, d) floats, got {data.dtype}"]
        length, d = data.shape
        if length == 0:
            return ["an empty video"]
        if d == 0:
            return ["the feature dimension is 0"]
        self.shape = (length, d)
        return _non_finite(data)

    def _n_frames(self, data: h5py.Dataset) -> list[str]:
        n_frames = _whole_number(data)
        if n_frames < 1:
            return [f"expected at least 1, got {n_frames}"]
        self.n_frames = n_frames
        return []

    def _n_steps(self, data: h5py.Dataset) -> list[str]:
        n_steps = _whole_number(data)
        if self.shape is not None and n_steps != self.shape[0]:
            return [f"{n_steps}, but features has {self.shape[0]} rows"]
        return []

    def _picks(self, data: h5py.Dataset) -> list[str]:
        if problems := self._not_one_per_row(data):
            return problems
        picks = _whole_numbers(data)
        problems = []
        steps = np.flatnonzero(picks[1:] <= picks[:-1]) + 1
        if steps.size:
            problems.append(f"not strictly increasing at row {_rows(steps)}")
        if (picks < 0).any():
            problems.append("negative frames")
        if self.n_frames is not None and (picks >= self.n_frames).any():
            problems.append(f"up to frame {picks.max()}, but the video has {self.n_frames} frames")
        return problems

    def _frame_values(self, data: h5py.Dataset) -> list[str]:
        return self._not_one_per_row(data) or _not_numbers(data) or _non_finite(data)

    def _user_summary(self, data: h5py.Dataset) -> list[str]:
        n_frames = "n_frames" if self.n_frames is None else self.n_frames
        if data.ndim != 2 or (self.n_frames is not None and data.shape[1] != self.n_frames):
            return [f"expected (U, {n_frames}), got shape {data.shape}"]
        return _not_numbers(data)

    def _change_points(self, data: h5py.Dataset) -> list[str]:
        if data.ndim != 2 or data.shape[1] != 2 or data.shape[0] == 0:
            return [f"expected (S, 2) whole numbers with S at least 1, got shape {data.shape}"]
        self.shots = shots = _whole_numbers(data)
        starts, ends = shots[:, 0], shots[:, 1]
        faults = {
            "ends before it starts": np.flatnonzero(ends < starts),
            "starts before the one before it has ended": np.flatnonzero(starts[1:] <= ends[:-1]) + 1,
            "leaves a gap after the one before it": np.flatnonzero(starts[1:] > ends[:-1] + 1) + 1,
        }
        problems = [f"shot {_rows(shot)} {fault}" for fault, shot in faults.items() if shot.size]
        if shots.min() < 0:
            problems.append("negative frames")
        if self.n_frames is not None and shots.max() >= self.n_frames:
            problems.append(f"up to frame {shots.max()}, but the video has {self.n_frames} frames")
        return problems

    def _n_frame_per_seg(self, data: h5py.Dataset) -> list[str]:
        if data.ndim != 1 or (self.shots is not None and data.shape[0] != len(self.shots)):
            expected = "S" if self.shots is None else len(self.shots)
            return [f"expected ({expected},), got shape {data.shape}"]
        counts = _whole_numbers(data)
        if self.shots is None:
            return []
        wrong = np.flatnonzero(counts != self.shots[:, 1] - self.shots[:, 0] + 1)
        return [f"disagrees with change_points at shot {_rows(wrong)}"] if wrong.size else []

    def _video_name(self, data: h5py.Dataset) -> list[str]:
        _text(data)
        return []

    def _not_one_per_row(self, data: h5py.Dataset) -> list[str]:
        expected = "T" if self.shape is None else self.shape[0]
        if data.ndim != 1 or (self.shape is not None and data.shape[0] != self.shape[0]):
            return [f"expected ({expected},), one a row of features, got shape {data.shape}"]
        return []


def _rows(indices: npt.NDArray[np.integer]) -> str:
    more = f" (and {indices.size - 1} more)" if indices.size > 1 else ""
    return f"{indices[0]}{more}"


def _non_finite(data: h5py.Dataset) -> list[str]:
    rows = max(1, _VALUES_AT_ONCE // max(1, int(np.prod(data.shape[1:]))))
    count, first = 0, 0
    for start in range(0, len(data), rows):
        bad = ~np.isfinite(data[start : start + rows])
        if bad.any() and not count:
            first = start + int(np.argwhere(bad)[0, 0])
        count += int(bad.sum())
    if not count:
        return []
    return [f"{count} {'value is' if count == 1 else 'values are'} not finite (first at row {first})"]


def _not_numbers(data: h5py.Dataset) -> list[str]:
    return [] if data.dtype.kind in "fiub" else [f"expected numbers, got {data.dtype}"]


def _read_value(item: h5py.Dataset, key: str) -> Any:
    data = _dataset(item)
    if key == "features":
        if data.ndim != 2 or data.dtype.kind != "f":
            raise H5SchemaError(f"expected (T, d) floats, got {data.dtype} of shape {data.shape}")
        return data.astype(np.float32)[()]
    if key in _SCALARS:
        return _whole_number(data)
    if key in _INTEGER_ARRAYS:
        return _whole_numbers(data)
    return data[()] if key in _OTHER_ARRAYS else _text(data)


def _dataset(item: Any) -> h5py.Dataset:
    if not isinstance(item, h5py.Dataset) or item.shape is None:
        raise H5SchemaError(f"expected an array, got {type(item).__name__.lower()}")
    return item


def _whole_number(data: h5py.Dataset) -> int:
    if data.size != 1:
        raise H5SchemaError(f"expected one whole number, got shape {data.shape}")
    return int(_whole_numbers(data).reshape(()))


def _whole_numbers(data: h5py.Dataset) -> npt.NDArray[np.integer]:
    """Signed, so that differences of neighbours do not wrap; a signed dtype stays as stored."""
    if data.dtype.kind not in "iuf":
        raise H5SchemaError(f"expected whole numbers, got {data.dtype}")
    stored: npt.NDArray[Any] = np.asarray(data[()])
    if stored.dtype.kind == "i":
        return stored
    if stored.dtype.kind == "f" and not (np.isfinite(stored) & (stored == np.rint(stored))).all():
        raise H5SchemaError(f"expected whole numbers, got {data.dtype} with fractions or non-finite values")
    return stored.astype(np.int64)


def _text(data: h5py.Dataset) -> str:
    if data.size != 1 or data.dtype.kind not in "SO":
        raise H5SchemaError(f"expected one text, got {data.dtype} of shape {data.shape}")
    return _decoded(np.asarray(data[()]).reshape(()).item())


def _decoded(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _read_attributes(item: h5py.Group) -> dict[str, str]:
    return {name: _decoded(value) for name, value in item.attrs.items()}


def _write_attributes(item: h5py.Group, attributes: Mapping[str, str]) -> None:
    for name, value in attributes.items():
        item.attrs[name] = str(value)


def _write_record(file: h5py.File, record: VideoRecord) -> None:
    if not record.name or "/" in record.name or record.name == ".":
        raise ValueError(f"{record.name!r} cannot name a group: it must be without '/', and not empty")
    if record.name in file:
        raise ValueError(f"two records are named {record.name!r}")
    group = file.create_group(record.name)
    _write_attributes(group, record.provenance)
    for key in _DATASETS:
        value = getattr(record, key)
        if value is not None:
            group[key] = value


def _unreadable(path: str | os.PathLike[str], error: Exception) -> H5SchemaError:
    return H5SchemaError(f"{path}: not a readable HDF5 file (truncated?): {error}")


def _natural(key: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", key)]
