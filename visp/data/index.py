"""What files hold, found without reading their features, and kept beside them for the next time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py

from visp.data.h5 import H5Contents, H5SchemaError, natural_order, open_h5, read_attributes
from visp.utils.files import replacing

_FORMAT = "visp-index-1"


def shapes_of(path: str | os.PathLike[str]) -> H5Contents:
    """Find the videos of a file and the shapes of their features; values and all other keys are left unread.

    Raises:
        FileNotFoundError: There is no such file.
        H5SchemaError: The file cannot be read, or a video has no features (T, d) of floats; all such are listed.
    """
    path = Path(path)
    problems: list[str] = []
    lengths: dict[str, int] = {}
    dims: dict[int, str] = {}
    with open_h5(path) as file:
        provenance = read_attributes(file)
        for key in file:
            try:
                features = h5py.h5d.open(file.id, f"{key}/features".encode())  # twice as fast as file[key]
            except (OSError, RuntimeError, KeyError):
                if file.get(key, getclass=True) is h5py.Group:
                    problems.append(f"{key}: no 'features' that can be read")
                continue
            if len(features.shape) != 2 or 0 in features.shape or features.dtype.kind != "f":
                problems.append(f"{key}/features: expected (T, d) floats, got {features.dtype} {features.shape}")
                continue
            lengths[key], d = features.shape
            dims.setdefault(d, key)
    if len(dims) > 1:
        problems.append(", but ".join(f"{key}/features has d = {d}" for d, key in dims.items()))
    if not lengths and not problems:
        problems.append("no groups: expected one per video, such as video_1")
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise H5SchemaError("\n  ".join([f"{path}: {count}", *problems]))
    keys = tuple(sorted(lengths, key=natural_order))
    return H5Contents(path, keys, lengths, {}, next(iter(dims)), provenance)


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
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file")
        name = str(path.absolute())
        entry = known.get(name)
        try:
            state = path.stat()
            stamp = [state.st_size, state.st_mtime_ns, kind]
            if entry is None or entry["stamp"] != stamp:
                news = True
                entry = {"stamp": stamp, **asdict(find(path))}
                known[name] = entry
            fields = {field: value for field, value in entry.items() if field != "stamp"}
            contents.append(H5Contents(**{**fields, "path": path, "keys": tuple(entry["keys"])}))
        except H5SchemaError as error:
            errors.append(str(error))
    if errors:
        raise H5SchemaError("\n".join(errors))
    if index is not None and news:
        with replacing(Path(index)) as file:
            file.write(json.dumps({"format": _FORMAT, "files": known}, default=str).encode())
    return contents


def _read(index: Path) -> dict[str, Any]:
    if not index.exists():
        return {}
    try:
        content = json.loads(index.read_text())
        if content["format"] == _FORMAT:
            return dict(content["files"])
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{index} is not an index of videos; choose another file for it")
