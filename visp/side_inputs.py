"""A video that carries more than frames: text, shots, masks, other streams, each under its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from torch import Tensor

Kind = Literal["frames", "shots", "whole"]
"""What a side input is: one row per frame, shots (S, 2), or one array for the whole video."""


@dataclass(frozen=True, eq=False)
class Video:
    """The frames of a video and what a summarizer is given beside them.

    A part of it, ``video[start:stop]``, has the rows of those frames, the shots that lie in it, counted from its
    start and clipped, and all of what is of the whole video.

    Attributes:
        frames: (T, ...) frames, which alone are gated, standardized and shown to the encoder.
        side: The side inputs by name.
        kinds: What each is: ``"frames"``, (T, ...); ``"shots"``, (S, 2) whole numbers, first and last row of each
            shot, inclusive; ``"whole"``, of any shape, where not said.

    Raises:
        ValueError: If a kind is unknown or of no side input, or a side input does not have the shape of its kind.
    """

    frames: Tensor
    side: Mapping[str, Tensor]
    kinds: Mapping[str, Kind] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in self.kinds.items():
            if name not in self.side or kind not in get_args(Kind):
                raise ValueError(f"{name}: expected a side input and one of {get_args(Kind)}, got {kind!r}")
            check_side(name, kind, tuple(self.side[name].shape), len(self.frames))

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, part: slice) -> Video:
        start, stop, step = part.indices(len(self))
        if step != 1:
            raise ValueError(f"a part of a video is made of neighbouring frames, got a step of {step}")

        def cut(name: str, value: Tensor) -> Tensor:
            kind = self.kinds.get(name, "whole")
            if kind == "shots":
                return shots_within(value, start, stop)
            return value[start:stop] if kind == "frames" else value

        side = {name: cut(name, value) for name, value in self.side.items()}
        return Video(self.frames[start:stop], side, self.kinds)

    def map(self, function: Callable[[Tensor], Tensor]) -> Video:
        """Return the video with every tensor changed."""
        side = {name: function(value) for name, value in self.side.items()}
        return replace(self, frames=function(self.frames), side=side)

    def pin_memory(self) -> Video:
        """Return the video in page-locked memory; data loaders call this."""
        return self.map(Tensor.pin_memory)


def shots_within(shots: Tensor, start: int, stop: int) -> Tensor:
    """Return the shots (S, 2) that lie in a part of a video, counted from its start and clipped to it."""
    inside = shots[(shots[:, 1] >= start) & (shots[:, 0] < stop)]
    return inside.clamp(start, max(start, stop - 1)) - start


def check_side(name: str, kind: Kind, shape: tuple[int, ...], length: int) -> None:
    """Refuse a side input whose shape is not that of its kind in a video of T = ``length`` frames.

    Raises:
        ValueError: If it is not.
    """
    if kind == "frames" and shape[:1] != (length,):
        raise ValueError(f"{name}: expected ({length}, ...), one row per frame, got shape {shape}")
    if kind == "shots" and (len(shape) != 2 or shape[1] != 2):
        raise ValueError(f"{name}: expected shots (S, 2), got shape {shape}")


def frames_of(video: Any) -> Any:
    """Return the frames of a video that carries side inputs; anything else as it is."""
    return video.frames if isinstance(video, Video) else video


def frames_of_batch(videos: Any) -> Sequence[Tensor]:
    """Return the frames of every video; what is no list or tuple as it is."""
    return [frames_of(video) for video in videos] if isinstance(videos, list | tuple) else videos


def check_item(item: object) -> Tensor | Video:
    """Return the video of an item of a dataset: the item itself, or the first of a tuple.

    Raises:
        TypeError: If it is no tensor, and no video with side inputs.
    """
    video = item[0] if isinstance(item, tuple) and item else item
    if not isinstance(video, Tensor | Video):
        raise TypeError(
            f"expected items that are frames (T, d), a torch.Tensor, or tuples of tensors, got {type(video).__name__}"
        )
    return video


def placed(item: Any, like: Tensor) -> Any:
    """Bring an item of a dataset to where a parameter is; floating-point values also to its type.

    Raises:
        TypeError: If it is neither a tensor, nor a video with side inputs, nor a tuple of them.
    """
    if isinstance(item, tuple):
        return tuple(placed(part, like) for part in item)
    item = check_item(item)
    if isinstance(item, Video):
        return item.map(lambda value: placed(value, like))
    return item.to(like.device, like.dtype if item.is_floating_point() else item.dtype, non_blocking=True)
