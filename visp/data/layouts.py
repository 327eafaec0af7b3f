"""The field's newer file layouts, read as records; :func:`visp.data.write_h5` makes a usual file of them.

Most of them have one step per second and no ``picks``: a step is then a frame. What a key means under its other names
is in one table, :data:`ALIASES`. Where labels and features of a video differ in length, both are cut to the shorter
one, with a warning.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from visp.data.h5 import listed, natural_order, open_h5, record_from_group
from visp.data.record import VideoRecord
from visp.data.schema import FEATURES_NDIM, dataset
from visp.data.stored import H5SchemaError, check_stored, holds, lookup, names_of, reading
from visp.utils.files import one_line, parse_json, read_text

ALIASES: Mapping[str, tuple[str, ...]] = {
    "features": ("features", "video_embeddings", "feature"),
    "gtscore": ("gtscore", "gt_score", "gtscores"),
    "user_summary": ("user_summary", "gtsummaries", "gt_summary", "gtsummary"),
    "change_points": ("change_points",),
}
"""By key of the usual schema, the names it has elsewhere, in the order in which they are looked for."""
_ARRAY_FILES = (".npy", ".npz", ".pt")
_CLIP_SECONDS = 2


@dataclass(frozen=True)
class RatedQuery:
    """One line of a QVHighlights file.

    Attributes:
        video: ``vid``.
        query: The text, empty if the file has none.
        ratings: (clips, raters), 0 to 4, of each 2-second clip; 0 for those that are not relevant.
    """

    video: str
    query: str
    ratings: npt.NDArray[np.int64]


def read_layout(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    features_key: str | None = None,
    truth: str | os.PathLike[str] | None = None,
    split: str | os.PathLike[str] | None = None,
    apart: bool = False,
    with_: Sequence[str] = (),
) -> Iterator[VideoRecord]:
    """Read the videos of one of the field's layouts, told by the content.

    Known are MR.HiSum (half-open shots that share borders, ``gt_summary`` or ``gtsummary``), the stores of MoSu and
    TripleSumm (one h5 file per modality, in which ``<video>`` is an array; labels apart), SD-MVSum and S-VideoXum
    (``video_embeddings``, ``gtscores`` (raters, T)), Zhang's ``fea_i`` with ``gt_1_i``, folders of .npy, .npz and .pt
    files, and the usual schema. Several files or folders are streams of the same videos, which are joined along d.

    Args:
        paths: The files, or folders.
        features_key: Name of the features, where it is none of :data:`ALIASES`; of an array in .npz files.
        truth: An h5 file of labels for features that come without.
        split: A JSON object of ``train_keys``, ``val_keys`` and ``test_keys``: only these videos are read. One that
            cannot be read is then named in a warning and left out.
        apart: Keep streams after the first as side inputs, each under the name of its file without its ending, in
            place of joining them.
        with_: Names of more arrays of each video's group, such as ``script_embeddings``, to keep as side inputs.

    Yields:
        The videos in natural order; arrays as stored, steps as frames where there are no ``picks``.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: No file is given, or streams that are kept apart have one name.
        H5SchemaError: A file has none of the layouts, or a video cannot be read; the message says what was found.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise ValueError("no file was given")
    with ExitStack() as stack:
        streams = [_open(Path(path), features_key, with_, stack) for path in given]
        labels = None if truth is None else _Groups(Path(truth), stack.enter_context(open_h5(truth)), None, with_)
        beside = [Path(path).stem for path in given[1:]] if apart else []
        if len(set(beside)) < len(beside):
            raise ValueError(f"streams that are kept apart need files of different names, got {', '.join(beside)}")
        wanted = None if split is None else _split_names(split)
        if wanted is None:
            yield from (_read(name, streams, labels, beside) for name in streams[0].names)
            return
        for name in wanted:
            if (record := _read_or_warn(name, streams, labels, beside)) is not None:
                yield record


def read_qvhighlights(path: str | os.PathLike[str]) -> list[RatedQuery]:
    """Read a jsonl file of QVHighlights' form: per line ``vid``, ``duration`` and the raters' scores of relevant clips.

    Args:
        path: A file such as ``highlight_val_release.jsonl`` (QVHighlights, Lei et al. 2021).

    Returns:
        One entry per line, its ratings for every 2-second clip of the video.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is not of that form; it is named.
    """
    found = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            clips = -(-int(row["duration"]) // _CLIP_SECONDS)
            rated = np.asarray(row["saliency_scores"], dtype=np.int64)
            relevant = np.asarray(row["relevant_clip_ids"], dtype=np.int64)
            if rated.ndim != 2 or len(rated) != len(relevant) or ((relevant < 0) | (relevant >= clips)).any():
                raise ValueError(f"{len(relevant)} relevant clips of {clips}, and scores of shape {rated.shape}")
            ratings = np.zeros((clips, rated.shape[1]), dtype=np.int64)
            ratings[relevant] = rated
            found.append(RatedQuery(str(row["vid"]), str(row.get("query", "")), ratings))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{path}: line {number} is not of QVHighlights' form: {one_line(error)}") from error
    return found


class _Groups:
    """An h5 file of one group per video."""

    def __init__(self, path: Path, file: h5py.File, features_key: str | None, with_: Sequence[str]) -> None:
        self.path, self.file, self.features_key, self.with_ = path, file, features_key, with_
        with reading(f"{path}: names"):
            self.names = sorted(names_of(file), key=natural_order)

    def record(self, name: str) -> VideoRecord:
        """Return the video; without ``picks`` its steps are its frames."""
        group = self.group(name)
        if self.features_key is None and holds(group, "features") and holds(group, "picks"):
            return record_from_group(group, self.with_)
        features = self.find(group, "features", self.features_key)
        if features is None:
            expected = self.features_key or ", ".join(ALIASES["features"])
            raise H5SchemaError(f"{self.path}: {name}: no features under {expected}; {listed(names_of(group))}")
        return self.labelled(name, features)

    def labelled(self, name: str, features: npt.NDArray[Any]) -> VideoRecord:
        """Return features with the labels of the group."""
        group = self.group(name)
        scores = self.find(group, "gtscore")
        record = _steps(
            f"{self.path}: {name}",
            name,
            features,
            None if scores is None else scores.mean(axis=0) if scores.ndim == 2 else scores,
            self.find(group, "user_summary"),
            self.find(group, "change_points"),
        )
        found = {key: _values(group, key, f"{self.path}: {name}/{key}") for key in self.with_ if holds(group, key)}
        return replace(record, side=found)

    def group(self, name: str) -> h5py.Group:
        with reading(f"{self.path}: {name}:"):
            item = lookup(self.file, name)
        if not isinstance(item, h5py.Group):
            raise H5SchemaError(f"{self.path}: {name}: expected a group of arrays, got an array")
        return item

    def find(self, group: h5py.Group, key: str, other: str | None = None) -> npt.NDArray[Any] | None:
        """Return what a group holds under the first of the names of a key, or None."""
        name = next((each for each in ((other,) if other else ALIASES[key]) if holds(group, each)), None)
        return None if name is None else _values(group, name, f"{self.path}: {group.name}/{name}")


class _Arrays:
    """An h5 file in which each video's name is an array, as in MoSu's stores."""

    def __init__(self, path: Path, file: h5py.File, names: Sequence[str]) -> None:
        self.path, self.file, self.names = path, file, list(names)

    def record(self, name: str) -> VideoRecord:
        return _steps(f"{self.path}: {name}", name, _values(self.file, name, f"{self.path}: {name}"))


class _Numbered:
    """Zhang's form: ``fea_i`` and, where given, ``gt_1_i``, one score per step."""

    def __init__(self, path: Path, file: h5py.File, names: Sequence[str]) -> None:
        self.path, self.file = path, file
        self.names = [f"video_{found[1]}" for name in names if (found := re.fullmatch(r"fea_(\d+)", name))]

    def record(self, name: str) -> VideoRecord:
        number = name.removeprefix("video_")
        features = _values(self.file, f"fea_{number}", f"{self.path}: fea_{number}")
        scores = None
        if holds(self.file, f"gt_1_{number}"):
            scores = _values(self.file, f"gt_1_{number}", f"{self.path}: gt_1_{number}").reshape(-1)
            if features.ndim == 2 and features.shape[0] != len(scores) == features.shape[1]:
                features = features.T  # MATLAB stores the columns first
        return _steps(f"{self.path}: {name}", name, features, scores)


class _Folder:
    """A folder of one .npy, .npz or .pt file per video."""

    def __init__(self, path: Path, features_key: str | None) -> None:
        self.path, self.features_key = path, features_key
        self.files = {file.stem: file for file in path.iterdir() if file.suffix in _ARRAY_FILES}
        self.names = sorted(self.files, key=natural_order)
        if not self.names:
            raise H5SchemaError(
                f"{path}: no {', '.join(_ARRAY_FILES)} files; {listed(sorted(each.name for each in path.iterdir()))}"
            )

    def record(self, name: str) -> VideoRecord:
        file = self.files.get(name)
        if file is None:
            raise H5SchemaError(f"{self.path}: no file of {name}")
        with reading(f"{file}:"):
            features = _load(file, self.features_key)
        return _steps(str(file), name, features)


_Stream = _Groups | _Arrays | _Numbered | _Folder


def _open(path: Path, features_key: str | None, with_: Sequence[str], stack: ExitStack) -> _Stream:
    if path.is_dir():
        return _Folder(path, features_key)
    file = stack.enter_context(open_h5(path))
    with reading(f"{path}: names"):
        names = sorted(names_of(file), key=natural_order)
    if not names:
        raise H5SchemaError(f"{path}: an empty file")
    if any(re.fullmatch(r"fea_\d+", name) for name in names):
        return _Numbered(path, file, names)
    for name in names:
        try:
            with reading():
                kind: Callable[..., _Stream] = _Groups if isinstance(lookup(file, name), h5py.Group) else _Arrays
        except (H5SchemaError, KeyError):
            continue  # a damaged entry says nothing; a split may leave it out
        return _Groups(path, file, features_key, with_) if kind is _Groups else _Arrays(path, file, names)
    raise H5SchemaError(f"{path}: no entry can be read; {listed(names)}")


def _read(name: str, streams: Sequence[_Stream], labels: _Groups | None, apart: Sequence[str]) -> VideoRecord:
    records = [stream.record(name) for stream in streams]
    record = records[0]
    if len(records) > 1:
        length = min(len(each.features) for each in records)
        if max(len(each.features) for each in records) > length:
            lengths = ", ".join(str(len(each.features)) for each in records)
            warnings.warn(f"{name}: streams of {lengths} steps are cut to {length}", UserWarning, stacklevel=3)
        arrays = [each.features[:length].astype(np.float32) for each in records]
        if not apart and len({each.shape[1:-1] for each in arrays}) > 1:
            shapes = ", ".join(str(each.shape) for each in arrays)
            raise H5SchemaError(f"{name}: streams {shapes} cannot be joined along d; keep them apart")
        features = arrays[0] if apart else np.concatenate(arrays, axis=-1)
        side = {**record.side, **dict(zip(apart, arrays[1:], strict=bool(apart)))}
        record = _cut(replace(record, features=features, side=side), length)
    if labels is None:
        return record
    labelled = labels.labelled(name, record.features)
    streams_apart = {key: record.side[key][: len(labelled.features)] for key in apart}
    return replace(labelled, side={**record.side, **labelled.side, **streams_apart})


def _read_or_warn(
    name: str, streams: Sequence[_Stream], labels: _Groups | None, apart: Sequence[str]
) -> VideoRecord | None:
    try:
        return _read(name, streams, labels, apart)
    except H5SchemaError as error:
        warnings.warn(f"{name} is left out: {error}", UserWarning, stacklevel=3)
        return None


def _steps(
    where: str,
    name: str,
    features: npt.NDArray[Any],
    gtscore: npt.NDArray[Any] | None = None,
    users: npt.NDArray[Any] | None = None,
    shots: npt.NDArray[Any] | None = None,
) -> VideoRecord:
    """Return a video whose steps are its frames."""
    if features.ndim not in FEATURES_NDIM or features.dtype.kind != "f" or 0 in features.shape:
        raise H5SchemaError(f"{where}: expected features (T, d) of floats, got {features.dtype} {features.shape}")
    users = users[None] if users is not None and users.ndim == 1 else users
    if (gtscore is not None and gtscore.ndim != 1) or (users is not None and users.ndim != 2):
        raise H5SchemaError(f"{where}: expected one label per step, or (users, T)")
    lengths = {len(features)} | ({len(gtscore)} if gtscore is not None else set())
    lengths |= {users.shape[1]} if users is not None else set()
    length = min(lengths)
    if len(lengths) > 1:
        said = " and ".join(map(str, sorted(lengths)))
        warnings.warn(f"{where}: features and labels of {said} steps are cut to {length}", UserWarning, stacklevel=4)
    whole = None if shots is None else inclusive_shots(shots, max(lengths), where)
    record = VideoRecord(
        name.replace("/", "_"),
        features,
        np.arange(len(features)),
        len(features),
        None if gtscore is None else gtscore.astype(np.float32),
        None if users is None else (users > 0).astype(np.uint8),
        whole,
    )
    return _cut(record, length)


def _cut(record: VideoRecord, length: int) -> VideoRecord:
    """Return the first steps of a video whose steps are its frames."""
    shots = record.change_points
    if shots is not None:
        shots = shots[shots[:, 0] < length].copy()
        shots[:, 1] = np.minimum(shots[:, 1], length - 1)
    return replace(
        record,
        features=record.features[:length],
        picks=np.arange(length),
        n_frames=length,
        gtscore=None if record.gtscore is None else record.gtscore[:length],
        user_summary=None if record.user_summary is None else record.user_summary[:, :length],
        change_points=shots,
        n_frame_per_seg=None if shots is None else shots[:, 1] - shots[:, 0] + 1,
        n_steps=length,
    )


def inclusive_shots(shots: npt.NDArray[Any], length: int, where: str = "the shots") -> npt.NDArray[np.int64]:
    """Return shots (S, 2) with their last frames, as visp has them, from those of MR.HiSum or MoSu.

    MR.HiSum's shots share borders, [0, a], [a, b]: their ends are exclusive. A last shot that ends one step early is
    taken to the end, as SummDiff does. MoSu's, [0, a], [a + 1, b], stay as they are.

    Args:
        shots: (S, 2) whole numbers.
        length: Number of steps.
        where: For the message.

    Raises:
        H5SchemaError: The shots are of neither form.
    """
    if shots.ndim != 2 or shots.shape[1] != 2 or not len(shots) or not (shots == np.rint(shots)).all():
        raise H5SchemaError(f"{where}: expected change_points (S, 2) of whole numbers, got {shots.dtype} {shots.shape}")
    ends = shots.astype(np.int64)
    if (ends[1:, 0] == ends[:-1, 1]).all() and (len(ends) > 1 or ends[0, 1] == length):
        ends[:, 1] -= 1
        if ends[-1, 1] == length - 2:
            ends[-1, 1] = length - 1
    elif not (ends[1:, 0] == ends[:-1, 1] + 1).all():
        raise H5SchemaError(f"{where}: change_points neither share borders nor follow each other")
    if (ends[:, 1] < ends[:, 0]).any() or ends[0, 0] < 0 or ends[-1, 1] >= length:
        raise H5SchemaError(f"{where}: change_points from {ends[0, 0]} to {ends[-1, 1]} do not fit {length} steps")
    return ends


def _values(group: h5py.Group, name: str, where: str) -> npt.NDArray[Any]:
    try:
        with reading():
            if not holds(group, name):
                raise H5SchemaError(f"there is nothing of that name; {listed(names_of(group))}")
            data = dataset(group, name)
            check_stored(data)
            if data.dtype.kind not in "fiub":
                raise H5SchemaError(f"expected numbers, got {data.dtype}")
            return np.asarray(data[()])
    except H5SchemaError as error:
        raise H5SchemaError(f"{where}: {error}") from error


def _load(file: Path, features_key: str | None) -> npt.NDArray[Any]:
    if file.suffix == ".pt":
        import torch

        loaded = torch.load(file, map_location="cpu", weights_only=True)
        loaded = loaded[features_key] if isinstance(loaded, dict) and features_key else loaded
        if not isinstance(loaded, torch.Tensor):
            raise H5SchemaError(f"expected a tensor, got {type(loaded).__name__}; name it with features_key")
        return loaded.float().numpy()
    loaded = np.load(file, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        name = features_key or (loaded.files[0] if len(loaded.files) == 1 else "features")
        if name not in loaded.files:
            raise H5SchemaError(f"no {name!r}; {listed(loaded.files)}; name it with features_key")
        found: npt.NDArray[Any] = loaded[name]
        return found


def _split_names(path: str | os.PathLike[str]) -> list[str]:
    found = parse_json(read_text(path))
    keys = ("train_keys", "val_keys", "test_keys")
    if not isinstance(found, dict) or not any(isinstance(found.get(key), list) for key in keys):
        raise ValueError(f"{path}: expected an object with {', '.join(keys)}")
    return list(dict.fromkeys(str(name) for key in keys for name in found.get(key, ())))
