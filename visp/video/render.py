"""Cut shots out of a video into a new one, with sound, at the source's size and frame times."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from visp.utils.files import check_outputs, unfinished
from visp.video.container import VideoError, shown
from visp.video.decode import TimedFrame, VideoReader
from visp.video.picture import LIMITED, drawn, drawn_matrix, orientation, upright_image
from visp.video.sound import SoundReader, SoundWriter
from visp.video.timeline import TICK, Timeline

if TYPE_CHECKING:
    import av
    import av.container
    from av.video.stream import VideoStream

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}


@dataclass(frozen=True)
class WrittenSummary:
    """What was written.

    Attributes:
        path: The file.
        times: (S, 2) when each shot begins and ends in the source, in seconds after its first frame.
        duration: Length of the summary in seconds.
        sound: Whether it has sound.
        pictures: The frames that were asked for, (H, W, 3) uint8 by frame index.
        notes: What the user should know of how the video was read, in sentences.
    """

    path: Path
    times: npt.NDArray[np.float64]
    duration: float
    sound: bool
    pictures: dict[int, npt.NDArray[np.uint8]]
    notes: list[str]


def write_summary(
    path: str | os.PathLike[str],
    shots: npt.ArrayLike,
    out: str | os.PathLike[str],
    *,
    lengths: npt.ArrayLike | None = None,
    pictures: Collection[int] = (),
    overwrite: bool = False,
) -> WrittenSummary:
    """Write the chosen shots of a video, one after the other, as H.264 and AAC.

    Every frame is shown as long as in the source, also at a variable frame rate, and the sound of a shot begins and
    ends with its frames; where the source has no sound there, the summary is silent. A picture that is marked as
    rotated or mirrored is stored as it is to be shown, an interlaced one is deinterlaced, one of another size than the
    first is fitted into that, and an odd width or height becomes one less, since H.264 asks for even ones. More than
    two channels of sound are mixed down to two. The source is decoded up to the last shot's end; the file appears
    under its name only when it is complete.

    Args:
        path: The video.
        shots: (S, 2) first and last frame of each shot, inclusive, ascending, as indices of its decoded frames.
        out: The summary: .mp4, .m4v, .mov or .mkv.
        lengths: (S,) seconds after which each shot is cut off, within its last frame; None for its frames in full.
        pictures: Indices of frames of these shots to return as images.
        overwrite: Replaces an existing file.

    Returns:
        What was written.

    Raises:
        FileNotFoundError: If there is no such video, or no folder to write to.
        FileExistsError: If ``out`` exists and ``overwrite`` is false.
        ModuleNotFoundError: If PyAV is not installed.
        VideoError: If the video cannot be read or encoded, or ends before the last shot.
        ValueError: If the shots are not ascending pairs of frames, ``lengths`` do not fit them, or ``out`` has another
            ending.
    """
    source, target = Path(path), Path(out)
    check_ending(target)
    check_outputs(target, inputs=[source], overwrite=overwrite)
    spans = _checked(shots)
    limits = _checked_lengths(lengths, len(spans))
    with (
        VideoReader(source) as reader,
        SoundReader(source, reader.timeline) as sound,
        unfinished(target) as name,
        opened_output(name, target) as container,
    ):
        regular = reader.timeline.is_even and not np.isfinite(limits).any()
        writer = _Writer(container, reader, sound, regular=bool(regular))
        kept = writer.write(spans, limits, frozenset(pictures))
    return WrittenSummary(
        target, np.array(writer.times), writer.duration, sound.has_sound, kept, writer.notes(reader.timeline)
    )


def check_ending(target: Path) -> None:
    """Refuse a name that ends otherwise than those of the files that can be written.

    Raises:
        ValueError: If it does.
    """
    if target.suffix.lower() not in FORMATS:
        raise ValueError(f"{shown(target)}: expected a name that ends in {', '.join(FORMATS)}")


@contextmanager
def opened_output(name: Path, target: Path) -> Iterator[av.container.OutputContainer]:
    """Open a file to be ``target``, for writing; what cannot be encoded is a VideoError that names it."""
    import av

    kind = FORMATS[target.suffix.lower()]
    options = {} if kind == "matroska" else {"movflags": "+faststart"}
    container = av.open(str(name), "w", format=kind, options=options)
    try:
        try:
            yield container
        except BaseException:
            with suppress(av.FFmpegError):  # it has nothing to say that the first error does not
                container.close()
            raise
        container.close()
    except av.FFmpegError as error:
        raise VideoError(f"{shown(target)}: cannot be encoded: {error}") from error


class _Writer:
    """Encodes the shots of one video, picture and sound; ``regular`` where all its frames last equally long."""

    def __init__(
        self, container: av.container.OutputContainer, reader: VideoReader, sound: SoundReader, *, regular: bool
    ) -> None:
        self.times: list[tuple[float, float]] = []
        self.duration = 0.0
        self._container = container
        self._reader = reader
        self._interlaced = 0
        self._frames = reader.frames()
        first = next(self._frames)
        self._ahead: TimedFrame | None = first
        self._origin = first.time
        ticks = Fraction(reader.stream.time_base or TICK)
        self._time_base = ticks / math.ceil(10_000 * ticks)
        self._video = self._video_stream(first.frame, regular)
        self._source = sound
        self._sound = SoundWriter(container, sound.rate, sound.layout) if sound.has_sound else None

    def write(
        self, shots: npt.NDArray[np.integer], lengths: npt.NDArray[np.float64], pictures: frozenset[int]
    ) -> dict[int, npt.NDArray[np.uint8]]:
        """Encode the shots (S, 2), cut off after ``lengths`` (S,), and return the pictures by frame index."""
        kept: dict[int, npt.NDArray[np.uint8]] = {}
        for (first, last), length in zip(shots.tolist(), lengths.tolist(), strict=True):
            while self._ahead is not None and self._ahead.index < first:
                self._ahead = next(self._frames, None)
            begin = end = 0.0 if self._ahead is None else self._ahead.time
            if self._sound is not None:
                self._sound.begin(self._source, begin)
            for _ in range(first, last + 1):
                if self._ahead is None:
                    raise VideoError(
                        f"{shown(self._reader.path)}: has {self._reader.n_frames} frames, "
                        f"but a shot ends at frame {last}"
                    )
                current, self._ahead = self._ahead, next(self._frames, None)
                end = current.time + current.duration if self._ahead is None else self._ahead.time
                end = min(end, begin + length) if current.index == last else end
                if current.index in pictures:
                    kept[current.index] = upright_image(current.frame)
                times = (self.duration + current.time - begin, self.duration + end - begin)
                self._encode(current.frame, *times, key=current.index == first)
                if self._sound is not None:
                    self._sound.write(until=self.duration + end - begin)
            self.times.append((begin - self._origin, end - self._origin))
            self.duration += end - begin
        self._container.mux(self._video.encode(None))
        if self._sound is not None:
            self._sound.finish()
        return kept

    def notes(self, timeline: Timeline) -> list[str]:
        """Say what was chosen, mended and left out."""
        notes = [timeline.note] if timeline.note else []
        if timeline.joined > 1:
            notes.append(f"The video joins {timeline.joined} recordings, whose clocks were put one after the other.")
        if timeline.left_out:
            notes.append(f"A hole of {timeline.left_out:.0f} s without picture and sound was left out.")
        if self._interlaced:
            notes.append("The video is interlaced; the summary was deinterlaced.")
        return notes

    def _encode(self, source: av.VideoFrame, begin: float, end: float, *, key: bool) -> None:
        from av.video.frame import PictureType

        self._interlaced += source.interlaced_frame
        frame = drawn(source, (self._video.width, self._video.height))
        if key:  # so that players seek to a shot at once, and a copy can begin there
            frame.pict_type = PictureType.I
        frame.pts = round(begin / self._time_base)
        frame.duration = max(1, round(end / self._time_base) - frame.pts)
        frame.time_base = self._time_base
        self._container.mux(self._video.encode(frame))

    def _video_stream(self, frame: av.VideoFrame, regular: bool) -> VideoStream:
        """Open an encoder for frames like this one."""
        from av.codec.context import Flags

        source = self._reader.stream
        rate = Fraction(self._reader.frame_rate).limit_denominator(1001)
        stream: VideoStream = self._container.add_stream("libx264", rate=rate)
        size = (max(2, frame.width // 2 * 2), max(2, frame.height // 2 * 2))
        sideways = orientation(frame).transposed
        stream.width, stream.height = size[::-1] if sideways else size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = stream.time_base = self._time_base
        context.flags |= Flags.frame_duration
        context.options = {"crf": "20", "preset": "veryfast"}
        if not regular:  # MP4 may round the end of frames of many lengths that are out of order too
            context.options = {**context.options, "bf": "0"}
        context.color_range, context.colorspace = LIMITED, drawn_matrix(frame)
        context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
        aspect = Fraction(source.sample_aspect_ratio or 1)
        if aspect != 1:
            context.sample_aspect_ratio = 1 / aspect if sideways else aspect
        return stream


def _checked(shots: npt.ArrayLike) -> npt.NDArray[np.integer]:
    spans = np.asarray(shots)
    if spans.ndim != 2 or spans.shape[1] != 2 or len(spans) == 0 or spans.dtype.kind not in "iu":
        raise ValueError(f"expected shots (S, 2) of whole frame numbers, S >= 1, got {spans.dtype} {spans.shape}")
    ends = spans.astype(np.int64).reshape(-1)
    if ends[0] < 0 or (spans[:, 1] < spans[:, 0]).any() or (spans[1:, 0] <= spans[:-1, 1]).any():
        raise ValueError(f"expected shots (first frame, last frame) that ascend without overlap, got {spans.tolist()}")
    return spans


def _checked_lengths(lengths: npt.ArrayLike | None, number: int) -> npt.NDArray[np.float64]:
    limits = np.full(number, np.inf) if lengths is None else np.asarray(lengths, dtype=np.float64)
    if limits.shape != (number,) or not (limits > 0).all():
        raise ValueError(f"expected a positive length in seconds for each of {number} shots, got {limits.tolist()}")
    return limits
