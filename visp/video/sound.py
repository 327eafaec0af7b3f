"""The sound of a summary: samples of chosen spans of a video, joined without drift."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from visp.video.decode import open_container

if TYPE_CHECKING:
    import av
    import av.container
    from av.audio.stream import AudioStream

AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
_LEAD = 1.0
"""Seconds decoded before a span, after packets were passed over: decoders need some to settle."""
_PIECE = 5.0
"""Most seconds of samples in memory at a time."""


class SoundReader:
    """The first audio stream of a file, read forward in spans of samples.

    Args:
        path: The file.

    Attributes:
        stream: The stream, or None where the file has no sound.
        rate: Samples a second: the source's where AAC knows it, else 48,000.
        layout: ``"mono"`` or ``"stereo"``, to which more channels are mixed down.
        channels: 1 or 2.
    """

    def __init__(self, path: Path) -> None:
        self._container = open_container(path)
        streams = [s for s in self._container.streams.audio if s.codec_context is not None]
        self.stream: AudioStream | None = streams[0] if streams else None
        if self.stream is None:
            return
        self.rate = self.stream.rate if self.stream.rate in AAC_RATES else 48_000
        self.channels = min(2, self.stream.codec_context.channels)
        self.layout = ("mono", "stereo")[self.channels - 1]
        self._wanted_from = 0.0
        self._chunks = self._decode(self._container, self.stream)
        self._chunk: tuple[int, npt.NDArray[np.float32]] | None = None

    def __enter__(self) -> SoundReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

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

    def _decode(
        self, container: av.container.InputContainer, stream: AudioStream
    ) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yield the position, in samples of the file's clock, and the samples (channels, n) of each decoded frame."""
        from av import AudioResampler, FFmpegError

        resampler = AudioResampler("fltp", self.layout, self.rate)
        position = 0
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
                if packet.pts is not None and float(packet.pts * packet.time_base) < self._wanted_from - _LEAD:
                    continue
                frames = packet.decode()
            except StopIteration:
                return
            except FFmpegError:
                continue
            for decoded in frames:
                for frame in resampler.resample(decoded):
                    if frame.pts is not None and frame.time_base:
                        position = round(frame.pts * frame.time_base * self.rate)
                    samples: npt.NDArray[np.float32] = frame.to_ndarray()  # type: ignore[assignment]
                    yield position, samples
                    position += samples.shape[1]


class SoundWriter:
    """Encodes the sound of the spans of a video one after the other, as AAC.

    Args:
        container: Where to.
        reader: Where from; it has a stream.
    """

    def __init__(self, container: av.container.OutputContainer, reader: SoundReader) -> None:
        self._container = container
        self._reader = reader
        self._stream: AudioStream = container.add_stream("aac", rate=reader.rate, layout=reader.layout)
        self._stream.bit_rate = reader.channels * min(64_000, 4 * reader.rate)
        self._written = 0
        self._position = 0

    def begin(self, time: float) -> None:
        """Go to a span's beginning, in seconds on the source's clock; spans ascend."""
        self._position = round(time * self._reader.rate)

    def write(self, until: float) -> None:
        """Encode the span's next samples, until the summary is ``until`` seconds long."""
        from av import AudioFrame

        while (missing := round(until * self._reader.rate) - self._written) > 0:
            count = min(missing, round(_PIECE * self._reader.rate))
            frame = AudioFrame.from_ndarray(
                self._reader.read(self._position, count), format="fltp", layout=self._reader.layout
            )
            frame.sample_rate = self._reader.rate
            frame.pts, frame.time_base = self._written, Fraction(1, self._reader.rate)
            self._container.mux(self._stream.encode(frame))
            self._written += count
            self._position += count

    def finish(self) -> None:
        """Encode what the encoder holds back."""
        self._container.mux(self._stream.encode(None))
