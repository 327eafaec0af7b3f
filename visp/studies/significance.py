"""Whether a difference between two ways of training is more than the spread over rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from typing_extensions import Protocol, runtime_checkable

from visp.eval.metrics import Metric


@dataclass(frozen=True)
class Comparison:
    """Welch's t-test between two sets of rounds.

    Attributes:
        mean_a: Mean of the first.
        mean_b: Mean of the second.
        difference: ``mean_b - mean_a``.
        t: Welch's statistic, positive where the second is larger.
        p_value: Two-sided.
        degrees_of_freedom: Of the t distribution (Welch-Satterthwaite).
        rounds: Number of rounds of the first and of the second.
    """

    mean_a: float
    mean_b: float
    difference: float
    t: float
    p_value: float
    degrees_of_freedom: float
    rounds: tuple[int, int]

    def __str__(self) -> str:
        return (
            f"{self.mean_a:.4f} against {self.mean_b:.4f}: difference {self.difference:+.4f}, Welch's t = {self.t:.2f} "
            f"on {self.degrees_of_freedom:.1f} degrees of freedom, p = {self.p_value:.3g} "
            f"({self.rounds[0]} and {self.rounds[1]} rounds)"
        )


@runtime_checkable
class Rounds(Protocol):
    """Results of several rounds, such as :class:`visp.CrossValidation`."""

    def per_round(self, metric: Metric) -> Sequence[float]:
        """Return the metric of each round."""
        ...


def compare(a: Rounds | Sequence[float], b: Rounds | Sequence[float], metric: Metric = "tau") -> Comparison:
    """Test whether two ways of training differ in the mean over rounds, by Welch's t-test.

    Args:
        a: The first: what :func:`visp.cross_validate` returned, or the metric of each round; at least two rounds.
        b: The second, likewise.
        metric: Which metric of cross-validations.

    Returns:
        The means and the test. Without any spread on both sides, p is 0 for different means and 1 for equal ones.

    Raises:
        ValueError: If there are fewer than two rounds, or a value is not finite.
    """
    first, second = (
        np.asarray(side.per_round(metric) if isinstance(side, Rounds) else side, dtype=np.float64) for side in (a, b)
    )
    for name, values in (("first", first), ("second", second)):
        if values.ndim != 1 or len(values) < 2:
            raise ValueError(f"the {name} has {values.size} rounds; a spread needs at least two")
        if not np.isfinite(values).all():
            raise ValueError(f"the {name} holds values that are not finite: {values.tolist()}")
    difference = float(second.mean() - first.mean())
    variances = first.var(ddof=1) / len(first), second.var(ddof=1) / len(second)
    if max(np.ptp(first), np.ptp(second)) <= 1e-12 * max(abs(first).max(), abs(second).max()):  # no spread but rounding
        same = abs(difference) <= 1e-12 * abs(first).max()
        t, p_value, degrees = (0.0, 1.0, np.nan) if same else (np.copysign(np.inf, difference), 0.0, np.nan)
    else:
        t = difference / np.sqrt(sum(variances))
        degrees = sum(variances) ** 2 / (variances[0] ** 2 / (len(first) - 1) + variances[1] ** 2 / (len(second) - 1))
        p_value = 2 * stats.t.sf(abs(t), degrees)
    return Comparison(
        mean_a=float(first.mean()),
        mean_b=float(second.mean()),
        difference=difference,
        t=float(t),
        p_value=float(p_value),
        degrees_of_freedom=float(degrees),
        rounds=(len(first), len(second)),
    )
