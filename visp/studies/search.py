"""Table 1, Figures 4 and 5 of the paper: temperature and the two penalties, searched in the paper's ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.stats import qmc

from visp.plots import plot_grid
from visp.studies.study import StudyResult, Variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Objective = Literal["fine-tuned", "before", "identification"]

RANGES = {"temperature": (0.05, 5.0), "size_weight": (0.01, 1000.0), "binary_weight": (0.01, 100.0)}
"""Of Table 1, for penalties that are sums over frames (``reduction="sum"``)."""
_CELLS = 4
_PANELS = 3


def sobol_points(number: int, *, seed: int = 0, sampler: str = "concrete") -> tuple[Variant, ...]:
    """Draw points of a scrambled Sobol sequence, uniform in the logarithm of the ranges.

    Args:
        number: How many, a power of two, of at least 4: the sequence is balanced for no other.
        seed: Of the scrambling.
        sampler: ``"sigmoid"`` for Figure 5.

    Raises:
        ValueError: If the number is no power of two.
    """
    if number < 4 or number & (number - 1):
        raise ValueError(f"expected a power of two of at least 4 for the number of points, got {number}")
    unit = qmc.Sobol(len(RANGES), seed=seed).random_base2(number.bit_length() - 1)
    low, high = np.log(list(RANGES.values())).T
    points = np.exp(low + unit * (high - low))
    return tuple(_variant([float(f"{value:.3g}") for value in point], sampler) for point in points)


def value_of(result: StudyResult, variant: Variant, objective: Objective) -> float:
    """Return what a search looks for; higher is better.

    ``"fine-tuned"`` is the study's metric after fine-tuning, mean over the labelled files, ``"before"`` the same before
    fine-tuning, and ``"identification"``, in nats, needs no label; its sign is turned.
    """
    if objective not in get_args(Objective):
        raise ValueError(f"objective must be one of {', '.join(get_args(Objective))}, got {objective!r}")
    if objective == "identification":
        return -result.measures[variant.name]["identification"]
    return result.average(variant.name, result.study.metric, before=objective == "before")


def best_points(result: StudyResult, objective: Objective, shown: int = 5) -> str:
    """Return a Markdown table of the best points, and what to think of them."""
    ranked = sorted(result.study.variants, key=lambda variant: -value_of(result, variant, objective))
    lines = [f"## Best of {len(ranked)} points", f"| point | {_name(result, objective)} |\n|---|---|"]
    lines[1] += "".join(f"\n| {each.name} | {value_of(result, each, objective):.3f} |" for each in ranked[:shown])
    lines.append(
        "No label was used to choose."
        if objective == "identification"
        else "They were chosen on the **test videos**: the best of many is better than other videos would show."
    )
    return "\n\n".join(lines)


def draw_search(result: StudyResult, figure: Figure, objective: Objective = "fine-tuned") -> None:
    """Draw heat maps over both penalties, one for each third of the temperatures; a cell is the mean of its points."""
    points = np.array([[variant.objective[name] for name in RANGES] for variant in result.study.variants])
    values = np.array([value_of(result, variant, objective) for variant in result.study.variants])
    thirds = np.array_split(np.argsort(points[:, 0]), _PANELS)
    size, binary = (np.geomspace(*RANGES[name], _CELLS + 1) for name in ("size_weight", "binary_weight"))
    maps = [_mean_in_cells(points[third], values[third], size, binary) for third in thirds]
    limits = float(min(np.nanmin(each) for each in maps)), float(max(np.nanmax(each) for each in maps))
    figure.set_size_inches(12, 4)
    figure.suptitle(
        f"{_name(result, objective)}, mean of the points in a cell; white: no point; framed: the best of a panel"
    )
    for ax, third, cells in zip(figure.subplots(1, _PANELS, sharey=True), thirds, maps, strict=True):
        ends = (f"{end:.2g}" for end in (points[third, 0].min(), points[third, 0].max()))
        plot_grid(
            cells, ax, x=_spans(size), y=_spans(binary), xlabel="size penalty", ylabel="binary penalty", limits=limits
        )
        ax.tick_params(axis="x", labelrotation=20)
        ax.set_title("temperature " + " to ".join(dict.fromkeys(ends)))
        ax.label_outer()


def _variant(point: Sequence[float], sampler: str) -> Variant:
    options: dict[str, Any] = {**dict(zip(RANGES, point, strict=True)), "reduction": "sum", "sampler": sampler}
    name = f"temperature {point[0]:g}, size {point[1]:g}, binary {point[2]:g}"
    return Variant(name, objective=options)


def _mean_in_cells(
    points: npt.NDArray[np.float64],
    values: npt.NDArray[np.float64],
    size: npt.NDArray[np.float64],
    binary: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    cells = np.full((_CELLS, _CELLS), math.nan)
    column, row = (
        np.clip(np.searchsorted(edges, points[:, axis]) - 1, 0, _CELLS - 1) for axis, edges in ((1, size), (2, binary))
    )
    for place in {*zip(row.tolist(), column.tolist(), strict=True)}:
        cells[place] = values[(row == place[0]) & (column == place[1])].mean()
    return cells


def _spans(edges: npt.NDArray[np.float64]) -> list[str]:
    shown = [f"{float(f'{edge:.2g}'):g}" for edge in edges]
    return [f"{low} to {high}" for low, high in pairwise(shown)]


def _name(result: StudyResult, objective: Objective) -> str:
    if objective == "identification":
        return "identification (nats, negative)"
    return f"{result.study.metric} {'after' if objective == 'fine-tuned' else 'before'} fine-tuning"
