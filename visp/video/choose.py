"""Which shots make the summary: candidates within the budget, the user's own ranges, the knapsack, and margins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from visp.eval.kts import kts
from visp.eval.shots import shots_from_breaks
from visp.eval.summary import choose_shots, shot_scores, upsample_scores
from visp.video.cuts import Cut, frames_of
from visp.video.extract import VideoFeatures, find_shots, unit_norm

Shots = npt.NDArray[np.int64]
Ranges = Sequence[tuple[float, float]]

SHORTEST = 0.1
"""Seconds for which a frame is shown at least, where it is not shown for less in the video."""
_SHORTEST_PART = 2.0
"""Seconds from which a part of a shot is worth showing, beside a tenth of the budget; a quarter of a small one."""
_FINE = 0.01
"""Seconds, the longest unit of the budget where the video is not too long for it."""
_MOST_UNITS = 2_000_000
"""Units of a whole video that the knapsack can take."""
_FREE, _KEPT, _DROPPED = 0, 1, 2


@dataclass(frozen=True)
class Wishes:
    """What a summary is to be like, beyond its length.

    Attributes:
        margin: Seconds by which every chosen shot is widened on both sides; they count against the budget.
        min_shot: Seconds that every chosen shot lasts at least.
        keep: (start, end) of spans that are in the summary whatever their scores, in seconds after the first frame.
        drop: Spans that are not.

    Raises:
        ValueError: If a number is negative or not finite, or spans are empty, or some are both kept and dropped.
    """

    margin: float = 0.0
    min_shot: float = 0.0
    keep: Ranges = ()
    drop: Ranges = ()

    def __post_init__(self) -> None:
        for name, value in (("margin", self.margin), ("min_shot", self.min_shot)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a number of seconds of at least 0, got {value!r}")
        for name, ranges in (("keep", self.keep), ("drop", self.drop)):
            for start, end in ranges:
                if not 0 <= start < end:
                    raise ValueError(
                        f"{name} expects spans of seconds (start, end) with start < end, got {start:g} to {end:g}"
                    )
        for a, b in ((kept, dropped) for kept in self.keep for dropped in self.drop):
            if a[0] < b[1] and b[0] < a[1]:
                raise ValueError(
                    f"{a[0]:g} to {a[1]:g} s is to be kept, and {b[0]:g} to {b[1]:g} s to be dropped: choose"
                )


@dataclass(frozen=True)
class Candidates:
    """The shots of a video, before they are scored.

    Attributes:
        shots: (S, 2) first and last frame of each, inclusive; they cover the video.
        kinds: (S,) whether the user leaves it to the scores, keeps it, or drops it.
        notes: What the user should know, in sentences.
    """

    shots: Shots
    kinds: npt.NDArray[np.int64]
    notes: list[str]


@dataclass(frozen=True)
class Choice:
    """The chosen shots.

    Attributes:
        shots: (S, 2) first and last frame of each shot, inclusive; they cover the video, margins in place.
        scores: (S,) mean score of each shot's frames.
        selected: Indices of the chosen ones, ascending.
        lengths: Seconds after which each chosen shot is cut off within its last frame; infinite for all of it.
        notes: What the user should know, in sentences.
    """

    shots: Shots
    scores: npt.NDArray[np.float64]
    selected: npt.NDArray[np.intp]
    lengths: npt.NDArray[np.float64]
    notes: list[str]


def find_candidates(video: VideoFeatures, longest: float, wishes: Wishes) -> Candidates:
    """Cut a video into shots of which a summary of ``longest`` seconds can be made.

    The user's spans are shots of their own. Of the others, those shorter than ``min_shot`` join the neighbour that
    looks more alike, and those longer than the budget are split by KTS.

    Raises:
        ValueError: If no summary of that length can be as wished.
    """
    if wishes.min_shot > longest:
        raise ValueError(f"min_shot is {wishes.min_shot:g} s, more than the budget of {longest:.2f} s")
    if 2 * wishes.margin >= longest:
        raise ValueError(
            f"a margin of {wishes.margin:g} s on both sides leaves nothing of the budget of {longest:.2f} s"
        )
    shots, kinds = _with_ranges(video, find_shots(video), wishes)
    if (kinds == _DROPPED).all():
        raise ValueError("the spans to drop are the whole video")
    shots, kinds = _joined(video, shots, kinds, wishes.min_shot, math.inf)
    room = _capacity(video, longest - 2 * wishes.margin) if longest < video.duration else _capacity(video, longest)
    pieces: list[Shots] = []
    notes = []
    for number, (shot, kind, weight) in enumerate(
        zip(shots, kinds.tolist(), _weights(video, shots).tolist(), strict=True), start=1
    ):
        if weight <= room or kind != _FREE:
            pieces.append(shot[None])
            continue
        split = _split(video, shot, room)
        split = _joined(video, split, np.full(len(split), _FREE), wishes.min_shot, room)[0]
        pieces.append(split)
        if len(split) == 1:  # a single frame, which the summary shows for a shorter time
            continue
        start, end = video.frame_times[shot[0]], video.frame_times[shot[1] + 1]
        notes.append(
            f"Shot {number} of {len(shots)}, {start:.2f} to {end:.2f} s, is longer than the budget of {longest:.2f} s: "
            f"KTS split it into {len(split)}."
        )
    return Candidates(np.concatenate(pieces), np.repeat(kinds, [len(piece) for piece in pieces]), notes)


def choose(
    video: VideoFeatures, scores: npt.NDArray[np.float32], candidates: Candidates, longest: float, wishes: Wishes
) -> Choice:
    """Choose the shots of greatest total score within ``longest`` seconds, as wished.

    A single frame that is shown for longer than the budget takes all of it. Spans to keep are kept whatever the budget.
    What no whole shot fits into is filled with parts of the best of the others.
    """
    shots, kinds = candidates.shots, candidates.kinds
    capacity = _capacity(video, longest)
    margin = 0.0 if longest >= video.duration else wishes.margin
    weights = np.minimum(_weights(video, shots) + math.ceil(2 * margin * _units(video) - 1e-6), capacity)
    too_short = video.frame_times[shots[:, 1] + 1] - video.frame_times[shots[:, 0]] < wishes.min_shot - 1e-6
    notes = []
    kept = np.flatnonzero(kinds == _KEPT)
    seconds = float(np.diff(_times(video, shots[kept])).sum())
    left = capacity - math.ceil(seconds * _units(video) - 1e-6)
    if left < 0:
        notes.append(f"The spans to keep last {seconds:.2f} s, longer than the budget of {longest:.2f} s.")
    above_zero = np.maximum(scores, np.finfo(np.float32).tiny)
    free = (kinds == _FREE) & ~too_short
    if not free.any() and not len(kept):
        free = kinds == _FREE
        notes.append(f"No shot within the budget lasts {wishes.min_shot:g} s: shorter ones are taken.")
    sizes = np.where(free, weights, max(left, 0) + 1)
    chosen = choose_shots(above_zero, shots, video.n_frames, video.picks, capacity=max(left, 0), lengths=sizes)
    selected = np.union1d(chosen.selected, kept)
    free_frames = np.repeat(kinds == _FREE, np.diff(shots).ravel() + 1)
    if margin > 0:
        shots, selected = _widened(video, shots, kinds, selected, margin)
    worth = upsample_scores(scores, video.picks, video.n_frames)
    lengths = np.where(np.diff(shots[selected]).ravel() == 0, max(longest, SHORTEST), np.inf)
    choice = Choice(shots, shot_scores(worth, shots), selected, lengths, notes)
    return _filled(video, worth, free_frames, choice, longest, wishes.min_shot)


def _with_ranges(video: VideoFeatures, shots: Shots, wishes: Wishes) -> tuple[Shots, npt.NDArray[np.int64]]:
    """Cut shots at the borders of the user's spans, and say which of them lie in one."""
    kinds = np.full(video.n_frames, _FREE)
    for kind, ranges in ((_KEPT, wishes.keep), (_DROPPED, wishes.drop)):
        for start, end in ranges:
            ((first, last),) = frames_of((Cut(start, end, ""),), video.frame_times).tolist()
            kinds[first : last + 1] = kind
    borders = np.flatnonzero(np.diff(kinds)) + 1
    stops = shots[:, 1] + 1
    inner = stops[:-1][(kinds[stops[:-1] - 1] == _FREE) | (kinds[stops[:-1]] == _FREE)]
    cut = shots_from_breaks(np.union1d(np.union1d(inner, borders), [video.n_frames]))
    return cut, kinds[cut[:, 0]]


def _joined(
    video: VideoFeatures, shots: Shots, kinds: npt.NDArray[np.int64], min_shot: float, room: float
) -> tuple[Shots, npt.NDArray[np.int64]]:
    """Join free shots shorter than ``min_shot`` seconds with the neighbour that is more alike, up to ``room`` units."""
    spans, names = shots.tolist(), kinds.tolist()
    done: set[tuple[int, int]] = set()
    while True:
        lengths = np.diff(_times(video, np.array(spans))).ravel()
        short = [i for i in np.argsort(lengths, kind="stable").tolist() if lengths[i] < min_shot - 1e-6]
        short = [i for i in short if names[i] == _FREE and tuple(spans[i]) not in done]
        if not short:
            return np.array(spans), np.array(names)
        i = short[0]
        pairs = [(a, a + 1) for a in (i - 1, i) if a >= 0 and a + 1 < len(spans) and names[a] == names[a + 1]]
        fits = [(a, b) for a, b in pairs if _weights(video, np.array([[spans[a][0], spans[b][1]]]))[0] <= room]
        if not fits:
            done.add(tuple(spans[i]))
            continue
        a, b = max(fits, key=lambda pair: _likeness(video, spans[pair[0]], spans[pair[1]]))
        spans[a : b + 1], names[a : b + 1] = [[spans[a][0], spans[b][1]]], [_FREE]


def _likeness(video: VideoFeatures, one: list[int], other: list[int]) -> float:
    """Return the cosine of the mean features of two shots; one without a sampled frame has that before."""
    means = []
    for first, last in (one, other):
        a, b = np.searchsorted(video.picks, [first, last + 1])
        a = min(a, b - 1)
        means.append(unit_norm(video.features[max(0, a) : max(1, b)].mean(axis=0, keepdims=True)))
    return float((means[0] * means[1]).sum())


def _widened(
    video: VideoFeatures, shots: Shots, kinds: npt.NDArray[np.int64], selected: npt.NDArray[np.intp], margin: float
) -> tuple[Shots, npt.NDArray[np.intp]]:
    """Widen chosen shots by ``margin`` seconds on both sides, into shots that are neither chosen nor dropped."""
    owner = np.repeat(np.arange(len(shots)), shots[:, 1] - shots[:, 0] + 1)
    taken = np.isin(owner, selected)
    middles = (video.frame_times[1:] + video.frame_times[:-1]) / 2
    wanted = owner.copy()
    for shot, (start, end) in zip(selected.tolist(), _times(video, shots[selected]).tolist(), strict=True):
        first, stop = np.searchsorted(middles, [start - margin, end + margin])
        reach = np.arange(first, stop)
        wanted[reach[~taken[reach] & (kinds[owner[reach]] != _DROPPED) & ~np.isin(wanted[reach], selected)]] = shot
    stops = np.append(np.flatnonzero(np.diff(wanted)) + 1, len(wanted))
    widened = shots_from_breaks(stops)
    return widened, np.flatnonzero(np.isin(wanted[widened[:, 0]], selected))


def _filled(
    video: VideoFeatures,
    worth: npt.NDArray[np.floating],
    free: npt.NDArray[np.bool_],
    choice: Choice,
    longest: float,
    min_shot: float,
) -> Choice:
    """Add the best part of the best shot that is not chosen, again and again, while enough of the budget is left.

    Args:
        video: The video.
        worth: (n_frames,) score of each frame.
        free: (n_frames,) whether the user leaves it to the scores.
        choice: What is chosen already.
        longest: The budget in seconds.
        min_shot: Seconds that a part lasts at least.
    """
    starts, ends = video.frame_times[:-1], video.frame_times[1:]
    least = max(min_shot, SHORTEST, longest / 10, min(_SHORTEST_PART, longest / 4))
    cut_off = {
        int(choice.shots[shot, 0]): float(length)
        for shot, length in zip(choice.selected, choice.lengths, strict=True)
        if length < math.inf
    }
    spans, chosen = choice.shots.tolist(), set(choice.shots[choice.selected, 0].tolist())
    added = 0
    passed: set[int] = set()
    while True:
        used = (min(ends[b] - starts[a], cut_off.get(a, math.inf)) for a, b in spans if a in chosen)
        left = longest - sum(used)
        others = [i for i, (a, _) in enumerate(spans) if a not in chosen and a not in passed and free[a]]
        if left < least - 1e-6 or not others:
            break
        best = max(others, key=lambda i: float(worth[spans[i][0] : spans[i][1] + 1].mean()))
        first, last = spans[best]
        a, b = _best_part(starts[first : last + 1], ends[first : last + 1], worth[first : last + 1], left)
        a, b = first + a, first + b
        if ends[b] - starts[a] < least - 1e-6:
            passed.add(first)
            continue
        spans[best : best + 1] = [span for span in ([first, a - 1], [a, b], [b + 1, last]) if span[0] <= span[1]]
        chosen.add(a)
        if a == b:
            cut_off[a] = left
        added += 1
    if not added:
        return choice
    shots = np.array(spans)
    selected = np.flatnonzero(np.isin(shots[:, 0], list(chosen)))
    lengths = np.array([cut_off.get(a, math.inf) for a in shots[selected, 0].tolist()])
    part = "A part of a shot" if added == 1 else f"Parts of {added} shots"
    notes = [*choice.notes, f"{part} too long for what was left of the budget {'was' if added == 1 else 'were'} added."]
    return Choice(shots, shot_scores(worth, shots), selected, lengths, notes)


def _best_part(
    starts: npt.NDArray[np.float64], ends: npt.NDArray[np.float64], worth: npt.NDArray[np.floating], room: float
) -> tuple[int, int]:
    """Return first and last frame of the best stretch within ``room`` seconds, or the best frame if none fits."""
    stops = np.searchsorted(ends, starts + room + 1e-6, side="right")
    sums = np.concatenate([[0.0], np.cumsum(worth * (ends - starts))])
    totals = np.where(stops > np.arange(len(starts)), sums[stops] - sums[:-1], -np.inf)
    first = int(totals.argmax())
    if np.isfinite(totals[first]):
        return first, int(stops[first]) - 1
    best = int(worth.argmax())
    return best, best


def _times(video: VideoFeatures, shots: Shots) -> npt.NDArray[np.float64]:
    """Return when each shot begins and ends (S, 2), in seconds."""
    return np.stack([video.frame_times[shots[:, 0]], video.frame_times[shots[:, 1] + 1]], axis=1)


def _units(video: VideoFeatures) -> float:
    """Return the units a second in which the budget is counted, a whole number of them in a frame of average length.

    At a constant frame rate the choice is that of the field, which counts frames.
    """
    finest = max(1, _MOST_UNITS // video.n_frames)
    return min(max(4, math.ceil(1 / (video.frame_rate * _FINE))), finest) * video.frame_rate


def _capacity(video: VideoFeatures, longest: float) -> int:
    """Return a length in seconds in whole units, at least that of the shortest summary."""
    return max(1, int(max(longest, min(SHORTEST, 1 / video.frame_rate)) * _units(video) + 1e-6))


def _weights(video: VideoFeatures, shots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the length (S,) of each shot in units, not less than it is."""
    seconds = video.frame_times[shots[:, 1] + 1] - video.frame_times[shots[:, 0]]
    return np.maximum(1, np.ceil(seconds * _units(video) - 1e-6)).astype(np.int64)


def _split(video: VideoFeatures, shot: npt.NDArray[np.int64], capacity: int) -> npt.NDArray[np.int64]:
    """Split a shot by KTS with a largest length, and evenly where the sampled frames are too far apart for that."""
    first, last = shot.tolist()
    rows = np.flatnonzero((video.picks >= first) & (video.picks <= last))
    if len(rows) < 2:
        return np.array(_evenly(video, first, last + 1, capacity))
    times = np.append(video.frame_times[video.picks[rows]], video.frame_times[last + 1]) * _units(video)
    longest = min(len(rows), int(capacity / np.median(np.diff(times))) + 1)
    # With so many rows, at least nine in ten pieces fit; the others are cut evenly.
    fitting = (n for n in range(longest, 1, -1) if np.quantile(times[n:] - times[:-n], 0.9) <= capacity + 1e-6)
    change_points = kts(unit_norm(video.features[rows]), max_length=next(fitting, 1)).change_points
    starts = [first, *video.picks[rows[change_points]].tolist(), last + 1]
    pieces = [piece for start, stop in pairwise(starts) for piece in _evenly(video, start, stop, capacity)]
    return np.array(pieces)


def _evenly(video: VideoFeatures, start: int, stop: int, capacity: int) -> list[tuple[int, int]]:
    """Cut frames [start, stop) into even shots that weigh at most ``capacity``, if a frame does not weigh more."""
    weight = int(_weights(video, np.array([[start, stop - 1]]))[0])
    if weight <= capacity or stop - start == 1:
        return [(start, stop - 1)]
    parts = min(stop - start, -(-weight // capacity))
    cuts = [start + (stop - start) * part // parts for part in range(parts + 1)]
    return [piece for a, b in pairwise(cuts) for piece in _evenly(video, a, b, capacity)]
