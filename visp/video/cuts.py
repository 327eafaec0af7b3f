"""Cut lists: the chosen shots of a video as files that editors, players and sites open, and edited ones read back."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visp.video.decode import VideoReader, shown
from visp.video.sound import SoundReader

if TYPE_CHECKING:
    from visp.video.result import VideoSummary

_STANDARD_RATES = tuple(
    Fraction(rate) for rate in ("24000/1001", "24", "25", "30000/1001", "30", "48", "50", "60000/1001", "60")
)


@dataclass(frozen=True)
class Cut:
    """One span of a video that is kept.

    Attributes:
        start: Seconds after the video's first frame.
        end: When it ends, likewise.
        label: What to call it.
        score: Mean score of its frames, where it is known.
    """

    start: float
    end: float
    label: str
    score: float | None = None


@dataclass(frozen=True)
class Media:
    """What a cut list has to say about the video that it cuts.

    Attributes:
        path: The video, absolute.
        rate: Frames a second in which an editor counts; for a variable frame rate, the stream's nominal one.
        duration: Seconds from the first frame to the end.
        first: When the first frame is shown, in seconds on the file's clock.
        offset: Seconds from the file's own beginning, which may be that of its sound, to its first frame.
        width: Pixels.
        height: Pixels.
        channels: Of its sound; 0 where it has none.
        sound_rate: Samples a second; 0 where it has none.
        timecode: The first frame's timecode, in frames, as a camera wrote it; else 0.
        drop_frame: Whether that timecode is of the drop-frame kind.
    """

    path: Path
    rate: Fraction
    duration: float
    first: float
    offset: float
    width: int
    height: int
    channels: int
    sound_rate: int
    timecode: int
    drop_frame: bool

    def frames(self, seconds: float) -> int:
        """Return a time after the first frame as a whole number of frames."""
        return round(seconds * self.rate)


@dataclass(frozen=True)
class CutList:
    """The cuts of one video, ascending."""

    media: Media
    cuts: tuple[Cut, ...]


def cuts_of(summary: VideoSummary) -> tuple[Cut, ...]:
    """Return the chosen shots of a summary, labelled by their number and score."""
    cuts = []
    for shot in summary.selected.tolist():
        start, end = summary.shot_times[shot].tolist()
        score = float(summary.shot_scores[shot])
        cuts.append(Cut(start, end, f"shot {shot + 1}, score {score:.3f}", score))
    return tuple(cuts)


def probe_media(path: str | os.PathLike[str], duration: float | None = None) -> Media:
    """Look at a video without decoding more than its first frame.

    Args:
        path: The video.
        duration: Seconds from its first frame to its end, where they are known better than from the file.

    Raises:
        FileNotFoundError: If there is no such file.
        VideoError: If it cannot be read as a video.
    """
    with VideoReader(path) as reader, SoundReader(reader.path, reader.timeline) as sound:
        stream = reader.stream
        container: Any = stream.container
        timed = next(reader.frames())
        first = timed.time
        rate = _nominal_rate(stream.average_rate, stream.guessed_rate)
        begin = 0.0 if container.start_time is None else container.start_time / 1e6
        tags: dict[str, str] = {}
        for holder in (container, *container.streams):
            tags = {**holder.metadata, **tags}
        timecode, drop_frame = _timecode(tags.get("timecode", ""), rate)
        if duration is None:
            duration = reader.timeline.end - first
        return Media(
            path=Path(os.path.abspath(path)),  # noqa: PTH100
            rate=rate,
            duration=duration,
            first=first,
            offset=max(0.0, first - begin),
            width=timed.frame.width,
            height=timed.frame.height,
            channels=sound.source[0],
            sound_rate=sound.source[1],
            timecode=timecode,
            drop_frame=drop_frame,
        )


def read_cuts(path: str | os.PathLike[str], offset: float = 0.0) -> tuple[Cut, ...]:
    """Read cuts from a ``.csv`` of LosslessCut or a ``.json`` of ``visp summarize``, as they may have been edited.

    Args:
        path: The file. A row of a CSV holds start and end in seconds, which may be empty for the video's own, and a
            label; of a JSON the shots that are marked as chosen are taken.
        offset: Seconds from the video file's own beginning to its first frame, which a CSV counts with.

    Returns:
        The cuts, ascending; those that overlap or touch are one. An open end is infinite.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is neither, or holds no cut.
    """
    file = Path(path)
    readers = {".csv": lambda text: _read_csv(text, offset), ".json": _read_json}
    if file.suffix.lower() not in readers:
        raise ValueError(f"{shown(file)}: expected a name that ends in .csv or .json")
    if not file.is_file():
        raise FileNotFoundError(f"{shown(file)}: no such file")
    try:
        cuts = sorted(readers[file.suffix.lower()](file.read_text(encoding="utf-8-sig")), key=lambda cut: cut.start)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, csv.Error) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise ValueError(f"{shown(file)}: cannot be read as a list of cuts: {shown(reason)}") from error
    if not cuts:
        raise ValueError(f"{shown(file)}: holds no cut")
    joined = [cuts[0]]
    for cut in cuts[1:]:
        if cut.start > joined[-1].end:
            joined.append(cut)
        else:
            last = joined.pop()
            label = last.label if last.label == cut.label else f"{last.label}; {cut.label}".strip("; ")
            joined.append(Cut(last.start, max(last.end, cut.end), label))
    return tuple(joined)


def frames_of(cuts: tuple[Cut, ...], frame_times: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the first and last frame (S, 2), inclusive, of each cut; a time means the nearest frame's beginning.

    Args:
        cuts: Ascending cuts.
        frame_times: (n_frames + 1,) when each frame is shown, in seconds after the first, and the end.

    Raises:
        ValueError: If a cut begins after the video's end or is shorter than half a frame.
    """
    middles = (frame_times[1:] + frame_times[:-1]) / 2
    spans = np.searchsorted(middles, [[cut.start, cut.end] for cut in cuts])
    for cut, (first, stop) in zip(cuts, spans.tolist(), strict=True):
        if first >= stop:
            raise ValueError(
                f"a cut from {cut.start:g} to {cut.end:g} s holds no frame of a video of {frame_times[-1]:.3f} s"
            )
    return np.stack([spans[:, 0], spans[:, 1] - 1], axis=1)


def read_frame_times(path: str | os.PathLike[str]) -> npt.NDArray[np.float64]:
    """Decode a video to learn when each frame is shown: (n_frames + 1,) seconds after the first, and the end.

    Raises:
        FileNotFoundError: If there is no such file.
        VideoError: If it cannot be read as a video, or is cut short.
    """
    with VideoReader(path) as reader:
        times = [frame.time for frame in reader.frames()]
        return np.array([*times, reader.end]) - times[0]


def _read_csv(text: str, offset: float) -> list[Cut]:
    cuts = []
    for number, row in enumerate(csv.reader(io.StringIO(text), strict=True), start=1):
        if not any(field.strip() for field in row):
            continue
        try:
            start, end = (float(field) if field.strip() else None for field in row[:2])
        except ValueError:
            raise ValueError(f"line {number}: expected start, end and label, times in seconds") from None
        begin, stop = 0.0 if start is None else start - offset, math.inf if end is None else end - offset
        cuts.append(_cut(begin, stop, ",".join(row[2:]).strip()))
    return cuts


def _read_json(text: str) -> list[Cut]:
    found: dict[str, Any] = json.loads(text)
    return [
        _cut(float(shot["start"]), float(shot["end"]), f"shot {number}", shot.get("score"))
        for number, shot in enumerate(found["shots"], start=1)
        if shot["chosen"]
    ]


def _cut(start: float, end: float, label: str, score: float | None = None) -> Cut:
    if not (start < end and end > 0):
        raise ValueError(f"a cut from {start:g} to {end:g} s")
    return Cut(max(0.0, start), end, label, score)


def _nominal_rate(average: Fraction | None, guessed: Fraction | None) -> Fraction:
    """Return the rate an editor would count in: the standard one nearby, else the average itself."""
    rates = [Fraction(rate) for rate in (average, guessed) if rate]
    for rate in rates:
        nearest = min(_STANDARD_RATES, key=lambda standard: abs(standard - rate))
        if abs(nearest - rate) < Fraction(1, 2000) * rate:
            return nearest
    return rates[0].limit_denominator(1001) if rates else Fraction(25)


def _timecode(text: str, rate: Fraction) -> tuple[int, bool]:
    """Return a timecode such as ``10:00:00:00`` as a number of frames, and whether it is of the drop-frame kind."""
    match = re.fullmatch(r"(\d\d):([0-5]\d):([0-5]\d)([:;.])(\d\d)", text.strip())
    if match is None:
        return 0, False
    hours, minutes, seconds, frames = (int(match[group]) for group in (1, 2, 3, 5))
    base, drop = round(rate), match[4] != ":" and rate.denominator == 1001
    total = ((hours * 60 + minutes) * 60 + seconds) * base + frames
    dropped = base // 15 * (hours * 54 + minutes - minutes // 10) if drop else 0
    return total - dropped, drop
