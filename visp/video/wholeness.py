"""Whether a file is whole, by what its container says of its own size."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_EBML, _SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")


def stated_size(path: Path) -> int | None:
    """Return how many bytes the container says that the file has, at least; None where it does not say.

    Known are MP4 and MOV (boxes), Matroska and WebM (segment), AVI (RIFF chunks), ASF and WMV (file properties) and FLV
    (the size of the last tag). A recording that was written without going back to its header does not say.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(16)
        if start[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp"):
            return _boxes(file, size)
        if start.startswith(_EBML):
            return _segments(file)
        if start.startswith(b"RIFF"):
            return _riff(file, size)
        if start == _ASF:
            return _asf(file)
        if start.startswith(b"FLV"):
            return _flv(file, size)
    return None


def _boxes(file: BinaryIO, size: int) -> int | None:
    at, fragments = 0, False
    while at < size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if len(head) < 8:
            return at + 8
        if not head[4:8].isalnum():
            return at  # something else was put behind the video
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:
            return None
        fragments |= head[4:8] == b"moof"
        at += max(8, length)
    return None if fragments and at == size else at  # between two fragments, nothing tells a cut


def _segments(file: BinaryIO) -> int | None:
    at = 0
    for wanted in (_EBML, _SEGMENT):
        file.seek(at)
        head = file.read(12)
        if not head.startswith(wanted) or len(head) < 12 or head[4] == 0:
            return None
        width = 9 - head[4].bit_length()
        length = int.from_bytes(head[4 : 4 + width], "big") & ((1 << 7 * width) - 1)
        if length == (1 << 7 * width) - 1:
            return None
        at += 4 + width + length
    return at


def _riff(file: BinaryIO, size: int) -> int | None:
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(8)
        length = int.from_bytes(head[4:8], "little")
        if not head.startswith(b"RIFF"):
            return at
        if length in (0, 0xFFFFFFFF):
            return None
        at += 8 + length
    return at


def _asf(file: BinaryIO) -> int | None:
    file.seek(0)
    head = file.read(1 << 16)
    found = head.find(_ASF_PROPERTIES)
    if found < 0 or len(head) < found + 92 or head[found + 88] & 1:  # bit 0: broadcast, sizes are not known
        return None
    return int.from_bytes(head[found + 40 : found + 48], "little") or None


def _flv(file: BinaryIO, size: int) -> int | None:
    """Return the size where the last four bytes are the length of a tag that ends there; else one byte more."""
    file.seek(max(0, size - 4))
    back = int.from_bytes(file.read(4), "big")
    if 11 <= back <= size - 13:
        file.seek(size - 4 - back)
        tag = file.read(4)
        if tag[0] & 0x1F in (8, 9, 18) and int.from_bytes(tag[1:4], "big") == back - 11:
            return None
    return size + 1
