from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.eval.highlights import (
    average_precision,
    evaluate_highlights,
    evaluate_rated,
    highlight_map,
    highlight_precision,
    hit_at_1,
    interpolated_precision,
    mean_of_batches,
)


def literal_precision(scores: list[float], relevant: list[bool]) -> float:
    """Average precision of distinct scores by its definition: the mean of the precisions at the relevant ranks."""
    order = sorted(range(len(scores)), key=lambda item: -scores[item])
    hits, precisions = 0, []
    for rank, item in enumerate(order, start=1):
        if relevant[item]:
            hits += 1
            precisions.append(hits / rank)
    return sum(precisions) / len(precisions)


def literal_highlights(scores: list[float], truth: list[float], share: float, up: bool) -> float:
    """mAP@50 or mAP@15 of one video: 5-second means, zeros at the end, the top of the truth relevant."""

    def means(values: list[float]) -> list[float]:
        values = values + [0.0] * (-len(values) % 5)
        return [sum(values[start : start + 5]) / 5 for start in range(0, len(values), 5)]

    predicted, true = means(scores), means(truth)
    count = math.ceil(share * len(true)) if up else int(share * len(true))
    best = sorted(range(len(true)), key=lambda item: -true[item])[:count]
    return literal_precision(predicted, [item in best for item in range(len(true))])


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_average_precision_is_that_of_its_definition(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, relevant = rng.permutation(size) / size, rng.random(size) < 0.5
    relevant[rng.integers(size)] = True
    assert average_precision(scores, relevant) == pytest.approx(literal_precision(scores.tolist(), relevant.tolist()))


def test_equal_scores_prefer_no_order() -> None:
    assert average_precision([1.0, 1.0, 1.0, 1.0], [1, 0, 0, 0]) == pytest.approx(0.25)
    assert average_precision([1.0, 1.0, 1.0, 1.0], [0, 0, 0, 1]) == pytest.approx(0.25)
    assert np.isnan(average_precision([1.0, 2.0], [0, 0]))


@pytest.mark.parametrize("share", [0.5, 0.15])
@pytest.mark.parametrize("rounding", ["up", "down"])
@pytest.mark.parametrize("length", [35, 41, 63])
def test_highlights_are_those_of_the_literal_reference(share: float, rounding: str, length: int) -> None:
    rng = np.random.default_rng(length)
    scores, truth = rng.random(length), rng.random(length)
    expected = literal_highlights(scores.tolist(), truth.tolist(), share, rounding == "up")
    assert highlight_precision(scores, truth, share, rounding=rounding) == pytest.approx(expected)  # type: ignore[arg-type]


def test_a_perfect_prediction_is_1_and_chance_is_not_0() -> None:
    rng = np.random.default_rng(0)
    truths: dict[str, npt.ArrayLike] = {f"video_{number}": rng.random(100) for number in range(3)}
    found = evaluate_highlights(truths, truths, batch_size=2)
    assert found.mean == (1.0, 1.0)
    assert found.constant == pytest.approx((0.5, 0.15))
    assert 0.45 < found.random[0] < 0.65
    assert 0.15 < found.random[1] < 0.45
    assert found.table().count("\n") == 2 + 3 + 5 - 1


def test_a_short_last_batch_weighs_as_much_as_a_full_one() -> None:
    assert mean_of_batches([1.0, 1.0, 0.0], 2) == pytest.approx(0.5)
    assert mean_of_batches([1.0, 1.0, 0.0], 1) == pytest.approx(2 / 3)


def test_hit_and_map_of_qvhighlights() -> None:
    ratings = [[4, 3, 4], [0, 0, 0], [2, 4, 1]]
    assert hit_at_1([0.9, 0.1, 0.5], ratings) == 1  # one rater is enough
    assert hit_at_1([0.1, 0.9, 0.5], ratings) == 0
    # The first and third raters find clip 0 second, the second rater finds clip 2 first.
    assert highlight_map([0.5, 0.1, 0.9], ratings) == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
    # A rater who calls no clip a highlight counts as 0, and so does a query of such raters.
    assert highlight_map([0.5, 0.1], [[4, 0], [0, 1]]) == 0.5
    assert highlight_map([0.5, 0.1], [[3, 0], [0, 1]]) == 0
    assert evaluate_rated({"v": [0.5, 0.1]}, [("v", [[3], [0]]), ("v", [[4], [0]])]).mean[-1] == 0.5


def literal_interpolated(scores: list[float], relevant: list[bool]) -> float:
    """As QVHighlights' evaluation: of the points of a precision-recall curve, one per distinct score, those count at
    which the recall rises, each with the highest precision at its recall or more."""
    if not any(relevant):
        return 0
    curve = []
    for least in sorted(set(scores), reverse=True):
        taken = [truth for score, truth in zip(scores, relevant, strict=True) if score >= least]
        curve.append((sum(taken) / sum(relevant), sum(taken) / len(taken)))
    found, before = [], 0.0
    for recall, _ in curve:
        if recall > before:
            found.append(max(precision for other, precision in curve if other >= recall))
        before = recall
    return sum(found) / len(found)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.4, 0.7, 0.8]), st.booleans()), min_size=1, max_size=12))
def test_the_precision_of_qvhighlights_is_that_of_its_definition(items: list[tuple[float, bool]]) -> None:
    scores, relevant = [score for score, _ in items], [truth for _, truth in items]
    assert interpolated_precision(scores, relevant) == pytest.approx(literal_interpolated(scores, relevant))


@pytest.mark.parametrize(
    ("scores", "truths", "message"),
    [({}, {}, "at least one"), ({"a": [1.0]}, {"b": [1.0]}, "same videos"), ({"a": [1.0]}, {"a": [1.0, 2.0]}, "a: ")],
)
def test_what_cannot_be_compared_is_refused(
    scores: dict[str, list[float]], truths: dict[str, list[float]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_highlights(scores, truths)


def test_queries_of_a_video_are_judged_by_its_scores_at_every_threshold() -> None:
    queries = [("v", [[4, 2, 0], [0, 0, 0], [3, 3, 3]]), ("v", [[0], [2], [0]]), ("w", [[4], [0]])]
    scores = {"v": [0.9, 0.1, 0.5], "w": [0.2, 0.7], "unasked": [1.0]}
    found = evaluate_rated(scores, queries)
    for place, least in enumerate(found.least):
        hits = [hit_at_1(scores[video], ratings, least=least) for video, ratings in queries]
        precisions = [highlight_map(scores[video], ratings, least=least) for video, ratings in queries]
        assert found.mean[2 * place] == pytest.approx(np.mean(hits))
        assert found.mean[2 * place + 1] == pytest.approx(np.nanmean(precisions))
    assert list(found.queries) == ["1, v", "2, v", "3, w"]
    assert 0 < found.random[0] < 1
    assert "mean over 3 queries" in found.table()
    with pytest.raises(ValueError, match="no scores of 1 videos that are asked for, such as x"):
        evaluate_rated(scores, [("x", [[1]])])
    with pytest.raises(ValueError, match="w: expected scores"):
        evaluate_rated(scores, [("w", [[1]])])
