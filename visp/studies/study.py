"""A study: variants of a method on the same videos, folds and seeds, and what came of them.

A study says what is to be run; :func:`run_study` does it. Pretraining runs and folds are cached by content
(:mod:`visp.studies.execution`): an interrupted study is resumed, and a variant that another study has run is not run
again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from visp._version import __version__
from visp.data import Split, VideoDataset, make_splits, read_splits
from visp.data.splits import Folds
from visp.eval.agreement import agreement
from visp.eval.metrics import Metric, mean_defined
from visp.eval.protocols import Benchmark, Protocol, protocol_form
from visp.studies.cross_validation import CrossValidationOptions
from visp.studies.execution import carry_out
from visp.studies.results import CrossValidation, Fold
from visp.studies.runs import (
    USER_SUMMARY,
    FoldRun,
    Pretraining,
    Videos,
    content_of_file,
    evaluator_of,
    key,
    logits_of,
    without_defaults,
)
from visp.training.run_folder import write_json
from visp.utils.distributed import launched
from visp.utils.files import locked


@dataclass(frozen=True)
class Labelled:
    """Annotated videos, and how summarizers are judged on them.

    Attributes:
        path: An h5 file of the field's schema.
        benchmark: Whose rules hold.
        protocol: Of the rank correlation; see :mod:`visp.eval.protocols`.
        user_scores: File of TVSum's raw scores; ``"user_summary"`` takes the users' summaries for scores.
        splits: Split file; folds are drawn, with seed 0, where there is none.
        folds: How many are drawn, or ``"leave-one-out"``.
    """

    path: str
    benchmark: Benchmark
    protocol: Protocol = "csta"
    user_scores: str | None = None
    splits: str | None = None
    folds: Folds = 5

    @property
    def name(self) -> str:
        """Return the name of the file, without folder and ending."""
        return Path(self.path).stem


@dataclass(frozen=True)
class Variant:
    """One way of pretraining; what it leaves open is as the study says.

    Attributes:
        name: In tables.
        kind: ``"visp"``; ``"pseudo-summaries"`` of the labels of the other labelled files (FSA, Section 4.4);
            ``"none"`` starts fine-tuning from untrained weights.
        objective: Plain options of :class:`visp.ViSPPretrainer`; see :func:`visp.registry.objective_options`.
        training: Options of :func:`visp.pretrain`.
        summarizer: Name of another summarizer.
        encoder: Name of another encoder.
        files: Files to pretrain on.
        share: Share of the videos to pretrain on, drawn by the seed, in (0, 1].
        unseen: Leave the test videos of each fold out of its pretraining, so that there is one for each fold.
    """

    name: str
    kind: Literal["visp", "pseudo-summaries", "none"] = "visp"
    objective: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    summarizer: str | None = None
    encoder: str | None = None
    files: tuple[str, ...] | None = None
    share: float = 1.0
    unseen: bool = False


@dataclass(frozen=True)
class Study:
    """What is to be run.

    Attributes:
        name: Of the study, such as ``"ablation"``.
        variants: The rows of its table.
        labelled: The annotated videos; with none, only measures without labels are taken.
        unlabelled: Files to pretrain on; the labelled ones if there are none.
        seeds: Each is a round: weights, noise, order and dropout.
        summarizer: Name, as :func:`visp.factory.make_summarizer` takes it.
        encoder: Name, as :func:`visp.factory.make_encoder` takes it.
        objective: As in :class:`Variant`, for all variants.
        training: As in :class:`Variant`, for all variants.
        finetuning: Options of :func:`visp.finetune`, for all variants.
        metric: What figures show and searches look for.
        stride: Every how many sampled frames are taken.

    Raises:
        ValueError: If there is nothing to do, or two variants or files have one name.
    """

    name: str
    variants: tuple[Variant, ...]
    labelled: tuple[Labelled, ...] = ()
    unlabelled: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    summarizer: str = "csta"
    encoder: str = "attention"
    objective: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    finetuning: Mapping[str, Any] = field(default_factory=dict)
    metric: Metric = "tau"
    stride: int = 1

    def __post_init__(self) -> None:
        if not self.variants or not self.seeds or not (self.labelled or self.unlabelled):
            raise ValueError("a study needs at least one variant, one seed and one file of videos")
        for what, names in (
            ("variants", [variant.name for variant in self.variants]),
            ("labelled files", [labelled.name for labelled in self.labelled]),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} of one name: {', '.join(names)}")
        for labelled in self.labelled:
            protocol_form(labelled.protocol, labelled.benchmark)
        for variant in self.variants:
            if not 0 < variant.share <= 1:
                raise ValueError(f"{variant.name}: share must be in (0, 1], got {variant.share!r}")
            if variant.kind == "pseudo-summaries" and len(self.labelled) < 2:
                raise ValueError(f"{variant.name}: pseudo-summaries come from the labels of another labelled file")


@dataclass(frozen=True)
class StudyResult:
    """What came of a study.

    Attributes:
        study: What was run.
        fine_tuned: By variant and labelled file.
        before: The same weights before fine-tuning: what pretraining alone reaches, or untrained weights.
        measures: By variant, label-free measures of its pretraining runs: mean over them.
        seen: By variant, whether the test videos were among the videos of the pretraining; None without pretraining.
        pretrainings: By variant, its runs.
        folds: By variant and labelled file, its runs.
    """

    study: Study
    fine_tuned: Mapping[tuple[str, str], CrossValidation]
    before: Mapping[tuple[str, str], CrossValidation]
    measures: Mapping[str, Mapping[str, float]]
    seen: Mapping[str, bool | None]
    pretrainings: Mapping[str, tuple[Pretraining, ...]]
    folds: Mapping[tuple[str, str], tuple[FoldRun, ...]]

    def average(self, variant: str, metric: Metric, *, before: bool = False) -> float:
        """Return the mean of a metric over the labelled files.

        Args:
            variant: Its name.
            metric: ``"tau"``, ``"rho"`` or ``"f_score"``.
            before: Whether of the scores before fine-tuning.
        """
        found = self.before if before else self.fine_tuned
        return mean_defined([found[variant, labelled.name].mean(metric) for labelled in self.study.labelled])

    def per_seed(self, variant: str, metric: Metric) -> list[float]:
        """Return the metric of a variant after fine-tuning for each seed, its mean over the labelled files."""
        rounds = [self.fine_tuned[variant, labelled.name].per_round(metric) for labelled in self.study.labelled]
        return [mean_defined(values) for values in zip(*rounds, strict=True)]


def run_study(
    study: Study,
    out: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    progress: bool = True,
) -> StudyResult:
    """Run a study; what is done already is not done again.

    Of several processes that torchrun started all call this with the same arguments; they share the runs, and the
    first writes ``study.json``.

    Args:
        study: What to run.
        out: Its folder, where ``study.json`` says what was asked.
        cache: Folder of the runs, which several studies may share; ``<out>/runs`` by default.
        jobs: Number of processes.
        progress: Show bars.

    Returns:
        What came of it, per variant and labelled file.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file cannot be used, or a run fails; the message names its ``run.json``.
        BlockingIOError: If another study is writing to the cache.
    """
    CrossValidationOptions(**study.finetuning, evaluator=object())  # refused before the work
    known = _Known(study)
    runs = list(_runs_of(known))
    for each in study.labelled:  # what the protocol needs is there, or the study is refused before the work
        run = next(run for names, run in runs if names[1:] == (each.name,) and isinstance(run, FoldRun))
        evaluator_of(run, run.videos.open()).check(run.split.test[:1])
    place = Path(out, "runs") if cache is None else Path(cache)
    place.mkdir(parents=True, exist_ok=True)
    Path(out).mkdir(parents=True, exist_ok=True)
    first = launched()[0] == 0
    with locked(place) if first else nullcontext():
        if first:
            write_json(Path(out, "study.json"), {"visp_version": __version__, "study": asdict(study)})
        found: dict[str, dict[str, Any]] = {}
        for kind, description in ((Pretraining, "pretraining"), (FoldRun, "folds")):
            chosen = [run for _, run in runs if isinstance(run, kind)]
            found |= carry_out(chosen, place, jobs=jobs, progress=progress, description=description)
        return _result(known, runs, found, place)


def _runs_of(known: _Known) -> Iterator[tuple[tuple[str, ...], Pretraining | FoldRun]]:
    """Yield every run with the names of its variant and labelled file."""
    study = known.study
    for variant in study.variants:
        summarizer = variant.summarizer or study.summarizer
        for seed in study.seeds:
            if not study.labelled and variant.kind != "none":
                yield (variant.name,), known.pretraining(variant, None, None, seed)
            for labelled in study.labelled:
                videos, scores_content = known.videos((labelled.path,)), known.scores(labelled)
                for split in known.splits[labelled.name]:
                    start = None if variant.kind == "none" else known.pretraining(variant, labelled, split, seed)
                    if start is not None:
                        yield (variant.name,), start
                    yield (
                        (variant.name, labelled.name),
                        FoldRun(
                            videos,
                            split,
                            summarizer,
                            start,
                            labelled.benchmark,
                            labelled.protocol,
                            labelled.user_scores,
                            scores_content,
                            study.finetuning,
                            seed,
                        ),
                    )


class _Known:
    """What is read of the files once, to declare runs of them."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._videos: dict[tuple[str, ...], tuple[Videos, tuple[str, ...]]] = {}
        self._contents: dict[tuple[str, ...], dict[str, str]] = {}
        self.splits = {labelled.name: self._splits_of(labelled) for labelled in study.labelled}

    def videos(self, files: tuple[str, ...]) -> Videos:
        return self._open(files)[0]

    def pretraining(self, variant: Variant, labelled: Labelled | None, split: Split | None, seed: int) -> Pretraining:
        study = self.study
        files = variant.files or study.unlabelled or tuple(each.path for each in study.labelled)
        if variant.kind == "pseudo-summaries":
            files = tuple(each.path for each in study.labelled if each is not labelled)
        videos, names = self._open(files)
        chosen = names
        if variant.unseen and labelled is not None and split is not None:
            chosen = tuple(name for name in names if name not in self._test_names(files, labelled, split))
        if variant.share < 1:
            count = max(1, round(variant.share * len(names)))
            order = np.random.default_rng(seed).permutation(len(names))
            drawn = [names[index] for index in order if names[index] in chosen][:count]
            chosen = tuple(name for name in names if name in drawn)
        if chosen != names:
            videos = Videos(videos.files, videos.content, videos.stride, chosen)
        return Pretraining(
            videos,
            variant.summarizer or study.summarizer,
            variant.encoder or study.encoder,
            "visp" if variant.kind == "visp" else "pseudo-summaries",
            {} if variant.kind == "pseudo-summaries" else without_defaults({**study.objective, **variant.objective}),
            {**study.training, **variant.training},
            seed,
        )

    def scores(self, labelled: Labelled) -> str | None:
        if labelled.user_scores in (None, USER_SUMMARY):
            return labelled.user_scores
        return content_of_file(labelled.user_scores)

    def saw_test_videos(self, run: FoldRun, labelled: Labelled) -> bool:
        """Return whether a test video of the fold is among the videos of its pretraining."""
        if run.pretraining is None:
            return False
        videos = run.pretraining.videos
        return not self._test_names(videos.files, labelled, run.split).isdisjoint(
            videos.names or self._open(videos.files)[1]
        )

    def _open(self, files: tuple[str, ...]) -> tuple[Videos, tuple[str, ...]]:
        if files not in self._videos:
            dataset = VideoDataset(files, stride=self.study.stride)
            self._videos[files] = Videos(files, dataset.content_hash(), self.study.stride), dataset.names
        return self._videos[files]

    def _splits_of(self, labelled: Labelled) -> list[Split]:
        names = self._open((labelled.path,))[1]
        if labelled.splits is not None:
            return read_splits(labelled.splits, names)
        return make_splits(names, folds=labelled.folds)

    def _test_names(self, files: tuple[str, ...], labelled: Labelled, split: Split) -> set[str]:
        """Return the names that the test videos of a fold have among the videos of files, by what they hold."""
        here, there = self._hashes((labelled.path,)), self._hashes(files)
        tests = {here[name] for name in split.test}
        return {name for name, content in there.items() if content in tests}

    def _hashes(self, files: tuple[str, ...]) -> dict[str, str]:
        if files not in self._contents:
            dataset = VideoDataset(files)
            self._contents[files] = {
                name: hashlib.sha256(dataset.record(index).features.tobytes()).hexdigest()
                for index, name in enumerate(dataset.names)
            }
        return self._contents[files]


def _result(
    known: _Known, runs: Sequence[tuple[tuple[str, ...], Any]], found: Mapping[str, Mapping[str, Any]], cache: Path
) -> StudyResult:
    study = known.study
    fine_tuned, before, folds, pretrainings, measures = {}, {}, {}, {}, {}
    seen: dict[str, bool | None] = {}
    for variant in study.variants:
        mine = {key(run): run for names, run in runs if names == (variant.name,)}
        pretrainings[variant.name] = tuple(mine.values())
        measures[variant.name] = _measures([found[name]["metrics"] for name in mine], list(mine.values()), cache)
        saw = []
        for labelled in study.labelled:
            place = variant.name, labelled.name
            folds[place] = tuple(run for names, run in runs if names == place)
            tuned, start = [], []
            for number, run in enumerate(folds[place]):
                where = divmod(number, len(known.splits[labelled.name]))
                done = found[key(run)]
                tuned.append(Fold(*where, run.seed, done["fold"]["epoch"], done["fold"]["evaluation"]))
                start.append(Fold(*where, run.seed, 0, done["before"]))
                saw.append(known.saw_test_videos(run, labelled))
            protocol, select = f"{labelled.protocol}, {labelled.benchmark}", study.finetuning.get("select", "last")
            fine_tuned[place] = CrossValidation(tuple(tuned), protocol, select, None)
            before[place] = CrossValidation(tuple(start), protocol, "last", None)
        seen[variant.name] = None if variant.kind == "none" else any(saw)
    return StudyResult(study, fine_tuned, before, measures, seen, pretrainings, folds)


def _measures(metrics: Sequence[Mapping[str, float]], runs: Sequence[Pretraining], cache: Path) -> dict[str, float]:
    if not metrics:
        return {}
    found = {name: mean_defined([each[name] for each in metrics]) for name in metrics[0]}
    if len(runs) > 1 and len({run.seed for run in runs}) == len(runs) and len({run.videos for run in runs}) == 1:
        logits = [logits_of(run, cache) for run in runs]
        found["seeds_agree"] = mean_defined([agreement(one, other) for one, other in combinations(logits, 2)])
    return found
