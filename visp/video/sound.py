"""The sound of a summary: samples of chosen spans of a video, joined without drift."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visp.video.container import OpenFile, choose_streams, iter_packets, open_container
from visp.video.timeline import Timeline

if TYPE_CHECKING:
    import av
    import av.container
    from av.audio.stream import AudioStream

AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
_LAYOUTS = ("mono", "stereo")
_LEAD = 1.0
"""Seconds decoded before a span, after packets were passed over: decoders need some to settle."""
_ROUNDING = 1e-3
"""Seconds by which timestamps may be rounded, also where they were copied from a coarser clock to a finer one."""
_LARGE = 0.15
"""Seconds beyond which a jump is one, whatever follows."""
_SOON = 0.25
"""Seconds within which a timestamp that is wrong by less is followed by one that is right."""
_SETTLED = 10
"""Frames after which a decoder knows what it decodes."""
_PIECE = 5.0
"""Most seconds of samples in memory at a time."""


class SoundReader(OpenFile):
    """The sound of a file, read forward in spans of samples, on the clock that it shares with the picture.

    What the sound is, its first decoded frames say, and where its rate or its channels change on the way, that is
    followed. Samples follow each other without a hole unless a timestamp is off by more than its clock can round.

    Args:
        path: The file.
        timeline: The file's clock.
        rate: Samples a second; None for the source's where AAC knows it, else 48,000.
        layout: ``"mono"`` or ``"stereo"``; None for the source's, of which more than two channels are mixed down.

    Attributes:
        has_sound: Whether there is any.
        rate: Samples a second.
        layout: As given, or found.
        channels: 1 or 2.
        source: Channels and samples a second of the source, 0 where it has no sound.
    """

    def __init__(self, path: Path, timeline: Timeline, *, rate: int | None = None, layout: str | None = None) -> None:
        self._path = path
        self._timeline = timeline
        self._wanted_from = -math.inf
        first = self._first_frame()
        self.has_sound = first is not None
        self.source = (0, 0) if first is None else (first.layout.nb_channels, first.sample_rate)
        self._container = open_container(path)
        if first is None:
            return
        self.rate = rate or (first.sample_rate if first.sample_rate in AAC_RATES else 48_000)
        self.layout = layout or _LAYOUTS[min(2, first.layout.nb_channels) - 1]
        self.channels = _LAYOUTS.index(self.layout) + 1
        self._chunks = self._converted()
        self._chunk: tuple[int, npt.NDArray[np.float32]] | None = None

    def read(self, start: int, count: int) -> npt.NDArray[np.float32]:
        """Return ``count`` samples from sample ``start`` of the file's clock, (channels, count); 0 where it is silent.

        Spans must ascend: what lies before one is gone.
        """
        samples = np.zeros((self.channels, count), dtype=np.float32)
        self._wanted_from = start / self.rate
        while True:
            if self._chunk is None:
                self._chunk = next(self._chunks, None)
            if self._chunk is None or self._chunk[0] >= start + count:
                return samples
            begin, data = self._chunk
            end = begin + data.shape[1]
            first, last = max(begin, start), min(end, start + count)
            if first < last:
                samples[:, first - start : last - start] = data[:, first - begin : last - begin]
            if end > start + count:
                return samples
            self._chunk = None

    def _first_frame(self) -> av.AudioFrame | None:
        """Return one of the first frames: decoders may need a few to know the rate."""
        with open_container(self._path) as container:
            frames = (frame for _, frame in self._decoded(container))
            found = list(islice(frames, _SETTLED))
        return found[-1] if found else None

    def _decoded(self, container: av.container.InputContainer) -> Iterator[tuple[float, av.AudioFrame]]:
        """Yield the decoded frames from ``_wanted_from`` on, with the seconds by which their times may be rounded."""
        from av import FFmpegError

        streams = choose_streams(container, self._path).sound
        if not streams:
            return
        by_index = {stream.index: stream for stream in streams}
        for stream in streams:
            self._timeline.restart(stream)
        for packet in iter_packets(container, streams, self._path):
            self._timeline.shift(by_index[packet.stream.index], packet)
            tick = float(packet.time_base or 0)
            if packet.pts is not None and packet.pts * tick < self._wanted_from - _LEAD:
                continue
            try:
                frames: list[Any] = packet.decode()
            except FFmpegError:
                continue
            for frame in frames:
                yield tick, frame

    def _converted(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield the position, in samples of the file's clock, and the samples (channels, n) of each decoded frame."""
        kind: tuple[object, ...] | None = None
        convert: _Converter | None = None
        due = 0.0  # when the next frame begins if it follows the last one
        frames = _Ahead(self._decoded(self._container))
        while (item := frames.take()) is not None:
            tick, frame = item
            given = _given(frame, due)
            found = (frame.format.name, frame.layout.name, frame.sample_rate)
            jumped = abs(given - due) > 2 * max(tick, _ROUNDING) and not frames.returns(due + _seconds(frame), given)
            if convert is None or jumped or kind != found:
                reached = 0
                if convert is not None:
                    yield from convert.rest()
                    reached = convert.position
                due = given if jumped else due
                convert, kind = _Converter(self.layout, self.rate, round(due * self.rate), reached), found
            due += _seconds(frame)
            yield from convert(frame)
        if convert is not None:
            yield from convert.rest()


class _Ahead:
    """Frames in order, of which the next ones can be looked at."""

    def __init__(self, frames: Iterator[tuple[float, av.AudioFrame]]) -> None:
        self._frames = frames
        self._waiting: deque[tuple[float, av.AudioFrame]] = deque()

    def take(self) -> tuple[float, av.AudioFrame] | None:
        return self._waiting.popleft() if self._waiting else next(self._frames, None)

    def returns(self, due: float, given: float) -> bool:
        """Return whether a small jump is only a wrong timestamp: soon after it, frames are again where they are due.

        Args:
            due: When the next frame begins if it follows.
            given: The timestamp of the frame before.
        """
        if abs(given - due) > _LARGE:
            return False
        until, place = due + _SOON, 0
        while due < until:
            if place == len(self._waiting):
                item = next(self._frames, None)
                if item is None:
                    return False
                self._waiting.append(item)
            tick, frame = self._waiting[place]
            if abs(_given(frame, due) - due) <= 2 * max(tick, _ROUNDING):
                return True
            due += _seconds(frame)
            place += 1
        return False


def _given(frame: av.AudioFrame, due: float) -> float:
    return due if frame.pts is None or not frame.time_base else float(frame.pts * frame.time_base)


def _seconds(frame: av.AudioFrame) -> float:
    return frame.samples / frame.sample_rate


class _Converter:
    """Converts frames of one kind, that follow each other, to samples at their position.

    Args:
        layout: ``"mono"`` or ``"stereo"``.
        rate: Samples a second.
        position: Where the first sample belongs.
        reached: Up to where there are samples already, which are not given again.
    """

    def __init__(self, layout: str, rate: int, position: int, reached: int) -> None:
        from av import AudioResampler

        self.position = position
        self._reached = reached
        self._resampler = AudioResampler("fltp", layout, rate)

    def __call__(self, frame: av.AudioFrame) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        frame.pts = None  # the position is counted here
        yield from self._placed(self._resampler.resample(frame))

    def rest(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield what the conversion holds back."""
        yield from self._placed([frame for frame in self._resampler.resample(None) if frame is not None])

    def _placed(self, frames: list[av.AudioFrame]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        for frame in frames:
            samples: npt.NDArray[np.float32] = frame.to_ndarray()  # type: ignore[assignment]
            begin = self.position
            self.position += samples.shape[1]
            cut = min(max(0, self._reached - begin), samples.shape[1])
            if cut < samples.shape[1]:
                yield begin + cut, samples[:, cut:]


class SoundWriter:
    """Encodes the sound of spans of videos one after the other, as AAC.

    Args:
        container: Where to.
        rate: Samples a second.
        layout: ``"mono"`` or ``"stereo"``.
    """

    def __init__(self, container: av.container.OutputContainer, rate: int, layout: str) -> None:
        self._container = container
        self._rate, self._layout, self._channels = rate, layout, _LAYOUTS.index(layout) + 1
        self._stream: AudioStream = container.add_stream("aac", rate=rate, layout=layout)
        self._stream.bit_rate = self._channels * min(160_000, 4 * rate)
        self._written = 0
        self._position = 0
        self._reader: SoundReader | None = None

    def begin(self, reader: SoundReader, time: float) -> None:
        """Go to a span's beginning, in seconds on the source's clock; spans of a source ascend."""
        self._reader = reader if reader.has_sound else None
        self._position = round(time * self._rate)

    def write(self, until: float) -> None:
        """Encode the span's next samples, silence if there are none, until the summary is ``until`` seconds long."""
        from av import AudioFrame

        while (missing := round(until * self._rate) - self._written) > 0:
            count = min(missing, round(_PIECE * self._rate))
            silence = np.zeros((self._channels, count), dtype=np.float32)
            samples = silence if self._reader is None else self._reader.read(self._position, count)
            frame = AudioFrame.from_ndarray(samples, format="fltp", layout=self._layout)
            frame.sample_rate = self._rate
            frame.pts, frame.time_base = self._written, Fraction(1, self._rate)
            self._container.mux(self._stream.encode(frame))
            self._written += count
            self._position += count

    def finish(self) -> None:
        """Encode what the encoder holds back."""
        self._container.mux(self._stream.encode(None))
