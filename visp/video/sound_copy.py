"""The sound of a copy: packets of chosen spans of a video, in step with its picture."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visp.video.container import OpenFile, choose_streams, iter_packets, open_container
from visp.video.timeline import TICK, Timeline

if TYPE_CHECKING:
    from av import Packet
    from av.audio.stream import AudioStream

_STEP = 0.01
"""Seconds by which sound may be out of step so that its packets follow each other without a hole."""


class SoundCopy(OpenFile):
    """The packets of a file's sound, read forward in spans.

    A packet belongs to a span if its middle does. It follows the one before without a hole where that moves it by less
    than a hundredth of a second, and keeps its distance to the picture elsewhere.

    Args:
        path: The file, which has sound.
        timeline: The file's clock.
    """

    def __init__(self, path: Path, timeline: Timeline) -> None:
        self._container = open_container(path)
        self._stream = choose_streams(self._container, path).sound[0]
        self._packets = self._read(path, timeline)
        self._waiting: deque[tuple[float, float, bytes]] = deque()
        self._reached: dict[int, float] = {}

    def span(self, start: float, end: float, at: float, to: AudioStream, following: float) -> Iterator[Packet[Any]]:
        """Yield the packets of a span, placed in what is written.

        Args:
            start: When the span begins, in seconds on the file's clock.
            end: When it ends.
            at: Where it begins in what is written, in seconds.
            to: The stream that is written.
            following: When the next span begins; what lies before it is gone.
        """
        from av import Packet

        place = 0
        while True:
            if place == len(self._waiting):
                item = next(self._packets, None)
                if item is None:
                    break
                self._waiting.append(item)
            time, length, data = self._waiting[place]
            middle = time + length / 2
            if middle >= end:
                break
            if middle < following:  # times ascend, so that it is the first one
                self._waiting.popleft()
            else:
                place += 1
            if middle < start:
                continue
            begin = time - start + at
            due = self._reached.get(id(to), -math.inf)
            if abs(begin - due) <= min(_STEP, length / 2):
                begin = due
            elif begin < due:
                continue
            self._reached[id(to)] = begin + length
            packet = Packet(data)
            packet.pts = packet.dts = round(begin / TICK)
            packet.duration, packet.time_base, packet.stream = round(length / TICK), TICK, to
            yield packet

    def _read(self, path: Path, timeline: Timeline) -> Iterator[tuple[float, float, bytes]]:
        """Yield time, length and bytes of each packet."""
        timeline.restart(self._stream)
        context = self._stream.codec_context
        whole = context.frame_size / context.sample_rate if context.frame_size > 1 and context.sample_rate else 0.0
        for packet in iter_packets(self._container, [self._stream], path):
            timeline.shift(self._stream, packet)
            stamp = packet.pts if packet.pts is not None else packet.dts
            if packet.size and stamp is not None and packet.time_base is not None:
                base = float(packet.time_base)
                yield stamp * base, whole or (packet.duration or 0) * base, bytes(packet)
