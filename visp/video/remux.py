"""Cut a video without encoding it again: packets are copied from key frame on, so that cuts may begin earlier."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visp.utils.files import unfinished
from visp.video.container import open_container
from visp.video.decode import VideoError, VideoReader, shown
from visp.video.render import FORMATS

_TOLERANCE = Fraction(1, 500)
"""Seconds by which rounded timestamps may differ from the times asked for."""


@dataclass
class _Piece:
    """Packets that are copied together, in decoding order; times are on the file's clock."""

    first: int
    stop: int
    start: Fraction
    end: Fraction
    at: Fraction = Fraction(0)
    target: int = 0


def copy_spans(
    path: str | os.PathLike[str], spans: npt.ArrayLike, out: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
) -> npt.NDArray[np.float64]:
    """Copy spans of a video, with their sound, into one file or one file each, without encoding them again.

    A span begins with the key frame at or before it, since pictures in between cannot be decoded without it, and ends
    with the last frame that it needs. In one file, a span that begins before the end of the one before is joined to it.

    Args:
        path: The video.
        spans: (S, 2) start and end of each span, ascending, in seconds after the first frame.
        out: The file, or one per span: .mp4, .m4v, .mov or .mkv. Older ones are replaced.

    Returns:
        (S, 2) when each span begins and ends in what was written, in seconds after the first frame.

    Raises:
        FileNotFoundError: If there is no such video.
        VideoError: If the video has no timestamps or key frames to copy by, or the file cannot hold its codecs.
    """
    source = Path(path)
    wanted = [(Fraction(start), Fraction(end)) for start, end in np.asarray(spans, dtype=np.float64).tolist()]
    targets = [Path(out)] if isinstance(out, (str, os.PathLike)) else [Path(one) for one in out]
    with VideoReader(source) as reader:
        index, origin = reader.stream.index, Fraction(next(reader.frames()).time)
    packets = _read_index(source, index)
    pieces = [_piece(source, packets, origin + start, origin + end) for start, end in wanted]
    copied: list[_Piece] = []
    times = []
    for number, piece in enumerate(pieces):
        begin = piece.start
        if len(targets) > 1:
            piece.target = number
            copied.append(piece)
        elif copied and piece.first < copied[-1].stop:
            last = copied[-1]
            begin = last.end
            last.stop, last.end = max(last.stop, piece.stop), max(last.end, piece.end)
        else:
            piece.at = copied[-1].at + copied[-1].end - copied[-1].start if copied else Fraction(0)
            copied.append(piece)
        times.append([float(begin - origin), float(piece.end - origin)])
    with ExitStack() as stack:
        writers = [stack.enter_context(_writer(source, index, target)) for target in targets]
        _copy(source, index, copied, writers)
    return np.array(times)


@dataclass(frozen=True)
class _Packet:
    pts: Fraction
    end: Fraction
    key: bool


def _read_index(source: Path, index: int) -> list[_Packet]:
    packets = []
    with open_container(source) as container:
        stream: Any = container.streams[index]
        period = 1 / Fraction(stream.average_rate or 25)
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            if packet.pts is None:
                raise VideoError(
                    f"{shown(source)}: has packets without a timestamp, and cannot be cut without encoding"
                )
            pts = packet.pts * Fraction(packet.time_base)
            length = packet.duration * Fraction(packet.time_base) if packet.duration else period
            packets.append(_Packet(pts, pts + length, packet.is_keyframe))
    keys = [packet.pts for packet in packets if packet.key]
    if keys != sorted(keys):
        raise VideoError(f"{shown(source)}: has timestamps that restart, and cannot be cut without encoding")
    return packets


def _piece(source: Path, packets: list[_Packet], start: Fraction, end: Fraction) -> _Piece:
    keys = [i for i, packet in enumerate(packets) if packet.key and packet.pts <= start + _TOLERANCE]
    within = [i for i, packet in enumerate(packets) if packet.pts < end - _TOLERANCE]
    if not keys or not within:
        raise VideoError(f"{shown(source)}: has no key frame to begin with at {float(start):.2f} s")
    first = keys[-1]
    stop = max(within[-1], first) + 1
    shown_packets = [packet for packet in packets[first:stop] if packet.pts >= packets[first].pts]
    return _Piece(first, stop, packets[first].pts, max(packet.end for packet in shown_packets))


@contextmanager
def _writer(source: Path, index: int, target: Path) -> Iterator[dict[int, tuple[Any, Any]]]:
    """Open a file for copies of the streams: container and stream by the index of the source's."""
    import av

    with unfinished(target) as name, open_container(source) as container:
        try:
            kind = FORMATS[target.suffix.lower()]
            options = {} if kind == "matroska" else {"movflags": "+faststart"}
            with av.open(str(name), "w", format=kind, options=options) as output:
                streams: dict[int, tuple[Any, Any]] = {}
                sound = [stream for stream in container.streams.audio if stream.codec_context is not None][:1]
                for stream in (container.streams[index], *sound):
                    streams[stream.index] = (output, output.add_stream_from_template(stream))
                output.start_encoding()
                yield streams
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, VideoError):
                raise
            reason = str(error).splitlines()[0]
            raise VideoError(
                f"{shown(target)}: cannot hold a copy of the streams of {shown(source)}; try .mkv: {reason}"
            ) from error


def _copy(source: Path, index: int, pieces: list[_Piece], writers: list[dict[int, tuple[Any, Any]]]) -> None:
    last: dict[tuple[int, int], int] = {}
    number = -1
    with open_container(source) as container:
        streams = [container.streams[i] for i in writers[0]]
        for packet in container.demux(streams):
            if packet.size == 0 or packet.pts is None:
                continue
            base = Fraction(packet.time_base)
            time = packet.pts * base
            if packet.stream.index == index:
                number += 1
                found = [p for p in pieces if p.first <= number < p.stop and time >= p.start]
            else:
                found = [p for p in pieces if p.start - _TOLERANCE <= time < p.end - _TOLERANCE]
            for piece in found[:1]:
                output, stream = writers[piece.target][packet.stream.index]
                shift = round((piece.at - piece.start) / base)
                stream_key = (piece.target, packet.stream.index)
                dts = (packet.pts if packet.dts is None else packet.dts) + shift
                packet.pts += shift
                packet.dts = dts = max(dts, last.get(stream_key, dts - 1) + 1)
                if packet.dts > packet.pts:  # sound that overlaps what was copied before
                    continue
                last[stream_key] = dts
                packet.stream = stream
                output.mux(packet)
