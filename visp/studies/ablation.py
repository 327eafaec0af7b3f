"""Table 3 of the paper: the default, and variants that change one part of it, with the contrasts beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from visp.eval.results import BASELINES
from visp.plots import plot_variants
from visp.studies.study import StudyResult, Variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CHANGES: dict[str, Mapping[str, Any]] = {
    "default": {},
    "(-) Concrete": {"sampler": "sigmoid"},
    "(+) Gumbel": {"sampler": "gumbel_softmax"},
    "(+) STE": {"gradient_flow": "straight_through"},
    "(+) Margin": {"gradient_flow": "marginalization"},
    "(+) HN": {"hard_negatives": True},
    "contrast videos": {"contrast": "videos"},
    "contrast windows": {"contrast": "windows"},
    "contrast both": {"contrast": "both"},
}

NO_FSA = (
    "(+) FSA was left out: its pseudo-summaries come from the labels of another labelled file (Section 4.4 of the "
    "paper), and there is none."
)


def ablation(*, fsa: bool) -> tuple[Variant, ...]:
    """Return the variants.

    Args:
        fsa: Include the baseline on fixed pseudo-summaries, which needs two labelled files.
    """
    changed = tuple(Variant(name, objective=change) for name, change in _CHANGES.items())
    baseline = (Variant("(+) FSA", kind="pseudo-summaries"),) if fsa else ()
    return Variant("not pretrained", kind="none"), *changed, *baseline


def draw_variants(result: StudyResult, figure: Figure) -> None:
    """Draw the study's metric of every variant after fine-tuning, one panel per labelled file."""
    study = result.study
    if not study.labelled:
        found = {name: measures["identification"] for name, measures in result.measures.items() if measures}
        figure.set_size_inches(5, 1 + 0.3 * len(found))
        plot_variants(found, figure.subplots(), xlabel="identification (nats; lower is better)")
        return
    figure.set_size_inches(1 + 4 * len(study.labelled), 1.8 + 0.3 * len(study.variants))
    for ax, labelled in zip(figure.subplots(1, len(study.labelled), squeeze=False)[0], study.labelled, strict=True):
        found_here = {each.name: result.fine_tuned[each.name, labelled.name] for each in study.variants}
        any_of = next(iter(found_here.values()))
        plot_variants(
            {name: each.mean(study.metric) for name, each in found_here.items()},
            ax,
            xlabel=f"{study.metric} ({labelled.protocol}, {labelled.benchmark}) ± standard error over videos",
            errors={name: each.standard_error(study.metric) for name, each in found_here.items()},
            levels={label: any_of.baseline(of, study.metric) for of, label in BASELINES.items()},
        )
        ax.set_title(labelled.name)
        if ax.get_subplotspec().get_geometry()[2] > 0:
            ax.set_yticklabels([])
