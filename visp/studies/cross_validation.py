"""Five folds, several rounds: how good a summarizer is after fine-tuning, with the spread over seeds.

The protocol of the field: the videos are split into folds, a model is fine-tuned on the rest of each and evaluated on
it, and a round's result is the mean over its folds. Publications often report the best of several rounds (Table 2 of
the ViSP paper: of five); here it stands beside mean and spread, under its own name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor, nn
from tqdm import tqdm

from visp.data import VideoSource
from visp.data.splits import Split, hold_out
from visp.evaluator import Evaluator
from visp.studies.results import CrossValidation, Fold, read_fold
from visp.training.finetune import finetune
from visp.training.options import Select
from visp.training.run_folder import digest, write_json
from visp.utils.files import locked, parse_json, read_text
from visp.utils.noise import seeded
from visp.weights import (
    CheckpointError,
    load_weights,
    own_module,
    own_state_dict,
    read_weights,
    state_hash,
)

_HASHED = ("picks", "n_frames", "gtscore", "user_summary", "change_points")

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
    again on the same folder it redoes no finished fold and resumes an unfinished one.

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
        ValueError: If there is no split, ``rounds`` is less than 1, ``pretrained`` does not have one entry per round,
            or a fold has no test videos or one that cannot be evaluated; and as :func:`visp.finetune`.
        CheckpointError: If ``out_dir`` holds a cross-validation of another summarizer, other data, another protocol,
            other weights to start from or other settings; the message lists the differences.
    """
    if not splits or rounds < 1:
        raise ValueError(f"expected at least one split and one round, got {len(splits)} and {rounds}")
    several = not (pretrained is None or isinstance(pretrained, str | os.PathLike | Mapping))
    starts = list(cast("Sequence[Weights]", pretrained)) if several else [cast("Weights | None", pretrained)] * rounds
    if len(starts) != rounds:
        raise ValueError(f"expected pretrained weights for each of {rounds} rounds, got {len(starts)}")
    if select == "validation":
        splits = [split if split.validation else hold_out(split, validation_share, seed=seed) for split in splits]
    for index, split in enumerate(splits):
        if not split.test:
            raise ValueError(f"fold {index} has no test videos")
        evaluator.check([*split.validation, *split.test])
    folder = None if out_dir is None else Path(out_dir)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with nullcontext() if folder is None else locked(folder):
        if folder is not None:
            _claim(
                folder,
                {
                    "summarizer": _describe(make_summarizer, seed),
                    "splits": digest([asdict(split) for split in splits]),
                    "videos": digest([list(dataset.names), list(dataset.lengths)]),
                    "data": _content_hash(dataset, evaluator),
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
                            number,
                            index,
                            seed + number,
                            place,
                            evaluator=evaluator,
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


def _run_fold(
    make_summarizer: Callable[[], nn.Module],
    start: Weights | None,
    dataset: VideoSource,
    split: Split,
    number: int,
    index: int,
    seed: int,
    folder: Path | None,
    **options: Any,
) -> Fold:
    with seeded(seed):
        summarizer = make_summarizer()
    if start is not None:
        load_weights(summarizer, start)
    result = finetune(summarizer, dataset, split, seed=seed, out_dir=folder, resume=folder is not None, **options)
    assert result.test is not None
    fold = Fold(number, index, seed, result.epoch, result.test.to_json())
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
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]{56}\b", r"\1", repr(value))


def _describe(make_summarizer: Callable[[], nn.Module], seed: int) -> str:
    """Return the kind of the summarizer and a hash of the weights it starts from."""
    with seeded(seed):
        summarizer = make_summarizer()
    return f"{type(own_module(summarizer)).__name__} {state_hash(own_state_dict(summarizer))}"


def _content_hash(dataset: VideoSource, evaluator: Evaluator) -> str:
    """Return a hash of what is learnt from and evaluated: features, labels and annotations of every video."""
    found = hashlib.sha256()
    for index, name in enumerate(dataset.names):
        record = dataset.record(index)
        arrays = {key: getattr(record, key) for key in _HASHED}
        if evaluator.user_scores is not None:
            arrays["user_scores"] = evaluator.user_scores.get(name)
        for key, value in {"frames": dataset[index].numpy(), **arrays}.items():
            array = np.ascontiguousarray(() if value is None else value)
            found.update(f"{name} {key} {array.shape} {array.dtype.str};".encode())
            found.update(array.tobytes())
    return found.hexdigest()


def _fingerprint(weights: Weights | None) -> str | None:
    if weights is None:
        return None
    return state_hash(read_weights(weights))
