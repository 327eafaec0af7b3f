"""One clock for the picture and the sound of a file, whatever its timestamps do."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visp.video.container import Streams, VideoError, choose_streams, iter_packets, open_container, shown
from visp.video.wholeness import stated_size

if TYPE_CHECKING:
    import av.container
    from av.packet import Packet
    from av.stream import Stream

TICK = Fraction(1, 90_000)
"""Seconds of a tick of what is written, and of a stream that names none."""
LONGEST_HOLE = 600.0
"""Seconds without picture and sound, beyond which a hole is left out."""
_RESTART = 0.5
"""Seconds by which timestamps must go back to be those of another recording."""
_ROUNDING = 1e-3
"""Seconds by which timestamps may be rounded, also where they were copied from a coarser clock to a finer one."""
_STATED = frozenset(["mov", "matroska", "flv", "asf", "avi", "mxf"])
"""Formats whose duration is stated in the file and not estimated."""


@dataclass
class _Run:
    """Packets of one stream, one after the other, between two restarts of its timestamps.

    Attributes:
        first: Number of the first one among the stream's packets.
        begin: Number of the first one among all packets of the file.
        end: Number of the last one among all packets of the file.
        covered: [start, end) of each, in seconds of their own clock.
        pts: Their presentation times, in ticks.
        shift: Seconds to add for the file's one clock.
        holes: What is left out, (start, end) in seconds of their own clock.
    """

    first: int
    begin: int
    end: int = 0
    covered: list[tuple[float, float]] = field(default_factory=list)
    pts: list[int] = field(default_factory=list)
    shift: float = 0.0
    holes: list[tuple[float, float]] = field(default_factory=list)

    @cached_property
    def spans(self) -> list[tuple[float, float]]:
        """[start, end) of what they cover together, in seconds of their own clock, ascending."""
        return _merged(self.covered)

    def place(self, time: float) -> float:
        """Return what to add to a time of their own clock."""
        return self.shift - sum(b - a for a, b in self.holes if time >= b - _ROUNDING)


@dataclass(frozen=True)
class _Grid:
    """Frames at a constant rate on the one clock: from ``start`` on, at ``origin`` + n / ``rate`` seconds.

    They are ``even`` if there is one for every n.
    """

    start: float
    origin: float
    rate: float | None
    period: float
    even: bool = False


class Timeline:
    """The one clock of a file, found by reading the timestamps of all its packets once, without decoding.

    Where timestamps restart, as in recordings that were joined, picture and sound are moved together so that what
    follows begins where everything before has ended. A hole of more than ``LONGEST_HOLE`` seconds, in which there is
    neither picture nor sound, is left out of both. Times of frames that fit a constant rate within their rounding are
    put back on it.

    Args:
        path: The file.

    Attributes:
        joined: How many recordings follow each other.
        left_out: Seconds of holes that are left out.
        note: Which tracks were taken, where there was a choice.
        end: When the picture ends on the one clock, by its packets.

    Raises:
        FileNotFoundError: If there is no such file.
        VideoError: If the file cannot be read as a video, or is cut short.
    """

    def __init__(self, path: Path) -> None:
        with open_container(path) as container:
            chosen = choose_streams(container, path)
            self.note = chosen.note
            self._rates = [
                Fraction(r) for r in (chosen.video.average_rate, chosen.video.guessed_rate, chosen.video.base_rate) if r
            ]
            self._tick = float(chosen.video.time_base or TICK)
            ends = self._scan(container, chosen, path)
            pictures = self._runs[chosen.video.index]
            self.joined = len(pictures)
            self.left_out = 0.0
            self._align(chosen)
            self._grids = [self._grid(run) for run in pictures]
            self.end = max((run.spans[-1][1] + run.place(run.spans[-1][1]) for run in pictures if run.spans), default=0)
            self._refuse_cut_short(container, path, ends)

    def shift(self, stream: Stream, packet: Packet[Any]) -> None:
        """Put a packet on the one clock; all packets of a stream must come, in the file's order."""
        number = self._seen[stream.index] = self._seen[stream.index] + 1
        runs = self._runs.get(stream.index, [])
        stamp = packet.pts if packet.pts is not None else packet.dts
        if not runs or stamp is None or packet.time_base is None:
            return
        run = runs[max(0, bisect_right([r.first for r in runs], number - 1) - 1)]
        ticks = round(run.place(float(stamp * packet.time_base)) / packet.time_base)
        if ticks:
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks

    def restart(self, stream: Stream) -> None:
        """Begin anew with the packets of a stream."""
        self._seen[stream.index] = 0

    def exact(self, time: float) -> float:
        """Return the time of a frame without its rounding, where the frames have a constant rate."""
        grid = self._grid_at(time)
        if grid is None or grid.rate is None:
            return time
        near = grid.origin + round((time - grid.origin) * grid.rate) / grid.rate
        return near if abs(near - time) <= 1.1 * max(self._tick, _ROUNDING) else time

    def length(self, time: float, stated: float | None) -> float:
        """Return for how long a frame is shown, of which the file states a length, or none that can be."""
        grid = self._grid_at(time)
        period = grid.period if grid is not None else 1 / float(self._rates[0]) if self._rates else 1 / 25
        if stated is None or not 0 < stated <= LONGEST_HOLE:
            return period
        return period if abs(stated - period) <= 1.5 * max(self._tick, _ROUNDING) else stated

    @property
    def is_even(self) -> bool:
        """Whether all frames are shown for equally long."""
        return len(self._grids) == 1 and self._grids[0].even

    def _grid_at(self, time: float) -> _Grid | None:
        found = bisect_right([grid.start - _ROUNDING for grid in self._grids], time) - 1
        return self._grids[max(0, found)] if self._grids else None

    def _scan(self, container: av.container.InputContainer, chosen: Streams, path: Path) -> dict[int, float]:
        """Read all packets; fill the runs of the chosen streams, and return when each stream ends on its own clock."""
        own = {stream.index for stream in [chosen.video, *chosen.sound]}
        self._runs: dict[int, list[_Run]] = {index: [] for index in own}
        self._seen: Counter[int] = Counter()
        ends: dict[int, float] = {}
        before: dict[int, float] = {}
        seen: Counter[int] = Counter()
        for number, packet in enumerate(iter_packets(container, list(container.streams), path)):
            index = packet.stream.index
            seen[index] += 1
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is None or packet.time_base is None:
                continue
            base = float(packet.time_base)
            time = stamp * base
            length = (packet.duration or 0) * base
            length = length if 0 < length <= LONGEST_HOLE else self._tick
            if index not in own:
                ends[index] = max(ends.get(index, -math.inf), time + length)
                continue
            if packet.is_discard:
                continue
            ends[index] = max(ends.get(index, -math.inf), time + length)
            runs = self._runs[index]
            order = math.inf if packet.dts is None else packet.dts * base  # presentation times need not ascend
            if not runs or order < before[index] - _RESTART:
                runs.append(_Run(seen[index] - 1, number))
                before[index] = -math.inf
            if packet.dts is not None:
                before[index] = order
            runs[-1].end = number
            runs[-1].covered.append((time, time + length))
            if index == chosen.video.index:
                runs[-1].pts.append(stamp)
        return ends

    def _align(self, chosen: Streams) -> None:
        """Find the shift of each run, and the holes."""
        pictures = self._runs[chosen.video.index]
        if not pictures:
            return
        members: list[list[_Run]] = [[run] for run in pictures]
        follows: list[tuple[_Run, _Run]] = []
        for stream in chosen.sound:
            last: dict[int, _Run] = {}
            for run in self._runs[stream.index]:
                # In the file, a run of sound lies beside the pictures that it belongs to.
                shared = [min(run.end, p.end) - max(run.begin, p.begin) for p in pictures]
                epoch = int(np.argmax(shared))
                if epoch in last and run.spans[0][0] < last[epoch].spans[-1][1] - _RESTART:
                    follows.append((run, last[epoch]))  # the sound alone restarts
                else:
                    members[epoch].append(run)
                last[epoch] = run
        ended = min(run.spans[0][0] for run in members[0])
        for together in members:
            spans = _merged([span for run in together for span in run.spans])
            holes = [(before[1], after[0]) for before, after in pairwise(spans)]
            reached = spans[-1][1]
            for run in together:
                run.shift, run.holes = ended - spans[0][0], holes
            self.left_out += sum(b - a for a, b in holes)
            ended = reached + together[0].place(reached)
        for run, previous in follows:
            end = previous.spans[-1][1]
            run.shift = end + previous.place(end) - run.spans[0][0]

    def _grid(self, run: _Run) -> _Grid:
        """Find the constant rate of a run's frames, if they have one."""
        stamps = np.unique(np.array(run.pts)) * self._tick
        times = np.array([time + run.place(time) for time in stamps.tolist()]) if run.holes else stamps + run.shift
        steps = np.diff(times)
        period = float(np.median(steps)) if len(steps) else 1 / float(self._rates[0]) if self._rates else 1 / 25
        for rate in self._candidates(times):
            off = times - times[0] - np.rint((times - times[0]) * rate) / rate
            spread = float(off.max() - off.min())
            if spread <= 1.05 * max(self._tick, _ROUNDING) and spread * rate < 0.5 and (steps * rate > 0.5).all():
                even = bool((steps * rate < 1.5).all())
                return _Grid(float(times[0]), float(times[0] + (off.max() + off.min()) / 2), rate, 1 / rate, even)
        return _Grid(float(times[0]), float(times[0]), None, min(period, LONGEST_HOLE))

    def _candidates(self, times: npt.NDArray[np.float64]) -> list[float]:
        """Return rates, frames a second, that these times may have."""
        if len(times) < 3:
            return []
        rates = list(self._rates)
        for rate in ((len(times) - 1) / (times[-1] - times[0]), 1 / float(np.median(np.diff(times)))):
            whole = max(1, round(rate))
            rates += [Fraction(whole), Fraction(max(1, round(rate * 1.001)) * 1000, 1001)]
        return [float(rate) for rate in dict.fromkeys(rates) if 0 < rate <= 240]

    def _refuse_cut_short(self, container: av.container.InputContainer, path: Path, ends: dict[int, float]) -> None:
        size, stated_bytes = path.stat().st_size, stated_size(path)
        if stated_bytes is not None and stated_bytes > size:
            parts = f"of {stated_bytes:,} bytes are there" if stated_bytes > size + 1 else "bytes, the last in a part"
            raise VideoError(f"{shown(path)}: cut short or badly damaged: only {size:,} {parts}")
        if not container.duration or not _STATED & set(container.format.name.split(",")) or not ends:
            return
        stated, reached = container.duration / 1e6, max(ends.values())
        starts = [run.spans[0][0] for runs in self._runs.values() for run in runs[:1]]
        seconds = max(reached, reached - min(starts, default=0))
        if stated_bytes is None and self.joined < 2 and stated - seconds > 0.1 * stated + 2 * self._longest_period():
            raise VideoError(
                f"{shown(path)}: cut short or badly damaged: only {seconds:.2f} of {stated:.2f} s can be decoded"
            )
        if seconds - self.left_out > 10 * stated + 3600:
            raise VideoError(f"{shown(path)}: lasts {seconds:.0f} s, but says that it lasts {stated:.0f} s")

    def _longest_period(self) -> float:
        return max((grid.period for grid in self._grids), default=0.0)


def _merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return what spans cover together, ascending, without the holes that are short enough to stay."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1] + LONGEST_HOLE:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged
