"""Score the predictions of a whole dataset, or a test fold of it, under one named protocol, with chance beside them."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from visp.eval.metrics import OverUsers, f_score, human_consistency, mean_defined, rank_correlation
from visp.eval.protocols import Benchmark, Protocol, protocol_form
from visp.eval.results import BASELINES, RANDOM_DRAWS, Baseline, Evaluation, VideoEvaluation, mean_row
from visp.eval.summary import BudgetBase, make_summary

OVER_USERS: dict[Benchmark, OverUsers] = {"summe": "max", "tvsum": "mean", "mrhisum": "max", "qfvs": "mean"}
"""How the F-scores of a video's users become one."""

_ANNOTATION_KEYS = {"annotators": "user_scores", "mean summary": "user_summary", "gtscore": "gtscore"}


def evaluate(
    predictions: Mapping[str, npt.ArrayLike],
    annotations: Mapping[str, Mapping[str, Any]],
    *,
    protocol: Protocol,
    benchmark: Benchmark,
    budget: float = 0.15,
    budget_base: BudgetBase = "last_shot",
    known_baselines: Mapping[str, Mapping[Baseline, VideoEvaluation]] | None = None,
) -> Evaluation:
    """Evaluate scores against annotations: rank correlation under the protocol, and F-score of the summaries.

    Args:
        predictions: (T,) finite scores at the sampled frames by video. The summaries are made of them, and leave out
            what scores 0 or less; see :func:`visp.eval.choose_shots`.
        annotations: By video, the fields of the field's h5 files: ``picks`` (T,), ``n_frames``, ``change_points``
            (S, 2) and ``user_summary`` (U, n_frames); for ``csta``, ``otani`` and ``scores`` on TVSum also
            ``user_scores`` (U, n_frames), the raw scores 1 to 5; for ``scores`` on SumMe also ``gtscore`` (T,);
            on QFVS ``gtscore`` alone.
        protocol: See :mod:`visp.eval.protocols`.
        benchmark: Which form of the protocol. The F-score is the best over users for SumMe and their mean for TVSum.
        budget: Longest summary as a share of the video, in (0, 1].
        budget_base: What the share is of; see :func:`visp.eval.make_summary`.
        known_baselines: What :func:`baselines` gave for each video under the same options, where it is known.

    Returns:
        One row per video, the means, and the rows of constant scores, random scores and the users themselves.

    Raises:
        ValueError: If there is no video, the two mappings hold different videos, a field is missing, or a video is
            refused; the video is named.
    """
    protocol_form(protocol, benchmark)
    if predictions.keys() != annotations.keys() or not predictions:
        raise ValueError(
            "predictions and annotations must hold the same videos, at least one; only in predictions: "
            f"{_names(set(predictions) - set(annotations))}; only in annotations: "
            f"{_names(set(annotations) - set(predictions))}"
        )
    rows = []
    beside: dict[Baseline, list[VideoEvaluation]] = {}
    for name, scores in predictions.items():
        # Recorded, so that the warning can name the video.
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rows.append(_evaluate_video(name, scores, annotations[name], protocol, benchmark, budget, budget_base))
        for warning in caught:
            warnings.warn(f"{name}: {warning.message}", warning.category, stacklevel=2)
        found = (
            baselines(
                name,
                annotations[name],
                protocol=protocol,
                benchmark=benchmark,
                budget=budget,
                budget_base=budget_base,
            )
            if known_baselines is None
            else known_baselines[name]
        )
        for baseline, row in found.items():
            beside.setdefault(baseline, []).append(row)
    return Evaluation(
        protocol,
        benchmark,
        OVER_USERS[benchmark],
        float(budget),
        budget_base,
        tuple(rows),
        {baseline: tuple(beside[baseline]) for baseline in BASELINES if baseline in beside},
    )


def baselines(
    name: str,
    annotations: Mapping[str, Any],
    *,
    protocol: Protocol,
    benchmark: Benchmark,
    budget: float = 0.15,
    budget_base: BudgetBase = "last_shot",
) -> dict[Baseline, VideoEvaluation]:
    """Evaluate what needs no summarizer: constant scores, random scores, and each user against the others.

    No metric can be read without them: under ``csta`` on SumMe constant scores reach a tau above 0, because a knapsack
    that values all frames alike takes short shots, and users mark short shots more often (docs/evaluation.md).

    Args:
        name: Name of the video, which seeds its random scores: they are the same in every evaluation.
        annotations: The video's fields, as in :func:`evaluate`.
        protocol: As in :func:`evaluate`.
        benchmark: As in :func:`evaluate`.
        budget: As in :func:`evaluate`.
        budget_base: As in :func:`evaluate`.

    Returns:
        A row by baseline. ``"random"`` is the mean of 20 draws. ``"humans"``, leave-one-out as in
        :func:`visp.eval.human_consistency`, is there for two users and more; under ``scores`` on SumMe, which compares
        with the mean of all users, it has an F-score only.

    Raises:
        ValueError: As :func:`evaluate`.
    """

    def of(scores: npt.ArrayLike) -> VideoEvaluation:
        return _evaluate_video(name, scores, annotations, protocol, benchmark, budget, budget_base)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what there is to say of the video, the evaluation of its scores says
        length = np.size(_fields(name, annotations, protocol, benchmark)["picks"])
        generator = np.random.default_rng(zlib.crc32(name.encode()))
        draws = [of(generator.random(length, dtype=np.float32)) for _ in range(RANDOM_DRAWS)]
        found: dict[Baseline, VideoEvaluation] = {
            "constant": of(np.ones(length, dtype=np.float32)),
            "random": replace(mean_row(name, draws), num_undefined=max(draw.num_undefined for draw in draws)),
        }
        humans = _humans(name, annotations, protocol, benchmark)
    return found if humans is None else {**found, "humans": humans}


def _humans(
    name: str, annotations: Mapping[str, Any], protocol: Protocol, benchmark: Benchmark
) -> VideoEvaluation | None:
    """Evaluate each user in place of the prediction, with the others as the users."""
    fields = _fields(name, annotations, protocol, benchmark)
    summaries = fields.get("user_summary", np.empty((0, 0)))  # where no shots are compared there are none
    compared = _ANNOTATION_KEYS[protocol_form(protocol, benchmark).annotated]
    if len(summaries) < 2:
        return None
    tau, rho, num_undefined = float("nan"), float("nan"), 0
    if compared != "gtscore" and len(fields[compared]) > 1:
        ranks = human_consistency(fields[compared], protocol, benchmark, fields["picks"])
        tau, rho, num_undefined = ranks.tau, ranks.rho, ranks.num_undefined
    overlaps = [
        f_score(summary, np.delete(summaries, user, axis=0), OVER_USERS[benchmark])
        for user, summary in enumerate(summaries)
    ]
    return VideoEvaluation(name, tau, rho, num_undefined, mean_defined(overlaps), float(np.mean(summaries)))


def _evaluate_video(
    name: str,
    scores: npt.ArrayLike,
    annotations: Mapping[str, Any],
    protocol: Protocol,
    benchmark: Benchmark,
    budget: float,
    budget_base: BudgetBase,
) -> VideoEvaluation:
    """Return the row of one video, or say what is wrong with it by its name."""
    compared = protocol_form(protocol, benchmark)
    fields = _fields(name, annotations, protocol, benchmark)
    n_frames, picks = int(fields["n_frames"]), fields["picks"]
    try:
        overlap, share, summary = float("nan"), float("nan"), None
        if compared.shots:
            shots = fields["change_points"]
            summary = make_summary(scores, shots, n_frames, picks, budget=budget, budget_base=budget_base)
            overlap, share = f_score(summary, fields["user_summary"], OVER_USERS[benchmark]), summary.share
        ranks = rank_correlation(
            summary if summary is not None and compared.predicted == "summary" else scores,
            np.atleast_2d(fields[_ANNOTATION_KEYS[compared.annotated]]),
            protocol=protocol,
            benchmark=benchmark,
            picks=picks,
            n_frames=n_frames,
        )
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return VideoEvaluation(name, ranks.tau, ranks.rho, ranks.num_undefined, overlap, share)


def _fields(
    name: str, video: Mapping[str, Any], protocol: Protocol, benchmark: Benchmark
) -> dict[str, npt.NDArray[Any]]:
    """Return the fields that the evaluation needs as arrays, or say which are missing."""
    compared = protocol_form(protocol, benchmark)
    annotation = _ANNOTATION_KEYS[compared.annotated]
    needed = dict.fromkeys(("picks", "n_frames", "change_points", "user_summary", annotation))
    if not compared.shots:  # steps stand for frames, and nobody's summary is compared
        length = np.size(video.get(annotation, ()))
        video = {**video, "picks": np.arange(length), "n_frames": length}
        needed = dict.fromkeys(("picks", "n_frames", annotation))
    missing = [key for key in needed if key not in video]
    if missing == ["user_scores"]:
        raise ValueError(
            f"{name}: protocol {protocol!r} on {benchmark} needs the annotators' raw scores as user_scores (U, "
            "n_frames), which the h5 files do not hold: read them from TVSum's ydata-anno.tsv with visp.data"
        )
    if missing:
        raise ValueError(f"{name}: the annotations lack {', '.join(missing)}; they hold {_names(video)}")
    return {key: np.asarray(video[key]) for key in needed}


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
