"""One video of many: clips of any size and rate, one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from visp.utils.files import unfinished
from visp.video.container import open_container
from visp.video.decode import VideoError, VideoReader, shown
from visp.video.render import FORMATS

_RATE = 48_000
_TICKS = Fraction(1, 90_000)


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
    import av

    sources, target = [Path(path) for path in paths], Path(out)
    if target.suffix.lower() not in FORMATS or not sources:
        raise ValueError(f"{shown(target)}: expected videos, and a name that ends in {', '.join(FORMATS)}")
    width, height = _largest(sources)
    at = Fraction(0)
    with unfinished(target) as name:
        try:
            with av.open(str(name), "w", format=FORMATS[target.suffix.lower()]) as output:
                video: Any = output.add_stream("libx264", rate=Fraction(30))
                video.width, video.height, video.pix_fmt = width, height, "yuv420p"
                video.codec_context.time_base = video.time_base = _TICKS
                video.options = {"crf": "20", "preset": "veryfast"}
                sound: Any = output.add_stream("aac", rate=_RATE, layout="stereo")
                written = 0
                for source in sources:
                    end = at
                    for frame, begin, stop in _frames(source, width, height):
                        frame.pts, frame.time_base = round((at + begin) / _TICKS), _TICKS
                        output.mux(video.encode(frame))
                        end = at + stop
                    for samples in _samples(source, round(end * _RATE) - written):
                        piece: Any = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
                        piece.sample_rate, piece.pts, piece.time_base = _RATE, written, Fraction(1, _RATE)
                        output.mux(sound.encode(piece))
                        written += samples.shape[1]
                    at = end
                output.mux(video.encode(None))
                output.mux(sound.encode(None))
        except av.FFmpegError as error:
            raise VideoError(f"{shown(target)}: cannot be encoded: {error}") from error
    return float(at)


def _largest(sources: Sequence[Path]) -> tuple[int, int]:
    sizes = []
    for source in sources:
        with VideoReader(source) as reader:
            sizes.append((reader.stream.codec_context.width, reader.stream.codec_context.height))
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return max(2, width // 2 * 2), max(2, height // 2 * 2)


def _frames(source: Path, width: int, height: int) -> Iterator[tuple[Any, Fraction, Fraction]]:
    """Yield frames fitted into a size, with begin and end in seconds."""
    from av import VideoFrame

    with VideoReader(source) as reader:
        first = None
        for timed in reader.frames():
            first = timed.time if first is None else first
            frame = timed.frame
            scale = min(width / frame.width, height / frame.height)
            inner = (max(2, int(frame.width * scale) // 2 * 2), max(2, int(frame.height * scale) // 2 * 2))
            image: Any = frame.reformat(width=inner[0], height=inner[1], format="yuv420p")
            if inner != (width, height):
                planes = image.to_ndarray().reshape(-1)
                shapes = [(inner[1], inner[0]), (inner[1] // 2, inner[0] // 2), (inner[1] // 2, inner[0] // 2)]
                ends = np.cumsum([a * b for a, b in shapes])[:-1]
                whole = []
                for plane, (rows, columns), empty in zip(np.split(planes, ends), shapes, (16, 128, 128), strict=True):
                    tall, wide = (height, width) if empty == 16 else (height // 2, width // 2)
                    field = np.full((tall, wide), empty, np.uint8)
                    top, left = (tall - rows) // 2, (wide - columns) // 2
                    field[top : top + rows, left : left + columns] = plane.reshape(rows, columns)
                    whole.append(field.reshape(-1))
                image = VideoFrame.from_ndarray(np.concatenate(whole).reshape(-1, width), format="yuv420p")
            image.pict_type = 0
            begin = Fraction(timed.time - first)
            yield image, begin, begin + Fraction(timed.duration)


def _samples(source: Path, count: int) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """Yield exactly so many samples of the sound (2, n), silence where it ends or there is none."""
    from av import AudioResampler

    with open_container(source) as container:
        streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
        resampler = AudioResampler("fltp", "stereo", _RATE)
        frames = (
            (piece for frame in container.decode(streams[0]) for piece in resampler.resample(frame)) if streams else ()
        )
        for piece in frames:
            if count <= 0:
                return
            samples = np.ascontiguousarray(piece.to_ndarray()[:, :count], dtype=np.float32)
            count -= samples.shape[1]
            yield samples
    while count > 0:
        silence = np.zeros((2, min(count, 5 * _RATE)), np.float32)
        count -= silence.shape[1]
        yield silence
