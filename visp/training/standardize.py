"""Features of mean 0 and spread 1 for training.

Unit-norm features of real videos are nearly one vector: of the DINO features of docs/training.md the mean has 99.7 % of
the norm. What tells frames apart is then a small part of what a network sees, and it learns little from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Protocol

from visp.inputs import Standardization, carried, carry
from visp.side_inputs import check_item, frames_of
from visp.training.fold import Fold, find_fold

MOST_VIDEOS = 1000

ONE_VECTOR = 0.9
"""Features are nearly one vector where their mean has that share of their mean square."""


class FrameFeatures(Protocol):
    """What pretraining needs of a dataset: item i is the frames (T_i, ...) of video i, alone or first of a tuple."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


def standardization(dataset: FrameFeatures) -> Standardization:
    """Measure the features of a dataset, of at most 1,000 videos at equal distances.

    Args:
        dataset: Item i is the features (T_i, ..., d) of video i; the mean of all axes but the last is taken.

    Raises:
        ValueError: If all frames are equal.
    """
    step = -(-len(dataset) // MOST_VIDEOS)
    total: Tensor | None = None
    squares, frames = torch.zeros((), dtype=torch.float64), 0
    for index in range(0, len(dataset), step):
        video = frames_of(check_item(dataset[index])).flatten(0, -2).double()  # tokens of a frame count as frames
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
        dataset: Item i is the features (T_i, ...) of video i, alone or first of a tuple.
        change: What to do with them.
    """

    def __init__(self, dataset: FrameFeatures, change: Standardization) -> None:
        self.dataset = dataset
        self.change = change

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        return (self.change(item[0]), *item[1:]) if isinstance(item, tuple) else self.change(item)


class Standardizing:
    """A run on standardized features, and how its summarizer takes the features as they are afterwards.

    Args:
        summarizer: What is trained.
        change: The standardization.
        fold: How it goes into the weights; None to have the summarizer carry it.
    """

    def __init__(self, summarizer: nn.Module, change: Standardization, fold: Fold | None) -> None:
        self.summarizer = summarizer
        self.change = change
        self.fold = fold
        self.begun = False  # whether the weights are those for standardized features

    @property
    def how(self) -> Literal["folded", "carried"]:
        """How the summarizer takes features as they are afterwards."""
        return "carried" if self.fold is None else "folded"

    @contextmanager
    def during(self) -> Iterator[None]:
        """Have the summarizer take standardized frames in the block, and frames as they are from then on."""
        if carried(self.summarizer) is not None:
            self.begun = True
            carry(self.summarizer, None)
        try:
            yield
        finally:
            self.end()

    def end(self) -> None:
        """Have the summarizer take frames as they are, once."""
        if self.begun and self.fold is not None:
            self.fold(self.summarizer, self.change)
        elif self.begun:
            carry(self.summarizer, self.change)
        self.begun = False


def choose(
    choice: bool | Literal["auto"], summarizer: nn.Module, dataset: FrameFeatures, *, from_weights: bool
) -> Standardizing | None:
    """Decide whether a run standardizes, and how.

    A summarizer that carries a standardization keeps it. Under ``"auto"`` what has been trained on features as they are
    (it starts from weights, or a part is frozen) keeps them, and so do features that are not nearly one vector, where
    the weights cannot take the change.

    Raises:
        ValueError: If it is asked for and all frames are the same.
    """
    there = carried(summarizer)
    if choice is False and there is None:
        return None
    if there is not None:
        return Standardizing(summarizer, there, None)
    trained = from_weights or not all(parameter.requires_grad for parameter in summarizer.parameters())
    if choice == "auto" and trained:
        return None
    try:
        change = standardization(dataset)
    except ValueError:
        if choice == "auto":
            return None
        raise
    fold = find_fold(summarizer, change, [check_item(dataset[index]) for index in range(min(2, len(dataset)))])
    if choice == "auto" and fold is None and _one_vector_share(change) < ONE_VECTOR:
        return None
    return Standardizing(summarizer, change, fold)


def _one_vector_share(change: Standardization) -> float:
    of_mean = float(change.mean.double().square().mean())
    return of_mean / (of_mean + float(change.scale) ** 2)
