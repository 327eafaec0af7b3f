"""Decode a video once, in order: its frames with their times, upright, sampled by timestamp."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from visp.video.container import (
    OpenFile,
    VideoError,
    check_size,
    choose_streams,
    iter_packets,
    open_container,
    require_av,
    shown,
)
from visp.video.picture import upright_image
from visp.video.timeline import Timeline

if TYPE_CHECKING:
    import av

__all__ = [
    "SAMPLING_TOLERANCE",
    "SampledFrame",
    "TimedFrame",
    "VideoError",
    "VideoReader",
    "iter_sampled_frames",
    "require_av",
    "sampled",
    "shown",
]

SAMPLING_TOLERANCE = 1e-3
"""Share of a sampling period by which rounded timestamps may come early."""


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


class VideoReader(OpenFile):
    """The picture of a file, decoded once from its start to its end.

    The default video stream is taken, or else the first. Damaged packets are left out and counted. Frames without a
    timestamp, or with one that does not ascend, are taken to follow at the stream's frame rate.

    Args:
        path: The file. Its name is never read as an address or a protocol.
        threads: Threads of the decoder; 0 lets it choose.

    Attributes:
        path: The file.
        timeline: The clock that picture and sound share.
        stream: The video stream.
        frame_rate: Frames a second as the file gives it, on average.
        n_frames: Frames decoded so far.
        damaged: Packets left out so far.
        end: When the last frame decoded so far ends, in seconds on the file's clock.

    Raises:
        FileNotFoundError: If there is no such file.
        VideoError: If the file cannot be read as a video, has no video stream, or is cut short.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 0) -> None:
        self.path = Path(path)
        self.n_frames = 0
        self.damaged = 0
        self.end = 0.0
        self.timeline = Timeline(self.path)
        self._container = open_container(self.path)
        try:
            self.stream = choose_streams(self._container, self.path).video
            self.stream.thread_type = "AUTO"
            self.stream.thread_count = threads
            self.frame_rate = float(self.stream.average_rate or self.stream.guessed_rate or 25)
        except BaseException:
            self._container.close()
            raise

    def frames(self) -> Iterator[TimedFrame]:
        """Decode the frames in the order in which they are shown.

        Raises:
            VideoError: If a picture is beyond the bounds; at the end, if nothing could be decoded or much less than
                the file holds.
        """
        first = time = -math.inf
        for frame in self._decoded():
            check_size(frame.width, frame.height, self.path)
            given = -math.inf
            if frame.pts is not None and frame.time_base:
                given = self.timeline.exact(float(frame.pts * frame.time_base))
            if given > time:
                time = given
            elif self.n_frames:
                time += 1 / self.frame_rate
            else:
                time = 0.0
            stated = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else None
            first = time if self.n_frames == 0 else first
            self.end = time + self.timeline.length(time, stated)
            self.n_frames += 1
            yield TimedFrame(self.n_frames - 1, time, self.end - time, frame)
        if self.n_frames == 0:
            raise VideoError(f"{shown(self.path)}: not one frame could be decoded")
        decoded, held = self.end - first, self.timeline.end - first
        if held - decoded > 0.1 * held + 2 / self.frame_rate:
            raise VideoError(
                f"{shown(self.path)}: cut short or badly damaged: only {decoded:.2f} of {held:.2f} s can be decoded"
            )

    def _decoded(self) -> Iterator[av.VideoFrame]:
        from av import FFmpegError

        def count() -> None:
            self.damaged += 1

        self.timeline.restart(self.stream)
        for packet in iter_packets(self._container, [self.stream], self.path, count):
            self.timeline.shift(self.stream, packet)
            try:
                frames = packet.decode()
            except FFmpegError:
                count()
                continue
            yield from frames


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
        ModuleNotFoundError: If PyAV is not installed.
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
