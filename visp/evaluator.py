"""How well a summarizer's scores agree with the users of a dataset, by one named protocol, and what chance reaches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from visp.data import VideoSource
from visp.eval import Evaluation, VideoEvaluation, baselines, evaluate
from visp.eval.protocols import Benchmark, Protocol
from visp.eval.results import Baseline
from visp.prediction import predict

_KEYS = ("picks", "n_frames", "change_points", "user_summary", "gtscore")


class Evaluator:
    """Predict and evaluate videos of a dataset; the annotations are read, and chance is evaluated, once per video.

    Args:
        dataset: The videos, with what the protocol needs (:func:`visp.eval.evaluate` says what is missing).
        protocol: Name of the protocol, such as ``"csta"``.
        benchmark: Whose rules hold, ``"summe"`` or ``"tvsum"``.
        user_scores: TVSum's raw scores (U, n_frames) by video, as :func:`visp.data.read_tvsum_tsv` reads them.
        segment_length: As in :func:`visp.predict`.
        overlap: As in :func:`visp.predict`.
    """

    def __init__(
        self,
        dataset: VideoSource,
        *,
        protocol: Protocol = "csta",
        benchmark: Benchmark = "tvsum",
        user_scores: Mapping[str, npt.NDArray[np.number]] | None = None,
        segment_length: int | None = None,
        overlap: int = 0,
    ) -> None:
        self.dataset = dataset
        self.protocol: Protocol = protocol
        self.benchmark: Benchmark = benchmark
        self.user_scores = user_scores
        self.segment_length = segment_length
        self.overlap = overlap
        self._index_of = {name: index for index, name in enumerate(dataset.names)}
        self._annotations: dict[str, dict[str, Any]] = {}
        self._baselines: dict[str, dict[Baseline, VideoEvaluation]] = {}

    def __call__(self, summarizer: Callable[[Tensor], Tensor], names: Sequence[str] | None = None) -> Evaluation:
        """Score the named videos, all by default, and compare with their users.

        Raises:
            ValueError: If a name is not in the dataset, or an annotation is missing or does not fit.
        """
        names = list(self.dataset.names) if names is None else list(names)
        self.check(names)
        scores = {
            name: predict(summarizer, self.dataset[self._index_of[name]], self.segment_length, self.overlap)
            for name in names
        }
        return self.of_scores(scores)

    def of_scores(self, scores: Mapping[str, npt.NDArray[np.floating]]) -> Evaluation:
        """Compare given scores with the users.

        Args:
            scores: (T,) scores or logits at the sampled frames, by name of the video.

        Returns:
            The metrics per video and their means, with those of chance and of people.

        Raises:
            ValueError: As when a summarizer is evaluated.
        """
        self.check(scores)
        return evaluate(
            scores,
            {name: self._annotation(name) for name in scores},
            protocol=self.protocol,
            benchmark=self.benchmark,
            known_baselines=self._baselines,
        )

    def check(self, names: Iterable[str]) -> None:
        """Refuse videos that cannot be evaluated under the protocol, before any work on them.

        It evaluates constant scores, random scores and the users, which stand beside the metrics afterwards.

        Args:
            names: Names of the videos.

        Raises:
            ValueError: If a name is not in the dataset, or an annotation is missing or does not fit.
        """
        for name in names:
            if name not in self._baselines:
                self._baselines[name] = baselines(
                    name, self._annotation(name), protocol=self.protocol, benchmark=self.benchmark
                )

    def describe(self) -> dict[str, Any]:
        """Return the settings, for a run's fingerprint."""
        return {
            "protocol": self.protocol,
            "benchmark": self.benchmark,
            "raw_user_scores": None if self.user_scores is None else _digest(self.user_scores),
            "segment_length": self.segment_length,
            "overlap": self.overlap,
        }

    def _annotation(self, name: str) -> dict[str, Any]:
        if name not in self._index_of:
            raise ValueError(f"{name!r} is not among the {len(self._index_of)} videos of the dataset")
        if name not in self._annotations:
            record = self.dataset.record(self._index_of[name])
            given = {key: getattr(record, key) for key in _KEYS}
            if self.user_scores is not None:
                if name not in self.user_scores:
                    raise ValueError(
                        f"{name}: the users' raw scores are of other videos, {len(self.user_scores)} in all"
                    )
                given["user_scores"] = self.user_scores[name]
            self._annotations[name] = {key: value for key, value in given.items() if value is not None}
        return self._annotations[name]


def _digest(scores: Mapping[str, npt.NDArray[np.number]]) -> str:
    found = hashlib.sha256()
    for name in sorted(scores):
        array = np.ascontiguousarray(scores[name])
        found.update(f"{name} {array.shape} {array.dtype.str};".encode())
        found.update(array.tobytes())
    return found.hexdigest()
