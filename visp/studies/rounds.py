"""Figure 6 of the paper: rounds with and without pretraining, tested over rounds and over videos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visp.eval.metrics import METRICS
from visp.eval.protocols import protocol_form
from visp.plots import plot_distribution
from visp.studies.significance import Comparison, compare
from visp.studies.study import StudyResult, Variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WITH_AND_WITHOUT = (Variant("not pretrained", kind="none"), Variant("ViSP"))


def comparisons(result: StudyResult) -> dict[tuple[str, str], Comparison]:
    """Compare the first two variants on each labelled file by each metric, by file and metric."""
    first, second = (variant.name for variant in result.study.variants[:2])
    return {
        (labelled.name, metric): compare(
            result.fine_tuned[first, labelled.name], result.fine_tuned[second, labelled.name], metric
        )
        for labelled in result.study.labelled
        for metric in METRICS
        if metric != "f_score" or protocol_form(labelled.protocol, labelled.benchmark).shots
    }


def comparisons_text(result: StudyResult) -> str:
    """Return the tests as a Markdown list."""
    first, second = (variant.name for variant in result.study.variants[:2])
    lines = [f"## {first} against {second}"]
    lines.append("\n".join(f"- {name}, {metric}: {found}." for (name, metric), found in comparisons(result).items()))
    lines.append("Rounds share their videos and folds: the first test speaks of other seeds, the paired one of videos.")
    return "\n\n".join(lines)


def comparisons_json(result: StudyResult) -> dict[str, Any]:
    """Return the tests as text by file and metric, for the JSON file."""
    return {"comparisons": {f"{name}, {metric}": str(found) for (name, metric), found in comparisons(result).items()}}


def draw_rounds(result: StudyResult, figure: Figure) -> None:
    """Draw a box plot of the rounds per labelled file, with Welch's p."""
    study = result.study
    tests = comparisons(result)
    figure.set_size_inches(4 * len(study.labelled), 3.5)
    for ax, labelled in zip(figure.subplots(1, len(study.labelled), squeeze=False)[0], study.labelled, strict=True):
        plot_distribution(
            {each.name: result.fine_tuned[each.name, labelled.name].per_round(study.metric) for each in study.variants},
            ax,
            ylabel=f"{study.metric} ({labelled.protocol}, {labelled.benchmark})",
            p_value=tests[labelled.name, study.metric].p_value if len(study.seeds) > 1 else None,
        )
        ax.set_title(f"{labelled.name}, {len(study.seeds)} rounds")
