"""Figure 3 of the paper: the number of videos per step, which the bound of Eq. 2 depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from visp.plots import plot_sweep
from visp.studies.study import StudyResult, Variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOT_PRETRAINED = Variant("not pretrained", kind="none")


def batch_sizes(sizes: Sequence[int]) -> tuple[Variant, ...]:
    """Return a variant for each batch size, and one without pretraining."""
    return NOT_PRETRAINED, *(Variant(f"N = {size}", training={"batch_size": size}) for size in sizes)


def draw_batch_sizes(result: StudyResult, figure: Figure) -> None:
    """Draw the metric after fine-tuning, mean over the labelled files, with its spread over seeds."""
    metric = result.study.metric
    swept = result.study.variants[1:]
    values = [result.per_seed(variant.name, metric) for variant in swept]
    figure.set_size_inches(5, 3.5)
    plot_sweep(
        [variant.training["batch_size"] for variant in swept],
        [float(np.mean(each)) for each in values],
        figure.subplots(),
        xlabel="batch size N (videos)",
        ylabel=f"{metric}, mean over the labelled files",
        label="pretrained" + (", ± standard deviation over seeds" if len(result.study.seeds) > 1 else ""),
        spread=[float(np.std(each, ddof=1)) if len(each) > 1 else 0.0 for each in values],
        baseline=result.average(NOT_PRETRAINED.name, metric),
        log=True,
    )
