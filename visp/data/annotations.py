"""TVSum's importance scores, one per annotator and frame, which its h5 file does not hold."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from visp.data.h5 import listed, open_h5
from visp.data.stored import MAX_VIDEOS, H5SchemaError, check_stored, checked_name, holds, lookup, reading
from visp.utils.files import check_input

_LOWEST, _HIGHEST = 1, 5
_LARGEST_TSV = 2**29
_Scores = npt.NDArray[np.float32]
_Annotated = tuple[str, _Scores]  # where the file holds a video, for messages, and its scores


def read_tvsum_tsv(path: str | os.PathLike[str], n_frames: Mapping[str, int] | None = None) -> dict[str, _Scores]:
    """Read TVSum's ``ydata-anno.tsv`` (Song et al. 2015): rows of video id, category and one annotator's scores.

    Videos are named as in the field's h5 file, in the order in which their ids first appear.

    Args:
        path: The file.
        n_frames: Number of frames of the dataset's videos by name, all or some of them, to check against; of an
            h5 file, ``validate_h5(path).n_frames``.

    Returns:
        (U, n_frames) scores from 1 to 5 by video: ``"video_1"``, ``"video_2"`` and so on.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A row is malformed, annotators of a video score different numbers of frames, videos have
            different numbers of annotators, or order or lengths are not those of ``n_frames``.
    """
    rows: dict[str, list[_Scores]] = {}
    first_lines: dict[str, int] = {}
    if (size := check_input(path).stat().st_size) > _LARGEST_TSV:
        raise ValueError(f"{path} has {size} bytes, expected at most {_LARGEST_TSV}")
    with Path(path).open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                video, scores = _read_row(line)
                first = first_lines.setdefault(video, number)
                annotators = rows.setdefault(video, [scores])
                if number > first:
                    if len(scores) != len(annotators[0]):
                        raise ValueError(
                            f"{video!r} has {len(scores)} scores, but line {first} has {len(annotators[0])} for it"
                        )
                    annotators.append(scores)
            except ValueError as error:
                raise ValueError(f"{path}: line {number}: {error}") from None
    videos = [(f"{video!r} (from line {first_lines[video]})", np.stack(scores)) for video, scores in rows.items()]
    return _named(path, videos, n_frames)


def read_tvsum_mat(path: str | os.PathLike[str], n_frames: Mapping[str, int] | None = None) -> dict[str, _Scores]:
    """Read ``ydata-tvsum50.mat``, a MATLAB file of version 7.3: the struct array ``tvsum50``, one element per video.

    Args:
        path: The file.
        n_frames: As in :func:`read_tvsum_tsv`.

    Returns:
        As :func:`read_tvsum_tsv`, with the videos in the order of the file.

    Raises:
        FileNotFoundError: There is no such file.
        H5SchemaError: The file is not HDF5, which MATLAB files are from version 7.3 on.
        ValueError: The file does not hold the struct array, scores are malformed, videos have different numbers
            of annotators, or order or lengths are not those of ``n_frames``.
    """
    with open_h5(path) as file:
        try:
            with reading("tvsum50"):
                ids, scores = _references(file, "video"), _references(file, "user_anno")
            if len(ids) != len(scores):
                raise ValueError(f"tvsum50 has {len(ids)} of 'video', but {len(scores)} of 'user_anno'")
            videos = []
            for number, (video, user_anno) in enumerate(zip(ids, scores, strict=True), start=1):
                with reading(f"tvsum50({number})"):
                    videos.append(_read_element(file, number, video, user_anno))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return _named(path, videos, n_frames)


def _read_row(line: str) -> tuple[str, _Scores]:
    columns = line.rstrip("\r\n").split("\t")
    if len(columns) != 3:
        raise ValueError(f"expected 3 columns with tabs between them (id, category, scores), got {len(columns)}")
    video, _, listed_scores = columns
    texts = listed_scores.split(",")
    try:
        scores = np.array(texts, dtype=np.float32)
    except ValueError:
        wrong = next(i for i, text in enumerate(texts) if not _is_number(text))
        raise ValueError(f"expected numbers with commas between them, got {texts[wrong]!r} for frame {wrong}") from None
    _check_range(scores)
    return video, scores


def _is_number(text: str) -> bool:
    try:
        np.array([text], dtype=np.float32)
    except ValueError:
        return False
    return True


def _references(file: h5py.File, field: str) -> list[Any]:
    struct = lookup(file, "tvsum50") if holds(file, "tvsum50") else None
    if not isinstance(struct, h5py.Group):
        raise H5SchemaError(f"no struct array 'tvsum50'; {listed(file)}")
    data = lookup(struct, field) if holds(struct, field) else None
    if not isinstance(data, h5py.Dataset):
        raise H5SchemaError(f"tvsum50 has no field {field!r}; {listed(struct)}")
    if h5py.check_ref_dtype(data.dtype) is not h5py.Reference:
        raise H5SchemaError(f"tvsum50/{field}: expected a reference for each video, got {data.dtype}")
    check_stored(data)
    if data.size > MAX_VIDEOS:
        raise H5SchemaError(f"tvsum50/{field}: {data.size} videos, expected at most {MAX_VIDEOS}")
    return list(np.ravel(data[()]))


def _read_element(file: h5py.File, number: int, video: h5py.Reference, user_anno: h5py.Reference) -> _Annotated:
    codes = _read_array(file[video], f"tvsum50({number}).video")
    if codes.dtype.kind != "u":
        raise H5SchemaError(f"tvsum50({number}).video: expected the codes of a text, got {codes.dtype}")
    where = f"{checked_name(''.join(map(chr, codes.ravel())))!r} (tvsum50({number}))"
    # (n_frames, U) in MATLAB, whose arrays are stored column by column: read row by row, they are transposed.
    user_scores = _read_array(file[user_anno], f"tvsum50({number}).user_anno")
    if user_scores.ndim != 2 or user_scores.dtype.kind not in "fiu" or user_scores.size == 0:
        raise H5SchemaError(
            f"{where}: expected user_anno (U, n_frames) of numbers, "
            f"got {user_scores.dtype} of shape {user_scores.shape}"
        )
    scores = user_scores.astype(np.float32)
    try:
        for annotator in scores:
            _check_range(annotator)
    except ValueError as error:
        raise H5SchemaError(f"{where}: {error}") from None
    return where, scores


def _read_array(item: h5py.Dataset, what: str) -> npt.NDArray[Any]:
    if not isinstance(item, h5py.Dataset):
        raise H5SchemaError(f"{what}: expected an array, got {type(item).__name__.lower()}")
    try:
        check_stored(item)
    except H5SchemaError as error:
        raise H5SchemaError(f"{what}: {error}") from None
    return np.asarray(item[()])


def _check_range(scores: _Scores) -> None:
    wrong = np.flatnonzero(~((scores >= _LOWEST) & (scores <= _HIGHEST)))  # this way round, nan is wrong too
    if wrong.size:
        raise ValueError(f"expected scores from {_LOWEST} to {_HIGHEST}, got {scores[wrong[0]]:g} for frame {wrong[0]}")


def _named(
    path: str | os.PathLike[str], videos: Sequence[_Annotated], n_frames: Mapping[str, int] | None
) -> dict[str, _Scores]:
    if not videos:
        raise ValueError(f"{path}: no annotations")
    first, expected = videos[0][0], len(videos[0][1])
    for where, scores in videos:
        if len(scores) != expected:
            raise ValueError(f"{path}: {where} has {len(scores)} annotators, but {first} has {expected}")
    named = {f"video_{i}": video for i, video in enumerate(videos, start=1)}
    if n_frames is not None:
        _check_against_dataset(path, named, n_frames)
    return {name: scores for name, (_, scores) in named.items()}


def _check_against_dataset(
    path: str | os.PathLike[str], annotated: Mapping[str, _Annotated], n_frames: Mapping[str, int]
) -> None:
    unknown = [name for name in n_frames if name not in annotated]
    if unknown:
        raise ValueError(
            f"{path}: annotates {len(annotated)} videos, video_1 to video_{len(annotated)}, "
            f"but the dataset has {', '.join(map(repr, unknown))}"
        )
    lengths = {name: annotated[name][1].shape[1] for name in n_frames}
    wrong = [name for name, length in lengths.items() if length != n_frames[name]]
    if wrong:
        name = wrong[0]
        reordered = sorted(lengths.values()) == sorted(n_frames.values())
        raise ValueError(
            f"{path}: {annotated[name][0]} has scores of {lengths[name]} frames, "
            f"but the dataset's {name!r} has {n_frames[name]}"
            + (f" (and {len(wrong) - 1} more disagree)" if len(wrong) > 1 else "")
            + ("; file and dataset have the same lengths, but in different order" if reordered else "")
        )
