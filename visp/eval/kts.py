"""Kernel temporal segmentation (Potapov et al. 2014): a video's change points, exactly and in near-linear time.

The m + 1 segments minimise the within-segment scatter I_m, and m minimises I_m / N + C(m) with
C(m) = vmax * m / (2 N2) * (log(N2 / m) + 1), N2 = N * desc_rate and C(0) = 0. N C is concave, so the best m also
minimises I_m + price * m at price = N C'(m): it is a vertex of the lower convex hull of (m, I_m), found by PELT at a
few prices.
"""

from __future__ import annotations

import math
import operator
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visp.eval.segmentation import (
    FeatureScatter,
    FloatArray,
    IntArray,
    KernelScatter,
    Scatter,
    Segmentation,
    least_for_each_number,
    least_penalised,
)

NORM_TOLERANCE = 0.01
"""How far the median norm may be from 1 without a warning; rounding to float16 moves it by less than 0.001."""


@dataclass(frozen=True)
class KTSResult:
    """Segmentation of a video.

    Attributes:
        change_points: (m,) first sampled index of segments 1..m, ascending; segment 0 starts at 0.
        num_change_points: m.
        cost: Penalised objective I_m / N + C(m).
        scatter: I_m, sum over the frames of the squared distance to their segment's mean.
    """

    change_points: IntArray
    num_change_points: int
    cost: float
    scatter: float


@dataclass(frozen=True)
class _Limits:
    """The options of a segmentation, checked; ``fewest`` and ``most`` are what the lengths allow."""

    n_frames: int
    max_change_points: int
    vmax: float
    desc_rate: float
    fewest: int
    most: int
    min_length: int
    max_length: int

    def penalty(self, m: npt.ArrayLike) -> FloatArray:
        """N C(m)."""
        number = np.asarray(m, dtype=np.float64)
        inverse_share = self.n_frames * self.desc_rate / np.maximum(number, 1)
        penalty: FloatArray = self.vmax / (2 * self.desc_rate) * number * (np.log(inverse_share) + 1)
        return penalty

    def price(self, m: int) -> float:
        """N C'(m), m > 0: what one more change point costs."""
        return self.vmax / (2 * self.desc_rate) * math.log(self.n_frames * self.desc_rate / m)


def kts(
    features: npt.ArrayLike,
    *,
    max_change_points: int | None = None,
    vmax: float = 1.0,
    desc_rate: float = 1,
    min_length: int = 1,
    max_length: int | None = None,
    progress: bool = False,
) -> KTSResult:
    """Find the change points of a video under the linear kernel (Potapov et al. 2014).

    The published optimum, in O(N R d) time and O(R d) memory beside the features, R frames being a long segment. Where
    ``max_change_points`` binds, an exact dynamic programme takes over: at worst O(N^2 d) time, O(N d) memory and
    4 N ``max_change_points`` bytes.

    Args:
        features: (N, d) one row a sampled frame, of norm 1 for ``vmax=1``; computed in float64 whatever the type.
        max_change_points: Largest m; N - 1 if not given.
        vmax: Weight of the penalty on change points; scales with the squared norm of the features.
        desc_rate: Frames of the video a sampled frame, at least 1; the penalty counts the video's frames.
        min_length: Shortest segment, in sampled frames.
        max_length: Longest segment, in sampled frames; N if not given.
        progress: Show a bar.

    Returns:
        The first optimum in m.

    Raises:
        ValueError: If the features are not (N, d) real finite numbers, or an option is out of range or cannot be met.

    Warns:
        UserWarning: If ``vmax`` is 1 and the features are not of norm 1.
    """
    frames = _real(features, "features")
    if frames.ndim != 2 or frames.size == 0:
        raise ValueError(f"expected features (N, d) of at least one frame, got {frames.shape}")
    squared_norms = np.einsum("td,td->t", frames, frames, dtype=np.float64, casting="unsafe")
    bad = np.flatnonzero(~np.isfinite(squared_norms))
    if len(bad):
        raise ValueError(
            f"the features hold values that are not finite, or too large to square, first at frame {bad[0]}"
        )
    limits = _check(len(frames), max_change_points, vmax, desc_rate, min_length, max_length)
    norm = float(np.sqrt(np.median(squared_norms)))
    if vmax == 1 and abs(norm - 1) > NORM_TOLERANCE:
        warnings.warn(
            f"vmax=1 is meant for features of norm 1, but the median norm is {norm:.4g}: larger ones are cut at almost "
            "every frame, smaller ones hardly at all; divide each frame by its norm or set vmax to suit",
            stacklevel=2,
        )
    return _segment(FeatureScatter(frames, limits.min_length, limits.max_length), limits, progress)


def kts_from_kernel(
    kernel: npt.ArrayLike,
    *,
    max_change_points: int | None = None,
    vmax: float = 1.0,
    desc_rate: float = 1,
    min_length: int = 1,
    max_length: int | None = None,
    progress: bool = False,
) -> KTSResult:
    """Find the change points of a video from its kernel matrix, as :func:`kts`.

    Args:
        kernel: (N, N) symmetric and positive semi-definite: RBF, cosine, ... of every two sampled frames.
        max_change_points: Largest m; N - 1 if not given.
        vmax: Weight of the penalty on change points; scales with the kernel's diagonal.
        desc_rate: Frames of the video a sampled frame, at least 1; the penalty counts the video's frames.
        min_length: Shortest segment, in sampled frames.
        max_length: Longest segment, in sampled frames; N if not given.
        progress: Show a bar.

    Returns:
        The first optimum in m.

    Raises:
        ValueError: If the kernel is not square, symmetric, real and finite, has a negative diagonal, or an option is
            out of range or cannot be met. That it is positive semi-definite is not checked.
    """
    matrix = _real(kernel, "kernel")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"expected a square kernel (N, N) of at least one frame, got {matrix.shape}")
    limits = _check(len(matrix), max_change_points, vmax, desc_rate, min_length, max_length)
    _check_kernel(matrix)
    return _segment(KernelScatter(matrix, limits.min_length, limits.max_length), limits, progress)


def _segment(scatter: Scatter, limits: _Limits, progress: bool) -> KTSResult:
    if limits.most == 0 or limits.max_change_points == 0:
        best = Segmentation(np.zeros(0, np.int64), scatter.whole)
    else:
        with _Progress(scatter.n_frames, progress) as bar:
            best = _search_hull(scatter, limits, bar)
            if len(best.change_points) > limits.max_change_points:
                bar.next(f"at most {limits.max_change_points} change points")
                scatters, change_points = least_for_each_number(scatter, limits.max_change_points, bar.advance)
                m = int(np.argmin(scatters + limits.penalty(np.arange(len(scatters)))))
                best = Segmentation(change_points(m), float(scatters[m]))
    m = len(best.change_points)
    cost = (best.scatter + float(limits.penalty(m))) / limits.n_frames
    return KTSResult(best.change_points, m, cost, best.scatter)


def _search_hull(scatter: Scatter, limits: _Limits, bar: _Progress) -> Segmentation:
    """Find the first m in fewest..most that minimises I_m + N C(m), by branch and bound over hull vertices.

    A vertex found at a price bounds every other I_m from below by a line of that slope through it. Between two vertices
    where these lines plus N C do not fall below the best value there is nothing to find. Elsewhere, the next price is
    the smallest whose line would close the gap from the right: PELT either confirms that or brings a vertex in between.
    """

    def solve(price: float) -> Segmentation:
        price = max(price, scatter.resolution)
        bar.next(f"price {price:.3g}")
        return least_penalised(scatter, price, bar.advance)

    def value(found: Segmentation) -> tuple[float, int]:
        m = len(found.change_points)
        return found.scatter + float(limits.penalty(m)), m

    lowest, highest = limits.price(limits.most), math.inf
    right = solve(lowest)
    if limits.fewest == 0:
        left = Segmentation(np.zeros(0, np.int64), scatter.whole)
    else:
        highest = limits.price(limits.fewest)
        left = solve(highest)
    best = min(left, right, key=value)
    gaps = [(left, highest, right, lowest)]
    while gaps:
        left, left_price, right, right_price = gaps.pop()
        first, last = len(left.change_points), len(right.change_points)
        m = np.arange(first + 1, last)
        bound = right.scatter + right_price * (last - m)
        if left_price < math.inf:
            bound = np.maximum(bound, left.scatter - left_price * (m - first))
        penalty = limits.penalty(m)
        upper = value(best)[0]
        if (bound + penalty >= upper).all():
            continue
        price = float(np.max((upper - penalty - right.scatter) / (last - m)))
        found = solve(price)
        if first < len(found.change_points) < last:
            best = min(best, found, key=value)
            gaps += [(left, left_price, found, price), (found, price, right, right_price)]
    return best


class _Progress:
    """A bar over the frames of each pass, or nothing."""

    def __init__(self, n_frames: int, shown: bool) -> None:
        self._bar: Any = None
        if shown:
            from visp.utils.progress import Bar

            self._bar = Bar(total=n_frames, unit="frame", desc="kts")

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def next(self, what: str) -> None:
        if self._bar is not None:
            self._bar.reset()
            self._bar.set_description(f"kts, {what}")

    def advance(self, frames: int) -> None:
        if self._bar is not None:
            self._bar.update(frames)


def _check(
    n_frames: int,
    max_change_points: int | None,
    vmax: float,
    desc_rate: float,
    min_length: int,
    max_length: int | None,
) -> _Limits:
    shortest = operator.index(min_length)
    longest = n_frames if max_length is None else operator.index(max_length)
    wanted = n_frames - 1 if max_change_points is None else operator.index(max_change_points)
    if not (math.isfinite(vmax) and vmax >= 0):
        raise ValueError(f"vmax must be finite and at least 0, got {vmax!r}")
    if not (math.isfinite(desc_rate) and desc_rate >= 1):
        raise ValueError(f"desc_rate must be finite and at least 1, got {desc_rate!r}")
    if wanted < 0:
        raise ValueError(f"max_change_points must be at least 0, got {wanted}")
    if not 1 <= shortest <= longest:
        raise ValueError(f"expected 1 <= min_length <= max_length, got min_length={shortest}, max_length={longest}")
    fewest, most = -(-n_frames // longest) - 1, n_frames // shortest - 1
    if fewest > most or fewest > wanted:
        raise ValueError(
            f"{n_frames} frames cannot be cut into segments of {shortest} to {longest} frames"
            + (f" with at most {wanted} change points: it takes {fewest}" if fewest <= most else "")
        )
    return _Limits(n_frames, wanted, float(vmax), float(desc_rate), fewest, most, shortest, longest)


def _real(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"expected {name} of real numbers, got {array.dtype}")
    return array


def _check_kernel(kernel: npt.NDArray[Any]) -> None:
    bad = np.flatnonzero(~np.isfinite(kernel.sum(axis=1, dtype=np.float64)))
    if len(bad):
        raise ValueError(f"the kernel holds values that are not finite, first at row {bad[0]}")
    diagonal = np.diagonal(kernel).astype(np.float64)
    if diagonal.min() < 0:
        raise ValueError(
            f"the kernel's diagonal must not be negative, got {diagonal.min():.4g} at frame {diagonal.argmin()}"
        )
    coarse = kernel.dtype.kind == "f" and kernel.dtype.itemsize < 4
    tolerance = (1e-2 if coarse else 1e-5) * max(float(diagonal.max()), 1e-300)
    for begin in range(0, len(kernel), 64):
        rows = kernel[begin : begin + 64].astype(np.float64)
        rows -= kernel[:, begin : begin + 64].T
        np.abs(rows, out=rows)
        if rows.max() > tolerance:
            i, j = np.unravel_index(rows.argmax(), rows.shape)
            raise ValueError(
                f"the kernel must be symmetric, got {kernel[begin + i, j]} at ({begin + i}, {j}) and "
                f"{kernel[j, begin + i]} at ({j}, {begin + i})"
            )
