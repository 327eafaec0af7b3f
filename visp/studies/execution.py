"""How the runs of a study are made: each once, in one process or several, and again from ``run.json``."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import nn

from visp._version import __version__
from visp.data import VideoSource
from visp.eval import make_summary
from visp.eval.metrics import mean_defined
from visp.factory import make_encoder, make_summarizer
from visp.pretrainer import ViSPPretrainer
from visp.pseudo_summary import PseudoSummaries, PseudoSummaryPretrainer
from visp.registry import objective_options
from visp.side_inputs import frames_of_batch
from visp.studies.cross_validation import cross_validate
from visp.studies.identification import identify
from visp.studies.runs import FoldRun, Pretraining, Run, evaluator_of, key, read_run, weights_of
from visp.training.movement import scores
from visp.training.pretrain import pretrain
from visp.training.run_folder import write_json
from visp.training.segments import Segments
from visp.training.standardize import standardization
from visp.utils.distributed import launch_id, launched
from visp.utils.files import locked, parse_json, read_text, replacing
from visp.utils.noise import seeded
from visp.utils.progress import Bar
from visp.weights import load_weights

_IDENTIFICATION_STEPS = 20
_SECONDS_BETWEEN_LOOKS = 0.1


class FailedRunError(ValueError):
    """A run that failed; of several processes of torchrun, the others raise it as well."""


def carry_out(
    runs: Sequence[Run], cache: Path, *, jobs: int = 1, progress: bool = True, description: str = "runs"
) -> dict[str, dict[str, Any]]:
    """Do the runs that are not done, each once, and return what each found, by its key.

    Every run computes on one thread, so that what it finds does not depend on ``jobs``. A run that fails does not stop
    the others; its error is raised when they have ended. Of several processes that torchrun started, each does what no
    other one does or has done, or failed to do, and all return, or raise the same error, when everything is done.

    Args:
        runs: The runs; those that fine-tune need their pretraining done.
        cache: Folder of all runs, ``<cache>/<key>``.
        jobs: Number of processes.
        progress: Show a bar.
        description: Of the bar.

    Raises:
        FailedRunError: If a run fails; the first in the order of ``runs``.
        ValueError: If there are both several jobs and several processes of torchrun.
    """
    rank, num_processes = launched()
    if jobs > 1 and num_processes > 1:
        raise ValueError(f"jobs={jobs} and {num_processes} processes of torchrun exclude each other")
    if num_processes > 1 and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    wanted = {key(run): run for run in runs}
    todo = {name: run for name, run in wanted.items() if not (cache / name / "result.json").exists()}
    failed: dict[str, FailedRunError] = {}
    hidden = not progress or rank > 0
    with Bar(total=len(wanted), initial=len(wanted) - len(todo), desc=description, disable=hidden) as bar:
        for name, error in _work(todo, cache, jobs) if num_processes == 1 else _share(todo, cache):
            failed |= {} if error is None else {name: error}
            bar.update()
    if failed:
        raise next(failed[name] for name in wanted if name in failed)
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


def _work(todo: Mapping[str, Run], cache: Path, jobs: int) -> Iterator[tuple[str, FailedRunError | None]]:
    """Do the runs, and yield the key of each as it ends, with None or its error."""
    if jobs == 1 or len(todo) < 2:
        with _one_thread():
            for name, run in todo.items():
                yield name, _carry_out(run, cache / name, cache)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _start_worker) as pool:
        futures = {pool.submit(_carry_out, run, cache / name, cache): name for name, run in todo.items()}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise ChildProcessError("a process of the study was ended from outside; run it again to resume") from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _share(todo: Mapping[str, Run], cache: Path) -> Iterator[tuple[str, FailedRunError | None]]:
    """Do the runs that no other process does, until all are done; a run whose process has died is done here."""
    waiting, launch = dict(todo), launch_id()
    with _one_thread():
        while waiting:
            for name, run in list(waiting.items()):
                try:
                    error = _carry_out(run, cache / name, cache, launch)
                except BlockingIOError:
                    continue
                del waiting[name]
                yield name, error
            time.sleep(_SECONDS_BETWEEN_LOOKS if waiting else 0)


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


def _carry_out(run: Run, folder: Path, cache: Path, launch: str = "") -> FailedRunError | None:
    """Do a run, unless another process of this start of torchrun has done it or failed; return None or the error."""
    failure = folder / "failed.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            if (folder / "result.json").exists():
                return None  # another process has done it meanwhile
            if launch and failure.exists() and (found := parse_json(read_text(failure)))["launch"] == launch:
                return FailedRunError(found["error"])
            failure.unlink(missing_ok=True)
            declared = {"kind": type(run).__name__, "visp_version": __version__, "run": asdict(run)}
            write_json(folder / "run.json", declared)
            try:
                found = _pretrain(run, folder) if isinstance(run, Pretraining) else _fine_tune(run, folder, cache)
                write_json(folder / "result.json", found)
            except Exception as error:
                failed = _failed(folder, error)
                if launch:
                    write_json(failure, {"launch": launch, "error": str(failed)})
                return failed
    except BlockingIOError:
        raise
    except Exception as error:
        return _failed(folder, error)
    return None


def _failed(folder: Path, error: Exception) -> FailedRunError:
    return FailedRunError(f"{folder / 'run.json'}: {type(error).__name__}: {error}")


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
    items: Any = Segments(videos, videos.names, videos.lengths, run.training.get("segment_length"))
    logits = scores(summarizer.cpu(), (items[index] for index in range(len(items))))
    with replacing(folder / "logits.h5") as file, h5py.File(file, "w") as written:
        for number, values in enumerate(logits):
            written[str(number)] = values.numpy()
    steps = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    last = steps[-max(1, len(steps) // 10) :]
    metrics = {
        name: mean_defined([step[name] for step in last])
        for name in ("info_nce", "mi_lower_bound", "keep_ratio")
        if all(isinstance(step.get(name), float) for step in last)
    }
    change = standardization(videos)
    frames = frames_of_batch([change(items[index]) for index in range(len(items))])
    with seeded(run.seed):
        metrics["identification"] = identify(frames, logits, steps=_IDENTIFICATION_STEPS, seed=run.seed).info_nce
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


def _read_result(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = parse_json(read_text(folder / "result.json"))
    except ValueError as error:
        raise ValueError(f"{folder / 'result.json'} is damaged; remove it to do the run again: {error}") from error
    return found
