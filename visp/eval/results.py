"""The table of an evaluation: a row per video, the means with their error, and chance and people beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from visp.eval.metrics import METRICS, Metric, OverUsers, mean_defined
from visp.eval.protocols import Benchmark, Protocol, protocol_form
from visp.eval.summary import BudgetBase

Baseline = Literal["constant", "random", "humans"]

RANDOM_DRAWS = 20
"""Draws of random scores per video, over which the row of random scores is the mean."""

BASELINES: dict[Baseline, str] = {
    "constant": "constant scores",
    "random": f"random scores, mean of {RANDOM_DRAWS} draws",
    "humans": "each user against the others",
}
"""What is evaluated beside the predictions, and its name in tables."""


@dataclass(frozen=True)
class VideoEvaluation:
    """One row of the table.

    Attributes:
        video: Name of the video.
        tau: Kendall's tau-b under the evaluation's protocol, nan where undefined.
        rho: Spearman's rho, likewise.
        num_undefined: Number of annotators for whom tau and rho are undefined.
        f_score: In [0, 1]; nan where undefined.
        share: Share of the frames that the summary keeps, in [0, 1].
    """

    video: str
    tau: float
    rho: float
    num_undefined: int
    f_score: float
    share: float


@dataclass(frozen=True)
class Evaluation:
    """Metrics per video under one protocol, and their means over the videos for which they are defined.

    Attributes:
        protocol: Name of the rank correlation's protocol.
        benchmark: The form of the protocol: ``"summe"`` or ``"tvsum"``.
        over_users: How the F-scores of a video's users become one, ``"max"`` or ``"mean"``.
        budget: Longest summary as a share of the video.
        budget_base: What the budget is a share of.
        videos: One row per video, in the order of the predictions.
        baselines: Of constant scores, random scores and, where a video has two users or more, of the users themselves:
            one row per video under the same protocol. See :func:`visp.eval.baselines`.
    """

    protocol: Protocol
    benchmark: Benchmark
    over_users: OverUsers
    budget: float
    budget_base: BudgetBase
    videos: tuple[VideoEvaluation, ...]
    baselines: Mapping[Baseline, tuple[VideoEvaluation, ...]]

    @property
    def tau(self) -> float:
        """Return the mean of Kendall's tau-b over the videos for which it is defined."""
        return self.mean("tau")

    @property
    def rho(self) -> float:
        """Return the mean of Spearman's rho over the videos for which it is defined."""
        return self.mean("rho")

    @property
    def f_score(self) -> float:
        """Return the mean F-score."""
        return self.mean("f_score")

    @property
    def share(self) -> float:
        """Return the mean share of the frames that the summaries keep."""
        return mean_defined([row.share for row in self.videos])

    @property
    def num_undefined(self) -> int:
        """Return the number of videos without a tau."""
        return sum(math.isnan(row.tau) for row in self.videos)

    def mean(self, metric: Metric, of: Baseline | None = None) -> float:
        """Return the mean of a metric over the videos for which it is defined; nan where there is none.

        Args:
            metric: ``"tau"`` or ``"rho"``, in [-1, 1], or ``"f_score"`` or ``"share"``, in [0, 1].
            of: Name of a baseline; by default of the predictions.
        """
        rows = self.videos if of is None else self.baselines.get(of, ())
        return mean_defined([getattr(row, metric) for row in rows])

    def standard_error(self, metric: Metric) -> float:
        """Return the standard error of the mean over videos of a metric, as in :meth:`mean`; nan for fewer than two."""
        return standard_error([getattr(row, metric) for row in self.videos])

    @property
    def description(self) -> str:
        """Return in a sentence what the metrics are: the protocol, and how summaries are made and compared."""
        form = protocol_form(self.protocol, self.benchmark)
        ranks = f"tau and rho: protocol {self.protocol} ({self.benchmark}), {form.text}"
        if not form.shots:
            return ranks
        return (
            f"{ranks}; F-score: {self.over_users} over users, "
            f"summaries of at most {self.budget:g} of "
            f"{'all frames' if self.budget_base == 'n_frames' else 'the frames up to the last shot'}"
        )

    def table(self) -> str:
        """Return a Markdown table that names the protocol.

        One row per video, then the mean, its standard error over videos, and the means of the baselines.
        """
        name = f"({self.protocol}, {self.benchmark})"
        error = f"| standard error over videos | {' | '.join(_shown(self.standard_error(key)) for key in METRICS)} | |"
        lines = [
            f"| video | tau {name} | rho {name} | F-score ({self.over_users} over users) | share kept |",
            "|---|---|---|---|---|",
            *(_line(row) for row in (*self.videos, mean_row("mean", self.videos))),
            error,
            *(_line(mean_row(BASELINES[key], rows)) for key, rows in self.baselines.items()),
            "",
            f"{self.description}." + (f" Without a tau: {self.num_undefined} videos." if self.num_undefined else ""),
        ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes; an undefined metric is None."""
        return {
            **asdict(self),
            "description": self.description,
            "mean": _mean_json(self.videos),
            "standard_error": without_nan({metric: self.standard_error(metric) for metric in METRICS}),
            "videos": [without_nan(asdict(row)) for row in self.videos],
            "baselines": {
                key: {"mean": _mean_json(rows), "videos": [without_nan(asdict(row)) for row in rows]}
                for key, rows in self.baselines.items()
            },
        }


def mean_row(name: str, rows: Sequence[VideoEvaluation]) -> VideoEvaluation:
    """Return the means of rows over those for which a metric is defined, and how many have no tau."""
    tau, rho, f_score, share = (
        mean_defined([getattr(row, key) for row in rows]) for key in ("tau", "rho", "f_score", "share")
    )
    return VideoEvaluation(name, tau, rho, sum(math.isnan(row.tau) for row in rows), f_score, share)


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean of the values that are not nan; nan for fewer than two."""
    defined = np.array([value for value in values if not math.isnan(value)])
    return float(defined.std(ddof=1) / math.sqrt(len(defined))) if len(defined) > 1 else math.nan


def without_nan(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping with None for every nan, which JSON does not know."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def _mean_json(rows: Sequence[VideoEvaluation]) -> dict[str, Any]:
    means = asdict(mean_row("mean", rows))
    del means["video"]
    return without_nan(means)


def _line(row: VideoEvaluation) -> str:
    share = "undefined" if math.isnan(row.share) else f"{row.share:.3f}"
    return f"| {row.video} | {_shown(row.tau)} | {_shown(row.rho)} | {_shown(row.f_score)} | {share} |"


def _shown(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.4f}"
