"""Table 2 of the paper: summarizers with and without ViSP, the best round beside the mean, and what others published.

Published figures are never mixed with measured ones: they stand in a table of their own, with their source.
"""

from __future__ import annotations

from collections.abc import Sequence

from visp.eval.metrics import METRICS
from visp.studies.study import StudyResult, Variant

PUBLISHED_SOURCE = (
    "Published, as printed in Table 2 of the ViSP paper: SumMe and TVSum, five folds, mostly the best of several "
    "rounds, epochs often chosen on the test videos; not measured here."
)
PUBLISHED: dict[str, tuple[str, str, str, str]] = {
    "Random": ("0.000", "0.000", "0.000", "0.000"),
    "Human (Otani et al. 2019)": ("0.205", "0.213", "0.177", "0.204"),
    "dppLSTM": ("0.040", "0.049", "0.042", "0.055"),
    "DSNet-AF": ("0.037", "0.046", "0.113", "0.138"),
    "DSNet-AB": ("0.051", "0.059", "0.108", "0.129"),
    "VJMHT": ("0.106", "0.108", "0.097", "0.105"),
    "A2Summ": ("0.108", "0.129", "0.137", "0.165"),
    "VASNet": ("0.160", "0.170", "0.160", "0.170"),
    "MSVA": ("0.200", "0.230", "0.190", "0.210"),
    "LLMVS": ("0.253", "0.282", "0.211", "0.275"),
    "LfVS": ("0.147", "0.171", "0.169", "0.203"),
    "SSPVS": ("0.192", "0.257", "0.181", "0.238"),
    "GoogleNet": ("0.176", "0.197", "0.129", "0.163"),
    "ViSP+GoogleNet": ("0.198", "0.220", "0.131", "0.166"),
    "CSTA": ("0.246", "0.274", "0.194", "0.255"),
    "ViSP+CSTA": ("0.273", "0.305", "0.201", "0.263"),
}
"""By method: SumMe's tau and rho, TVSum's tau and rho."""


def with_and_without(summarizers: Sequence[str]) -> tuple[Variant, ...]:
    """Return two variants for each summarizer, without ViSP and with it."""
    return tuple(
        variant
        for name in summarizers
        for variant in (Variant(name, kind="none", summarizer=name), Variant(f"ViSP+{name}", summarizer=name))
    )


def best_rounds(result: StudyResult) -> str:
    """Return the best round of each variant as a Markdown table, and the published figures as another."""
    labelled, rounds = result.study.labelled, len(result.study.seeds)
    names = [f"{each.name}: {metric}" for each in labelled for metric in METRICS]
    lines = [f"| variant | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for variant in result.study.variants:
        best = [
            result.fine_tuned[variant.name, each.name].best_round(metric) for each in labelled for metric in METRICS
        ]
        lines.append(f"| {variant.name} | {' | '.join(f'{value:.3f}' for value in best)} |")
    published = ["| method | SumMe: tau | rho | TVSum: tau | rho |", "|---" * 5 + "|"]
    published += [f"| {name} | {' | '.join(values)} |" for name, values in PUBLISHED.items()]
    return "\n\n".join(
        [
            f"## Best of {rounds} rounds",
            "The best of several rounds, as publications report it, is above what another round would show.",
            "\n".join(lines),
            "## Published",
            PUBLISHED_SOURCE,
            "\n".join(published),
        ]
    )
