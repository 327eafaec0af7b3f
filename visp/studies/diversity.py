"""Section 4.4 of the paper: how much of the users' summaries the summaries drawn from the scores cover.

A coverage says little alone: whoever keeps 62 % of the frames at random covers 62 % of every user's summary, and more
of the best user's. So random frames of the same number stand beside each number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from visp.data.record import VideoRecord
from visp.eval import make_summary
from visp.eval.metrics import mean_defined
from visp.eval.results import standard_error
from visp.factory import make_summarizer
from visp.plots import plot_variants
from visp.studies.runs import FoldRun, weights_of
from visp.studies.study import StudyResult
from visp.utils.modes import evaluation_mode
from visp.weights import load_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Bits = npt.NDArray[np.uint8]

DRAWS = 20
"""Summaries drawn per video."""


@dataclass(frozen=True)
class Diversity:
    """What summaries of one video have in common with its users' summaries.

    Attributes:
        retained: Share of the frames that a summary keeps, mean over draws.
        coverage: Share of the frames of the best-covered user's summary that it keeps, mean over draws.
        users_served: Number of users that are the nearest one (by F-score) of some draw, as a share of the users.
        best_draw: Per user, the F-score of the best of the draws; mean over users.
        fixed: Per user, the F-score of one fixed summary, the top-scored frames of the same number; mean over users.
    """

    retained: float
    coverage: float
    users_served: float
    best_draw: float
    fixed: float


def diversity_of(drawn: Bits, fixed: Bits, users: Bits) -> Diversity:
    """Measure summaries drawn for one video.

    Args:
        drawn: (n, n_frames) of 0 and 1.
        fixed: (n_frames,) the one summary to compare with.
        users: (U, n_frames) of 0 and 1, each with a frame at least.
    """
    users = users[users.any(axis=1)]
    shared = drawn.astype(np.float64) @ users.T  # (n, U) frames in both
    overlap = 2 * shared / np.maximum(1, drawn.sum(axis=1)[:, None] + users.sum(axis=1))
    of_fixed = 2 * (users @ fixed.astype(np.float64)) / np.maximum(1, users.sum(axis=1) + fixed.sum())
    return Diversity(
        retained=float(drawn.mean()),
        coverage=float((shared / users.sum(axis=1)).max(axis=1).mean()),
        users_served=len(set(overlap.argmax(axis=1).tolist())) / len(users),
        best_draw=float(overlap.max(axis=0).mean()),
        fixed=float(of_fixed.mean()),
    )


def draw_summaries(
    logits: npt.NDArray[np.floating], record: VideoRecord, rng: np.random.Generator, *, shuffled: bool = False
) -> tuple[Bits, Bits]:
    """Draw summaries of a video from its logits (Eq. 4), and take the top-scored frames of the same number.

    Args:
        logits: (T,).
        record: The video, with ``picks`` and ``n_frames``.
        rng: Of the draws.
        shuffled: Keep the number of frames of each draw, and take them at random.

    Returns:
        (DRAWS, n_frames) and (n_frames,), of 0 and 1.
    """
    kept = rng.random((DRAWS, len(logits))) < expit(logits.astype(np.float64))
    if shuffled:
        kept = rng.permuted(kept, axis=1)
    count = round(float(kept.sum(axis=1).mean()))
    top = np.zeros(len(logits), dtype=bool)
    top[np.argsort(rng.random(len(logits)) if shuffled else -logits, kind="stable")[:count]] = True
    return _at_frames(kept, record), _at_frames(top[None], record)[0]


def diversity(result: StudyResult, cache: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Measure the second variant of a study before and after fine-tuning, beside random frames of the same number.

    Returns:
        By labelled file and stage, each measure's mean over videos and seeds, and ``coverage_error``, the standard
        error of the coverage over videos.
    """
    variant = result.study.variants[1].name
    found: dict[str, dict[str, dict[str, float]]] = {}
    for labelled in result.study.labelled:
        rows: dict[str, dict[str, list[Diversity]]] = {}
        for run in result.folds[variant, labelled.name]:
            for stage, video, measured in _of_fold(run, cache):
                rows.setdefault(stage, {}).setdefault(video, []).append(measured)
        found[labelled.name] = {stage: _means(by_video) for stage, by_video in rows.items()}
    return found


def diversity_text(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Return the measures as a Markdown table per labelled file."""
    names = [field.name for field in fields(Diversity)]
    parts = [f"## Diversity: {DRAWS} summaries drawn per video and seed"]
    for name, stages in found.items():
        lines = [f"### {name}\n", f"| summaries | {' | '.join(_HEADS[each] for each in names)} |", "|---" * 6 + "|"]
        for stage, row in stages.items():
            cells = [
                f"{row[each]:.3f}" + (f" [{row['coverage_error']:.3f}]" if each == "coverage" else "") for each in names
            ]
            lines.append(f"| {stage} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    parts.append("[ ]: standard error over videos. Test videos of each fold; the users of the videos.")
    return "\n\n".join(parts)


def draw_diversity(found: Mapping[str, Mapping[str, Mapping[str, float]]], figure: Figure) -> None:
    """Draw the coverage of the best user's summary per stage, one panel per labelled file."""
    figure.set_size_inches(2.5 + 4 * len(found), 2.8)
    for ax, (name, stages) in zip(
        figure.subplots(1, len(found), squeeze=False, sharey=True)[0], found.items(), strict=True
    ):
        shown = {
            f"{stage}\n(keeps {row['retained']:.0%})" if len(found) == 1 else stage: row
            for stage, row in stages.items()
        }
        plot_variants(
            {stage: row["coverage"] for stage, row in shown.items()},
            ax,
            xlabel="share of the best user's summary covered",
            errors={stage: row["coverage_error"] for stage, row in shown.items()},
        )
        ax.set_xlim(0, 1)
        ax.set_title(name)


_HEADS = {
    "retained": "frames kept",
    "coverage": "best user's summary covered",
    "users_served": "users that are some draw's nearest",
    "best_draw": "per user, F of the best draw",
    "fixed": "per user, F of one fixed summary of that length",
}


def _of_fold(run: FoldRun, cache: Path) -> list[tuple[str, str, Diversity]]:
    videos = run.videos.open()
    found = []
    for stage, source in (("pretrained", run.pretraining), ("fine-tuned", run)):
        assert source is not None
        summarizer = make_summarizer(run.summarizer, videos.feature_dim)
        load_weights(summarizer, weights_of(source, cache))
        for name in run.split.test:
            index = videos.names.index(name)
            record = videos.record(index)
            user_summary, n_frames, shots, picks = (
                record.user_summary,
                record.n_frames,
                record.change_points,
                record.picks,
            )
            if user_summary is None or n_frames is None or shots is None or picks is None:
                raise ValueError(f"{name} lacks user_summary, n_frames, change_points or picks, which the study needs")
            with evaluation_mode(summarizer):
                logits = summarizer(videos[index]).detach().float().numpy()
            users = (user_summary > 0).astype(np.uint8)
            for shuffled, label in ((False, f"{stage}, drawn"), (True, f"{stage}, random frames")):
                rng = np.random.default_rng([run.seed, index])
                found.append(
                    (label, name, diversity_of(*draw_summaries(logits, record, rng, shuffled=shuffled), users))
                )
            if stage == "fine-tuned":
                made = make_summary(expit(logits), shots, n_frames, picks).selection
                found.append(("fine-tuned, 15 % summary", name, diversity_of(made[None], made, users)))
    return found


def _at_frames(kept: npt.NDArray[np.bool_], record: VideoRecord) -> Bits:
    """Give each frame the choice of the last sampled frame at or before it; frames before the first have none."""
    assert record.n_frames is not None
    step = np.searchsorted(np.asarray(record.picks), np.arange(record.n_frames), side="right") - 1
    frames: Bits = (kept[:, np.maximum(step, 0)] & (step >= 0)).astype(np.uint8)
    return frames


def _means(by_video: Mapping[str, list[Diversity]]) -> dict[str, float]:
    rows = [asdict(each) for of_video in by_video.values() for each in of_video]
    found: dict[str, Any] = {name: mean_defined([row[name] for row in rows]) for name in rows[0]}
    per_video = [mean_defined([each.coverage for each in of_video]) for of_video in by_video.values()]
    return {**found, "coverage_error": standard_error(per_video)}
