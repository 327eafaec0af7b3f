"""What files hold, found without reading their features, and kept beside them for the next time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py

from visp.data.h5 import H5Contents, dims, names_and_provenance, natural_order, open_h5
from visp.data.schema import features_shape
from visp.data.stored import H5SchemaError, holds, lookup, reading
from visp.utils.files import check_input, parse_json, read_text, replacing

_FORMAT = "visp-index-2"
_LARGEST_INDEX = 2**30


def shapes_of(path: str | os.PathLike[str]) -> H5Contents:
    """Find the videos of a file and the shapes of their features; values and all other keys are left unread.

    Raises:
        FileNotFoundError: There is no such file.
        H5SchemaError: The file cannot be read, or a video has no features of floats; all such are listed.
    """
    path = Path(path)
    problems: list[str] = []
    lengths: dict[str, int] = {}
    shapes: dict[tuple[int, ...], str] = {}
    with open_h5(path) as file:
        names, provenance = names_and_provenance(file, path)
        for key in names:
            place = key
            try:
                with reading():
                    group = lookup(file, key)
                    if not isinstance(group, h5py.Group):
                        continue
                    if not holds(group, "features"):
                        raise H5SchemaError("no 'features' that can be read")
                    place = f"{key}/features"
                    lengths[key], *rest = features_shape(group)
                    shapes.setdefault(tuple(rest), key)
            except H5SchemaError as error:
                problems.append(f"{place}: {error}")
    if len(shapes) > 1:
        problems.append(", but ".join(f"{key}/features has {dims(shape)}" for shape, key in shapes.items()))
    if not lengths and not problems:
        problems.append("no groups: expected one per video, such as video_1")
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise H5SchemaError("\n  ".join([f"{path}: {count}", *problems]))
    keys = tuple(sorted(lengths, key=natural_order))
    return H5Contents(path, keys, lengths, {}, next(iter(shapes)), provenance)


def contents_of(
    files: Sequence[Path], find: Callable[[Path], H5Contents], index: str | os.PathLike[str] | None
) -> list[H5Contents]:
    """Find what the files hold; those that the index knows, and that have not changed since, are not opened.

    Args:
        files: The files.
        find: Opens and checks a file.
        index: JSON file to look in, and to write if anything new was found.

    Raises:
        FileNotFoundError: A file does not exist.
        H5SchemaError: Files break the schema; the message has the problems of all.
        ValueError: The index is a file of another kind.
    """
    kind = find.__name__
    known = {} if index is None else _read(Path(index))
    contents: list[H5Contents] = []
    errors: list[str] = []
    news = False
    for path in files:
        check_input(path)
        name = str(path.absolute())
        entry = known.get(name)
        try:
            stamp = [*_stamp(path), kind]
            if entry is None or entry["stamp"] != stamp:
                news = True
                entry = {"stamp": stamp, **asdict(find(path))}
                known[name] = entry
            contents.append(_contents(path, entry))
        except H5SchemaError as error:
            errors.append(str(error))
    if errors:
        raise H5SchemaError("\n".join(errors))
    if index is not None and news:
        _write(Path(index), known)
    return contents


class DigestIndex:
    """The hashes of videos that an index keeps; used as a context, it writes those that were put in.

    Args:
        index: The JSON file of :func:`contents_of`, or none: then nothing is kept.
    """

    def __init__(self, index: str | os.PathLike[str] | None) -> None:
        self._path = None if index is None else Path(index)
        self._known = {} if self._path is None else _read(self._path)
        self._changed = False

    def __enter__(self) -> DigestIndex:
        return self

    def __exit__(self, *_: object) -> None:
        if self._path is not None and self._changed:
            _write(self._path, self._known)

    def get(self, path: Path, key: str) -> str | None:
        """Return the hash of a video, where it is known and the file has not changed since."""
        entry = self._known.get(str(path.absolute()), {})
        if entry.get("stamp", [])[:2] != _stamp(path):
            return None
        digest = entry.get("digests", {}).get(key)
        return digest if isinstance(digest, str) else None

    def put(self, path: Path, key: str, digest: str) -> None:
        """Keep the hash of a video, if the index knows its file."""
        entry = self._known.get(str(path.absolute()), {})
        if entry.get("stamp", [])[:2] == _stamp(path):
            entry.setdefault("digests", {})[key] = digest
            self._changed = True


def _stamp(path: Path) -> list[Any]:
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]


def _contents(path: Path, entry: Mapping[str, Any]) -> H5Contents:
    return H5Contents(
        path,
        tuple(entry["keys"]),
        dict(entry["lengths"]),
        dict(entry["n_frames"]),
        tuple(map(int, entry["feature_shape"])),
        dict(entry["provenance"]),
    )


def _write(index: Path, known: Mapping[str, Any]) -> None:
    with replacing(index) as file:
        file.write(json.dumps({"format": _FORMAT, "files": known}, default=str).encode())


def _read(index: Path) -> dict[str, Any]:
    """Read an index; each entry is of the form that :func:`contents_of` gives it."""
    if not index.exists():
        return {}
    try:
        content = parse_json(read_text(index, limit=_LARGEST_INDEX))
        if content["format"] == _FORMAT:
            for path, entry in content["files"].items():
                contents = _contents(Path(path), entry)
                if set(contents.keys) != set(contents.lengths) or not isinstance(entry["stamp"], list):
                    raise ValueError(path)
                if not all(isinstance(length, int) and length > 0 for length in contents.lengths.values()):
                    raise ValueError(path)
                if not isinstance(entry.get("digests", {}), dict):
                    raise ValueError(path)
            return dict(content["files"])
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        pass
    raise ValueError(f"{index} is not an index of videos, or is damaged; choose another file for it, or delete it")
