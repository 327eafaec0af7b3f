"""Decode a video once, in order: its frames with their times, upright, sampled by timestamp."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import av
    import av.container
    import av.video.stream

SAMPLING_TOLERANCE = 1e-3
"""Share of a sampling period by which rounded timestamps may come early."""
_GIVE_UP = 20
"""Failures in a row to find a next packet, after which there is none."""


class VideoError(ValueError):
    """A file that cannot be read as a video; the message is one line that names it."""


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame.

    Attributes:
        index: Number of frames decoded before it.
        time: When it is shown, in seconds on the file's own clock, which its sound shares.
        duration: How long its file says that it is shown, in seconds.
        frame: The frame as decoded.
    """

    index: int
    time: float
    duration: float
    frame: av.VideoFrame


@dataclass(frozen=True)
class SampledFrame:
    """A frame taken at the sampling rate.

    Attributes:
        index: Index among all decoded frames.
        time: Seconds after the first frame.
        image: (H, W, 3) uint8, RGB, upright.
    """

    index: int
    time: float
    image: npt.NDArray[np.uint8]


class VideoReader:
    """The first video stream of a file, decoded once from its start to its end.

    Damaged packets are left out and counted. Frames without a timestamp, or with one that does not ascend, are
    taken to follow at the stream's frame rate.

    Args:
        path: The file. Its name is never read as an address or a protocol.
        threads: Threads of the decoder; 0 lets it choose.

    Attributes:
        path: The file.
        frame_rate: Frames a second as the file gives it, on average.
        n_frames: Frames decoded so far.
        damaged: Packets left out so far.
        end: When the last frame decoded so far ends, in seconds on the file's clock.

    Raises:
        FileNotFoundError: If there is no such file.
        VideoError: If the file cannot be read as a video, or has no video stream.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 0) -> None:
        self.path = Path(path)
        self.n_frames = 0
        self.damaged = 0
        self.end = 0.0
        self._container = open_container(self.path)
        try:
            self.stream = self._first_video()
            self.stream.thread_type = "AUTO"
            self.stream.thread_count = threads
            self.frame_rate = float(self.stream.average_rate or self.stream.guessed_rate or 25)
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def frames(self) -> Iterator[TimedFrame]:
        """Decode the frames in the order in which they are shown.

        Raises:
            VideoError: At the end, if nothing could be decoded or much less than the file says that it holds.
        """
        period = 1 / self.frame_rate
        first = time = -math.inf
        for frame in self._decoded():
            given = -math.inf if frame.pts is None or not frame.time_base else float(frame.pts * frame.time_base)
            if given > time:
                time = given
            elif self.n_frames:
                time += period
            else:
                time = 0.0
            length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else period
            first = time if self.n_frames == 0 else first
            self.end = time + length
            self.n_frames += 1
            yield TimedFrame(self.n_frames - 1, time, length, frame)
        if self.n_frames == 0:
            raise VideoError(f"{shown(self.path)}: not one frame could be decoded")
        self._refuse_cut_short(first)

    def _decoded(self) -> Iterator[av.VideoFrame]:
        from av import FFmpegError

        packets = self._container.demux(self.stream)
        unread = 0
        while unread < _GIVE_UP:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except FFmpegError:
                self.damaged += 1
                unread += 1
                packets = self._container.demux(self.stream)
                continue
            unread = 0
            try:
                frames = packet.decode()
            except FFmpegError:
                self.damaged += 1
                continue
            yield from frames

    def _first_video(self) -> av.video.stream.VideoStream:
        from av.stream import Disposition

        for stream in self._container.streams.video:
            if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
                return stream
        raise VideoError(f"{shown(self.path)}: has no video stream")

    def _refuse_cut_short(self, first: float) -> None:
        stated, seconds = 0.0, self.end - first
        if self.stream.duration and self.stream.time_base:
            stated = float(self.stream.duration * self.stream.time_base)
        elif self._container.duration and len(self._container.streams) == 1:
            stated, seconds = self._container.duration / 1e6, max(seconds, self.end)  # Matroska counts from 0
        if stated - seconds > max(0.1 * stated, 2 / self.frame_rate):
            raise VideoError(
                f"{shown(self.path)}: cut short or badly damaged: only {seconds:.2f} of {stated:.2f} s can be decoded"
            )


def iter_sampled_frames(path: str | os.PathLike[str], fps: float | None = 2.0) -> Iterator[SampledFrame]:
    """Decode a video and take frames at a sampling rate, by their timestamps.

    Args:
        path: The file.
        fps: Sampled frames a second of video; None takes every frame.

    Yields:
        The first frame of each interval of 1/fps seconds, counted from the first frame, that has one; at 30
        frames a second and ``fps=2``, every 15th frame, as in the field's files.

    Raises:
        FileNotFoundError: If there is no such file.
        VideoError: If the file cannot be read as a video, or is cut short.
        ValueError: If ``fps`` is not positive.
    """
    with VideoReader(path) as reader:
        yield from sampled(reader, fps)


def sampled(reader: VideoReader, fps: float | None = 2.0, times: list[float] | None = None) -> Iterator[SampledFrame]:
    """Take the frames of an open reader; see :func:`iter_sampled_frames`.

    Args:
        reader: The reader.
        fps: Sampled frames a second of video; None takes every frame.
        times: Where given, the time of every decoded frame is appended, in seconds on the file's clock.
    """
    if fps is not None and not (0 < fps < math.inf):
        raise ValueError(f"fps must be a positive number of frames a second, got {fps!r}")
    start, taken = 0.0, -1
    for timed in reader.frames():
        if times is not None:
            times.append(timed.time)
        if timed.index == 0:
            start = timed.time
        interval = timed.index if fps is None else math.floor((timed.time - start) * fps + SAMPLING_TOLERANCE)
        if interval > taken:
            taken = interval
            yield SampledFrame(timed.index, timed.time - start, upright_image(timed.frame))


def upright_image(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    """Return the frame as (H, W, 3) uint8 RGB, turned as its rotation metadata says."""
    image: npt.NDArray[np.uint8] = frame.to_ndarray(format="rgb24")  # type: ignore[assignment]
    return np.ascontiguousarray(np.rot90(image, quarter_turns(frame)))


def quarter_turns(frame: av.VideoFrame) -> int:
    """Return by how many quarter turns, counter-clockwise, the frame is to be turned before it is shown."""
    return round(frame.rotation / 90) % 4


def open_container(path: Path) -> av.container.InputContainer:
    """Open a media file for reading.

    Raises:
        FileNotFoundError: If there is no such file.
        VideoError: If it is not a media file that can be read.
    """
    require_av()
    import av

    if not path.exists():
        raise FileNotFoundError(f"{shown(path)}: no such file")
    if not path.is_file():
        raise VideoError(f"{shown(path)}: not a file")
    try:
        # An absolute path, so that FFmpeg does not take a name such as "concat:a.mp4" for a protocol.
        return av.open(os.path.abspath(path), metadata_errors="replace")  # noqa: PTH100
    except PermissionError:
        raise PermissionError(f"{shown(path)}: no permission to read it") from None
    except (av.FFmpegError, UnicodeError) as error:
        reason = "it is empty" if path.stat().st_size == 0 else getattr(error, "strerror", None) or str(error)
        raise VideoError(f"{shown(path)}: cannot be read as a video: {reason}") from error


def require_av() -> None:
    """Refuse to go on without PyAV.

    Raises:
        ModuleNotFoundError: If it is not installed; the message says how to get it.
    """
    try:
        import av  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        raise ModuleNotFoundError('reading videos needs PyAV: pip install "visp[video]"', name="av") from error


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path as one printable line, quoted where its name is not printable."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)
