"""What the field's h5 schema asks of one group: its values read, its problems told."""

from __future__ import annotations

import math
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from visp.data.stored import H5SchemaError, check_stored, checked_name, holds, lookup, reading

_INTEGER_ARRAYS = ("picks", "change_points", "n_frame_per_seg")
_OTHER_ARRAYS = ("gtscore", "user_summary", "gtsummary")
_SCALARS = ("n_frames", "n_steps")
FEATURES_NDIM = (2, 3)
"""Axes of features: (T, d), or tokens of each frame (T, L, d)."""
_VALUES_AT_ONCE = 2**20  # values read together when looking for non-finite ones
_LARGEST = 10**9  # of whole numbers: frames of a video, and their indices
_LONGEST_TEXT = 10_000


class GroupCheck:
    """The problems of one group, each by key; checked are the keys that are there.

    Attributes:
        problems: One line each, ``group/key: problem``.
        shape: (T, d) or (T, L, d) of the features, where they have one.
        n_frames: Number of frames of the video, where the group states it.
    """

    def __init__(self, group: h5py.Group, name: str) -> None:
        self.problems: list[str] = []
        self.shape: tuple[int, ...] | None = None
        self.n_frames: int | None = None
        self.shots: npt.NDArray[np.integer] | None = None
        if not holds(group, "features"):
            self.problems.append(f"{name}: no 'features'")
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
            if not holds(group, key):
                continue
            try:
                with reading():
                    found = check(dataset(group, key))
            except H5SchemaError as error:
                found = [str(error)]
            self.problems += [f"{name}/{key}: {problem}" for problem in found]

    def _features(self, data: h5py.Dataset) -> list[str]:
        if data.ndim not in FEATURES_NDIM:
            return [f"expected (T, d) floats, got shape {data.shape}"]
        if not _are_floats(data):
            return [f"expected (T, d) floats, got {data.dtype}"]
        if len(data) == 0:
            return ["an empty video"]
        if 0 in data.shape:
            return ["the feature dimension is 0"]
        check_stored(data)
        self.shape = tuple(data.shape)
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
        return _not_numbers(data) or _not_stored(data)

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
            return [f"expected ({expected},), one per row of features, got shape {data.shape}"]
        return []


def _rows(indices: npt.NDArray[np.integer]) -> str:
    more = f" (and {indices.size - 1} more)" if indices.size > 1 else ""
    return f"{indices[0]}{more}"


def _non_finite(data: h5py.Dataset) -> list[str]:
    rows = max(1, _VALUES_AT_ONCE // max(1, int(np.prod(data.shape[1:]))))
    check_stored(data)
    count, first, beyond = 0, 0, False
    for start in range(0, len(data), rows):
        values = data[start : start + rows]
        bad = ~np.isfinite(as_float32(values))
        beyond = beyond or bool(np.isfinite(values[bad]).any())
        if bad.any() and not count:
            first = start + int(np.argwhere(bad)[0, 0])
        count += int(bad.sum())
    if not count:
        return []
    where = " in float32" if beyond else ""
    return [f"{count} {'value is' if count == 1 else 'values are'} not finite{where} (first at row {first})"]


def _not_numbers(data: h5py.Dataset) -> list[str]:
    return [] if data.dtype.kind in "fiub" and data.dtype.itemsize <= 8 else [f"expected numbers, got {data.dtype}"]


def _not_stored(data: h5py.Dataset) -> list[str]:
    check_stored(data)
    return []


def _are_floats(data: h5py.Dataset) -> bool:
    return bool(data.dtype.kind == "f" and data.dtype.itemsize <= 8)


def as_float32(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return numbers as they are used; those beyond the range of float32 become infinite, without a warning."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def read_value(group: h5py.Group, key: str) -> Any:
    """Read the value of one key of a group: features as float32, whole numbers as integers.

    Raises:
        H5SchemaError: The value does not have the form that the schema gives the key, or cannot be read.
    """
    with reading():
        data = dataset(group, key)
        if key == "features":
            if data.ndim not in FEATURES_NDIM or not _are_floats(data):
                raise H5SchemaError(f"expected (T, d) floats, got {data.dtype} of shape {data.shape}")
            check_stored(data)
            return as_float32(data[()])
        if key in _SCALARS:
            return _whole_number(data)
        if key in _INTEGER_ARRAYS:
            return _whole_numbers(data)
        if key in _OTHER_ARRAYS:
            if problems := _not_numbers(data):
                raise H5SchemaError(problems[0])
            check_stored(data)
            return data[()]
        return _text(data)


def read_numbers(group: h5py.Group, key: str, rows: slice = slice(None)) -> npt.NDArray[Any]:
    """Read an array that the schema does not know, as stored, or some of its rows.

    Raises:
        H5SchemaError: It holds no numbers, or cannot be read.
    """
    with reading():
        data = dataset(group, key)
        if problems := _not_numbers(data):
            raise H5SchemaError(problems[0])
        check_stored(data)
        return np.asarray(data[()] if rows == slice(None) else data[rows])


def features_shape(group: h5py.Group) -> tuple[int, ...]:
    """Return (T, d) or (T, L, d) of a group's features, whose values are stored but left unread.

    Raises:
        H5SchemaError: They are not floats of such a shape, with no axis of 0, or not all in the file.
    """
    data = dataset(group, "features")
    if data.ndim not in FEATURES_NDIM or 0 in data.shape or not _are_floats(data):
        raise H5SchemaError(f"expected (T, d) floats, got {data.dtype} {data.shape}")
    check_stored(data)
    return tuple(data.shape)


def dataset(group: h5py.Group, key: str) -> h5py.Dataset:
    """Return the array that a group holds under a key.

    Raises:
        H5SchemaError: It is no array, or is in another file.
        KeyError: There is nothing of that name.
    """
    item = lookup(group, key)
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
    check_stored(data)
    stored: npt.NDArray[Any] = np.asarray(data[()])
    if stored.dtype.kind == "f" and not (np.isfinite(stored) & (stored == np.rint(stored))).all():
        raise H5SchemaError(f"expected whole numbers, got {data.dtype} with fractions or non-finite values")
    if stored.size and (stored.max() > _LARGEST or stored.min() < -_LARGEST):
        raise H5SchemaError(f"expected whole numbers up to {_LARGEST}, got {stored.min()} to {stored.max()}")
    return stored if stored.dtype.kind == "i" else stored.astype(np.int64)


def _text(data: h5py.Dataset) -> str:
    if data.size != 1 or data.dtype.kind not in "SO":
        raise H5SchemaError(f"expected one text, got {data.dtype} of shape {data.shape}")
    check_stored(data)
    return decoded(np.asarray(data[()]).reshape(()).item())


def decoded(value: Any) -> str:
    """Return the text of an attribute or of the bytes of a string.

    Raises:
        H5SchemaError: It is too long.
    """
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if len(text) > _LONGEST_TEXT:
        raise H5SchemaError(f"a text of {len(text)} letters, expected at most {_LONGEST_TEXT}")
    return text


def read_attributes(item: h5py.Group) -> dict[str, str]:
    """Read the attributes of a file or group as text.

    Raises:
        H5SchemaError: They cannot be read, or are too large.
    """
    found: dict[str, str] = {}
    with reading("attributes"):
        for name in item.attrs:
            shape = item.attrs.get_id(name).shape
            if shape and math.prod(shape) > _LONGEST_TEXT:
                raise H5SchemaError(f"attribute {checked_name(name)!r} of shape {shape}, expected one value")
            found[checked_name(name)] = decoded(item.attrs[name])
    return found
