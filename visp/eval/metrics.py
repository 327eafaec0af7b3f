"""F-score and rank correlation of one video's prediction with what its users chose."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from visp.eval.protocols import STRIDE, Benchmark, Protocol, protocol_form
from visp.eval.rank import Levels, kendall_tau_b, spearman_rho
from visp.eval.summary import Summary, check_picks, upsample_scores

OverUsers = Literal["max", "mean"]
Metric = Literal["tau", "rho", "f_score"]
METRICS: tuple[Metric, ...] = ("tau", "rho", "f_score")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RankCorrelation:
    """Rank correlation of one video under one protocol.

    U is the number of annotators, or 1 where the protocol compares with one curve (their mean, or ``gtscore``).

    Attributes:
        tau: Kendall's tau-b, mean over the annotators for whom it is defined; nan if there is none.
        rho: Spearman's rho, likewise.
        tau_per_user: (U,), nan where undefined.
        rho_per_user: (U,), nan where undefined.
        num_undefined: Number of annotators for whom the correlation is undefined because a side is constant.
        protocol: Name of the protocol, without which the metrics mean nothing.
        benchmark: The form of the protocol that was used.
    """

    tau: float
    rho: float
    tau_per_user: Floats
    rho_per_user: Floats
    num_undefined: int
    protocol: Protocol
    benchmark: Benchmark


def f_score(summary: Summary | npt.ArrayLike, user_summaries: npt.ArrayLike, over_users: OverUsers) -> float:
    """Return the F-score of a summary with the users' summaries, 2 P R / (P + R), in [0, 1].

    An empty summary scores 0, and so does a user without frames, with one warning.

    Args:
        summary: The summary, or its 0/1 vector (n_frames,).
        user_summaries: (U, n_frames) of 0 and 1.
        over_users: ``"max"`` over the users, as the field does for SumMe, or their ``"mean"``, as it does for TVSum.

    Raises:
        ValueError: If the lengths differ, a value is neither 0 nor 1, or ``over_users`` is unknown.
    """
    if over_users not in ("max", "mean"):
        raise ValueError(f"over_users must be 'max' or 'mean', got {over_users!r}")
    users = _zeros_and_ones(_annotations(user_summaries), "the user summaries")
    chosen = _selection(summary)
    _same_length("the summary", len(chosen), "the user summaries", users.shape[1])
    sizes = users.sum(axis=1)
    if not sizes.all():
        warnings.warn(f"users {np.flatnonzero(sizes == 0).tolist()} chose no frame and score 0", stacklevel=2)
    # With overlap o, P = o / |summary| and R = o / |user|, so that 2 P R / (P + R) = 2 o / (|summary| + |user|).
    scores = 2 * (users @ chosen) / np.maximum(sizes + chosen.sum(), 1)
    return float(scores.max() if over_users == "max" else scores.mean())


def rank_correlation(
    prediction: Summary | npt.ArrayLike,
    annotations: npt.ArrayLike,
    *,
    protocol: Protocol,
    benchmark: Benchmark,
    picks: npt.ArrayLike | None = None,
    n_frames: int | None = None,
) -> RankCorrelation:
    """Correlate one video's prediction with its annotations as the protocol says; see :mod:`visp.eval.protocols`.

    What chance and people reach under the same protocol, without which the result cannot be read, is
    :func:`visp.eval.baselines` of the video.

    Args:
        prediction: (T,) scores or logits at the sampled frames; where the protocol correlates summaries (``msva``, and
            ``csta`` on SumMe), the :class:`Summary` or its 0/1 vector (n_frames,).
        annotations: (U, n_frames), one row per annotator, raw. On TVSum the scores 1 to 5 (for ``csta``, ``otani`` and
            ``scores``); where the protocol correlates summaries, the ``user_summary`` of 0 and 1; for ``scores`` on
            SumMe, the ``gtscore`` at the picks as the one row (1, T).
        protocol: ``"csta"``, ``"otani"``, ``"msva"`` or ``"scores"``.
        benchmark: ``"summe"`` or ``"tvsum"``: which form of the protocol.
        picks: (T,) frame index of each score. Needed where scores are upsampled. Under ``csta`` on TVSum the annotation
            is read at every 15th frame, as published; with picks of another sampling, it is read at the picks.
        n_frames: Number of frames. Needed for ``scores`` on SumMe; elsewhere it must agree with ``annotations``.

    Returns:
        tau and rho of each annotator and their means, with the protocol's name.

    Raises:
        ValueError: If the protocol is not defined for the benchmark, shapes or lengths do not fit, or a value is not
            finite.
    """
    compared = protocol_form(protocol, benchmark)
    users = _annotations(annotations)
    label = f"under {protocol} on {benchmark}"
    if n_frames is not None and compared.annotated != "gtscore":
        _same_length("the video", n_frames, "the annotations", users.shape[1])
    if compared.predicted == "summary":
        selection = _selection(prediction, f"the prediction, {label} a summary (see make_summary),")
        target = _zeros_and_ones(users, f"the annotations, {label} the user summaries,").mean(axis=0, keepdims=True)
        _same_length("the summary", len(selection), "the annotations", users.shape[1])
        return _correlate(selection, target, protocol, benchmark)

    scores = _scores(prediction, label)
    if compared.predicted == "picks" and compared.annotated == "gtscore":
        if len(users) != 1:
            raise ValueError(f"{label} the annotations are gtscore as one row (1, T), got {users.shape}")
        _same_length("the scores", len(scores), "gtscore", users.shape[1])
        return _correlate(scores, users, protocol, benchmark)
    if compared.predicted == "picks":
        frames = _compared_frames(picks, users.shape[1])
        _same_length("the scores", len(scores), f"the sampled frames of the {users.shape[1]} annotated", len(frames))
        return _correlate(scores, users[:, frames], protocol, benchmark)

    if picks is None:
        raise ValueError(f"{label} the scores are upsampled to all frames, which needs picks")
    if compared.annotated == "gtscore":
        if n_frames is None:
            raise ValueError(f"{label} scores and gtscore are upsampled to all frames, which needs n_frames")
        if len(users) != 1:
            raise ValueError(f"{label} the annotations are gtscore as one row (1, T), got {users.shape}")
        users = upsample_scores(users[0], picks, n_frames)[None].astype(np.float64)
    return _correlate(upsample_scores(scores, picks, users.shape[1]), users, protocol, benchmark)


def human_consistency(
    annotations: npt.ArrayLike, protocol: Protocol, benchmark: Benchmark, picks: npt.ArrayLike | None = None
) -> RankCorrelation:
    """Measure how well one annotator predicts the others: the human row of the field's tables, leave-one-out.

    Each annotator in turn takes the prediction's place and the others are the annotations, compared as the protocol
    compares: with each of the others and averaged where it compares annotator by annotator (Otani et al. 2019), with
    the mean of the others' summaries where it compares with the mean. Published as tau and rho: 0.177 and 0.204 for
    ``otani`` on TVSum, 0.205 and 0.213 for ``csta`` on SumMe (two 0/1 vectors have tau = rho, so not user by user).

    Args:
        annotations: (U, n_frames) raw annotations as in :func:`rank_correlation`, at least two.
        protocol: As in :func:`rank_correlation`.
        benchmark: As in :func:`rank_correlation`.
        picks: As in :func:`rank_correlation`: where ``csta`` on TVSum compares.

    Returns:
        Per annotator the agreement with the others, over whom it is averaged where defined, and the means.

    Raises:
        ValueError: If there are fewer than two annotators, or the protocol compares with a single curve (``scores`` on
            SumMe) or is not defined for the benchmark.
    """
    compared = protocol_form(protocol, benchmark)
    users = _annotations(annotations)
    if compared.annotated == "gtscore":
        raise ValueError(f"{protocol} on {benchmark} compares with gtscore, which no annotator can be left out of")
    if len(users) < 2:
        raise ValueError(f"leave-one-out needs at least 2 annotators, got {len(users)}")
    if compared.annotated == "mean summary":
        users = _zeros_and_ones(users, "the user summaries")
    elif compared.predicted == "picks":
        users = users[:, _compared_frames(picks, users.shape[1])]
    tau, rho = [], []
    for index, held_out in enumerate(users):
        others = np.delete(users, index, axis=0)
        if compared.annotated == "mean summary":
            others = others.mean(axis=0, keepdims=True)
        agreement = _correlate(held_out, others, protocol, benchmark)
        tau.append(agreement.tau)
        rho.append(agreement.rho)
    return _result(np.array(tau), np.array(rho), protocol, benchmark)


def _compared_frames(picks: npt.ArrayLike | None, n_frames: int) -> npt.NDArray[np.intp]:
    """Return where ``csta`` on TVSum compares: every 15th frame as published, or picks of another sampling."""
    if picks is None or np.array_equal(picks, STRIDE * np.arange(np.size(picks))):
        return np.arange(0, n_frames, STRIDE)
    return check_picks(picks, n_frames - 1)


def mean_defined(values: npt.ArrayLike) -> float:
    """Return the mean of the values that are not nan; nan if there is none."""
    array = np.asarray(values, dtype=np.float64)
    defined = array[~np.isnan(array)]
    return float(defined.mean()) if defined.size else math.nan


def _correlate(
    predicted: npt.NDArray[np.floating], users: Floats, protocol: Protocol, benchmark: Benchmark
) -> RankCorrelation:
    of_prediction = Levels(predicted)
    of_users = [Levels(user) for user in users]
    tau = np.array([kendall_tau_b(of_prediction, of_user) for of_user in of_users])
    rho = np.array([spearman_rho(of_prediction, of_user) for of_user in of_users])
    return _result(tau, rho, protocol, benchmark)


def _result(tau: Floats, rho: Floats, protocol: Protocol, benchmark: Benchmark) -> RankCorrelation:
    undefined = int(np.isnan(tau).sum())
    return RankCorrelation(mean_defined(tau), mean_defined(rho), tau, rho, undefined, protocol, benchmark)


def _annotations(annotations: npt.ArrayLike) -> Floats:
    users = np.asarray(annotations, dtype=np.float64)
    if users.ndim != 2 or users.size == 0:
        raise ValueError(f"expected annotations (U, n_frames), one row per user, got shape {users.shape}")
    if not np.isfinite(users).all():
        raise ValueError("the annotations hold values that are not finite")
    return users


def _scores(prediction: Summary | npt.ArrayLike, label: str) -> Floats:
    if isinstance(prediction, Summary):
        raise ValueError(f"{label} the prediction is the scores at the picks (T,), got a Summary")
    scores = np.asarray(prediction, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"expected scores (T,), got shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("the scores hold values that are not finite")
    return scores


def _selection(summary: Summary | npt.ArrayLike, name: str = "the summary") -> Floats:
    chosen = np.asarray(summary.selection if isinstance(summary, Summary) else summary, dtype=np.float64)
    if chosen.ndim != 1:
        raise ValueError(f"expected {name} as one vector (n_frames,), got shape {chosen.shape}")
    return _zeros_and_ones(chosen, name)


def _zeros_and_ones(values: Floats, name: str) -> Floats:
    other = values[(values != 0) & (values != 1)]
    if other.size:
        raise ValueError(f"{name} must hold only 0 and 1, got {other[0]}")
    return values


def _same_length(name: str, length: int, other: str, other_length: int) -> None:
    if length != other_length:
        raise ValueError(f"{name} and {other} differ in length: {length} and {other_length}")
