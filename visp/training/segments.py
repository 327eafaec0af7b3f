"""What a run learns from: videos, and the annotated ones of a split, whole or cut into segments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visp.data import Video, VideoSource
from visp.data.source import ReadsParts
from visp.prediction import segment_bounds


class Segments:
    """A dataset whose items are segments of the videos of another.

    Args:
        dataset: Videos, or tuples of what has one row per frame.
        names: Of the videos.
        lengths: Number of frames of each.
        segment_length: Largest number of frames of an item; None for whole videos.

    Attributes:
        names: A name for each item.
        lengths: Number of frames of each item.
    """

    def __init__(self, dataset: Any, names: Sequence[str], lengths: Sequence[int], segment_length: int | None) -> None:
        self.dataset = dataset
        self.names: list[str] = []
        self._bounds: list[tuple[int, int, int]] = []
        for index, (name, length) in enumerate(zip(names, lengths, strict=True)):
            segments = segment_bounds(length, segment_length)
            self._bounds += [(index, start, stop) for start, stop in segments]
            self.names += [name] if len(segments) == 1 else [f"{name}[{start}:{stop}]" for start, stop in segments]

    @property
    def lengths(self) -> list[int]:
        """Number of frames of each item."""
        return [stop - start for _, start, stop in self._bounds]

    def __len__(self) -> int:
        return len(self._bounds)

    def __getitem__(self, item: int) -> Any:
        return part_of(self.dataset, *self._bounds[item])


def part_of(videos: Any, index: int, start: int, stop: int) -> Any:
    """Return frames ``start`` to ``stop``, without the last, of a video, of which only they are read where possible."""
    if isinstance(videos, ReadsParts) and not _changes_items(videos):
        return videos.part(index, start, stop)
    return _stretch(videos[index], start, stop)


def _changes_items(videos: ReadsParts) -> bool:
    """Return whether a class has an ``__getitem__`` of its own and inherits ``part``, which does not know of it."""
    first, other = (
        next((kind for kind in type(videos).__mro__ if name in vars(kind)), None) for name in ("__getitem__", "part")
    )
    return first is not other


def random_stretch(item: Any, share: float) -> Any:
    """Return a stretch of a video whose length and start are drawn from torch's global generator.

    Args:
        item: Frames (T, ...), a video with side inputs, or a tuple of what has one row per frame.
        share: Least share of its frames, in (0, 1); at least two are kept where there are two.
    """
    total = len(item[0] if isinstance(item, tuple) else item)
    least = min(total, max(2, round(share * total)))
    length = int(torch.randint(least, total + 1, ()))
    start = int(torch.randint(total - length + 1, ()))
    return _stretch(item, start, start + length)


def _stretch(item: Any, start: int, stop: int) -> Any:
    return tuple(part[start:stop] for part in item) if isinstance(item, tuple) else item[start:stop]


def labelled_segments(dataset: VideoSource, names: Sequence[str], segment_length: int | None) -> Segments:
    """Return the frames and the importance of the training videos, whole or cut into segments.

    Args:
        dataset: The videos.
        names: Which of them.
        segment_length: Largest number of frames of an item; None for whole videos.

    Raises:
        ValueError: If there is no video, one is not in the dataset, or has no ``gtscore`` in [0, 1].
    """
    if not names:
        raise ValueError("the split has no training videos")
    labelled = _Labelled(dataset, names)
    return Segments(labelled, names, labelled.lengths, segment_length)


class _Labelled:
    """Item i is video i with its importance."""

    def __init__(self, dataset: VideoSource, names: Sequence[str]) -> None:
        index_of = {name: index for index, name in enumerate(dataset.names)}
        self.dataset = dataset
        self._labelled: list[tuple[int, Tensor]] = []
        for name in names:
            if name not in index_of:
                raise ValueError(f"the split's training video {name!r} is not among the {len(index_of)} of the dataset")
            gtscore = dataset.record(index_of[name]).gtscore
            if gtscore is None:
                raise ValueError(f"{name} has no gtscore, and fine-tuning needs one value per frame")
            if gtscore.min() < 0 or gtscore.max() > 1:
                raise ValueError(f"{name}: expected gtscore in [0, 1], got {gtscore.min():g} to {gtscore.max():g}")
            self._labelled.append((index_of[name], torch.from_numpy(np.asarray(gtscore, dtype=np.float32))))

    @property
    def lengths(self) -> list[int]:
        return [len(gtscore) for _, gtscore in self._labelled]

    def __getitem__(self, item: int) -> tuple[Tensor | Video, Tensor]:
        index, gtscore = self._labelled[item]
        return self.dataset[index], gtscore

    def part(self, item: int, start: int, stop: int) -> tuple[Tensor | Video, Tensor]:
        """Return frames ``start`` to ``stop``, without the last, of a video, and their importance."""
        index, gtscore = self._labelled[item]
        return part_of(self.dataset, index, start, stop), gtscore[start:stop]
