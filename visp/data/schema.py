"""What the field's h5 schema asks of one group: its values read, its problems told."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

_INTEGER_ARRAYS = ("picks", "change_points", "n_frame_per_seg")
_OTHER_ARRAYS = ("gtscore", "user_summary", "gtsummary")
_SCALARS = ("n_frames", "n_steps")
_VALUES_AT_ONCE = 2**20  # values read together when looking for non-finite ones


class H5SchemaError(ValueError):
    """A file that does not hold what the field's h5 schema says."""


class GroupCheck:
    """The problems of one group, each by key; checked are the keys that are there.

    Attributes:
        problems: One line each, ``group/key: problem``.
        shape: (T, d) of the features, where they have one.
        n_frames: Number of frames of the video, where the group states it.
    """

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
            return [f"expected ({expected},), one per row of features, got shape {data.shape}"]
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


def read_value(item: h5py.Dataset, key: str) -> Any:
    """Read the value of one key of a group: features as float32, whole numbers as integers.

    Raises:
        H5SchemaError: The value does not have the form that the schema gives the key.
    """
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
    return decoded(np.asarray(data[()]).reshape(()).item())


def decoded(value: Any) -> str:
    """Return the text of an attribute or of the bytes of a string."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
