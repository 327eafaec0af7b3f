"""Splits into training and test videos: the field's files read and written, and new folds drawn."""

from __future__ import annotations

import json
import os
import re
import reprlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from visp.data.h5 import listed
from visp.data.stored import MAX_NAME
from visp.utils.files import check_outputs, parse_json, read_text, replacing

_PARTS = {"train_keys": "train", "test_keys": "test", "val_keys": "validation"}


Folds = int | Literal["leave-one-out"]
"""How many folds to draw."""


@dataclass(frozen=True)
class Split:
    """The videos of one fold, by name.

    Attributes:
        train: Videos to train on.
        test: Videos to test on.
        validation: Videos held out of the training videos, for choosing a model.

    Raises:
        ValueError: A video is named twice, in one part or in two.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    validation: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        parts = {"train": self.train, "test": self.test, "validation": self.validation}
        for name, times in Counter(name for part in parts.values() for name in part).items():
            if times > 1:
                places = " and ".join(part for part, names in parts.items() for other in names if other == name)
                raise ValueError(f"{name!r} is named {times} times, in {places}")


def read_splits(path: str | os.PathLike[str], names: Iterable[str] | None = None) -> list[Split]:
    """Read the folds of a split file, in any of the field's forms, told by the content.

    The forms: JSON, a list of objects with ``train_keys``, ``test_keys`` and perhaps ``val_keys``, or one such
    object (vsumm-reinforce, VASNet, PGL-SUM, MR.HiSum); the same in YAML with one line per video (DSNet); and lines
    ``dataset/fold/train/test`` with commas between the videos (CSTA). A path before a video
    (``../datasets/tvsum.h5/video_1``) is dropped where all videos of the file have the same one. Where they have
    several, videos are named ``tvsum/video_1``, as in a `VideoDataset` of several files.

    Args:
        path: The file, in UTF-8.
        names: The names of the dataset's videos; every video of the file must be one of them.

    Returns:
        The folds in the order of the file, the videos in the order of each list.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file has none of the forms, a fold has no training or no test videos or names a video
            twice, such as in train and in test, or a video is not in ``names``.
    """
    try:
        folds = _parse(read_text(path))
        if not folds:
            raise ValueError("no folds")
        keys = [key for fold in folds for part in _PARTS for key in fold.get(part, ())]
        several = len({key.rpartition("/")[0] for key in keys}) > 1
        known = None if names is None else dict.fromkeys(names)
        return [_split(i, fold, several, known) for i, fold in enumerate(folds)]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_splits(path: str | os.PathLike[str], splits: Iterable[Split]) -> None:
    """Write splits as the field's JSON, with ``val_keys`` where there are validation videos.

    The file is written under a temporary name and renamed: an older one is replaced as a whole or not at all.

    Args:
        path: The file to write.
        splits: The folds.

    Raises:
        FileNotFoundError: The folder does not exist.
        ValueError: There is no split.
    """
    path = Path(path)
    check_outputs(path, overwrite=True)
    folds = [
        {key: getattr(split, part) for key, part in _PARTS.items() if part != "validation" or split.validation}
        for split in splits
    ]
    if not folds:
        raise ValueError(f"{path}: no splits to write")
    with replacing(path) as file:
        file.write((json.dumps(folds, indent=2) + "\n").encode())


def make_splits(names: Iterable[str], *, folds: Folds = 5, seed: int = 0) -> list[Split]:
    """Draw folds whose test videos partition the videos; their numbers differ by one at most.

    Args:
        names: The names of the videos.
        folds: Number of folds, from 2 to the number of videos; or ``"leave-one-out"``, one for each video.
        seed: Of the shuffle.

    Returns:
        The folds; within each, videos are in the order of ``names``.

    Raises:
        ValueError: ``folds`` is out of range, or a name is given twice.
    """
    names = tuple(names)
    folds = len(names) if folds == "leave-one-out" else folds
    if not 2 <= folds <= len(names):
        raise ValueError(f"folds must be between 2 and the number of videos, {len(names)}, got {folds}")
    parts = np.array_split(np.random.default_rng(seed).permutation(len(names)), folds)
    return [_with_chosen_last(names, part) for part in parts]


def hold_out(split: Split, share: float = 0.2, *, seed: int = 0) -> Split:
    """Draw validation videos from a split's training videos.

    Args:
        split: A split without validation videos.
        share: Share of the training videos to hold out, in (0, 1); at least one video, and not all.
        seed: Of the draw.

    Returns:
        The split with fewer training videos and with validation videos, both in the order they had.

    Raises:
        ValueError: ``share`` is out of range, the split has validation videos, or it has less than two
            training videos.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be between 0 and 1, both excluded, got {share}")
    if split.validation:
        raise ValueError(f"the split has validation videos already; {listed(split.validation)}")
    count = len(split.train)
    if count < 2:
        raise ValueError(f"holding out needs at least 2 training videos, got {count}")
    held = min(max(round(share * count), 1), count - 1)
    drawn = _with_chosen_last(split.train, np.random.default_rng(seed).permutation(count)[:held])
    return Split(drawn.train, split.test, drawn.test)


def _with_chosen_last(names: Sequence[str], chosen: Iterable[int]) -> Split:
    chosen = set(chosen)
    return Split(
        tuple(name for i, name in enumerate(names) if i not in chosen),
        tuple(name for i, name in enumerate(names) if i in chosen),
    )


def _parse(text: str) -> list[dict[str, list[str]]]:
    if text.lstrip().startswith(("[", "{")):
        return _parse_json(text)
    if "_keys:" in text:
        return _parse_yaml(text)
    return _parse_lines(text)


def _parse_json(text: str) -> list[dict[str, list[str]]]:
    content = parse_json(text)
    folds = content if isinstance(content, list) else [content]
    for i, fold in enumerate(folds):
        if not isinstance(fold, dict):
            raise ValueError(
                f"fold {i}: expected an object with 'train_keys' and 'test_keys', got {reprlib.repr(fold)}"
            )
        for key, videos in fold.items():
            if key in _PARTS and not (isinstance(videos, list) and all(isinstance(name, str) for name in videos)):
                raise ValueError(f"fold {i}: expected a list of video names under {key!r}, got {reprlib.repr(videos)}")
    return folds


def _parse_yaml(text: str) -> list[dict[str, list[str]]]:
    folds: list[dict[str, list[str]]] = []
    videos: list[str] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#") or line.strip() == "---":
            continue
        if part := re.fullmatch(r"\s*(-\s+)?(\w+):\s*", line):
            if part[1]:
                folds.append({})
            if not folds or part[2] in folds[-1]:
                raise ValueError(f"line {number}: expected '- ' before the first list of a fold, got {line.strip()!r}")
            videos = folds[-1][part[2]] = []
        elif (video := re.fullmatch(r"\s*-\s+(['\"]?)([^\s\[{'\"](?:.*[^\s:])?)\1\s*", line)) and videos is not None:
            videos.append(video[2])
        else:
            raise ValueError(f"line {number}: expected '- train_keys:' or '- video_1', got {line.strip()!r}")
    return folds


def _parse_lines(text: str) -> list[dict[str, list[str]]]:
    folds = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        parts = line.strip().split("/")
        if len(parts) != 4:
            raise ValueError(
                f"line {number}: expected dataset/fold/train videos/test videos, got {line.strip()[:80]!r}; "
                "a split file holds JSON, or YAML with 'train_keys' and 'test_keys', or such lines"
            )
        train, test = ([video.strip() for video in part.split(",")] for part in parts[2:])
        folds.append({"train_keys": train, "test_keys": test})
    return folds


def _split(index: int, fold: Mapping[str, Sequence[str]], several: bool, names: Collection[str] | None) -> Split:
    for key, videos in fold.items():
        if key not in _PARTS and key.endswith("_keys"):
            raise ValueError(f"fold {index}: unknown list {key!r}; expected {', '.join(_PARTS)}")
        if key in _PARTS and "" in videos:
            raise ValueError(f"fold {index}: a video without a name under {key!r}")
        for name in videos if key in _PARTS else ():
            if len(name) > MAX_NAME or not name.isprintable():
                raise ValueError(
                    f"fold {index}: {name[:40]!a} under {key!r} is no name: "
                    f"expected at most {MAX_NAME} letters that can be printed"
                )
    for key in ("train_keys", "test_keys"):
        if not fold.get(key):
            raise ValueError(f"fold {index}: no {key!r}")
    parts = {part: tuple(_name(key, several, names) for key in fold.get(keys, ())) for keys, part in _PARTS.items()}
    unknown = [] if names is None else [name for part in parts.values() for name in part if name not in names]
    if names is not None and unknown:
        raise ValueError(f"fold {index} names {', '.join(map(repr, unknown))}, not in the dataset; {listed(names)}")
    try:
        return Split(**parts)
    except ValueError as error:
        raise ValueError(f"fold {index}: {error}") from None


def _name(key: str, several: bool, names: Collection[str] | None) -> str:
    """Return the name of a video in the dataset, or the one that it would have."""
    folder, _, group = key.rpartition("/")
    file = PurePosixPath(folder)
    stem = file.stem if file.suffix in (".h5", ".hdf5") else file.name
    with_file = f"{stem}/{group}" if folder else group
    usual = with_file if several else group
    return next((name for name in (key, with_file) if names is not None and name in names), usual)
