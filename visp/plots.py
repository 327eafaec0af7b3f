"""Figures for papers: functions take an ``ax`` and return it (needs matplotlib, ``pip install "visp[plot]"``).

Make the figure with ``layout="constrained"``, so that no name is cut off.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from visp.utils.files import check_input, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#BBBBBB"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that colour-blind readers can tell apart (Okabe and Ito)."""
_MARKERS, _LINES = "osD^vPX", ("-", "--", "-.", ":")
"""So that curves also differ in grey."""
LIGHT = 0.179
"""Luminance from which black text has more contrast than white text (WCAG 2)."""
UNITS = {
    "loss": "loss",
    "info_nce": "InfoNCE (nats)",
    "mi_lower_bound": "bound on mutual information (nats)",
    "mi_ceiling": "largest bound (nats)",
    "keep_ratio": "share of the frames kept",
    "saturated_share": "share of saturated logits",
}
"""Names of metrics on an axis, with their units."""
_CURVE = "curve"
"""Mark of the lines that have a colour of their own."""


def plot_scores(
    scores: npt.ArrayLike, importance: npt.ArrayLike, ax: Axes, *, label: str = "scores", title: str = ""
) -> Axes:
    """Draw a video's frame scores over its true importance.

    Args:
        scores: (T,) predicted scores, in any unit: drawn as ranks between 0 and 1.
        importance: (T,) true importance in [0, 1], drawn as filled steps.
        ax: Where to draw.
        label: Name of the scores in the legend.
        title: Title of the axes.

    Returns:
        The axes.
    """
    predicted, truth = np.asarray(scores), np.asarray(importance)
    ranks = (rankdata(predicted) - 1) / max(1, len(predicted) - 1)
    frames = np.arange(len(truth))
    ax.fill_between(frames, truth, step="mid", color=GREY, label="importance", linewidth=0)
    ax.plot(frames, ranks, color=BLUE, linewidth=1.2, label=label)
    ax.set(xlim=(-0.5, len(truth) - 0.5), ylim=(0, 1.02), title=title)
    ax.set(xlabel="sampled frame", ylabel="importance; rank of the score, in [0, 1]")
    ax.label_outer()
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def plot_saliency(
    scores: Mapping[str, npt.ArrayLike],
    ax: Axes,
    *,
    share: float = 0.15,
    thumbnails: Mapping[int, npt.NDArray[np.uint8]] | None = None,
) -> Axes:
    """Draw frame saliency bars of several models and users, one below the other (the paper's Figure 8).

    Args:
        scores: (T,) scores by name, of models, of pretraining alone, or the users' mean choice; each is normalised to
            [0, 1]. A row of one value everywhere is drawn half high.
        ax: Where to draw.
        share: Share of the frames, the highest of each row, that is drawn in the strong colour; frames that equal the
            last of them are too, so a row of one value has none.
        thumbnails: (H, W, 3) uint8 images by sampled frame, drawn above the bars and joined to their frames.

    Returns:
        The axes; x are sampled frames.

    Raises:
        ValueError: If there is no row, or rows differ in length.
    """
    rows = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
    lengths = {len(values) for values in rows.values()}
    if len(lengths) != 1:
        raise ValueError(f"expected one or more rows of scores (T,) of one length, got lengths {sorted(lengths)}")
    (length,) = lengths
    frames = np.arange(length)
    for number, values in enumerate(rows.values()):
        base, low, high = -number, values.min(), values.max()
        heights = 0.8 * (values - low) / (high - low) if high > low else np.full(length, 0.4)
        least = np.sort(values)[-max(1, round(share * length))]
        best = (values >= least) & (values > low)
        for drawn, colour in ((~best, GREY), (best, ORANGE)):
            ax.bar(frames, np.where(drawn, heights, 0), width=1, bottom=base, color=colour, linewidth=0)
    top = 1.0
    if thumbnails:
        top = _draw_thumbnails(thumbnails, ax, length)
    ax.set(xlim=(-0.5, length - 0.5), ylim=(1 - len(rows), top), xlabel="sampled frame")
    ax.locator_params(axis="x", integer=True)
    ax.set_yticks([0.4 - number for number in range(len(rows))], list(rows))
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    return ax


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the metrics of a run; a last line that is not finished is left out.

    Args:
        path: Its ``metrics.jsonl``.

    Returns:
        One dict per step, by name of the metric.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is not JSON; it is named.
    """
    steps = []
    lines = check_input(path).read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        if line.endswith("\n"):
            try:
                steps.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"{shown(path)}: line {number} is not JSON: {error}") from error
    return steps


def plot_metrics(
    metrics: str | os.PathLike[str] | Sequence[Mapping[str, Any]],
    ax: Axes,
    *,
    key: str = "info_nce",
    label: str | None = None,
    smoothing: float = 0.9,
) -> Axes:
    """Draw a training curve: each step faintly, and a mean over the steps around it.

    Args:
        metrics: ``metrics.jsonl`` of a run, or its steps.
        ax: Where to draw; each call adds a curve in the next colour.
        key: Which metric, such as ``"info_nce"``, ``"mi_lower_bound"`` or ``"keep_ratio"``.
        label: Name in the legend; the key if not given.
        smoothing: Weight of a neighbouring step in the mean, of the one after it its square and so on, in [0, 1);
            0 for none. Steps on both sides count, as many after a step as before it, so that the mean does not lag.

    Returns:
        The axes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If no step has the metric, a line of the file is not JSON, or the smoothing is out of its range.
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must be in [0, 1), got {smoothing!r}")
    steps = read_metrics(metrics) if isinstance(metrics, str | os.PathLike) else metrics
    found = [(step["step"], step[key]) for step in steps if step.get(key) is not None]
    if not found:
        known = sorted({name for step in steps for name in step})
        raise ValueError(f"no step has the metric {key!r}; there are {', '.join(known) or 'no metrics'}")
    x, y = np.array(found, dtype=np.float64).T
    running = _smoothed(y, smoothing)
    colour, _, style = _next_style(ax)
    if smoothing:
        ax.plot(x, y, color=colour, alpha=0.25, linewidth=0.8, label="_each step")
    ax.plot(x, running, color=colour, linestyle=style, linewidth=1.6, label=label or key, gid=_CURVE)
    ax.set(xlabel="step", ylabel=UNITS.get(key, key.replace("_", " ")))
    return _finished(ax)


def plot_sweep(
    x: npt.ArrayLike,
    metrics: npt.ArrayLike,
    ax: Axes,
    *,
    xlabel: str,
    ylabel: str = "Kendall's tau",
    label: str | None = None,
    spread: npt.ArrayLike | None = None,
    baseline: float | None = None,
    baseline_label: str = "not pretrained",
    log: bool = False,
) -> Axes:
    """Draw a metric over an option or a scale (the paper's Figures 3, 5 and 7).

    Args:
        x: (n,) values of the option, batch sizes or scales of the pretraining data.
        metrics: (n,) what each reached.
        ax: Where to draw; each call adds a curve with the next colour and marker.
        xlabel: Name of the option, with its unit.
        ylabel: Name of the metric.
        label: Name in the legend.
        spread: (n,) standard deviations, drawn as bars.
        baseline: What is reached without, drawn as a dotted line.
        baseline_label: Its name in the legend.
        log: Draws x on a logarithmic axis.

    Returns:
        The axes.
    """
    colour, marker, style = _next_style(ax)
    drawn = ax.errorbar(
        np.asarray(x), np.asarray(metrics), spread, color=colour, marker=marker, linestyle=style, capsize=3, label=label
    )
    drawn.lines[0].set_gid(_CURVE)
    if baseline is not None:
        ax.axhline(baseline, color="black", linestyle=":", linewidth=1, label=baseline_label)
    if log:
        ax.set_xscale("log")
        ax.set_xticks(np.asarray(x), [f"{value:g}" for value in np.asarray(x)])
        ax.minorticks_off()
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return _finished(ax)


def plot_grid(
    metrics: npt.ArrayLike,
    ax: Axes,
    *,
    x: Sequence[object],
    y: Sequence[object],
    xlabel: str,
    ylabel: str,
    limits: tuple[float, float] | None = None,
) -> Axes:
    """Draw a metric over two options, each cell with its number (the paper's Figure 4).

    Args:
        metrics: (len(y), len(x)); nan where nothing was run.
        ax: Where to draw.
        x: Values of the option along x.
        y: Values of the option along y.
        xlabel: Name of the option along x, with its unit.
        ylabel: Name of the option along y, with its unit.
        limits: The metrics that the lightest and the darkest shade stand for, to compare several grids.

    Returns:
        The axes; the best cell is framed.

    Raises:
        ValueError: If the metrics do not have that shape, or all are nan.
    """
    cells = np.asarray(metrics, dtype=np.float64)
    if cells.shape != (len(y), len(x)) or np.isnan(cells).all():
        raise ValueError(f"expected metrics ({len(y)}, {len(x)}), not all nan, got shape {cells.shape}")
    low, high = limits or (float(np.nanmin(cells)), float(np.nanmax(cells)))
    image = ax.imshow(cells, cmap="cividis_r", vmin=low, vmax=high, aspect="auto", origin="lower")
    for (row, column), value in np.ndenumerate(cells):
        if not np.isnan(value):
            colour = "white" if _luminance([float(part) for part in image.to_rgba(value)[:3]]) < LIGHT else "black"
            ax.text(column, row, f"{value:.3f}", ha="center", va="center", color=colour)
    row, column = np.unravel_index(np.nanargmax(cells), cells.shape)
    ax.plot(
        column + 0.48 * np.array([-1, 1, 1, -1, -1]),
        row + 0.48 * np.array([-1, -1, 1, 1, -1]),
        color=ORANGE,
        linewidth=2,
    )
    ax.set_xticks(range(len(x)), [str(value) for value in x])
    ax.set_yticks(range(len(y)), [str(value) for value in y])
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return ax


def plot_distribution(
    rounds: Mapping[str, npt.ArrayLike], ax: Axes, *, ylabel: str = "Kendall's tau", p_value: float | None = None
) -> Axes:
    """Draw how a metric varies over rounds, each round a dot (the paper's Figure 6).

    Args:
        rounds: (rounds,) metrics by name, as :meth:`visp.studies.results.CrossValidation.per_round` gives them.
        ax: Where to draw.
        ylabel: Name of the metric.
        p_value: Of the difference of the first two, as :func:`visp.compare` gives it; written between them.

    Returns:
        The axes.
    """
    samples = [np.asarray(values, dtype=np.float64) for values in rounds.values()]
    places = np.arange(len(samples))
    boxes = ax.boxplot(samples, positions=places, widths=0.5, showfliers=False, patch_artist=True)
    for box, colour in zip(boxes["boxes"], cycle(COLOURS)):
        box.set(facecolor=colour, alpha=0.3)
    for line in boxes["medians"]:
        line.set(color="black", linewidth=1.5)
    for place, sample, colour, marker in zip(places, samples, cycle(COLOURS), cycle(_MARKERS)):
        across = place + np.linspace(-0.12, 0.12, len(sample)) if len(sample) > 1 else [place]
        ax.plot(across, sample, marker, color=colour, markersize=4)
    if p_value is not None:
        top = max(sample.max() for sample in samples[:2])
        step = 0.06 * (top - min(sample.min() for sample in samples) or abs(top) or 1)
        ax.plot([0, 0, 1, 1], [top + step, top + 2 * step, top + 2 * step, top + step], color="black", linewidth=1)
        text = f"p = {p_value:.3f}" if p_value >= 0.001 else "p < 0.001"
        ax.text(0.5, top + 2.2 * step, text, ha="center", va="bottom")
        ax.set_ylim(top=top + 5 * step)
    ax.set_xticks(places, list(rounds))
    ax.set_ylabel(ylabel)
    return _finished(ax)


def plot_variants(
    metrics: Mapping[str, float],
    ax: Axes,
    *,
    xlabel: str,
    errors: Mapping[str, float] | None = None,
    levels: Mapping[str, float] | None = None,
) -> Axes:
    """Draw one metric of several variants, one below the other in the order given.

    Args:
        metrics: By name of the variant.
        ax: Where to draw.
        xlabel: Name of the metric.
        errors: Half the length of each variant's bar, in the unit of the metric; nan for none.
        levels: By name, what chance and people reach, as vertical lines; nan for none.

    Returns:
        The axes.
    """
    places = -np.arange(len(metrics))
    bars = None if errors is None else np.nan_to_num([errors.get(name, math.nan) for name in metrics])
    ax.errorbar(list(metrics.values()), places, xerr=bars, fmt="o", color=BLUE, capsize=3, linestyle="none")
    for (name, level), style in zip((levels or {}).items(), cycle(_LINES[1:])):
        if not math.isnan(level):
            ax.axvline(level, color="black", linestyle=style, linewidth=1, label=name)
    ax.set_yticks(places, list(metrics))
    ax.set_xlabel(xlabel)
    ax.margins(y=0.5 / len(metrics))
    ax.spines[["top", "right"]].set_visible(False)
    if levels:
        ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=1)
    return ax


def _smoothed(values: npt.NDArray[np.float64], smoothing: float) -> npt.NDArray[np.float64]:
    """Average the steps around each, with as many after it as before it where there are."""
    if not smoothing:
        return values
    reach = math.ceil(math.log(0.01) / math.log(smoothing))
    means = np.empty_like(values)
    for step in range(len(values)):
        before = min(step, reach)
        near = values[step - before : step + before + 1]
        weights = smoothing ** np.abs(np.arange(len(near)) - before)
        means[step] = weights @ near / weights.sum()
    return means


def _luminance(colour: Sequence[float]) -> float:
    """Return the relative luminance of an sRGB colour, in [0, 1] (WCAG 2)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _finished(ax: Axes) -> Axes:
    """Take the frame away, and name the curves where there are two or more."""
    ax.spines[["top", "right"]].set_visible(False)
    if len(ax.get_legend_handles_labels()[1]) > 1:
        ax.legend(frameon=False)
    return ax


def _next_style(ax: Axes) -> tuple[str, str, str]:
    """Return the colour, marker and line style of the next curve."""
    number = sum(line.get_gid() == _CURVE for line in ax.get_lines())
    return COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)], _LINES[number % len(_LINES)]


def _draw_thumbnails(thumbnails: Mapping[int, npt.NDArray[np.uint8]], ax: Axes, length: int) -> float:
    """Draw the images side by side above the first row, joined to their frames; returns where they end."""
    slot = length / len(thumbnails)
    for number, (frame, image) in enumerate(sorted(thumbnails.items())):
        left = number * slot - 0.5
        ax.imshow(image, extent=(left + 0.03 * slot, left + 0.97 * slot, 1.3, 2.5), aspect="auto", zorder=2)
        ax.plot([frame, left + 0.5 * slot], [0.85, 1.28], color="black", linewidth=0.6, clip_on=False)
    return 2.5
