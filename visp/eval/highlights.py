"""Highlight detection: mean average precision of MR.HiSum and TripleSumm, HIT@1 and mAP of QVHighlights.

The published figures of MR.HiSum and TripleSumm are means over batches of means over videos, in which the videos of a
short last batch weigh more; :func:`mean_of_batches` gives them, and the mean over videos stands beside it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from visp.eval.metrics import mean_defined
from visp.eval.results import RANDOM_DRAWS, standard_error

Rounding = Literal["up", "down"]

SHARES = (0.5, 0.15)
"""Of mAP@50 and mAP@15: the shares of the segments that count as relevant."""
CLIP_SECONDS = 2
"""QVHighlights' clips."""
VERY_GOOD = 4
"""QVHighlights' highest rating, from which a clip is a highlight."""
LEAST_RATINGS = (2, 3, VERY_GOOD)
"""QVHighlights' thresholds: fair, good and very good."""


@dataclass(frozen=True)
class Highlights:
    """Mean average precision over videos.

    Attributes:
        videos: By video, the average precision at each of the shares.
        mean: Mean over videos, at each share.
        standard_error: Of that mean, over videos.
        batches: Mean over batches of means over videos, as published.
        constant: What constant scores reach: the share that is relevant, whatever the order.
        random: Of random scores, mean of 20 draws.
    """

    videos: Mapping[str, tuple[float, ...]]
    mean: tuple[float, ...]
    standard_error: tuple[float, ...]
    batches: tuple[float, ...]
    constant: tuple[float, ...]
    random: tuple[float, ...]

    def table(self) -> str:
        """Return a Markdown table: one row per video, then the means, the published form, and chance."""
        head = [f"mAP@{round(100 * share)}" for share in SHARES]
        rows: list[tuple[str, Sequence[float]]] = [
            *self.videos.items(),
            ("mean over videos", self.mean),
            ("standard error over videos", self.standard_error),
            ("mean over batches, as published", self.batches),
            ("constant scores", self.constant),
            (f"random scores, mean of {RANDOM_DRAWS} draws", self.random),
        ]
        lines = [f"| video | {' | '.join(head)} |", "|---" * (1 + len(head)) + "|"]
        lines += [f"| {name} | {' | '.join(_shown(value) for value in values)} |" for name, values in rows]
        return "\n".join(lines)


def average_precision(scores: npt.ArrayLike, relevant: npt.ArrayLike) -> float:
    """Return the average precision of a ranking; items of one score are taken together, so that no order is preferred.

    Args:
        scores: (n,) finite.
        relevant: (n,) of 0 and 1.

    Returns:
        The sum over distinct scores, from the highest, of precision times the gain in recall; nan if none is relevant.

    Raises:
        ValueError: If the shapes differ, or a score is not finite.
    """
    hits, taken = _ranked(scores, relevant)
    if not hits[-1]:
        return math.nan
    return float((hits / taken) @ np.diff(hits, prepend=0) / hits[-1])


def interpolated_precision(scores: npt.ArrayLike, relevant: npt.ArrayLike) -> float:
    """Return the interpolated average precision of a ranking, as QVHighlights' evaluation computes it.

    Args:
        scores: As in :func:`average_precision`.
        relevant: As in :func:`average_precision`.

    Returns:
        The mean, over the distinct scores at which a relevant item is reached, of the highest precision at that score
        or a lower one; 0 if none is relevant.

    Raises:
        ValueError: As in :func:`average_precision`.
    """
    hits, taken = _ranked(scores, relevant)
    if not hits[-1]:
        return 0.0
    precision = np.maximum.accumulate((hits / taken)[::-1])[::-1]
    return float(precision[np.diff(hits, prepend=0) > 0].mean())


def segment_means(scores: npt.ArrayLike, length: int = 5) -> npt.NDArray[np.float64]:
    """Return the means of segments of a video; the last one is filled up with zeros, as TripleSumm does.

    Args:
        scores: (T,) one per second.
        length: Steps per segment, at least 1.

    Returns:
        (ceil(T / length),) means.
    """
    values = np.asarray(scores, dtype=np.float64)
    filled = np.append(values, np.zeros(-len(values) % length))
    means: npt.NDArray[np.float64] = filled.reshape(-1, length).mean(axis=1)
    return means


def highlight_precision(
    scores: npt.ArrayLike, truth: npt.ArrayLike, share: float, *, rounding: Rounding = "up", length: int = 5
) -> float:
    """Return the average precision of segments of one video, of which the highest share by the truth is relevant.

    Args:
        scores: (T,) predicted, one per second.
        truth: (T,) ``gtscore``.
        share: Of the n segments, in (0, 1].
        rounding: ``"up"``: ceil(share n) are relevant, as in TripleSumm; ``"down"``: floor, as in MR.HiSum.
        length: Steps per segment.

    Raises:
        ValueError: If the lengths differ or the share is out of its range.
    """
    if np.shape(scores) != np.shape(truth) or np.ndim(scores) != 1 or not 0 < share <= 1:
        raise ValueError(
            f"expected scores and truth (T,) and a share in (0, 1], got {np.shape(scores)}, {np.shape(truth)}, {share}"
        )
    predicted, true = segment_means(scores, length), segment_means(truth, length)
    exact = share * len(true)
    count = math.ceil(round(exact, 9)) if rounding == "up" else math.floor(round(exact, 9))
    relevant = np.zeros(len(true), dtype=bool)
    relevant[np.argsort(-true, kind="stable")[:count]] = True
    return average_precision(predicted, relevant)


def evaluate_highlights(
    scores: Mapping[str, npt.ArrayLike],
    truths: Mapping[str, npt.ArrayLike],
    *,
    rounding: Rounding = "up",
    batch_size: int = 1,
) -> Highlights:
    """Evaluate highlight detection of many videos, with chance beside it.

    Args:
        scores: (T,) per video.
        truths: (T,) ``gtscore`` of the same videos.
        rounding: As in :func:`highlight_precision`.
        batch_size: Of the batches of the published form, in the order of the videos.

    Returns:
        mAP@50 and mAP@15 per video and their means, with those of random scores.

    Raises:
        ValueError: If the videos differ, there is none, or one cannot be evaluated; it is named.
    """
    if scores.keys() != truths.keys() or not scores:
        raise ValueError("scores and truths must hold the same videos, at least one")

    def of(name: str, values: npt.ArrayLike) -> tuple[float, ...]:
        try:
            return tuple(highlight_precision(values, truths[name], share, rounding=rounding) for share in SHARES)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    videos = {name: of(name, values) for name, values in scores.items()}
    columns = list(zip(*videos.values(), strict=True))
    random = []
    for name in scores:
        generator = np.random.default_rng(zlib.crc32(name.encode()))
        draws = [of(name, generator.random(np.shape(truths[name]))) for _ in range(RANDOM_DRAWS)]
        random.append([mean_defined(column) for column in zip(*draws, strict=True)])
    constant = [of(name, np.zeros(np.shape(truths[name]))) for name in scores]
    return Highlights(
        videos,
        tuple(mean_defined(column) for column in columns),
        tuple(standard_error(column) for column in columns),
        tuple(mean_of_batches(column, batch_size) for column in columns),
        tuple(mean_defined(column) for column in zip(*constant, strict=True)),
        tuple(mean_defined(column) for column in zip(*random, strict=True)),
    )


@dataclass(frozen=True)
class RatedHighlights:
    """QVHighlights' measures over queries.

    Attributes:
        least: Ratings from which a clip is a highlight: of each, in this order, what follows has two numbers.
        queries: By number of the query and its video, HIT@1 and average precision at each rating.
        mean: Mean over queries.
        standard_error: Of that mean, over queries.
        random: Of random scores, mean of 20 draws.
    """

    least: tuple[int, ...]
    queries: Mapping[str, tuple[float, ...]]
    mean: tuple[float, ...]
    standard_error: tuple[float, ...]
    random: tuple[float, ...]

    def table(self) -> str:
        """Return a Markdown table of the means, with chance below."""
        head = [f"{name}, rated {least} and more" for least in self.least for name in ("HIT@1", "mAP")]
        rows = {
            f"mean over {len(self.queries)} queries": self.mean,
            "standard error over queries": self.standard_error,
            f"random scores, mean of {RANDOM_DRAWS} draws": self.random,
        }
        lines = [f"| | {' | '.join(head)} |", "|---" * (1 + len(head)) + "|"]
        lines += [f"| {name} | {' | '.join(_shown(value) for value in values)} |" for name, values in rows.items()]
        return "\n".join(lines)


def evaluate_rated(
    scores: Mapping[str, npt.ArrayLike], queries: Sequence[tuple[str, npt.ArrayLike]]
) -> RatedHighlights:
    """Evaluate scores of videos by QVHighlights' ratings; the queries of a video are judged by the same scores.

    Args:
        scores: (n,) one per clip, by video; those of other videos than the queries' are left out.
        queries: The video of each query, and its ratings (n, raters); see :func:`visp.data.read_qvhighlights`.

    Returns:
        HIT@1 and mAP per query and their means, with those of random scores.

    Raises:
        ValueError: If there is no query, a video has no scores, or another number of them than of clips.
    """
    if not queries:
        raise ValueError("expected at least one query, got none")

    def of(video: str, values: npt.ArrayLike, ratings: npt.ArrayLike) -> tuple[float, ...]:
        try:
            both = (hit_at_1, highlight_map)
            return tuple(measure(values, ratings, least=least) for least in LEAST_RATINGS for measure in both)
        except ValueError as error:
            raise ValueError(f"{video}: {error}") from error

    missing = sorted({video for video, _ in queries} - scores.keys())
    if missing:
        raise ValueError(f"there are no scores of {len(missing)} videos that are asked for, such as {missing[0]}")
    found, random = {}, []
    for number, (video, ratings) in enumerate(queries, start=1):
        found[f"{number}, {video}"] = of(video, scores[video], ratings)
        generator = np.random.default_rng(zlib.crc32(f"{number}, {video}".encode()))
        draws = [of(video, generator.random(len(np.asarray(ratings))), ratings) for _ in range(RANDOM_DRAWS)]
        random.append([mean_defined(column) for column in zip(*draws, strict=True)])
    columns = list(zip(*found.values(), strict=True))
    return RatedHighlights(
        LEAST_RATINGS,
        found,
        tuple(mean_defined(column) for column in columns),
        tuple(standard_error(column) for column in columns),
        tuple(mean_defined(column) for column in zip(*random, strict=True)),
    )


def mean_of_batches(values: Sequence[float], batch_size: int) -> float:
    """Return the mean over batches of their means, in which a short last batch weighs as much as a full one.

    Args:
        values: (n,) of the videos, in order; those that are nan do not count.
        batch_size: Number of videos in a batch, at least 1.

    Raises:
        ValueError: If ``batch_size`` is less than 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    batches = [values[start : start + batch_size] for start in range(0, len(values), batch_size)]
    return mean_defined([mean_defined(batch) for batch in batches])


def hit_at_1(scores: npt.ArrayLike, ratings: npt.ArrayLike, *, least: int = VERY_GOOD) -> float:
    """Return QVHighlights' HIT@1 of one query: 1 if some rater calls the top-scored clip a highlight, or else 0.

    Of several top-scored clips the first one counts. The paper (Lei et al. 2021) does not say how the raters are put
    together; its evaluation takes the best of them.

    Args:
        scores: (n,) finite, one per clip of the video.
        ratings: (n, raters), 0 to 4, 0 for clips that are not relevant.
        least: Rating from which a clip is a highlight.

    Raises:
        ValueError: If the shapes do not fit.
    """
    values, rated = _checked(scores, ratings)
    return float((rated[int(values.argmax())] >= least).any())


def highlight_map(scores: npt.ArrayLike, ratings: npt.ArrayLike, *, least: int = VERY_GOOD) -> float:
    """Return QVHighlights' average precision of one query, mean over the raters.

    It is that of :func:`interpolated_precision`, so a rater who calls no clip a highlight counts as 0.

    Args:
        scores: As in :func:`hit_at_1`.
        ratings: As in :func:`hit_at_1`.
        least: As in :func:`hit_at_1`.
    """
    values, rated = _checked(scores, ratings)
    return float(np.mean([interpolated_precision(values, rater >= least) for rater in rated.T]))


def _ranked(scores: npt.ArrayLike, relevant: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return, for each distinct score from the highest, how many relevant items have it or more, and how many items."""
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(relevant, dtype=bool)
    if values.ndim != 1 or values.shape != truth.shape or not values.size or not np.isfinite(values).all():
        raise ValueError(f"expected finite scores (n,) and relevance (n,), got shapes {values.shape} and {truth.shape}")
    order = np.argsort(-values, kind="stable")
    last_of_score = np.append(np.diff(values[order]) != 0, True)
    return np.cumsum(truth[order])[last_of_score], np.flatnonzero(last_of_score) + 1


def _checked(scores: npt.ArrayLike, ratings: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    values, rated = np.asarray(scores, dtype=np.float64), np.asarray(ratings, dtype=np.float64)
    if values.ndim != 1 or rated.ndim != 2 or len(values) != len(rated) or not rated.size:
        raise ValueError(f"expected scores (n,) and ratings (n, raters), got shapes {values.shape} and {rated.shape}")
    return values, rated


def _shown(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.4f}"
