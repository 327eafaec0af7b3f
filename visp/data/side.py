"""The side inputs that a dataset was asked for, read beside the frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visp.data.stored import H5SchemaError
from visp.side_inputs import Kind, Video, check_side, shots_within

KNOWN: Mapping[str, Kind] = {"picks": "frames", "change_points": "shots"}
"""What keys of the schema are; of any other name it is said, or it is of the whole video."""

With = Sequence[str] | Mapping[str, Kind]


class SideInputs:
    """Which arrays a video carries beside its frames, and what each is.

    Args:
        with_: Their names, ``"text"`` or ``"audio=frames"``, or a mapping of names to
            :data:`visp.side_inputs.Kind`.

    Attributes:
        kinds: By name.

    Raises:
        ValueError: If a kind is unknown, or ``features`` are asked for.
    """

    def __init__(self, with_: With) -> None:
        said = with_ if isinstance(with_, Mapping) else _spelled([with_] if isinstance(with_, str) else with_)
        self.kinds = {name: kind or KNOWN.get(name, "whole") for name, kind in said.items()}
        self._said = {*(name for name, kind in said.items() if kind), *KNOWN}
        for name, kind in self.kinds.items():
            if kind not in get_args(Kind) or name == "features":
                raise ValueError(
                    f"with_: expected names but features, each of {get_args(Kind)}, got {name!r}: {kind!r}"
                )

    def __bool__(self) -> bool:
        return bool(self.kinds)

    def check(self, name: str, shape: tuple[int, ...], length: int) -> None:
        """Refuse an array that does not have the shape of its kind, or whose kind was not said and is in doubt.

        Raises:
            ValueError: If it does not.
        """
        check_side(name, self.kinds[name], shape, length)
        if name not in self._said and shape[:1] == (length,):
            raise ValueError(
                f"{name}: shape {shape} has as many rows as there are frames: say which it is, "
                f'with_={{"{name}": "frames"}} or with_={{"{name}": "whole"}}'
            )

    def beside(
        self,
        frames: Tensor,
        length: int,
        read: Callable[[str, slice], tuple[tuple[int, ...], npt.NDArray[Any]] | None],
        stride: int,
        where: str,
        part: tuple[int, int] | None = None,
    ) -> Video:
        """Return a video, or a part of it, with its side inputs.

        Args:
            frames: (T, ...) frames, every ``stride``-th sampled one; of a part, its own.
            length: Number of sampled frames of the video.
            read: Returns the shape of the array of a name, and those rows of it; or None if there is none.
            stride: Every how many sampled frames are taken.
            where: Of the video, for messages.
            part: First frame of the part and the one after its last; None for the whole video.

        Raises:
            H5SchemaError: One is missing, holds no numbers or not finite ones, or does not have the shape of its kind.
        """
        side: dict[str, Tensor] = {}
        everything = slice(None)
        rows = everything if part is None else rows_of(*part, stride)
        for name, kind in self.kinds.items():
            try:
                found = read(name, rows if kind == "frames" else everything)
            except H5SchemaError as error:
                raise H5SchemaError(f"{where}/{name}: {error}") from error
            try:
                if found is None:
                    raise ValueError(f"no {name!r}")
                shape, values = found
                self.check(name, shape, length)
                if kind == "shots":
                    picks = read("picks", everything)
                    values = rows_of_shots(name, values, None if picks is None else picks[1], length, stride)
                elif kind == "frames":
                    values = values[::stride]
                side[name] = _as_tensor(name, values, frames.dtype)
                if kind == "shots" and part is not None:
                    side[name] = shots_within(side[name], *part)
            except ValueError as error:
                raise H5SchemaError(f"{where}: {error}") from error
        return Video(frames, side, self.kinds)


def rows_of(start: int, stop: int, stride: int) -> slice:
    """Return the sampled frames, of which every ``stride``-th is a frame, that the frames of a part lie in."""
    return slice(start * stride, (stop - 1) * stride + 1)


def rows_of_shots(
    name: str, shots: npt.NDArray[Any], picks: npt.NDArray[Any] | None, length: int, stride: int = 1
) -> npt.NDArray[np.int64]:
    """Return the first and last row of each shot that has one, (S', 2), inclusive.

    Args:
        name: Of the shots, for messages.
        shots: (S, 2) first and last frame of the video of each, inclusive.
        picks: (T,) frame of the video that each row shows; rows are frames where there are none.
        length: T, number of sampled frames.
        stride: Every how many of them are rows.

    Raises:
        ValueError: If there are no picks, and the shots end after the rows.
    """
    if picks is None:
        if len(shots) and shots.max() >= length:
            raise ValueError(f"{name}: up to frame {shots.max()} of {length} rows, and no picks say what a row shows")
        picks = np.arange(length)
    shown = picks[::stride]
    first, last = np.searchsorted(shown, shots[:, 0]), np.searchsorted(shown, shots[:, 1], side="right") - 1
    return np.stack([first, last], axis=1)[last >= first].astype(np.int64)


def _spelled(with_: Sequence[str]) -> dict[str, Any]:
    """Return the kind of each name, None where it is not said."""
    return {name: kind or None for name, _, kind in (each.partition("=") for each in with_)}


def _as_tensor(name: str, values: npt.NDArray[Any], dtype: torch.dtype) -> Tensor:
    """Return whole numbers as int64, truth values as bool, others in the type of the frames."""
    if values.dtype.kind in "iu":
        return torch.from_numpy(values.astype(np.int64))
    if values.dtype.kind not in "fb":
        raise ValueError(f"{name}: expected numbers, got {values.dtype}")
    native = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
    tensor = torch.from_numpy(native.copy())
    if values.dtype.kind == "f":
        tensor = tensor.to(dtype)
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name}: values that are not finite in {str(dtype).removeprefix('torch.')}")
    return tensor
