"""One video of many: clips of any size and rate, one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from visp.utils.files import unfinished
from visp.video.decode import TimedFrame, VideoReader
from visp.video.picture import LIMITED, drawn, orientation
from visp.video.render import check_ending, opened_output
from visp.video.sound import SoundReader, SoundWriter
from visp.video.timeline import TICK

_RATE, _LAYOUT = 48_000, "stereo"


def write_reel(paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> float:
    """Join videos into one, at the size of the largest, others between bars; stereo sound, silent where one has none.

    Args:
        paths: The videos, such as summaries.
        out: The reel: .mp4, .m4v, .mov or .mkv; an older one is replaced.

    Returns:
        Its length in seconds.

    Raises:
        FileNotFoundError: If one of the videos does not exist.
        VideoError: If one cannot be read, or the reel cannot be encoded.
        ValueError: If there is no video, or the reel has another ending.
    """
    sources, target = [Path(path) for path in paths], Path(out)
    check_ending(target)
    if not sources:
        raise ValueError("a reel joins one video or more, got none")
    width, height = max((_size(source) for source in sources), key=lambda size: size[0] * size[1])
    at = 0.0
    with unfinished(target) as name, opened_output(name, target) as output:
        video: Any = output.add_stream("libx264", rate=Fraction(30))
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.codec_context.time_base = video.time_base = TICK
        video.codec_context.color_range = LIMITED
        video.options = {"crf": "20", "preset": "veryfast", "bf": "0"}  # frames of many lengths stay as long
        sound = SoundWriter(output, _RATE, _LAYOUT)
        for source in sources:
            with (
                VideoReader(source) as reader,
                SoundReader(source, reader.timeline, rate=_RATE, layout=_LAYOUT) as heard,
            ):
                begin: float | None = None
                end = 0.0
                for timed, end in _ended(reader):
                    if begin is None:
                        begin = timed.time
                        sound.begin(heard, begin)
                    frame = drawn(timed.frame, (width, height), _aspect(reader))
                    frame.pts, frame.time_base = round((at + timed.time - begin) / TICK), TICK
                    output.mux(video.encode(frame))
                    sound.write(until=at + end - begin)
                at += end - (begin or 0.0)
        output.mux(video.encode(None))
        sound.finish()
    return at


def _ended(reader: VideoReader) -> Iterator[tuple[TimedFrame, float]]:
    """Yield frames, each with the time at which the next one is shown."""
    before: TimedFrame | None = None
    for timed in reader.frames():
        if before is not None:
            yield before, timed.time
        before = timed
    if before is not None:
        yield before, reader.end


def _aspect(reader: VideoReader) -> float:
    return float(reader.stream.sample_aspect_ratio or 1)


def _size(source: Path) -> tuple[int, int]:
    """Return the even (width, height) in which a video is shown, its pixels square."""
    with VideoReader(source) as reader:
        frame = next(reader.frames()).frame
        size = round(frame.width * _aspect(reader)), frame.height
        width, height = size[::-1] if orientation(frame).transposed else size
    return max(2, width // 2 * 2), max(2, height // 2 * 2)
