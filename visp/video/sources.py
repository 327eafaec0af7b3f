"""Which videos a command is given, and how each one is known again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from visp.data.h5 import natural_order
from visp.video.decode import shown

_NAMES = "3gp asf avi divx f4v flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv rm ts vob webm wmv"
ENDINGS = frozenset(f".{name}" for name in _NAMES.split(" "))
"""Names in a folder that are taken for videos, no playlists; a file that is given by name may end as it likes."""


@dataclass(frozen=True)
class Source:
    """A video file.

    Attributes:
        path: Where it is.
        name: The name under which it is known, as UTF-8 whatever its bytes: relative to the folder that was given.
        group: Its group in the h5 file, ``video_1``, ``video_2``, ... in the natural order of the names.
        digest: Tells its size, its time of change and how its features are made; 32 hexadecimal digits.
    """

    path: Path
    name: str
    group: str
    digest: str


def find_videos(inputs: Sequence[str | os.PathLike[str]]) -> dict[str, Path]:
    """Find the videos among files and folders.

    Args:
        inputs: Videos, or folders, in which every file is taken that is named like a video and not hidden.

    Returns:
        The files by name, in natural order; the name of a file in a folder is its path from there.

    Raises:
        FileNotFoundError: If there is no such input.
        ValueError: If there is no input, no file in a folder is named like a video, an input is neither file nor
            folder, or two videos have one name.
    """
    if not inputs:
        raise ValueError("no video is given")
    found: dict[str, Path] = {}
    for given in map(Path, inputs):
        if given.is_dir():
            paths = (p for p in given.rglob("*") if is_named_like_a_video(p) and p.is_file())
            named = {p.relative_to(given).as_posix(): p for p in paths if not p.name.startswith(".")}
            if not named:
                raise ValueError(f"{shown(given)}: no file in this folder is named like a video (.mp4, .mkv, ...)")
        elif given.is_file():
            named = {given.name: given}
        elif given.exists():
            raise ValueError(f"{shown(given)}: neither a file nor a folder")
        else:
            raise FileNotFoundError(f"{shown(given)}: no such file or folder")
        if twice := sorted(found.keys() & named):
            raise ValueError(f"two videos are named {twice[0]!r}; give their common folder")
        found |= named
    return {name: found[name] for name in sorted(found, key=natural_order)}


def is_named_like_a_video(path: Path) -> bool:
    """Return whether the ending of a name is that of a video file."""
    return path.suffix.lower() in ENDINGS


def identified(videos: Mapping[str, Path], made_with: Mapping[str, str]) -> list[Source]:
    """Give each video its group and the digest by which its features are known again.

    Args:
        videos: The files by name, in order.
        made_with: How their features are made.
    """
    sources = []
    for number, (name, path) in enumerate(videos.items(), start=1):
        stat = path.stat()
        identity = [os.fsencode(name).hex(), stat.st_size, stat.st_mtime_ns, dict(made_with)]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
        sources.append(Source(path, os.fsencode(name).decode("utf-8", "backslashreplace"), f"video_{number}", digest))
    return sources
