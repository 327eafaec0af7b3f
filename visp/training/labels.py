"""What fine-tuning learns from: the annotated videos of a split, whole or cut into segments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from visp.data import Video, VideoSource
from visp.prediction import segment_bounds


class LabelledSegments:
    """Frames and importance of the training videos, whole or cut into segments.

    Args:
        dataset: The videos.
        names: Which of them.
        segment_length: Largest number of frames of an item; None for whole videos.

    Attributes:
        names: A name for each item.

    Raises:
        ValueError: If there is no video, one is not in the dataset, or has no ``gtscore`` in [0, 1].
    """

    def __init__(self, dataset: VideoSource, names: Sequence[str], segment_length: int | None) -> None:
        if not names:
            raise ValueError("the split has no training videos")
        index_of = {name: index for index, name in enumerate(dataset.names)}
        self.dataset = dataset
        self.names: list[str] = []
        self._bounds: list[tuple[int, int, int]] = []
        self._gtscores: dict[int, Tensor] = {}
        for name in names:
            if name not in index_of:
                raise ValueError(f"the split's training video {name!r} is not among the {len(index_of)} of the dataset")
            index = index_of[name]
            gtscore = dataset.record(index).gtscore
            if gtscore is None:
                raise ValueError(f"{name} has no gtscore, and fine-tuning needs one value per frame")
            if gtscore.min() < 0 or gtscore.max() > 1:
                raise ValueError(f"{name}: expected gtscore in [0, 1], got {gtscore.min():g} to {gtscore.max():g}")
            self._gtscores[index] = torch.from_numpy(np.asarray(gtscore, dtype=np.float32))
            segments = segment_bounds(len(gtscore), segment_length)
            self._bounds += [(index, start, stop) for start, stop in segments]
            self.names += [name] if len(segments) == 1 else [f"{name}[{start}:{stop}]" for start, stop in segments]

    @property
    def lengths(self) -> list[int]:
        """Number of frames of each item."""
        return [stop - start for _, start, stop in self._bounds]

    def __len__(self) -> int:
        return len(self._bounds)

    def __getitem__(self, item: int) -> tuple[Tensor | Video, Tensor]:
        index, start, stop = self._bounds[item]
        return self.dataset[index][start:stop], self._gtscores[index][start:stop]
