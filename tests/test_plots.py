from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from visp.plots import (
    GREY,
    ORANGE,
    plot_distribution,
    plot_grid,
    plot_metrics,
    plot_saliency,
    plot_scores,
    plot_sweep,
    plot_variants,
    read_metrics,
)


def axes() -> Any:
    return Figure().subplots()


def same(returned: Any, ax: Any) -> None:
    assert returned is ax


def drawn(scores: Any, importance: Any, **options: Any) -> Any:
    ax = Figure().subplots()
    same(plot_scores(scores, importance, ax, **options), ax)
    return ax


def test_scores_are_drawn_as_ranks_between_0_and_1() -> None:
    (line,) = drawn([-50.0, 300.0, 7.0, 8.0, -2.0], np.zeros(5)).lines
    np.testing.assert_allclose(line.get_ydata(), [0, 1, 0.5, 0.75, 0.25])
    np.testing.assert_array_equal(line.get_xdata(), range(5))


def test_importance_is_drawn_beneath() -> None:
    ax = drawn([1.0, 2.0, 3.0], [0.0, 0.5, 0.5])
    (area,) = ax.collections
    assert area.get_paths()[0].get_extents().ymax == 0.5
    assert area.zorder < ax.lines[0].zorder


def test_title_and_legend_say_what_is_drawn() -> None:
    ax = drawn([1.0, 2.0], [0.0, 1.0], label="CSTA", title="video_1")
    assert ax.get_title() == "video_1"
    assert sorted(text.get_text() for text in ax.legend().get_texts()) == ["CSTA", "importance"]


def bars(ax: Any, colour: str) -> list[tuple[int, float]]:
    """Frame and height of each bar of a colour."""
    from matplotlib.colors import same_color

    found = [bar for bar in ax.patches if bar.get_height() > 0 and same_color(bar.get_facecolor(), colour)]
    return [(round(bar.get_x() + 0.5), round(bar.get_height(), 6)) for bar in found]


def test_saliency_bars_are_normalised_and_the_highest_share_stands_out() -> None:
    ax = axes()
    same(plot_saliency({"CSTA": [5.0, -5.0, 0.0, 2.5]}, ax, share=0.25), ax)
    assert bars(ax, ORANGE) == [(0, 0.8)]
    assert bars(ax, GREY) == [(2, 0.4), (3, 0.6)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["CSTA"]


def test_saliency_rows_lie_below_each_other_and_a_constant_one_has_no_highest() -> None:
    ax = axes()
    plot_saliency({"users": [1.0, 0.0, 1.0], "PT": [2.0, 2.0, 2.0]}, ax, share=0.3)
    assert bars(ax, ORANGE) == [(0, 0.8), (2, 0.8)]
    assert bars(ax, GREY) == [(0, 0.4), (1, 0.4), (2, 0.4)]
    assert {bar.get_y() for bar in ax.patches} == {0, -1}


def test_thumbnails_are_drawn_above_in_the_order_of_their_frames() -> None:
    ax = axes()
    images = {8: np.full((9, 16, 3), 200, np.uint8), 2: np.full((9, 16, 3), 100, np.uint8)}
    plot_saliency({"CSTA": np.arange(10.0)}, ax, thumbnails=images)
    (first, second) = ax.images
    assert first.get_array()[0, 0, 0] == 100
    assert first.get_extent()[1] < second.get_extent()[0]
    assert [line.get_xdata()[0] for line in ax.lines] == [2, 8]
    assert ax.get_xlim() == (-0.5, 9.5)
    assert ax.get_ylim()[1] >= first.get_extent()[3]


@pytest.mark.parametrize("rows", [{}, {"a": [1.0, 2.0], "b": [1.0]}])
def test_saliency_rows_must_be_of_one_length(rows: Any) -> None:
    with pytest.raises(ValueError, match="rows of scores"):
        plot_saliency(rows, axes())


def test_training_curves_come_from_a_runs_metrics(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    steps = [{"step": i + 1, "info_nce": float(i % 2), "note": None} for i in range(6)]
    path.write_text("".join(json.dumps(step) + "\n" for step in steps) + '{"step": 7, "info')
    assert read_metrics(path) == steps
    ax = axes()
    same(plot_metrics(path, ax, smoothing=0.5), ax)
    faint, running = ax.lines
    np.testing.assert_array_equal(faint.get_ydata(), [0, 1, 0, 1, 0, 1])
    expected = []
    for i in range(6):
        near = [j for j in range(6) if j <= 2 * i]  # as many steps after i as before it, where there are
        weights = [0.5 ** abs(i - j) for j in near]
        expected.append(sum(w * (j % 2) for w, j in zip(weights, near, strict=True)) / sum(weights))
    np.testing.assert_allclose(running.get_ydata(), expected)
    np.testing.assert_array_equal(running.get_xdata(), range(1, 7))
    plot_metrics(steps, ax, label="second", smoothing=0)
    assert len({line.get_color() for line in ax.lines}) == 2
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["info_nce", "second"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "InfoNCE (nats)")


def test_a_metric_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"'tau'; there are info_nce, step"):
        plot_metrics([{"step": 1, "info_nce": 2.0}], axes(), key="tau")
    with pytest.raises(ValueError, match="smoothing"):
        plot_metrics([{"step": 1, "info_nce": 2.0}], axes(), smoothing=1)


def test_sweeps_differ_in_colour_marker_and_line() -> None:
    ax = axes()
    for label in ("In-Domain", "Out-Domain"):
        same(
            plot_sweep([0.5, 1, 2], [0.2, 0.25, 0.26], ax, label=label, spread=[0.01] * 3, log=True, xlabel="scale"), ax
        )
    plot_sweep([1], [0.2], ax, baseline=0.24, xlabel="scale")
    curves = [line for line in ax.lines if line.get_gid()]
    for style in ("get_color", "get_marker", "get_linestyle"):
        assert len({getattr(line, style)() for line in curves[:2]}) == 2
    assert ax.get_xscale() == "log"
    assert any((np.asarray(line.get_ydata()) == 0.24).all() for line in ax.lines)


def test_a_grid_shows_every_number_and_frames_the_best() -> None:
    ax = axes()
    same(
        plot_grid([[0.1, 0.2, np.nan], [0.15, 0.3, 0.25]], ax, x=[1, 10, 100], y=["a", "b"], xlabel="x", ylabel="y"), ax
    )
    assert {text.get_text() for text in ax.texts} == {"0.100", "0.200", "0.150", "0.300", "0.250"}
    (frame,) = ax.lines
    assert (np.mean(frame.get_xdata()[:4]), np.mean(frame.get_ydata()[:4])) == (1, 1)
    with pytest.raises(ValueError, match=r"expected metrics \(2, 2\)"):
        plot_grid([[1.0, 2.0]], axes(), x=[1, 2], y=[1, 2], xlabel="x", ylabel="y")


def test_distributions_show_each_round_and_the_p_value() -> None:
    ax = axes()
    same(plot_distribution({"CSTA": [0.2, 0.21, 0.22], "ViSP": [0.25, 0.26]}, ax, p_value=0.0123), ax)
    dots = [line for line in ax.lines if line.get_marker() not in ("None", "")]
    assert [sorted(line.get_ydata()) for line in dots] == [[0.2, 0.21, 0.22], [0.25, 0.26]]
    assert [text.get_text() for text in ax.texts] == ["p = 0.012"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["CSTA", "ViSP"]


def test_a_falling_curve_is_smoothed_without_lag() -> None:
    ax = axes()
    plot_metrics([{"step": i, "info_nce": 100.0 - i} for i in range(100)], ax)
    running = ax.lines[1].get_ydata()
    np.testing.assert_allclose(running[:50], 100.0 - np.arange(50))


def test_the_number_of_every_cell_can_be_read() -> None:
    ax = axes()
    cells = np.linspace(0, 1, 21)[None]
    plot_grid(cells, ax, x=range(21), y=["a"], xlabel="x", ylabel="y")

    def luminance(rgb: Any) -> float:
        linear = np.where(
            np.asarray(rgb) <= 0.04045, np.asarray(rgb) / 12.92, ((np.asarray(rgb) + 0.055) / 1.055) ** 2.4
        )
        return float(linear @ [0.2126, 0.7152, 0.0722])

    (image,) = ax.images
    for text, value in zip(ax.texts, cells[0], strict=True):
        ground, ink = luminance(image.to_rgba(value)[:3]), 1.0 if text.get_color() == "white" else 0.0
        assert (max(ground, ink) + 0.05) / (min(ground, ink) + 0.05) >= 4.5


def test_variants_are_drawn_downwards_with_their_errors_and_the_levels_of_chance() -> None:
    ax = plot_variants(
        {"first": 0.2, "second": 0.3},
        axes(),
        xlabel="tau",
        errors={"first": 0.1, "second": float("nan")},
        levels={"chance": 0.1, "undefined": float("nan")},
    )
    (bars,) = ax.containers
    assert isinstance(bars, ErrorbarContainer)
    assert np.array_equal(bars.lines[0].get_xydata(), [[0.2, 0.0], [0.3, -1.0]])
    ends = [np.asarray(segment)[:, 0] for segment in bars.lines[2][0].get_segments()]
    assert np.allclose(ends, [[0.1, 0.3], [0.3, 0.3]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]
    assert ax.get_legend_handles_labels()[1] == ["chance"]
