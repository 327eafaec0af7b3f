"""Whether a difference between two ways of training is more than the spread over rounds, and over videos."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from typing_extensions import Protocol, runtime_checkable

from visp.eval.metrics import Metric


@dataclass(frozen=True)
class PairedTest:
    """Paired t-test over the videos that both ways of training were tested on.

    Attributes:
        difference: Mean over videos of the second minus the first.
        standard_error: Of that mean.
        t: Its ratio.
        p_value: Two-sided.
        num_videos: Number of videos.
    """

    difference: float
    standard_error: float
    t: float
    p_value: float
    num_videos: int

    def __str__(self) -> str:
        return (
            f"paired over {self.num_videos} videos: difference {self.difference:+.4f}, standard error "
            f"{self.standard_error:.4f}, t = {self.t:.2f}, p = {self.p_value:.3g}"
        )


@dataclass(frozen=True)
class Comparison:
    """Welch's t-test between two sets of rounds, and a paired test over videos where they are known.

    The first speaks of other seeds on the same videos and folds, the second of other videos of the same kind.

    Attributes:
        mean_a: Mean of the first.
        mean_b: Mean of the second.
        difference: ``mean_b - mean_a``.
        t: Welch's statistic, positive where the second is larger; nan if a side has one round.
        p_value: Two-sided, likewise.
        degrees_of_freedom: Of the t distribution (Welch-Satterthwaite), likewise.
        effect_size: Hedges' g over rounds: the difference in standard deviations (the root of the mean of the two
            variances), corrected for few rounds; nan if a side has one round, infinite without any spread.
        rounds: Number of rounds of the first and of the second.
        paired: The test over videos, where both are cross-validations with at least two videos in common.
    """

    mean_a: float
    mean_b: float
    difference: float
    t: float
    p_value: float
    degrees_of_freedom: float
    effect_size: float
    rounds: tuple[int, int]
    paired: PairedTest | None = None

    def __str__(self) -> str:
        text = f"{self.mean_a:.4f} against {self.mean_b:.4f}: difference {self.difference:+.4f}, "
        if min(self.rounds) < 2:
            text += f"no spread over {self.rounds[0]} and {self.rounds[1]} rounds"
        else:
            text += (
                f"Welch's t = {self.t:.2f} on {self.degrees_of_freedom:.1f} degrees of freedom, "
                f"p = {self.p_value:.3g}, Hedges' g = {self.effect_size:.2f} "
                f"({self.rounds[0]} and {self.rounds[1]} rounds)"
            )
        return text if self.paired is None else f"{text}; {self.paired}"


@runtime_checkable
class Rounds(Protocol):
    """Results of several rounds, such as :class:`visp.studies.results.CrossValidation`."""

    def per_round(self, metric: Metric) -> Sequence[float]:
        """Return the metric of each round."""
        ...

    def per_video(self, metric: Metric) -> Mapping[str, float]:
        """Return the metric of each test video."""
        ...


def compare(a: Rounds | Sequence[float], b: Rounds | Sequence[float], metric: Metric = "tau") -> Comparison:
    """Test whether two ways of training differ: over rounds by Welch's t-test, over videos by the paired one.

    Args:
        a: The first: what :func:`visp.cross_validate` returned, or the metric of each round; at least two rounds,
            unless both are cross-validations with videos in common.
        b: The second, likewise.
        metric: Which metric of cross-validations.

    Returns:
        The means and the tests. Without any spread, p is 0 for different means and 1 for equal ones.

    Raises:
        ValueError: If there are too few rounds, or a value is not finite.
    """
    first, second = (
        np.asarray(side.per_round(metric) if isinstance(side, Rounds) else side, dtype=np.float64) for side in (a, b)
    )
    paired = None
    if isinstance(a, Rounds) and isinstance(b, Rounds):
        paired = pair(a.per_video(metric), b.per_video(metric))
    for name, values in (("first", first), ("second", second)):
        if values.ndim != 1 or len(values) < (2 if paired is None else 1):
            raise ValueError(f"the {name} has {values.size} rounds; a spread needs at least two")
        if not np.isfinite(values).all():
            raise ValueError(f"the {name} holds values that are not finite: {values.tolist()}")
    difference = float(second.mean() - first.mean())
    effect = math.nan
    if min(len(first), len(second)) < 2:
        t, p_value, degrees = math.nan, math.nan, math.nan
    elif _without_spread(first) and _without_spread(second):
        t, p_value, degrees = (*_certain(difference, float(abs(first).max())), math.nan)
        effect = t
    else:
        variances = first.var(ddof=1) / len(first), second.var(ddof=1) / len(second)
        t = difference / math.sqrt(sum(variances))
        degrees = sum(variances) ** 2 / (variances[0] ** 2 / (len(first) - 1) + variances[1] ** 2 / (len(second) - 1))
        p_value = 2 * stats.t.sf(abs(t), degrees)
        deviation = math.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)
        effect = difference / deviation * (1 - 3 / (4 * (len(first) + len(second)) - 9))
    return Comparison(
        mean_a=float(first.mean()),
        mean_b=float(second.mean()),
        difference=difference,
        t=float(t),
        p_value=float(p_value),
        degrees_of_freedom=float(degrees),
        effect_size=float(effect),
        rounds=(len(first), len(second)),
        paired=paired,
    )


def pair(a: Mapping[str, float], b: Mapping[str, float]) -> PairedTest | None:
    """Test whether values by video differ, over the videos for which both are defined; None for fewer than two."""
    differences = np.array([b[video] - a[video] for video in a if video in b], dtype=np.float64)
    differences = differences[~np.isnan(differences)]
    if len(differences) < 2:
        return None
    mean = float(differences.mean())
    error = float(differences.std(ddof=1) / math.sqrt(len(differences)))
    if _without_spread(differences):
        t, p_value = _certain(mean, max(abs(value) for value in (*a.values(), *b.values()) if not math.isnan(value)))
    else:
        found = stats.ttest_1samp(differences, 0.0)
        t, p_value = float(found.statistic), float(found.pvalue)
    return PairedTest(mean, error, t, p_value, len(differences))


def _without_spread(values: npt.NDArray[np.float64]) -> bool:
    """Return whether the values differ by no more than rounding does."""
    return bool(np.ptp(values) <= 1e-12 * abs(values).max())


def _certain(difference: float, scale: float) -> tuple[float, float]:
    """Return t and p of a difference without spread: no chance can explain it, unless it is but rounding."""
    return (0.0, 1.0) if abs(difference) <= 1e-12 * scale else (math.copysign(math.inf, difference), 0.0)
