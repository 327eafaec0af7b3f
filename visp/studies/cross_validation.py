"""Five folds, several rounds: how good a summarizer is after fine-tuning, with the spread over seeds.

The protocol of the field: the videos are split into folds, a model is fine-tuned on the rest of each and evaluated on
it, and a round's result is the mean over its folds. Publications often report the best of several rounds (Table 2 of
the ViSP paper: of five); here it stands beside mean and spread, under its own name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from visp.data import VideoSource
from visp.data.splits import Split, hold_out
from visp.eval.metrics import METRICS, Metric
from visp.evaluator import Evaluator
from visp.training.finetune import finetune
from visp.training.options import Select
from visp.training.run_folder import digest, write_json
from visp.weights import CheckpointError, load_weights, read_weights, state_hash


@dataclass(frozen=True)
class Fold:
    """One fine-tuned model on the test videos of its fold.

    Attributes:
        round: From 0.
        fold: From 0.
        seed: Seed of the weights, the order and dropout.
        epoch: Epoch of the chosen weights.
        evaluation: How they score the fold's test videos, as plain values: :meth:`visp.eval.Evaluation.to_json`.
    """

    round: int
    fold: int
    seed: int
    epoch: int
    evaluation: Mapping[str, Any]

    def mean(self, metric: Metric) -> float:
        """Return the mean of a metric over the test videos; nan where it is undefined for all."""
        value = self.evaluation["mean"][metric]
        return float("nan") if value is None else float(value)


@dataclass(frozen=True)
class CrossValidation:
    """All folds of all rounds.

    Attributes:
        folds: In order of round, then fold.
        protocol: Name of the protocol and of the benchmark whose rules hold, such as ``"csta, tvsum"``.
        select: How each fold's epoch was chosen; ``"test"`` has seen the test videos.
        out_dir: The folder of the run, or None.
    """

    folds: tuple[Fold, ...]
    protocol: str
    select: str
    out_dir: Path | None

    def per_round(self, metric: Metric = "tau") -> list[float]:
        """Return the metric of each round, its mean over folds."""
        rounds = sorted({fold.round for fold in self.folds})
        return [float(np.mean([fold.mean(metric) for fold in self.folds if fold.round == number])) for number in rounds]

    def mean(self, metric: Metric = "tau") -> float:
        """Return the mean over rounds."""
        return float(np.mean(self.per_round(metric)))

    def spread(self, metric: Metric = "tau") -> float:
        """Return the standard deviation over rounds (n - 1); nan for a single round."""
        rounds = self.per_round(metric)
        return float(np.std(rounds, ddof=1)) if len(rounds) > 1 else float("nan")

    def best_round(self, metric: Metric = "tau") -> float:
        """Return the metric of the best round, as publications report it."""
        return max(self.per_round(metric))

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values: means, rounds, folds, videos."""
        return {
            "protocol": self.protocol,
            "select": self.select,
            **{
                metric: {
                    "mean": _plain(self.mean(metric)),
                    "std": _plain(self.spread(metric)),
                    "best_round": _plain(self.best_round(metric)),
                    "rounds": [_plain(value) for value in self.per_round(metric)],
                }
                for metric in METRICS
            },
            "folds": [asdict(fold) for fold in self.folds],
        }


Weights = str | os.PathLike[str] | Mapping[str, Tensor]


def cross_validate(
    make_summarizer: Callable[[], nn.Module],
    dataset: VideoSource,
    splits: Sequence[Split],
    *,
    evaluator: Evaluator,
    rounds: int = 1,
    pretrained: Weights | Sequence[Weights] | None = None,
    select: Select = "last",
    validation_share: float = 0.2,
    seed: int = 0,
    out_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
    **options: Any,
) -> CrossValidation:
    """Fine-tune and evaluate a summarizer on every fold, several times.

    With ``out_dir`` every fold has a folder there, ``round-0/fold-0``, and ``results.json`` holds everything. Called
    again on the same folder it redoes no finished fold and goes on inside an unfinished one.

    Args:
        make_summarizer: Makes an untrained module; called for each fold under the round's seed.
        dataset: The annotated videos.
        splits: One per fold, as :func:`visp.data.read_splits` and :func:`visp.data.make_splits` give them.
        evaluator: Evaluates on the dataset by one protocol.
        rounds: How often all folds are done; round r has the seed ``seed + r``.
        pretrained: Weights to start from, such as ``weights.pt`` of :func:`visp.pretrain`: a file or a state dict,
            or one of these for each round.
        select: As in :func:`visp.finetune`. For ``"validation"``, splits without validation videos have some held
            out of their training videos.
        validation_share: Share of the training videos to hold out then.
        seed: Seed of the first round.
        out_dir: Folder of the run.
        progress: Show a bar over the folds, and one for each run.
        **options: Passed to :func:`visp.finetune`.

    Returns:
        Every fold's metrics, with mean and spread over rounds.

    Raises:
        ValueError: If there is no split, ``rounds`` is less than 1, or ``pretrained`` does not have one entry per
            round; and as :func:`visp.finetune`.
        CheckpointError: If ``out_dir`` holds a cross-validation with other settings.
    """
    if not splits or rounds < 1:
        raise ValueError(f"expected at least one split and one round, got {len(splits)} and {rounds}")
    several = not (pretrained is None or isinstance(pretrained, str | os.PathLike | Mapping))
    starts = list(cast("Sequence[Weights]", pretrained)) if several else [cast("Weights | None", pretrained)] * rounds
    if len(starts) != rounds:
        raise ValueError(f"expected pretrained weights for each of {rounds} rounds, got {len(starts)}")
    if select == "validation":
        splits = [split if split.validation else hold_out(split, validation_share, seed=seed) for split in splits]
    folder = None if out_dir is None else Path(out_dir)
    if folder is not None:
        _claim(
            folder,
            {
                "splits": digest([asdict(split) for split in splits]),
                "videos": digest([list(dataset.names), list(dataset.lengths)]),
                "pretrained": [_fingerprint(start) for start in (starts if several else starts[:1])],
                "select": select,
                "seed": seed,
                "evaluation": evaluator.describe(),
                "options": {name: str(value) for name, value in sorted(options.items())},
            },
        )
    folds = []
    bar = tqdm(total=rounds * len(splits), unit="fold", desc="folds", disable=not progress, dynamic_ncols=True)
    with bar:
        for number, start in enumerate(starts):
            for index, split in enumerate(splits):
                place = None if folder is None else folder / f"round-{number}" / f"fold-{index}"
                done = None if place is None else _finished(place)
                if done is None:
                    done = _run_fold(
                        make_summarizer,
                        start,
                        dataset,
                        split,
                        evaluator,
                        number,
                        index,
                        seed + number,
                        place,
                        select=select,
                        progress=progress,
                        **options,
                    )
                folds.append(done)
                bar.set_postfix(tau=f"{np.mean([fold.mean('tau') for fold in folds]):.3f}", refresh=False)
                bar.update()
    result = CrossValidation(tuple(folds), f"{evaluator.protocol}, {evaluator.benchmark}", select, folder)
    if folder is not None:
        write_json(folder / "results.json", result.to_json())
    return result


def read_results(out_dir: str | os.PathLike[str]) -> CrossValidation:
    """Read the results of a finished :func:`cross_validate` back from its folder.

    Raises:
        FileNotFoundError: If the folder holds no ``results.json``.
        ValueError: If that is not one of a cross-validation.
    """
    folder = Path(out_dir)
    path = folder / "results.json"
    try:
        found = json.loads(path.read_text())
        folds = tuple(Fold(**fold) for fold in found["folds"])
        return CrossValidation(folds, found["protocol"], found["select"], folder)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not hold the results of a cross-validation: {error}") from error


def results_table(results: Mapping[str, CrossValidation]) -> str:
    """Put several results side by side in a Markdown table: mean and spread over rounds, and the best round.

    Args:
        results: By name, in the order of the rows.

    Returns:
        The table; every row names its protocol and how the epochs were selected.
    """
    lines = [
        "| model | protocol | epoch chosen by | rounds | tau | rho | F-score | best round: tau | rho | F-score |",
        "|---" * 10 + "|",
    ]
    for name, result in results.items():
        select = "**test videos**" if result.select == "test" else result.select
        rounds = len(result.per_round())
        means = [f"{result.mean(metric):.3f}" + _plus_minus(result.spread(metric)) for metric in METRICS]
        best = [f"{result.best_round(metric):.3f}" for metric in METRICS]
        lines.append("| " + " | ".join([name, result.protocol, select, str(rounds), *means, *best]) + " |")
    return "\n".join(lines)


def _plus_minus(spread: float) -> str:
    return "" if np.isnan(spread) else f" ± {spread:.3f}"


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value


def _run_fold(
    make_summarizer: Callable[[], nn.Module],
    start: Weights | None,
    dataset: VideoSource,
    split: Split,
    evaluator: Evaluator,
    number: int,
    index: int,
    seed: int,
    folder: Path | None,
    **options: Any,
) -> Fold:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        summarizer = make_summarizer()
    if start is not None:
        load_weights(summarizer, start)
    result = finetune(
        summarizer, dataset, split, evaluator=evaluator, seed=seed, out_dir=folder, resume=folder is not None, **options
    )
    if result.test is None:
        raise ValueError(f"fold {index} has no test videos")
    fold = Fold(number, index, seed, result.epoch, result.test.to_json())
    if folder is not None:
        write_json(folder / "fold.json", asdict(fold))
        (folder / "checkpoint.pt").unlink()  # the fold is done, and its weights are in weights.pt
    return fold


def _finished(folder: Path) -> Fold | None:
    path = folder / "fold.json"
    return Fold(**json.loads(path.read_text())) if path.exists() else None


def _claim(folder: Path, fingerprint: Mapping[str, Any]) -> None:
    """Make the folder, or check that it holds a cross-validation of the same settings."""
    path = folder / "config.json"
    wanted = json.loads(json.dumps(fingerprint))
    if path.exists():
        there = json.loads(path.read_text())
        differences = [
            f"{name} was {there.get(name)!r} and is {value!r}"
            for name, value in wanted.items()
            if there.get(name) != value
        ]
        if differences:
            raise CheckpointError(f"{path} is of another cross-validation: {'; '.join(differences)}")
    elif folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty and holds no cross-validation; choose another folder")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, wanted)


def _fingerprint(weights: Weights | None) -> str | None:
    if weights is None:
        return None
    return state_hash(read_weights(weights))
