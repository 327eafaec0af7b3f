"""Errors of the runs that train: pretraining, fine-tuning, cross-validation, controls and studies."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import visp
from tests.builders import LinearSummarizer, MeanEncoder, make_videos
from tests.raises.case import Case
from visp.data import InMemoryDataset, Split
from visp.data.synthetic import make_corpus, write_corpus
from visp.studies.study import Labelled, Study, Variant
from visp.training import PretrainResult
from visp.utils.files import locked
from visp.weights import CheckpointError

VIDEOS = make_videos()
FAST = {"epochs": 1, "progress": False, "standardize": False, "controls": False}
CORPUS = make_corpus(4, feature_dim=4, num_shots=2, shot_length=(2, 2))
LABELLED = InMemoryDataset(CORPUS)
WITHOUT_USERS = InMemoryDataset([replace(record, user_summary=None) for record in CORPUS])
FRAMES = len(CORPUS[0].features)
FOLD = Split(("video_1", "video_2"), ("video_3",))
BRIEF = {"epochs": 1, "progress": False}


def objective(**options: Any) -> visp.ViSPPretrainer:
    return visp.ViSPPretrainer(LinearSummarizer(), MeanEncoder(), seed=0, **options)


def pretrain(this: Any, videos: Any = VIDEOS, made: nn.Module | None = None, **options: Any) -> PretrainResult:
    result: PretrainResult = this(made or objective(), videos, **{**FAST, **options})
    return result


def finetune(
    this: Any, dataset: Any = LABELLED, split: Split = FOLD, made: nn.Module | None = None, **options: Any
) -> Any:
    return this(made or LinearSummarizer(), dataset, split, **{**BRIEF, **options})


def cross_validate(this: Any, splits: Any = (FOLD,), **options: Any) -> Any:
    given = {**BRIEF, "evaluator": visp.Evaluator(LABELLED, benchmark="summe"), **options}
    return this(LinearSummarizer, LABELLED, splits, **given)


class Stuck(Sequence[Tensor]):
    """Videos of which one does not arrive in time."""

    def __len__(self) -> int:
        return len(VIDEOS)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        if index == 5:
            threading.Event().wait(2)
        return VIDEOS[index]


class Deadly(Stuck):
    """Videos of which one ends the process that reads it, as the system does when memory runs out."""

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return VIDEOS[index]


class NotFinite(LinearSummarizer):
    def forward(self, frames: Tensor) -> Tensor:
        return super().forward(frames) * torch.nan


class Frozen(LinearSummarizer):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


def without_tensorboard(this: Any, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        pretrain(this, out_dir=folder / "run", tensorboard=True)


def written(folder: Path, name: str = "notes.txt") -> Path:
    (folder / name).write_text("mine")
    return folder


def resumed_otherwise(call: Any) -> Any:
    """Resume a run with another learning rate."""

    def run(this: Any, folder: Path) -> None:
        call(this, out_dir=folder / "run")
        call(this, out_dir=folder / "run", resume=True, lr=0.5)

    return run


def while_written(call: Any) -> Any:
    def run(this: Any, folder: Path) -> None:
        (folder / "run").mkdir()
        with locked(folder / "run"):
            call(this, out_dir=folder / "run")

    return run


def folds_of_another(this: Any, folder: Path) -> None:
    cross_validate(this, out_dir=folder / "cv")
    cross_validate(this, out_dir=folder / "cv", lr=0.5)


def gtscore(values: Any) -> InMemoryDataset:
    return InMemoryDataset([replace(record, gtscore=values) for record in CORPUS])


PRETRAIN = "visp.training.pretrain.pretrain"
PRETRAINING = [
    Case(PRETRAIN, TypeError, "the objective must be a torch.nn.Module", lambda this, _: this(len, VIDEOS)),
    Case(PRETRAIN, TypeError, "expected a dataset with a length.*list_iterator",
         lambda this, _: pretrain(this, iter(VIDEOS))),
    Case(PRETRAIN, TypeError, "expected items that are frames .* got ndarray",
         lambda this, _: pretrain(this, [np.ones((3, 4))] * 8)),
    Case(PRETRAIN, ValueError, "epochs >= 1 .* 0", lambda this, _: pretrain(this, epochs=0)),
    Case(PRETRAIN, ValueError, "precision must be one of .* 'half'", lambda this, _: pretrain(this, precision="half")),
    Case(PRETRAIN, ValueError, "expected at least 2, got 1", lambda this, _: pretrain(this, VIDEOS[:1],
                                                                                      objective(contrast="videos"))),
    Case(PRETRAIN, ValueError, "nothing to train", lambda this, _: pretrain(
        this, made=visp.PseudoSummaryPretrainer(Frozen()))),
    Case(PRETRAIN, ImportError, r'pip install "visp\[tensorboard\]"', without_tensorboard),
    Case(PRETRAIN, FileExistsError, "is not empty", lambda this, folder: pretrain(this, out_dir=written(folder))),
    Case(PRETRAIN, BlockingIOError, "run is being written by something else", while_written(pretrain)),
    Case(PRETRAIN, CheckpointError, r"checkpoint\.pt",
         lambda this, folder: pretrain(this, out_dir=written(folder, "checkpoint.pt"), resume=True)),
    Case(PRETRAIN, CheckpointError, r"of a run with other settings: lr was 0.001 and is 0.5",
         resumed_otherwise(pretrain)),
    Case(PRETRAIN, CheckpointError, r"holds no checkpoint\.pt",
         lambda this, folder: pretrain(this, out_dir=written(folder), resume=True)),
    Case(PRETRAIN, CheckpointError, "does not fit the summarizer",
         lambda this, _: pretrain(this, weights=MeanEncoder().state_dict())),
    Case(PRETRAIN, FloatingPointError, "step 1", lambda this, _: pretrain(
        this, made=visp.ViSPPretrainer(NotFinite(), MeanEncoder()))),
    Case(PRETRAIN, TimeoutError, r"step \d within 0\.5 seconds",
         lambda this, _: pretrain(this, Stuck(), num_workers=1, worker_timeout=0.5)),
    Case(PRETRAIN, ChildProcessError, "a worker that reads videos has ended",
         lambda this, _: pretrain(this, Deadly(), num_workers=1, worker_timeout=1)),
]  # fmt: skip

FINETUNE = "visp.training.finetune.finetune"
FINETUNING = [
    Case(FINETUNE, ValueError, "epochs >= 1", lambda this, _: finetune(this, epochs=0)),
    Case(FINETUNE, ValueError, "training video 'tape' is not among the 4",
         lambda this, _: finetune(this, split=Split(("tape",), ()))),
    Case(FINETUNE, ValueError, "video_1 has no gtscore", lambda this, _: finetune(this, gtscore(None))),
    Case(FINETUNE, ValueError, r"video_1: expected gtscore in \[0, 1\], got 2",
         lambda this, _: finetune(this, gtscore(np.full(FRAMES, 2.0)))),
    Case(FINETUNE, ValueError, "needs videos in split.validation", lambda this, _: finetune(
        this, select="validation", evaluator=visp.Evaluator(LABELLED, benchmark="summe"))),
    Case(FINETUNE, ValueError, "video_3: the annotations lack", lambda this, _: finetune(
        this, evaluator=visp.Evaluator(WITHOUT_USERS, benchmark="summe"))),
    Case(FINETUNE, ValueError, r"the summarizer returned shape \(4, 2\)",
         lambda this, _: finetune(this, made=nn.Linear(4, 2))),
    Case(FINETUNE, FileExistsError, "is not empty", lambda this, folder: finetune(this, out_dir=written(folder))),
    Case(FINETUNE, BlockingIOError, "run is being written by something else", while_written(finetune)),
    Case(FINETUNE, CheckpointError, "of a run with other settings: lr", resumed_otherwise(finetune)),
    Case(FINETUNE, FloatingPointError, "step 1", lambda this, _: finetune(this, made=NotFinite())),
]  # fmt: skip


def evaluation(name: str, call: Any) -> list[Case]:
    """The refusals of an evaluator."""
    return [
        Case(name, ValueError, "'tape' is not among the 4",
             lambda this, _: call(this, visp.Evaluator(LABELLED), "tape")),
        Case(name, ValueError, "video_1: the annotations lack user_summary",
             lambda this, _: call(this, visp.Evaluator(WITHOUT_USERS, benchmark="summe"), "video_1")),
    ]  # fmt: skip


CROSS_VALIDATION = [
    Case("visp.cross_validate", ValueError, "at least one split, got none", lambda this, _: cross_validate(this, ())),
    Case("visp.cross_validate", ValueError, "rounds >= 1", lambda this, _: cross_validate(this, rounds=0)),
    Case("visp.cross_validate", ValueError, "each of 1 rounds, got 2",
         lambda this, _: cross_validate(this, pretrained=["a.pt", "b.pt"])),
    Case("visp.cross_validate", ValueError, "needs an evaluator", lambda this, _: cross_validate(this, evaluator=None)),
    Case("visp.cross_validate", ValueError, "fold 0 has no test videos",
         lambda this, _: cross_validate(this, [Split(("video_1",), ())])),
    Case("visp.cross_validate", ValueError, "'tape' is not among the 4",
         lambda this, _: cross_validate(this, [Split(("video_1",), ("tape",))])),
    Case("visp.cross_validate", CheckpointError, "of another cross-validation, .*lr", folds_of_another),
    Case("visp.cross_validate", FileExistsError, "holds no cross-validation",
         lambda this, folder: cross_validate(this, out_dir=written(folder))),
    Case("visp.compare", ValueError, "has 1 rounds; a spread needs at least two",
         lambda this, _: this([0.1], [0.2, 0.3])),
    Case("visp.compare", ValueError, "values that are not finite", lambda this, _: this([0.1, np.nan], [0.2, 0.3])),
    *evaluation("visp.Evaluator.check", lambda this, evaluator, name: this(evaluator, [name])),
    *evaluation("visp.Evaluator.of_scores", lambda this, evaluator, name: this(evaluator, {name: np.ones(FRAMES)})),
]  # fmt: skip


def study(folder: Path, **changes: Any) -> Study:
    return Study(**{
        "name": "small",
        "variants": (Variant("not pretrained", kind="none"),),
        "labelled": (Labelled(str(folder / "corpus.h5"), "summe", folds=2),),
        "seeds": (0,),
        "summarizer": "transformer",
        "finetuning": {"epochs": 1},
        **changes,
    })  # fmt: skip


def corpus(folder: Path) -> Path:
    write_corpus(folder / "corpus.h5", num_videos=4, feature_dim=4, num_shots=2, shot_length=(2, 2))
    return folder


def while_another_study_writes(this: Any, folder: Path) -> None:
    (folder / "cache").mkdir()
    with locked(folder / "cache"):
        this(study(corpus(folder)), folder / "out", cache=folder / "cache", progress=False)


RUN = "visp.studies.study.run_study"
STUDIES = [
    Case("visp.studies.study.Study", ValueError, "at least one variant", lambda this, _: this("empty", ())),
    Case("visp.studies.study.Study", ValueError, "variants of one name: a",
         lambda this, _: this("twice", (Variant("a"), Variant("a")), unlabelled=("x.h5",))),
    Case("visp.studies.study.Study", ValueError, "labelled files of one name: x",
         lambda this, _: this("twice", (Variant("a"),), (Labelled("x.h5", "summe"), Labelled("y/x.h5", "summe")))),
    Case(RUN, FileNotFoundError, r"corpus\.h5",
         lambda this, folder: this(study(folder), folder / "out", progress=False)),
    Case(RUN, ValueError, r"corpus\.h5", lambda this, folder: this(
        study(written(folder, "corpus.h5")), folder / "out", progress=False)),
    Case(RUN, ValueError, r"run\.json", lambda this, folder: this(
        study(corpus(folder), summarizer="tests.raises.training_cases:not_finite"), folder / "out", progress=False)),
    Case(RUN, BlockingIOError, "cache is being written by something else", while_another_study_writes),
    Case("visp.studies.controls.controls", ValueError, "at least 2, got 1",
         lambda this, _: this(LinearSummarizer, MeanEncoder, LABELLED, seeds=[0])),
    Case("visp.studies.controls.controls", ValueError, "epochs >= 1",
         lambda this, _: this(LinearSummarizer, MeanEncoder, LABELLED, epochs=0, progress=False)),
    Case("visp.studies.identification.identify", ValueError, r"share must be in \(0, 1\], got 0",
         lambda this, _: this(VIDEOS, [video[:, 0] for video in VIDEOS], share=0)),
]  # fmt: skip


def not_finite(feature_dim: int) -> nn.Module:
    return NotFinite()


CASES = [*PRETRAINING, *FINETUNING, *CROSS_VALIDATION, *STUDIES]
