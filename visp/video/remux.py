"""Cut a video by copying its packets: only the frames between a cut and the nearest key frame are encoded again."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visp.utils.files import unfinished
from visp.video.borders import TOLERANCE, Encoder, Index, Part
from visp.video.container import choose_streams, iter_packets, open_container
from visp.video.decode import VideoError, VideoReader, shown
from visp.video.h264 import IDR, Framing, framing_of, kind_of
from visp.video.render import FORMATS
from visp.video.sound_copy import SoundCopy
from visp.video.timeline import TICK

if TYPE_CHECKING:
    import av
    import av.container
    from av.audio.stream import AudioStream
    from av.packet import Packet
    from av.video.stream import VideoStream

    from visp.video.timeline import Timeline

_ENCODED = ("yuv420p", "yuvj420p")
"""Formats of pictures that are encoded as they are."""


@dataclass(frozen=True)
class Copied:
    """What was copied.

    Attributes:
        times: (S, 2) when each span begins and ends in what was written, in seconds after the source's first frame.
        encoded: Seconds that were encoded again.
        sound: Whether there is sound.
    """

    times: npt.NDArray[np.float64]
    encoded: float
    sound: bool


@dataclass
class _Span:
    """What is written of a span: parts one after the other, from ``at`` in the file with this number."""

    parts: list[Part]
    at: float = 0.0
    target: int = 0

    @property
    def start(self) -> float:
        return self.parts[0].start

    @property
    def end(self) -> float:
        return self.parts[-1].end


def copy_spans(
    path: str | os.PathLike[str],
    spans: npt.ArrayLike,
    out: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    encode_borders: bool = True,
) -> Copied:
    """Copy spans of a video, with their sound, into one file or one file each.

    Of H.264 whose key frames can all be begun with, spans are cut to the frame: those between a cut and the nearest key
    frame are encoded, all others are copied. Of other pictures, a span begins with the key frame at or before it, since
    those in between cannot be decoded without it, and ends with the last frame that it needs; in one file, a span that
    begins before the end of the one before is then joined to it. Sound is copied.

    Args:
        path: The video.
        spans: (S, 2) start and end of each span, ascending, in seconds after the first frame.
        out: The file, or one per span: .mp4, .m4v, .mov or .mkv. Older ones are replaced.
        encode_borders: False to encode nothing.

    Returns:
        What was copied.

    Raises:
        FileNotFoundError: If there is no such video.
        VideoError: If the video has no timestamps or key frames to copy by, or the file cannot hold its codecs.
    """
    source = Path(path)
    wanted = np.asarray(spans, dtype=np.float64).tolist()
    targets = [Path(out)] if isinstance(out, (str, os.PathLike)) else [Path(one) for one in out]
    with VideoReader(source) as reader:
        first = next(reader.frames())
        timeline, origin = reader.timeline, first.time
        index = _read_index(source, timeline, first.frame if encode_borders else None)
    copied: list[_Span] = []
    times: list[list[float]] = []
    at = 0.0
    for number, (start, end) in enumerate(wanted):
        span = _planned(source, index, origin + start, origin + end)
        begin = span.start
        if len(targets) > 1:
            span.target = number
            copied.append(span)
        elif copied and span.parts[0].first < copied[-1].parts[-1].stop and index.framing is None:
            (last,) = copied[-1].parts
            begin = last.end
            (part,) = span.parts
            joined = Part(last.first, max(last.stop, part.stop), last.start, max(last.end, part.end))
            copied[-1].parts = [joined]
            at += joined.end - last.end
        else:
            span.at = at
            copied.append(span)
            at += span.end - span.start
        times.append([begin - origin, span.end - origin])
    encoded = sum(part.end - part.start for span in copied for part in span.parts if part.encode)
    sound = _write(source, timeline, index, copied, targets)
    return Copied(np.array(times), encoded, sound)


def _read_index(source: Path, timeline: Timeline, frame: av.VideoFrame | None) -> Index:
    """Read the times of all packets; ``frame`` is the first one where some may be encoded."""
    with open_container(source) as container:
        stream = choose_streams(container, source).video
        context = stream.codec_context
        framing = None
        if frame is not None and context.name == "h264" and frame.format.name in _ENCODED:
            framing = None if frame.interlaced_frame else framing_of(context.extradata)
        times: list[float] = []
        ends: list[float] = []
        keys: list[int] = []
        for packet in _packets(source, timeline, container, stream):
            time, end = _times(packet, timeline)
            if packet.is_keyframe:
                keys.append(len(times))
                if framing and not any(kind_of(unit) == IDR for unit in framing.units(bytes(packet))):
                    framing = None
            times.append(time)
            ends.append(end)
    shown_at = np.array(times)
    if not keys or (np.diff(shown_at[keys]) <= 0).any():
        raise VideoError(f"{shown(source)}: has no key frames in order, and cannot be cut without encoding")
    return Index(shown_at, np.array(ends), keys, framing, frame)


def _packets(
    source: Path, timeline: Timeline, container: av.container.InputContainer, stream: VideoStream
) -> Iterator[Packet[Any]]:
    """Yield the packets of the picture on the file's one clock."""
    timeline.restart(stream)
    for packet in iter_packets(container, [stream], source):
        timeline.shift(stream, packet)
        if packet.size == 0:
            continue
        if packet.pts is None and packet.dts is not None and not stream.codec_context.has_b_frames:
            packet.pts = packet.dts  # AVI: pictures are in order
        if packet.pts is None or packet.time_base is None:
            raise VideoError(f"{shown(source)}: has packets without a timestamp, and cannot be cut without encoding")
        yield packet


def _times(packet: Packet[Any], timeline: Timeline) -> tuple[float, float]:
    assert packet.pts is not None
    assert packet.time_base is not None
    base = float(packet.time_base)
    time = timeline.exact(packet.pts * base)
    return time, time + timeline.length(time, packet.duration * base if packet.duration else None)


def _planned(source: Path, index: Index, start: float, end: float) -> _Span:
    """Divide a span into parts."""
    total = len(index.times)
    start = max(start, float(index.times[index.keys[0]]))
    if end - start <= TOLERANCE:
        raise VideoError(f"{shown(source)}: has no frame to begin with at {start:.2f} s")
    if index.framing is None:
        first = [key for key in index.keys if index.times[key] <= start + TOLERANCE][-1]
        stop = max(int(np.flatnonzero(index.times < end - TOLERANCE)[-1]), first) + 1
        seen = slice(first, stop)
        ends = index.ends[seen][index.times[seen] >= index.times[first]]
        return _Span([Part(first, stop, float(index.times[first]), float(ends.max()))])
    cuts = [*index.keys, total]
    borders = [float(index.times[key]) for key in index.keys] + [float(index.ends.max())]
    inside = [n for n, border in enumerate(borders) if start - TOLERANCE <= border <= end + TOLERANCE]
    if len(inside) < 2:
        return _Span([_decoded(index, start, end)])
    a, b = inside[0], inside[-1]
    parts = [Part(cuts[a], cuts[b], borders[a], min(borders[b], end))]
    if borders[a] > start + TOLERANCE:
        parts.insert(0, _decoded(index, start, borders[a]))
    if borders[b] < end - TOLERANCE and b < len(index.keys):
        parts.append(_decoded(index, borders[b], end))
    return _Span(parts)


def _decoded(index: Index, start: float, end: float) -> Part:
    """Return the packets from which the frames of [start, end) are decoded, to be encoded."""
    first = [key for key in index.keys if index.times[key] <= start + TOLERANCE][-1]
    stop = int(np.flatnonzero(index.times < end - TOLERANCE)[-1]) + 1
    return Part(first, stop, start, end, encode=True)


def _write(source: Path, timeline: Timeline, index: Index, spans: list[_Span], targets: Sequence[Path]) -> bool:
    """Write the spans, and return whether there is sound."""
    import av

    with ExitStack() as stack:
        container = stack.enter_context(open_container(source))
        streams = choose_streams(container, source)
        encoder = None
        if (
            index.framing is not None
            and index.like is not None
            and any(part.encode for span in spans for part in span.parts)
        ):
            encoder = Encoder(streams.video, index.framing, index.like)
        outputs = [stack.enter_context(_output(source, target, encoder, index.framing)) for target in targets]
        sound = stack.enter_context(SoundCopy(source, timeline)) if streams.sound else None
        packets = _Rewound(_packets(source, timeline, container, streams.video))
        delays = [_delay(index, [span for span in spans if span.target == number]) for number in range(len(targets))]
        for span, following in zip(spans, [*(span.start for span in spans[1:]), math.inf], strict=True):
            output, video, audio = outputs[span.target]
            pieces: Iterator[Packet[Any]] = iter(())
            if sound is not None and audio is not None:
                pieces = sound.span(span.start, span.end, span.at, audio, following)
            piece = next(pieces, None)
            for data, key, time, order, length in _pictures(span, index, packets, encoder, timeline):
                while piece is not None and piece.pts is not None and float(piece.pts * TICK) <= time:
                    output.mux(piece)
                    piece = next(pieces, None)
                packet = av.Packet(data)
                packet.pts, packet.dts = round(time / TICK), round(order / TICK) - delays[span.target]
                packet.duration, packet.time_base, packet.stream = round(length / TICK), TICK, video
                packet.is_keyframe = key
                output.mux(packet)
            while piece is not None:
                output.mux(piece)
                piece = next(pieces, None)
    return bool(streams.sound)


def _pictures(
    span: _Span, index: Index, packets: _Rewound, encoder: Encoder | None, timeline: Timeline
) -> Iterator[tuple[bytes, bool, float, float, float]]:
    """Yield the packets of a span: bytes, whether a key frame, time, time of the one decoded then, and length."""
    shift = span.at - span.start
    for part in span.parts:
        source = packets.range(part.first, part.stop)
        if part.encode:
            assert encoder is not None
            for data, key, time, end in encoder.encoded(part, source, index, timeline):
                yield data, key, time + shift, time + shift, end - time
            continue
        times = index.times[part.first : part.stop]
        order = iter(np.sort(times[times >= part.start - TOLERANCE]).tolist())
        for number, packet in source:
            time = float(index.times[number])
            if time >= part.start - TOLERANCE:
                length = min(float(index.ends[number]), part.end) - time
                yield bytes(packet), packet.is_keyframe, time + shift, next(order) + shift, length


def _delay(index: Index, spans: list[_Span]) -> int:
    """Return by how many ticks pictures must be decoded before they are shown, since they are not stored in order."""
    parts = [part for span in spans for part in span.parts if not part.encode]
    stored = [index.times[part.first : part.stop] for part in parts]
    shown_ = [times[times >= part.start - TOLERANCE] for times, part in zip(stored, parts, strict=True)]
    most = max((round(float((np.sort(times) - times).max()) / TICK) for times in shown_), default=0)
    return most + 1 if most else 0  # one for the rounding


class _Rewound:
    """Packets read forward, of which those since the last key frame but one can be read again."""

    def __init__(self, packets: Iterator[Packet[Any]]) -> None:
        self._packets = enumerate(packets)
        self._kept: deque[tuple[int, Packet[Any]]] = deque()
        self._keys = [0, 0]

    def range(self, first: int, stop: int) -> Iterator[tuple[int, Packet[Any]]]:
        """Yield packets [first, stop) with their numbers."""
        yield from [item for item in self._kept if first <= item[0] < stop]
        while (not self._kept or self._kept[-1][0] + 1 < stop) and (item := next(self._packets, None)) is not None:
            self._kept.append(item)
            if item[1].is_keyframe:
                self._keys = [self._keys[1], item[0]]
                while self._kept[0][0] < self._keys[0]:
                    self._kept.popleft()
            if item[0] >= first:
                yield item


@contextmanager
def _output(
    source: Path, target: Path, encoder: Encoder | None, framing: Framing | None
) -> Iterator[tuple[av.container.OutputContainer, VideoStream, AudioStream | None]]:
    """Open a file for copies of the streams: container, picture and sound."""
    import av

    with unfinished(target) as name, open_container(source) as container:
        try:
            kind = FORMATS[target.suffix.lower()]
            options = {} if kind == "matroska" else {"movflags": "+faststart"}
            with av.open(str(name), "w", format=kind, options=options) as output:
                streams = choose_streams(container, source)
                video = output.add_stream_from_template(streams.video)
                if encoder is not None and framing is not None:
                    video.codec_context.extradata = framing.extradata(encoder.sets)
                video.time_base = TICK
                audio = output.add_stream_from_template(streams.sound[0]) if streams.sound else None
                output.start_encoding()
                yield output, video, audio
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, VideoError):
                raise
            reason = str(error).splitlines()[0]
            raise VideoError(
                f"{shown(target)}: cannot hold a copy of the streams of {shown(source)}; try .mkv: {reason}"
            ) from error
