from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from visp.plots import plot_scores


def drawn(scores: Any, importance: Any, **options: Any) -> Any:
    ax = Figure().subplots()
    assert plot_scores(scores, importance, ax, **options) is ax
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
