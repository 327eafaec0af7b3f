"""Score the predictions of a whole dataset, or a test fold of it, under one named protocol."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visp.eval.metrics import OverUsers, f_score, mean_defined, rank_correlation
from visp.eval.protocols import Benchmark, Protocol, ProtocolForm, protocol_form
from visp.eval.summary import BudgetBase, make_summary

OVER_USERS: dict[Benchmark, OverUsers] = {"summe": "max", "tvsum": "mean"}
"""How the F-scores of a video's users become one."""

_ANNOTATION_KEYS = {"annotators": "user_scores", "mean summary": "user_summary", "gtscore": "gtscore"}


@dataclass(frozen=True)
class VideoEvaluation:
    """One row of the table.

    Attributes:
        video: Name of the video.
        tau: Kendall's tau-b under the evaluation's protocol, nan where undefined.
        rho: Spearman's rho, likewise.
        num_undefined: Number of annotators for whom tau and rho are undefined.
        f_score: In [0, 1].
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
        over_users: ``"max"`` or ``"mean"`` over a video's users.
        budget: Longest summary as a share of the video.
        budget_base: What the budget is a share of.
        videos: One row per video, in the order of the predictions.
    """

    protocol: Protocol
    benchmark: Benchmark
    over_users: OverUsers
    budget: float
    budget_base: BudgetBase
    videos: tuple[VideoEvaluation, ...]

    @property
    def tau(self) -> float:
        """Return the mean of Kendall's tau-b over the videos for which it is defined."""
        return mean_defined([row.tau for row in self.videos])

    @property
    def rho(self) -> float:
        """Return the mean of Spearman's rho over the videos for which it is defined."""
        return mean_defined([row.rho for row in self.videos])

    @property
    def f_score(self) -> float:
        """Return the mean F-score."""
        return mean_defined([row.f_score for row in self.videos])

    @property
    def share(self) -> float:
        """Return the mean share of the frames that the summaries keep."""
        return mean_defined([row.share for row in self.videos])

    @property
    def num_undefined(self) -> int:
        """Return the number of videos without a tau."""
        return sum(math.isnan(row.tau) for row in self.videos)

    @property
    def description(self) -> str:
        """Say in a sentence what the metrics are."""
        return (
            f"tau and rho: protocol {self.protocol} ({self.benchmark}), "
            f"{protocol_form(self.protocol, self.benchmark).text}; F-score: {self.over_users} over users, "
            f"summaries of at most {self.budget:g} of "
            f"{'all frames' if self.budget_base == 'n_frames' else 'the frames up to the last shot'}"
        )

    def table(self) -> str:
        """Return a Markdown table, one row per video and the means, with a line that names the protocol."""
        name = f"({self.protocol}, {self.benchmark})"
        mean = VideoEvaluation("mean", self.tau, self.rho, self.num_undefined, self.f_score, self.share)
        lines = [
            f"| video | tau {name} | rho {name} | F-score ({self.over_users} over users) | share kept |",
            "|---|---|---|---|---|",
            *(
                f"| {row.video} | {row.tau:.4f} | {row.rho:.4f} | {row.f_score:.4f} | {row.share:.3f} |"
                for row in (*self.videos, mean)
            ),
            "",
            f"{self.description}." + (f" Without a tau: {self.num_undefined} videos." if self.num_undefined else ""),
        ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes; an undefined metric is None."""
        means = {name: getattr(self, name) for name in ("tau", "rho", "num_undefined", "f_score", "share")}
        return {
            **asdict(self),
            "description": self.description,
            "mean": _without_nan(means),
            "videos": [_without_nan(asdict(row)) for row in self.videos],
        }


def evaluate(
    predictions: Mapping[str, npt.ArrayLike],
    annotations: Mapping[str, Mapping[str, Any]],
    *,
    protocol: Protocol,
    benchmark: Benchmark,
    budget: float = 0.15,
    budget_base: BudgetBase = "last_shot",
) -> Evaluation:
    """Evaluate scores against annotations: rank correlation under the protocol, and F-score of the summaries.

    Args:
        predictions: (T,) scores at the sampled frames by video, at least 0 (``sigmoid`` of the logits, say). The
            summaries are made of them; see :func:`visp.eval.summary.make_summary`.
        annotations: By video, the fields of the field's h5 files: ``picks`` (T,), ``n_frames``, ``change_points``
            (S, 2) and ``user_summary`` (U, n_frames); for ``csta``, ``otani`` and ``scores`` on TVSum also
            ``user_scores`` (U, n_frames), the raw scores 1 to 5; for ``scores`` on SumMe also ``gtscore`` (T,).
        protocol: See :mod:`visp.eval.protocols`.
        benchmark: Which form of the protocol. The F-score is the best over users for SumMe and their mean for TVSum.
        budget: Longest summary as a share of the video, in (0, 1].
        budget_base: What the share is of; see :func:`visp.eval.summary.make_summary`.

    Returns:
        One row per video and the means.

    Raises:
        ValueError: If there is no video, the two mappings hold different videos, a field is missing, or a video is
            refused; the video is named.
    """
    compared = protocol_form(protocol, benchmark)
    if predictions.keys() != annotations.keys() or not predictions:
        raise ValueError(
            "predictions and annotations must hold the same videos, at least one; only in predictions: "
            f"{_names(set(predictions) - set(annotations))}; only in annotations: "
            f"{_names(set(annotations) - set(predictions))}"
        )
    rows = []
    for name, scores in predictions.items():
        # Recorded, so that the warning can name the video.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                fields = _fields(annotations[name], compared, protocol, benchmark)
                n_frames, picks = int(fields["n_frames"]), fields["picks"]
                summary = make_summary(
                    scores, fields["change_points"], n_frames, picks, budget=budget, budget_base=budget_base
                )
                overlap = f_score(summary, fields["user_summary"], OVER_USERS[benchmark])
                ranks = rank_correlation(
                    summary if compared.predicted == "summary" else scores,
                    np.atleast_2d(fields[_ANNOTATION_KEYS[compared.annotated]]),
                    protocol=protocol,
                    benchmark=benchmark,
                    picks=picks,
                    n_frames=n_frames,
                )
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        for warning in caught:
            warnings.warn(f"{name}: {warning.message}", warning.category, stacklevel=2)
        rows.append(VideoEvaluation(name, ranks.tau, ranks.rho, ranks.num_undefined, overlap, summary.share))
    return Evaluation(protocol, benchmark, OVER_USERS[benchmark], float(budget), budget_base, tuple(rows))


def _fields(
    video: Mapping[str, Any], compared: ProtocolForm, protocol: Protocol, benchmark: Benchmark
) -> dict[str, npt.NDArray[Any]]:
    """Return the fields that the evaluation needs as arrays, or say which are missing."""
    needed = dict.fromkeys(("picks", "n_frames", "change_points", "user_summary", _ANNOTATION_KEYS[compared.annotated]))
    missing = [key for key in needed if key not in video]
    if missing == ["user_scores"]:
        raise ValueError(
            f"protocol {protocol!r} on {benchmark} needs the annotators' raw scores as user_scores (U, n_frames), "
            "which the h5 files do not hold: read them from TVSum's ydata-anno.tsv with visp.data"
        )
    if missing:
        raise ValueError(f"the annotations lack {', '.join(missing)}; they hold {_names(video)}")
    return {key: np.asarray(video[key]) for key in needed}


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
