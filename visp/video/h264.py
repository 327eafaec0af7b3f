"""H.264 as bytes (ISO 14496-10 and 14496-15): its units, its parameter sets, and encoded frames beside copied ones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

IDR, SPS, PPS = 5, 7, 8
"""Types of units: a picture that can be decoded without any before it, and the two kinds of parameter sets."""
_START = b"\x00\x00\x00\x01"


@dataclass(frozen=True)
class Framing:
    """How a file divides its units.

    Attributes:
        length_size: Bytes of the length before each unit, as in MP4 and Matroska; 0 for start codes, as in TS and AVI.
        sets: The parameter sets that the file keeps apart from the pictures.
        head: What is before the parameter sets in ``avcC``, where there is one.
        tail: What is behind them.
    """

    length_size: int
    sets: tuple[bytes, ...]
    head: bytes = b""
    tail: bytes = b""

    def units(self, data: bytes) -> Iterator[bytes]:
        """Yield the units of a packet."""
        if not self.length_size:
            yield from _between_start_codes(data)
            return
        at = 0
        while at + self.length_size < len(data):
            size = int.from_bytes(data[at : at + self.length_size], "big")
            at += self.length_size
            yield data[at : at + size]
            at += size

    def packed(self, units: Sequence[bytes]) -> bytes:
        """Return units as a packet."""
        return b"".join(
            (len(unit).to_bytes(self.length_size, "big") if self.length_size else _START) + unit for unit in units
        )

    def extradata(self, more: Sequence[bytes]) -> bytes:
        """Return what the file keeps apart, with further parameter sets."""
        units = [*self.sets, *more]
        if not self.length_size:
            return b"".join(_START + unit for unit in units)
        data = self.head
        for kind, flags in ((SPS, 0xE0), (PPS, 0)):
            own = [unit for unit in units if kind_of(unit) == kind]
            data += bytes([flags | len(own)]) + b"".join(len(unit).to_bytes(2, "big") + unit for unit in own)
        return data + self.tail

    def free_id(self) -> int:
        """Return a number that none of the parameter sets has."""
        taken = {_exp_golomb(unit[4 if kind_of(unit) == SPS else 1 :]) for unit in self.sets}
        return next(number for number in range(1, 32) if number not in taken)


def framing_of(extradata: bytes | None) -> Framing | None:
    """Read how a stream divides its units, if it says so."""
    if not extradata:
        return None
    if extradata[0] != 1:
        sets = tuple(unit for unit in _between_start_codes(extradata) if kind_of(unit) in (SPS, PPS))
        return Framing(0, sets) if sets else None
    found: list[bytes] = []
    at = 5
    for mask in (0x1F, 0xFF):
        count, at = extradata[at] & mask, at + 1
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2], "big")
            found.append(extradata[at + 2 : at + 2 + size])
            at += 2 + size
    return Framing((extradata[4] & 3) + 1, tuple(found), extradata[:5], extradata[at:])


def kind_of(unit: bytes) -> int:
    """Return the type of a unit."""
    return unit[0] & 0x1F if unit else 0


def _between_start_codes(data: bytes) -> Iterator[bytes]:
    for part in re.split(b"\x00\x00\x01", data)[1:]:
        if unit := part.rstrip(b"\x00"):
            yield unit


def _exp_golomb(data: bytes) -> int:
    """Return the first number of a payload, which is an Exp-Golomb code."""
    bits = int.from_bytes(data[:8].ljust(8, b"\0"), "big")
    zeros = 64 - bits.bit_length()
    return (bits >> (63 - 2 * zeros)) - 1
