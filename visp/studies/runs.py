"""The runs of a study in plain values, which name the folder of a run and find it again.

A run is a frozen object of plain values. Its key is a hash of them, of what its videos hold and of visp's version;
paths do not count. ``run.json`` in its folder holds all of it; :mod:`visp.studies.execution` makes runs.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from visp._version import __version__
from visp.data import VideoDataset, VideoSource, read_tvsum_mat, read_tvsum_tsv
from visp.data.splits import Split
from visp.eval.protocols import Benchmark, Protocol
from visp.evaluator import Evaluator
from visp.pretrainer import ViSPPretrainer
from visp.training.run_folder import digest
from visp.utils.files import parse_json, read_text

USER_SUMMARY = "user_summary"
"""In place of a file of raw user scores: the users' summaries in the h5 file serve as their scores."""

_PATHS = ("files", "user_scores")


@dataclass(frozen=True)
class Videos:
    """Videos of h5 files.

    Attributes:
        files: Their paths.
        content: :meth:`visp.data.VideoDataset.content_hash` of all videos of the files.
        stride: Every how many sampled frames are taken.
        names: The videos used; all if None.
    """

    files: tuple[str, ...]
    content: str
    stride: int = 1
    names: tuple[str, ...] | None = None

    def open(self) -> VideoDataset:
        """Open the files.

        Raises:
            ValueError: If they hold other videos than when the run was declared.
        """
        if VideoDataset(self.files, stride=self.stride).content_hash() != self.content:
            raise ValueError(
                f"{', '.join(self.files)}: not the videos of the run, whose content hash is {self.content}"
            )
        return VideoDataset(self.files, stride=self.stride, keys=self.names)

    def check(self) -> None:
        """Refuse files that hold other videos than when the run was declared.

        Raises:
            ValueError: If they do.
        """
        if (there := VideoDataset(self.files).content_hash()) != self.content:
            raise ValueError(f"{', '.join(self.files)}: the run was made of other videos, {self.content}, not {there}")


@dataclass(frozen=True)
class Pretraining:
    """One pretraining run.

    Attributes:
        videos: What is learnt from.
        summarizer: Name, as :func:`visp.factory.make_summarizer` takes it.
        encoder: Name, as :func:`visp.factory.make_encoder` takes it.
        kind: ``"visp"``, or ``"pseudo-summaries"`` made of the labels of the videos (FSA, Section 4.4).
        objective: Plain options of :class:`visp.ViSPPretrainer`; see :func:`visp.registry.objective_options`.
        training: Options of :func:`visp.pretrain`.
        seed: Of weights, noise and order.
    """

    videos: Videos
    summarizer: str
    encoder: str
    kind: Literal["visp", "pseudo-summaries"]
    objective: Mapping[str, Any]
    training: Mapping[str, Any]
    seed: int


@dataclass(frozen=True)
class FoldRun:
    """Fine-tuning on one fold, and the evaluation of its test videos before and after.

    Attributes:
        videos: The annotated videos.
        split: The fold.
        summarizer: As in :class:`Pretraining`.
        pretraining: What it starts from; None starts from untrained weights.
        benchmark: Whose rules hold.
        protocol: Of the rank correlation.
        user_scores: File of TVSum's raw scores, ``"user_summary"``, or None.
        user_scores_content: Hash of that file.
        training: Options of :func:`visp.finetune`.
        seed: Of weights, order and dropout.
    """

    videos: Videos
    split: Split
    summarizer: str
    pretraining: Pretraining | None
    benchmark: Benchmark
    protocol: Protocol
    user_scores: str | None
    user_scores_content: str | None
    training: Mapping[str, Any]
    seed: int


Run = Pretraining | FoldRun


def key(run: Run) -> str:
    """Return the hash that names a run's folder: of everything but paths."""
    return digest([type(run).__name__, __version__, _without_paths(asdict(run))])[:20]


def without_defaults(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out options that are the pretrainer's own defaults, so that saying them makes no other run."""
    defaults = inspect.signature(ViSPPretrainer).parameters
    return {name: value for name, value in plain.items() if name not in defaults or defaults[name].default != value}


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read ``run.json``.

    Raises:
        ValueError: If it is not of a run of this version of visp.
    """
    found = parse_json(read_text(path))
    try:
        if found["visp_version"] != __version__:
            raise ValueError(f"{path} is of visp {found['visp_version']}, this is {__version__}")
        return _pretraining(found["run"]) if found["kind"] == "Pretraining" else _fold_run(found["run"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not of a run of a study ({error})") from error


def content_of_file(path: str | os.PathLike[str]) -> str:
    """Return a hash of a file's bytes."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def weights_of(run: Run, cache: Path) -> Path:
    """Return the file of the weights that a run ended with."""
    inside = "run" if isinstance(run, Pretraining) else "run/round-0/fold-0"
    return cache / key(run) / inside / "weights.pt"


def metrics_of(run: Pretraining, cache: Path) -> Path:
    """Return the file of the metrics of every step of a pretraining run."""
    return cache / key(run) / "run" / "metrics.jsonl"


def logits_of(run: Pretraining, cache: Path) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    """Return the logits (T_i,) of every video of a pretraining run, as it ended."""
    with h5py.File(cache / key(run) / "logits.h5", "r") as file:
        return [file[str(number)][()] for number in range(len(file))]


def evaluator_of(run: FoldRun, videos: VideoSource) -> Evaluator:
    """Return what judges the videos of a fold."""
    scores: Any = None
    if run.user_scores == USER_SUMMARY:
        scores = {name: videos.record(index).user_summary for index, name in enumerate(videos.names)}
    elif run.user_scores is not None:
        scores = (read_tvsum_mat if run.user_scores.endswith(".mat") else read_tvsum_tsv)(run.user_scores)
    return Evaluator(
        videos,
        protocol=run.protocol,
        benchmark=run.benchmark,
        user_scores=scores,
        segment_length=run.training.get("segment_length"),
    )


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_paths(each) for name, each in value.items() if name not in _PATHS}
    return value


def _tuples(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def _pretraining(found: Mapping[str, Any]) -> Pretraining:
    return Pretraining(**{**found, "videos": Videos(**_tuples(found["videos"]))})


def _fold_run(found: Mapping[str, Any]) -> FoldRun:
    start = found["pretraining"]
    changed = {
        "videos": Videos(**_tuples(found["videos"])),
        "split": Split(**_tuples(found["split"])),
        "pretraining": None if start is None else _pretraining(start),
    }
    return FoldRun(**{**found, **changed})
