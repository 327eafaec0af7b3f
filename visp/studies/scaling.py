"""Figure 7 of the paper: how many videos, and whose, the pretraining sees.

In the domain, the test videos of each fold are left out of its pretraining, unless asked for; those variants then say
so by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from visp.plots import plot_sweep
from visp.studies.batch_size import NOT_PRETRAINED
from visp.studies.study import StudyResult, Variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_UNSEEN, _SEEN, _OUTSIDE = "in-domain, test videos left out", "in-domain, test videos included", "out-of-domain"


def scales(
    shares: Sequence[float], *, out_domain: tuple[str, ...] = (), with_test_videos: bool = False
) -> tuple[Variant, ...]:
    """Return a variant for each share of each kind of videos, and one without pretraining.

    Args:
        shares: Of the videos, in (0, 1]; what a share draws depends on the seed.
        out_domain: Files of videos of other kinds.
        with_test_videos: Also pretrain on shares that may hold test videos, as the paper does at scale 1.
    """
    found = [NOT_PRETRAINED]
    for share in shares:
        found.append(Variant(f"{_UNSEEN}, share {share:g}", share=share, unseen=True))
        if with_test_videos:
            found.append(Variant(f"{_SEEN}, share {share:g}", share=share))
        if out_domain:
            found.append(Variant(f"{_OUTSIDE}, share {share:g}", share=share, files=out_domain, unseen=True))
    return tuple(found)


def draw_scales(result: StudyResult, figure: Figure) -> None:
    """Draw the metric after fine-tuning over the number of videos pretrained on."""
    metric = result.study.metric
    figure.set_size_inches(6, 4)
    ax = figure.subplots()
    for kind in (_UNSEEN, _SEEN, _OUTSIDE):
        names = [variant.name for variant in result.study.variants if variant.name.startswith(kind)]
        if not names:
            continue
        values = [result.per_seed(name, metric) for name in names]
        plot_sweep(
            [
                float(np.mean([count_of(run.videos.names, run.videos.files) for run in result.pretrainings[name]]))
                for name in names
            ],
            [float(np.mean(each)) for each in values],
            ax,
            xlabel="videos pretrained on",
            ylabel=f"{metric}, mean over the labelled files",
            label=kind,
            spread=[float(np.std(each, ddof=1)) if len(each) > 1 else 0.0 for each in values],
        )
    ax.axhline(
        result.average(NOT_PRETRAINED.name, metric), color="black", linestyle=":", linewidth=1, label="not pretrained"
    )
    ax.legend(frameon=False)
    ax.locator_params(axis="x", integer=True)
    if len(result.study.seeds) > 1:
        ax.set_title("bars: standard deviation over seeds", fontsize="small")


def count_of(names: Sequence[str] | None, files: Sequence[str]) -> int:
    """Return the number of videos of a pretraining."""
    from visp.data import VideoDataset

    return len(names) if names is not None else len(VideoDataset(files))
