"""Five folds, several rounds: how good a summarizer is after fine-tuning, with the spread over seeds.

The protocol of the field: the videos are split into folds, a model is fine-tuned on the rest of each and evaluated on
it, and a round's result is the mean over its folds. Publications often report the best of several rounds (Table 2 of
the ViSP paper: of five); here it stands beside mean and spread, under its own name.
"""

# ruff: noqa: RUF009, `option` makes a field

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from visp.data import VideoSource
from visp.data.splits import Split, hold_out
from visp.studies.results import CrossValidation, Fold, read_fold
from visp.training.finetune import finetune
from visp.training.options import FinetuneOptions, option, takes
from visp.training.run_folder import content_hash, digest, write_json
from visp.utils.files import locked, parse_json, read_text
from visp.utils.noise import seeded
from visp.utils.progress import Bar
from visp.weights import (
    CheckpointError,
    own_module,
    own_state_dict,
    read_weights,
    state_hash,
)

Weights = str | os.PathLike[str] | Mapping[str, Tensor]

_NOT_OF_THE_RESULT = ("checkpoint_seconds", "num_workers", "worker_timeout", "progress", "out_dir", "on_step", "config")
_RECORDED_APART = ("evaluator", "pretrained", "rounds", "seed", "select")


@dataclass(frozen=True, kw_only=True)
class CrossValidationOptions(FinetuneOptions):
    """What :func:`visp.cross_validate` can be told: what :func:`visp.finetune` can, and how often from where."""

    rounds: int = option(1, "how often all folds are done; round r has the seed ``seed + r``", least=1)
    pretrained: Weights | Sequence[Weights] | None = option(
        None,
        "weights to start every fold from, such as weights.pt of a pretraining run: a file or, in Python, a state "
        "dict, or one of these for each round; the module's own if not given",
    )
    validation_share: float = option(
        0.2,
        "share of the training videos to hold out where select is 'validation' and the splits have no validation "
        "videos",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.evaluator is None:
            raise ValueError("cross_validate evaluates every fold and needs an evaluator")
        for name in ("weights", "resume", "tensorboard"):
            if getattr(self, name):
                raise ValueError(f"cross_validate takes no {name}: folds start from `pretrained` and are resumed")
        if len(self.starts) != self.rounds:
            raise ValueError(f"expected pretrained weights for each of {self.rounds} rounds, got {len(self.starts)}")

    @property
    def starts(self) -> list[Weights | None]:
        """Return what each round starts from."""
        if self.pretrained is None or isinstance(self.pretrained, str | os.PathLike | Mapping):
            return [self.pretrained] * self.rounds
        return list(self.pretrained)

    def of_a_fold(self, number: int, folder: Path | None) -> dict[str, Any]:
        """Return the options of one fine-tuning run of a round."""
        given = {each.name: getattr(self, each.name) for each in fields(FinetuneOptions)}
        return {**given, "seed": self.seed + number, "out_dir": folder, "resume": folder is not None}

    def describe(self) -> dict[str, str]:
        """Return what decides the result and is not recorded under a name of its own."""
        left_out = (*_NOT_OF_THE_RESULT, *_RECORDED_APART)
        return {each.name: str(getattr(self, each.name)) for each in fields(self) if each.name not in left_out}


@takes(CrossValidationOptions)
def cross_validate(
    make_summarizer: Callable[[], nn.Module],
    dataset: VideoSource,
    splits: Sequence[Split],
    options: CrossValidationOptions,
) -> CrossValidation:
    """Fine-tune and evaluate a summarizer on every fold, several times.

    With ``out_dir`` every fold has a folder there, ``round-0/fold-0``, and ``results.json`` holds everything. Called
    again on the same folder it redoes no finished fold and resumes an unfinished one.

    Args:
        make_summarizer: Makes an untrained module; called for each fold under the round's seed.
        dataset: The annotated videos.
        splits: One per fold, as :func:`visp.data.read_splits` and :func:`visp.data.make_splits` give them.
        options: As keyword arguments.

    Returns:
        Every fold's metrics, with mean and spread over rounds.

    Raises:
        ValueError: If there is no split, an option is out of its range, ``pretrained`` does not have one entry per
            round, there is no evaluator, or a fold has no test videos or one that cannot be evaluated; and as
            :func:`visp.finetune`.
        CheckpointError: If ``out_dir`` holds a cross-validation of another summarizer, other data, another protocol,
            other weights to start from or other settings; the message lists the differences.
        FileExistsError: If ``out_dir`` holds files but no cross-validation.
    """
    if not splits:
        raise ValueError("expected at least one split, got none")
    evaluator, seed, starts = options.evaluator, options.seed, options.starts
    if options.select == "validation":
        share = options.validation_share
        splits = [split if split.validation else hold_out(split, share, seed=seed) for split in splits]
    for index, split in enumerate(splits):
        if not split.test:
            raise ValueError(f"fold {index} has no test videos")
        evaluator.check([*split.validation, *split.test])
    folder = None if options.out_dir is None else Path(options.out_dir)
    if folder is None:
        return _all_folds(make_summarizer, dataset, splits, options, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        several = options.pretrained is not None and len({id(start) for start in starts}) > 1
        _claim(
            folder,
            {
                "summarizer": _describe(make_summarizer, seed),
                "splits": digest([asdict(split) for split in splits]),
                "videos": digest([list(dataset.names), list(dataset.lengths)]),
                "data": content_hash(dataset),
                "pretrained": [_fingerprint(start) for start in (starts if several else starts[:1])],
                "select": options.select,
                "seed": seed,
                "evaluation": evaluator.describe(),
                "options": options.describe(),
            },
        )
        result = _all_folds(make_summarizer, dataset, splits, options, folder)
        write_json(folder / "results.json", result.to_json())
    return result


def _all_folds(
    make_summarizer: Callable[[], nn.Module],
    dataset: VideoSource,
    splits: Sequence[Split],
    options: CrossValidationOptions,
    folder: Path | None,
) -> CrossValidation:
    folds = []
    total = options.rounds * len(splits)
    bar = Bar(total=total, unit="fold", desc="folds", disable=not options.progress, dynamic_ncols=True)
    with bar:
        for number, start in enumerate(options.starts):
            for index, split in enumerate(splits):
                place = None if folder is None else folder / f"round-{number}" / f"fold-{index}"
                done = None if place is None else _finished(place)
                if done is None:
                    done = _run_fold(make_summarizer, start, dataset, split, options, number, index, place)
                folds.append(done)
                bar.set_postfix(tau=f"{np.mean([fold.mean('tau') for fold in folds]):.3f}", refresh=False)
                bar.update()
    evaluator = options.evaluator
    return CrossValidation(tuple(folds), f"{evaluator.protocol}, {evaluator.benchmark}", options.select, folder)


def _run_fold(
    make_summarizer: Callable[[], nn.Module],
    start: Weights | None,
    dataset: VideoSource,
    split: Split,
    options: CrossValidationOptions,
    number: int,
    index: int,
    folder: Path | None,
) -> Fold:
    given = options.of_a_fold(number, folder)
    with seeded(given["seed"]):
        summarizer = make_summarizer()
    result = finetune(summarizer, dataset, split, **{**given, "weights": start})
    assert result.test is not None
    fold = Fold(number, index, given["seed"], result.epoch, result.test.to_json())
    if folder is not None:
        write_json(folder / "fold.json", asdict(fold))
        (folder / "checkpoint.pt").unlink()  # the fold is done, and its weights are in weights.pt
    return fold


def _finished(folder: Path) -> Fold | None:
    path = folder / "fold.json"
    if not path.exists():
        return None
    (folder / "checkpoint.pt").unlink(missing_ok=True)  # as where the run was not killed before it did so
    return read_fold(path)


def _claim(folder: Path, fingerprint: Mapping[str, Any]) -> None:
    """Make the folder, or check that it holds a cross-validation of the same settings."""
    path = folder / "config.json"
    wanted = json.loads(json.dumps(fingerprint))
    if path.exists():
        try:
            there = parse_json(read_text(path))
        except ValueError as error:
            raise CheckpointError(f"{path} is not JSON: {error}") from error
        if not isinstance(there, dict):
            raise CheckpointError(f"{path} is not of a cross-validation: it holds a {type(there).__name__}")
        differences = [
            f"{name} was {_brief(there.get(name))} and is {_brief(value)}"
            for name, value in wanted.items()
            if there.get(name) != value
        ]
        if differences:
            raise CheckpointError(
                f"{path} is of another cross-validation, choose another folder: {'; '.join(differences)}"
            )
    else:
        for unfinished in folder.glob(".visp-*"):  # of one that was killed while it wrote its settings
            unfinished.unlink()
        if any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty and holds no cross-validation; choose another folder")
        write_json(path, wanted)


def _brief(value: object) -> str:
    """Show a value, with hashes cut to the first eight digits."""
    return re.sub(r"\b([0-9a-f]{8})(?:[0-9a-f]{24}|[0-9a-f]{56})\b", r"\1", repr(value))


def _describe(make_summarizer: Callable[[], nn.Module], seed: int) -> str:
    """Return the kind of the summarizer and a hash of the weights it starts from."""
    with seeded(seed):
        summarizer = make_summarizer()
    return f"{type(own_module(summarizer)).__name__} {state_hash(own_state_dict(summarizer))}"


def _fingerprint(weights: Weights | None) -> str | None:
    if weights is None:
        return None
    return state_hash(read_weights(weights))
