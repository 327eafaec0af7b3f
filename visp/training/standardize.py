"""Features of mean 0 and spread 1 for training, and weights that take the features as they are afterwards.

Unit-norm features of real videos are nearly one vector: of the DINO features of docs/training.md the mean
has 99.7 % of the norm. What tells frames apart is then a small part of what a network sees, and a CSTA
learns little from it.
A linear first layer can take the change of variables back into its weights, exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import Protocol, runtime_checkable

MOST_VIDEOS = 1000


class FrameFeatures(Protocol):
    """What pretraining needs of a dataset: item i is the frames (T_i, ...) of video i."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor: ...


@runtime_checkable
class FoldsInputs(Protocol):
    """A module that can take a change of its inputs into its weights."""

    def fold_inputs(self, mean: Tensor, scale: Tensor) -> None:
        """Change the weights so that frames x give what ``(x - mean) / scale`` gave before."""
        ...


def require_folds_inputs(module: object) -> FoldsInputs:
    """Return the module if it can take a change of its inputs into its weights.

    Raises:
        TypeError: If it cannot.
    """
    if not isinstance(module, FoldsInputs):
        raise TypeError(
            f"{type(module).__name__} cannot take a standardization of its inputs back into its weights: it has no "
            "method `fold_inputs(mean, scale)`. Leave standardize off, or standardize the features yourself"
        )
    return module


class Standardization(NamedTuple):
    """The change of variables: ``(x - mean) / scale``.

    Attributes:
        mean: (d,) mean over the frames.
        scale: () root mean square of what is left, over frames and dimensions.
    """

    mean: Tensor
    scale: Tensor


def standardization(dataset: FrameFeatures) -> Standardization:
    """Measure the features of a dataset, of at most 1,000 videos at equal distances.

    Args:
        dataset: Item i is the features (T_i, ...) of video i.

    Raises:
        ValueError: If all frames are equal.
    """
    step = -(-len(dataset) // MOST_VIDEOS)
    total: Tensor | None = None
    squares, frames = torch.zeros((), dtype=torch.float64), 0
    for index in range(0, len(dataset), step):
        video = dataset[index].double()
        total = video.sum(dim=0) if total is None else total + video.sum(dim=0)
        squares += video.square().sum()
        frames += len(video)
    assert total is not None
    mean = total / frames
    variance = squares / (frames * mean.numel()) - mean.square().mean()
    if variance <= 1e-12 * squares / (frames * mean.numel()):
        raise ValueError("the features cannot be standardized: all frames are the same")
    return Standardization(mean.float(), variance.sqrt().float())


class StandardizedVideos:
    """A dataset whose features are standardized as they are read.

    Args:
        dataset: Item i is the features (T_i, ...) of video i.
        change: What to do with them.
    """

    def __init__(self, dataset: FrameFeatures, change: Standardization) -> None:
        self.dataset = dataset
        self.change = change

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Tensor:
        return (self.dataset[index] - self.change.mean) / self.change.scale
