"""Best segmentations of a video: least scatter with a price on each change point, or for each number of them.

Both walk once over the video in blocks of frames and keep only the starts of a last segment that may still pay off.
A segment is half-open here, [start, end).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SMALLEST_BLOCK, LARGEST_BLOCK = 64, 128
"""Frames a step: more of them waste products inside the block, fewer read the starts' sums too often."""

_EVERY = 8
"""A start is compared at every 8th frame; what it misses is dropped a little later."""

_ROWS = 256
_NEVER = np.iinfo(np.int64).max


class Segmentation(NamedTuple):
    """Change points, (m,) first frames of segments 1..m, and the scatter of the m + 1 segments."""

    change_points: IntArray
    scatter: float


class Scatter(ABC):
    """Scatter J of the segments that end in a block of frames, for the starts still in play.

    J(s, t) = sum of |x_i|^2 over the segment - |sum of x_i|^2 / (t - s), x the frames in the kernel's feature space.
    Sums run from each start to the block, so nothing grows with the video and nothing large cancels.

    Attributes:
        n_frames: N.
        starts: (R,) the starts in play, ascending.
        whole: Scatter of the video as one segment.
        resolution: What a scatter may be off by from rounding, above 0.
    """

    def __init__(self, squared_norms: FloatArray, whole: float, min_length: int, max_length: int) -> None:
        self.n_frames = len(squared_norms)
        self.whole = max(whole, 0.0)
        rounding = np.finfo(np.float64)
        self.resolution = max(16 * float(rounding.eps * squared_norms.sum()), float(rounding.tiny))
        self.min_length = min_length
        self.max_length = max_length
        self._squared_norms = squared_norms
        self.restart()

    def restart(self) -> None:
        """Go back to the first frame, with no start in play."""
        self.starts = np.zeros(0, np.int64)
        self._energy = np.zeros(0)
        self._squared_sum = np.zeros(0)

    def block(self, begin: int, end: int) -> FloatArray:
        """Put the starts begin..end-1 in play and return J to each segment end begin+1..end.

        Returns:
            (R, end - begin); inf where a segment's length is not in [min_length, max_length].
        """
        dots, own = self._dots(begin, end)
        starts = np.concatenate([self.starts, np.arange(begin, end)])
        ends = np.arange(begin + 1, end + 1)
        energy_to_end = np.cumsum(self._squared_norms[begin:end])
        energy = np.concatenate([self._energy, [0.0], -energy_to_end[:-1]])
        squared_sum = np.concatenate([self._squared_sum, [0.0], own[:-1]])

        scatter = dots
        scatter *= 2
        scatter += squared_sum[:, None]
        scatter += own
        last_squared_sum = scatter[:, -1].copy()
        length = ends.astype(np.float64) - starts[:, None]
        too_short_from, too_long_to = np.searchsorted(starts, [begin + 2 - self.min_length, end - self.max_length])
        too_short = length[too_short_from:] < self.min_length
        too_long = length[:too_long_to] > self.max_length
        scatter /= np.maximum(length, 1, out=length)
        np.subtract(energy[:, None], scatter, out=scatter)
        scatter += energy_to_end
        np.maximum(scatter, 0, out=scatter)
        np.fill_diagonal(scatter[len(self.starts) :], 0)  # one frame
        scatter[too_short_from:][too_short] = np.inf
        scatter[:too_long_to][too_long] = np.inf

        self.starts = starts
        self._energy = energy + energy_to_end[-1]
        self._squared_sum = last_squared_sum
        return scatter

    def keep(self, mask: npt.NDArray[np.bool_]) -> None:
        """Keep the starts of a mask (R,) in play; call it after each block."""
        self.starts = self.starts[mask]
        self._energy = self._energy[mask]
        self._squared_sum = self._squared_sum[mask]

    @abstractmethod
    def _dots(self, begin: int, end: int) -> tuple[FloatArray, FloatArray]:
        """Return (R, B) products of the sums over [start, begin) and [begin, t), and (B,) squares of the latter.

        For a start s inside the block, the former is minus the sum over [begin, s).
        """


class FeatureScatter(Scatter):
    """Scatter of features (N, d) under the linear kernel; memory O(R d) beside the features."""

    def __init__(self, features: npt.NDArray[Any], min_length: int, max_length: int) -> None:
        self._features = features
        self._sums = np.empty((0, features.shape[1]))
        self._shift = np.zeros(features.shape[1])
        total = np.zeros(features.shape[1])
        for begin in range(0, len(features), _ROWS):
            total += features[begin : begin + _ROWS].sum(axis=0, dtype=np.float64)
        self._center = total / len(features)
        squared_norms = np.empty(len(features))
        for begin in range(0, len(features), _ROWS):
            frames = self._centered(begin, begin + _ROWS)
            squared_norms[begin : begin + _ROWS] = np.einsum("td,td->t", frames, frames)
        super().__init__(squared_norms, float(squared_norms.sum()), min_length, max_length)

    def _centered(self, begin: int, end: int) -> FloatArray:
        return self._features[begin:end] - self._center

    def _dots(self, begin: int, end: int) -> tuple[FloatArray, FloatArray]:
        old, size = len(self.starts), end - begin
        if len(self._sums) < old + size:
            grown = np.empty((max(old + size, min(old * 3 // 2, self.n_frames)), self._features.shape[1]))
            grown[:old] = self._sums[:old]
            self._sums = grown
        sums = self._centered(begin, end)
        for row in range(1, size):  # np.cumsum down the columns takes ten times as long
            sums[row] += sums[row - 1]
        self._sums[old] = 0
        np.negative(sums[:-1], out=self._sums[old + 1 : old + size])
        self._shift = sums[-1]
        return self._sums[: old + size] @ sums.T, np.einsum("td,td->t", sums, sums)

    def keep(self, mask: npt.NDArray[np.bool_]) -> None:
        """Keep the starts of a mask (R,) in play and carry their sums to the end of the block."""
        super().keep(mask)
        rows = np.flatnonzero(mask)
        for begin in range(0, len(rows), _ROWS):
            chunk = rows[begin : begin + _ROWS]
            np.add(self._sums[chunk], self._shift, out=self._sums[begin : begin + len(chunk)])


class KernelScatter(Scatter):
    """Scatter under a symmetric positive semi-definite kernel matrix (N, N)."""

    def __init__(self, kernel: npt.NDArray[Any], min_length: int, max_length: int) -> None:
        self._kernel = kernel
        squared_norms = np.diagonal(kernel).astype(np.float64)
        whole = float(squared_norms.sum()) - float(kernel.sum(dtype=np.float64)) / len(kernel)
        super().__init__(squared_norms, whole, min_length, max_length)

    def _dots(self, begin: int, end: int) -> tuple[FloatArray, FloatArray]:
        first = int(self.starts[0]) if len(self.starts) else begin
        entries = np.cumsum(self._kernel[first:end, begin:end], axis=1, dtype=np.float64)
        before, inside = entries[: begin - first], entries[begin - first :]
        tails = np.cumsum(before[::-1], axis=0)[::-1]
        heads = np.cumsum(inside, axis=0)
        return np.concatenate([tails[self.starts - first], np.zeros_like(heads[:1]), -heads[:-1]]), np.diagonal(heads)


def least_penalised(scatter: Scatter, price: float, tick: Callable[[int], object] = int) -> Segmentation:
    """Minimise scatter + price * number of change points (PELT, Killick et al. 2012).

    A start s is dropped once cost(s) + J(s, t) >= cost(t): since J(s, t) + J(t, u) <= J(s, u), t is then as good a
    start of any segment that ends at u >= t + min_length.

    Args:
        scatter: The video and the limits on a segment's length.
        price: >= 0.
        tick: Called with the number of frames done since the last call.
    """
    n_frames = scatter.n_frames
    cost = np.full(n_frames + 1, np.inf)
    cost[0] = -price
    start_of = np.zeros(n_frames + 1, np.int64)
    last_piece = np.zeros(n_frames + 1)
    dropped_from = np.full(n_frames, _NEVER)
    for begin, end in _blocks(scatter):
        old = len(scatter.starts)
        pieces = scatter.block(begin, end)
        starts = scatter.starts
        costs = np.empty_like(pieces)
        np.add(pieces[:old], cost[starts[:old], None], out=costs[:old])
        row = costs[:old].argmin(axis=0) if old else np.zeros(end - begin, np.int64)
        least = costs[row, np.arange(end - begin)] if old else np.full(end - begin, np.inf)
        inside = pieces[old:].T.copy()
        for column in range(end - begin):
            from_inside = inside[column, : column + 1] + cost[begin : begin + column + 1]
            best = from_inside.argmin()
            if from_inside[best] < least[column]:
                least[column] = from_inside[best]
                row[column] = old + best
            cost[begin + column + 1] = least[column] + price
        np.add(pieces[old:], cost[begin:end, None], out=costs[old:])
        ends = slice(begin + 1, end + 1)
        start_of[ends] = starts[row]
        last_piece[ends] = pieces[row, np.arange(end - begin)]

        drop = np.where(_beaten(costs, cost[ends]), end + scatter.min_length, _NEVER)
        dropped_from[starts] = np.minimum(dropped_from[starts], drop)
        reach = starts + scatter.max_length > end
        scatter.keep(reach & (dropped_from[starts] > end + 1) & (cost[starts] < np.inf))
        tick(end - begin)
    bounds = [n_frames]
    while bounds[-1] > 0:
        bounds.append(int(start_of[bounds[-1]]))
    return Segmentation(np.array(bounds[-2:0:-1], np.int64), float(last_piece[bounds[:-1]].sum()))


def least_for_each_number(
    scatter: Scatter, most: int, tick: Callable[[int], object] = int
) -> tuple[FloatArray, Callable[[int], IntArray]]:
    """Minimise the scatter for each number of change points m = 0..most (dynamic programme).

    A start s of the segment after k - 1 change points is dropped once I_{k-1}(s) + J(s, t) >= I_{k-1}(t), as above.
    Takes 4 * most * N bytes for the way back, and up to all starts may stay in play.

    Args:
        scatter: The video and the limits on a segment's length.
        most: Largest m.
        tick: Called with the number of frames done since the last call.

    Returns:
        (most + 1,) I_m, inf where no segmentation keeps to the limits, and a function from m to its change points.
    """
    n_frames, min_length = scatter.n_frames, scatter.min_length
    start_of = np.empty((most + 1, n_frames + 1), np.int32)  # rows begin late: what is not written takes no memory
    candidates = [np.zeros(0, np.int64)] * (most + 1)
    costs = [np.zeros(0)] * (most + 1)
    dropped_from = [np.zeros(0, np.int64)] * (most + 1)
    result = np.full(most + 1, np.inf)  # I_k of the frames before the block, for each k
    row_of = np.zeros(n_frames, np.int64)
    for begin, end in _blocks(scatter):
        pieces = scatter.block(begin, end)
        row_of[scatter.starts] = np.arange(len(scatter.starts))
        in_play = np.zeros(len(scatter.starts), np.bool_)
        ends, columns = np.arange(begin + 1, end + 1), np.arange(end - begin)
        previous = np.full(end - begin + 1, np.inf)  # I_{k-1} of the frames before begin..end
        previous[0] = 0 if begin == 0 else np.inf
        for k in range(min(most, end // min_length) + 1):
            current = np.full(end - begin + 1, np.inf)
            current[0] = result[k]
            fresh = np.flatnonzero(previous[:-1] < np.inf)
            starts = np.concatenate([candidates[k], begin + fresh])
            if len(starts):
                cost = np.concatenate([costs[k], previous[fresh]])
                total = pieces[row_of[starts]]
                total += cost[:, None]
                row = total.argmin(axis=0)
                start_of[k, ends] = starts[row]
                current[1:] = total[row, columns]
                drop = np.where(_beaten(total, previous[1:]), end + min_length, _NEVER)
                drop[: len(dropped_from[k])] = np.minimum(drop[: len(dropped_from[k])], dropped_from[k])
                keep = (drop > end + 1) & (starts + scatter.max_length > end)
                candidates[k], costs[k], dropped_from[k] = starts[keep], cost[keep], drop[keep]
                in_play[row_of[candidates[k]]] = True
            result[k] = current[-1]
            previous = current
        scatter.keep(in_play)
        tick(end - begin)

    def change_points(m: int) -> IntArray:
        bounds = [n_frames]
        for k in range(m, 0, -1):
            bounds.append(int(start_of[k, bounds[-1]]))
        return np.array(bounds[:0:-1], np.int64)

    return result, change_points


def _beaten(costs: FloatArray, least: FloatArray) -> npt.NDArray[np.bool_]:
    """Tell the starts (R,) that are no better than the least cost at one of every few frames of the block."""
    some = slice(None, None, -_EVERY)
    beaten = (costs[:, some] >= least[some]) & (costs[:, some] < np.inf)
    return np.asarray(beaten.any(axis=1))


def _blocks(scatter: Scatter) -> Iterator[tuple[int, int]]:
    """Walk over the video once."""
    scatter.restart()
    begin = 0
    while begin < scatter.n_frames:
        size = min(max(len(scatter.starts) // 8, SMALLEST_BLOCK), LARGEST_BLOCK)
        yield begin, min(begin + size, scatter.n_frames)
        begin += size
