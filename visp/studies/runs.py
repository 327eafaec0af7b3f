"""The runs of a study in plain values: they name the folder of a run, find it again, and make it again.

A run is a frozen object of plain values. Its key is a hash of them, of what its videos hold and of visp's version;
paths do not count. ``run.json`` in its folder holds all of it, and :func:`repeat` makes the run again from that file.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from visp._version import __version__
from visp.data import VideoDataset, VideoSource, read_tvsum_mat, read_tvsum_tsv
from visp.data.splits import Split
from visp.eval import make_summary
from visp.eval.metrics import mean_defined
from visp.eval.protocols import Benchmark, Protocol
from visp.evaluator import Evaluator
from visp.factory import make_encoder, make_summarizer
from visp.pretrainer import ViSPPretrainer
from visp.pseudo_summary import PseudoSummaries, PseudoSummaryPretrainer
from visp.registry import SAMPLERS
from visp.regularizers import FixedSize
from visp.studies.cross_validation import cross_validate
from visp.studies.identification import identify
from visp.training.pretrain import pretrain
from visp.training.run_folder import digest, write_json
from visp.training.standardize import standardization
from visp.utils.files import locked, parse_json, read_text, replacing
from visp.utils.modes import evaluation_mode
from visp.utils.noise import seeded
from visp.weights import load_weights

USER_SUMMARY = "user_summary"
"""In place of a file of raw user scores: the users' summaries in the h5 file serve as their scores."""

_PATHS = ("files", "user_scores")
_IDENTIFICATION_STEPS = 20


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
        objective: Plain options of :class:`visp.ViSPPretrainer`; see :func:`objective_options`.
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


def objective_options(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of :class:`visp.ViSPPretrainer` from plain values.

    Args:
        plain: The pretrainer's options that are text or numbers, and ``temperature`` of the sampler and ``size_weight``
            for :class:`visp.FixedSize`.
    """
    chosen = dict(plain)
    if (temperature := chosen.pop("temperature", None)) is not None:
        chosen["sampler"] = SAMPLERS[chosen.get("sampler", "concrete")](temperature)
    if (weight := chosen.pop("size_weight", None)) is not None:
        chosen["size"] = FixedSize(weight)
    return chosen


def without_defaults(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out options that are the pretrainer's own defaults, so that saying them makes no other run."""
    defaults = inspect.signature(ViSPPretrainer).parameters
    return {name: value for name, value in plain.items() if name not in defaults or defaults[name].default != value}


def carry_out(
    runs: Sequence[Run], cache: Path, *, jobs: int = 1, progress: bool = True, description: str = "runs"
) -> dict[str, dict[str, Any]]:
    """Do the runs that are not done, each once, and return what each found, by its key.

    Every run computes on one thread, so that what it finds does not depend on ``jobs``. A run that fails does not stop
    the others; its error is raised when they have ended.

    Args:
        runs: The runs; those that fine-tune need their pretraining done.
        cache: Folder of all runs, ``<cache>/<key>``.
        jobs: Number of processes.
        progress: Show a bar.
        description: Of the bar.
    """
    wanted = {key(run): run for run in runs}
    todo = {name: run for name, run in wanted.items() if not (cache / name / "result.json").exists()}
    failed: list[ValueError] = []
    with tqdm(total=len(wanted), initial=len(wanted) - len(todo), desc=description, disable=not progress) as bar:
        for error in _work(todo, cache, jobs):
            failed += [] if error is None else [error]
            bar.update()
    if failed:
        raise failed[0]
    return {name: _read_result(cache / name) for name in wanted}


def repeat(path: str | os.PathLike[str], out: Path) -> dict[str, Any]:
    """Make a run again, and the pretraining it starts from, from its ``run.json``.

    Args:
        path: The file.
        out: Folder for the runs.

    Returns:
        What the run found, as in its ``result.json``.

    Raises:
        ValueError: If the file is not of a run, is of another version of visp, or its videos have changed.
    """
    run = read_run(path)
    run.videos.check()
    first = run.pretraining if isinstance(run, FoldRun) else None
    out.mkdir(parents=True, exist_ok=True)
    if first is not None:
        first.videos.check()
        carry_out([first], out, progress=False)
    return carry_out([run], out, progress=False)[key(run)]


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
    return Evaluator(videos, protocol=run.protocol, benchmark=run.benchmark, user_scores=scores)


class KnapsackSummaries(PseudoSummaries):
    """Videos with the summary that Eq. 13 makes of their labels: the paper's FSA."""

    def __init__(self, videos: VideoSource, share: float = 0.15) -> None:
        super().__init__(videos, share)
        for index, name in enumerate(videos.names):
            record = videos.record(index)
            if record.change_points is None or record.n_frames is None or record.picks is None:
                raise ValueError(f"{name} has no change_points, n_frames and picks to make a pseudo-summary of")
            assert record.gtscore is not None
            summary = make_summary(record.gtscore, record.change_points, record.n_frames, record.picks, budget=share)
            self.labels[index] = torch.as_tensor(summary.selection[record.picks], dtype=torch.float32)


def _work(todo: Mapping[str, Run], cache: Path, jobs: int) -> Iterator[ValueError | None]:
    """Do the runs, and yield None or the error of each as it ends."""
    if jobs == 1 or len(todo) < 2:
        with _one_thread():
            for name, run in todo.items():
                yield _carry_out(run, cache / name, cache)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _start_worker) as pool:
        futures = [pool.submit(_carry_out, run, cache / name, cache) for name, run in todo.items()]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise ChildProcessError("a process of the study was ended from outside; run it again to resume") from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _start_worker() -> None:
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _carry_out(run: Run, folder: Path, cache: Path) -> ValueError | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            declared = {"kind": type(run).__name__, "visp_version": __version__, "run": asdict(run)}
            write_json(folder / "run.json", declared)
            found = _pretrain(run, folder) if isinstance(run, Pretraining) else _fine_tune(run, folder, cache)
            write_json(folder / "result.json", found)
    except Exception as error:
        return ValueError(f"{folder / 'run.json'}: {type(error).__name__}: {error}")
    return None


def _pretrain(run: Pretraining, folder: Path) -> dict[str, Any]:
    videos = run.videos.open()
    with seeded(run.seed):
        summarizer = make_summarizer(run.summarizer, videos.feature_dim)
        encoder = make_encoder(run.encoder, videos.feature_dim)
    options: dict[str, Any] = {"seed": run.seed, "out_dir": folder / "run", "resume": True, "progress": False}
    training = {"controls": False, **run.training}  # variants are the controls of each other
    if run.kind == "visp":
        pretrainer = ViSPPretrainer(summarizer, encoder, seed=run.seed, **objective_options(run.objective))
        pretrain(pretrainer, videos, **training, **options)
    else:
        pretrain(PseudoSummaryPretrainer(summarizer), KnapsackSummaries(videos), **training, **options)
    (folder / "run" / "checkpoint.pt").unlink(missing_ok=True)  # the run is done, and its weights are in weights.pt
    logits = _logits(summarizer.cpu(), videos)
    with replacing(folder / "logits.h5") as file, h5py.File(file, "w") as written:
        for number, values in enumerate(logits):
            written[str(number)] = values
    steps = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    last = steps[-max(1, len(steps) // 10) :]
    metrics = {
        name: mean_defined([step[name] for step in last])
        for name in ("info_nce", "mi_lower_bound", "keep_ratio")
        if all(isinstance(step.get(name), float) for step in last)
    }
    change = standardization(videos)
    frames = [change(videos[index]) for index in range(len(videos))]
    scores = [torch.from_numpy(values) for values in logits]
    with seeded(run.seed):
        metrics["identification"] = identify(frames, scores, steps=_IDENTIFICATION_STEPS, seed=run.seed).info_nce
    return {"num_videos": len(videos), "metrics": metrics}


def _fine_tune(run: FoldRun, folder: Path, cache: Path) -> dict[str, Any]:
    videos = run.videos.open()
    evaluator = evaluator_of(run, videos)
    start = None if run.pretraining is None else weights_of(run.pretraining, cache)

    def make() -> nn.Module:
        return make_summarizer(run.summarizer, videos.feature_dim)

    with seeded(run.seed):
        summarizer = make()
    if start is not None:
        load_weights(summarizer, start)
    before = evaluator(summarizer, run.split.test)
    options: dict[str, Any] = {"pretrained": start, "seed": run.seed, "out_dir": folder / "run", "progress": False}
    result = cross_validate(make, videos, [run.split], evaluator=evaluator, **run.training, **options)
    return {"before": before.to_json(), "fold": asdict(result.folds[0])}


def _logits(summarizer: nn.Module, videos: VideoSource) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    with evaluation_mode(summarizer), torch.no_grad():
        return [summarizer(videos[index]).float().numpy() for index in range(len(videos))]


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_paths(each) for name, each in value.items() if name not in _PATHS}
    return value


def _read_result(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = parse_json(read_text(folder / "result.json"))
    except ValueError as error:
        raise ValueError(f"{folder / 'result.json'} is damaged; remove it to do the run again: {error}") from error
    return found


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
