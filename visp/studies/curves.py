"""How pretraining went: the bound on the mutual information, and the share of the frames kept, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from visp.plots import plot_metrics, read_metrics
from visp.studies.runs import metrics_of
from visp.studies.study import StudyResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CURVES = 10
"""Variants whose curves can be told apart in one panel."""
_LONG = 100  # steps, below which a mean over many of them would show little else than their number
_PANELS = ("mi_lower_bound", "keep_ratio")


def has_curves(result: StudyResult) -> bool:
    """Return whether there are variants pretrained by ViSP, and few enough to be told apart."""
    return 0 < len(_drawn(result)) <= MOST_CURVES


def draw_curves(result: StudyResult, figure: Figure, cache: Path) -> None:
    """Draw the curves of the first run of every variant that is pretrained by ViSP.

    Args:
        result: What came of the study.
        figure: Where to draw.
        cache: Folder of the runs.
    """
    drawn: dict[Path, list[str]] = {}  # variants may share a run
    for name in _drawn(result):
        drawn.setdefault(metrics_of(result.pretrainings[name][0], cache), []).append(name)
    figure.set_size_inches(9, 3.2 + 0.11 * len(drawn))
    axes = figure.subplots(1, len(_PANELS))
    for file, names in drawn.items():
        steps = read_metrics(file)
        smoothing = 0.9 if len(steps) >= _LONG else 0.5
        for ax, metric in zip(axes, _PANELS, strict=True):
            plot_metrics(steps, ax, key=metric, label=" = ".join(names), smoothing=smoothing)
    for ax in axes:
        ax.locator_params(axis="x", integer=True)
        if ax.get_legend() is not None:
            ax.get_legend().remove()
    if len(drawn) > 1:
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize="small"
        )
    seeds = f"seed {result.study.seeds[0]}; faint: each step, strong: mean of the steps around it"
    figure.suptitle(f"pretraining, {seeds}", fontsize="small")


def _drawn(result: StudyResult) -> list[str]:
    return [each.name for each in result.study.variants if each.kind == "visp"]
