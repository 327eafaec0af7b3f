"""The field's h5 schema, ``/video_i/{features, picks, ...}``: read, write, validate."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py

from visp._version import __version__
from visp.data.record import VideoRecord
from visp.data.schema import GroupCheck, read_attributes, read_numbers, read_value
from visp.data.stored import MAX_NAME, H5SchemaError, checked_name, holds, lookup, names_of, reading
from visp.utils.files import check_input, check_outputs, one_line, replacing

__all__ = [
    "H5Contents",
    "H5SchemaError",
    "check_side_name",
    "group_of",
    "listed",
    "open_h5",
    "read_record",
    "record_from_group",
    "validate_h5",
    "write_h5",
]

_DATASETS = tuple(f.name for f in fields(VideoRecord) if f.name not in ("name", "provenance", "side"))


@dataclass(frozen=True)
class H5Contents:
    """What a valid file holds.

    Attributes:
        path: The file.
        keys: Group names in natural order: video_1, video_2, video_10.
        lengths: Number of sampled frames T of each video, by group name.
        n_frames: Number of frames of each video that states it, by group name.
        feature_shape: (d,) or, of tokens, (L, d), the same for every video.
        provenance: The attributes of the file's root, as text.
    """

    path: Path
    keys: tuple[str, ...]
    lengths: dict[str, int]
    n_frames: dict[str, int]
    feature_shape: tuple[int, ...]
    provenance: dict[str, str]

    @property
    def feature_dim(self) -> int:
        """Feature dimension d."""
        return self.feature_shape[-1]


def read_record(path: str | os.PathLike[str], key: str, side: Iterable[str] = ()) -> VideoRecord:
    """Read one video.

    Args:
        path: An h5 file of the field's schema.
        key: Group name, such as ``"video_1"``.
        side: Names of other arrays to read, where they are there.

    Returns:
        The video, with ``features`` (T, d) or (T, L, d) as float32. Its ``provenance`` holds the attributes of the
        group; those of the file are in ``validate_h5(path).provenance``.

    Raises:
        FileNotFoundError: There is no such file.
        KeyError: The file has no such group.
        H5SchemaError: The file is not HDF5, or the group's contents do not have the expected form.
    """
    with open_h5(path) as file:
        with reading(f"{path}: names"):
            keys = names_of(file)
        if key not in keys:
            raise KeyError(f"{path}: no {key!r}; {listed(sorted(keys, key=natural_order))}")
        return record_from_group(group_of(file, key), side)


def write_h5(
    path: str | os.PathLike[str],
    records: Iterable[VideoRecord],
    *,
    provenance: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write videos in the field's schema, one at a time; arrays keep their dtype.

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
    check_outputs(path, overwrite=overwrite)
    with replacing(path) as whole, h5py.File(whole, "w") as file:
        _write_attributes(file, {**(provenance or {}), "visp_version": __version__})
        for record in records:
            _write_record(file, record)
        if not len(file):
            raise ValueError(f"{path}: no records to write")


def validate_h5(path: str | os.PathLike[str]) -> H5Contents:
    """Check a whole file in one pass; memory does not grow with the length of the videos' features.

    Only ``features`` must be there. The optional keys are checked where present, against ``features``,
    ``n_frames`` and each other. Whole numbers stored as floats are accepted.

    Args:
        path: An h5 file of the field's schema.

    Returns:
        The file's keys, lengths, numbers of frames, feature dimension and provenance.

    Raises:
        FileNotFoundError: There is no such file.
        H5SchemaError: The file cannot be read as HDF5, or breaks the schema; the message lists every problem
            by group and key.
    """
    path = Path(path)
    problems: list[str] = []
    shapes: dict[str, tuple[int, ...]] = {}
    n_frames: dict[str, int] = {}
    with open_h5(path) as file:
        names, provenance = names_and_provenance(file, path)
        groups: dict[str, h5py.Group] = {}
        for key in sorted(names, key=natural_order):
            try:
                with reading():
                    item = lookup(file, key)
            except H5SchemaError as error:
                problems.append(f"{key}: {error}")
                continue
            if isinstance(item, h5py.Group):
                groups[key] = item
        keys = tuple(groups)
        if not keys and not problems:
            problems.append("no groups: expected one per video, such as video_1")
        for key in keys:
            try:
                with reading():
                    check = GroupCheck(groups[key], key)
            except H5SchemaError as error:
                problems.append(f"{key}: {error}")
                continue
            problems += check.problems
            if check.shape is not None:
                shapes[key] = check.shape
            if check.n_frames is not None:
                n_frames[key] = check.n_frames
    most = Counter(shape[1:] for shape in shapes.values()).most_common(1)
    feature_shape = most[0][0] if most else (0,)
    example = next((key for key, shape in shapes.items() if shape[1:] == feature_shape), "")
    for key, shape in shapes.items():
        if shape[1:] != feature_shape:
            problems.append(f"{key}/features: {dims(shape[1:])}, but {example} has {dims(feature_shape)}")
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise H5SchemaError("\n  ".join([f"{path}: {count}", *problems]))
    lengths = {key: shape[0] for key, shape in shapes.items()}
    return H5Contents(path, keys, lengths, n_frames, feature_shape, provenance)


def open_h5(path: str | os.PathLike[str]) -> h5py.File:
    """Open a file for reading.

    Raises:
        FileNotFoundError: There is no such file.
        IsADirectoryError: It is a folder.
        H5SchemaError: The file is not HDF5, or is cut short.
        OSError: It is a pipe or a device, or may not be read.
    """
    path = check_input(path)
    try:
        return h5py.File(path, "r")
    except (PermissionError, BlockingIOError):
        raise
    except (OSError, RuntimeError, LookupError, TypeError, ValueError) as error:
        raise H5SchemaError(f"{path}: not a readable HDF5 file (truncated?): {one_line(error)}") from error


def names_and_provenance(file: h5py.File, path: Path) -> tuple[list[str], dict[str, str]]:
    """Return the names of the videos of a file, and what it says of its origin.

    Raises:
        H5SchemaError: They cannot be read; the message names the file.
    """
    try:
        with reading("names"):
            names = names_of(file)
        return names, read_attributes(file)
    except H5SchemaError as error:
        raise H5SchemaError(f"{path}: {error}") from error


def group_of(file: h5py.File, key: str) -> h5py.Group:
    """Return the group of a video.

    Raises:
        H5SchemaError: There is none, it is in another file, or it cannot be read.
    """
    try:
        with reading():
            item = lookup(file, key)
    except H5SchemaError as error:
        raise H5SchemaError(f"{file.filename}: {key}: {error}") from error
    if not isinstance(item, h5py.Group):
        raise H5SchemaError(f"{file.filename}: {key}: expected a group, got {type(item).__name__.lower()}")
    return item


def record_from_group(group: h5py.Group, side: Iterable[str] = ()) -> VideoRecord:
    """Read the video of an open group; ``read_record`` says what comes back.

    Args:
        group: The group.
        side: Names of other arrays to read, where they are there.

    Raises:
        H5SchemaError: A value does not have the expected form or cannot be read; the message names file, group and key.
    """
    where, key = f"{group.file.filename}: {(group.name or '?').lstrip('/')}", ""
    values: dict[str, Any] = {}
    try:
        with reading():
            present = [name for name in _DATASETS if holds(group, name)]
        if "features" not in present:
            raise H5SchemaError("no 'features'")
        provenance = read_attributes(group)
        for name in present:
            key = f"/{name}"
            values[name] = read_value(group, name)
        others = {}
        for name in side:
            key = f"/{name}"
            if name not in _DATASETS and holds(group, name):
                others[name] = read_numbers(group, name)
    except H5SchemaError as error:
        raise H5SchemaError(f"{where}{key}: {error}") from error
    return VideoRecord(name=(group.name or "").lstrip("/"), provenance=provenance, side=others, **values)


def dims(feature_shape: tuple[int, ...]) -> str:
    """Say d, and the number of tokens where frames have some, for error messages."""
    return "".join(f"L = {length}, " for length in feature_shape[:-1]) + f"d = {feature_shape[-1]}"


def listed(names: Iterable[str], limit: int = 5) -> str:
    """Say in a few words which names exist, for error messages."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    first = (name if isinstance(name, str) and name.isprintable() else ascii(name) for name in names[:limit])
    return "there is " + (", ".join(name[:MAX_NAME] for name in first) + more if names else "nothing")


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
    for key, value in record.side.items():
        check_side_name(key)
        group[key] = value


def check_side_name(name: str) -> None:
    """Refuse a name that no array beside those of the schema can have.

    Raises:
        ValueError: If the schema has a key of that name, or it is empty, cannot be printed or holds ``/``.
    """
    if name in _DATASETS:
        raise ValueError(f"{name!r} cannot name a side input: it is a key of the schema, {', '.join(_DATASETS)}")
    if not name or "/" in name or name == ".":
        raise ValueError(f"{name!r} cannot name a side input: it must be without '/', and not empty")
    checked_name(name)


def natural_order(key: str) -> list[str | int]:
    """Return a sorting key that puts video_2 before video_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", key)]
