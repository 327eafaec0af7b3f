"""Pretraining without labels: an objective over a dataset."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor, nn

from visp.contracts import Objective, check_objective, class_name
from visp.data import VideoSource
from visp.inputs import carried
from visp.pretrainer import ViSPPretrainer
from visp.side_inputs import check_item
from visp.training.batches import Batches
from visp.training.collapse import CollapseWatch
from visp.training.devices import move
from visp.training.loop import Run, Weights, execute
from visp.training.memory import recomputing
from visp.training.movement import Movement, judge, reference, watched
from visp.training.options import PretrainOptions, takes
from visp.training.run_folder import content_hash, digest, run_folder, write_json
from visp.training.run_state import RunState
from visp.training.segments import Segments, random_stretch
from visp.training.standardize import FrameFeatures, StandardizedVideos, choose
from visp.weights import load_weights, own_module, own_state_dict, state_hash


@dataclass(frozen=True)
class PretrainResult:
    """What a run ends with.

    Attributes:
        steps: Steps of the whole run, those before a resume included.
        metrics: Metrics of the last step, as in ``metrics.jsonl``; empty if there was no step to do.
        out_dir: The run's folder, or None.
        standardized: How the summarizer takes features as they are after training on standardized ones: ``"folded"``
            into its weights, ``"carried"`` in front of them (:mod:`visp.inputs`), or ``"no"``, it was not.
        movement: Whether the scores moved, and further than under the size constraint alone; None where this is not
            measured, as in runs of fewer than 20 steps.
    """

    steps: int
    metrics: Mapping[str, float]
    out_dir: Path | None
    standardized: Literal["folded", "carried", "no"]
    movement: Movement | None


@takes(PretrainOptions)
def pretrain(objective: Objective, dataset: FrameFeatures, options: PretrainOptions) -> PretrainResult:
    """Pretrain a summarizer with Adam; it is trained in place.

    The folder then holds ``config.json``, ``metrics.jsonl`` (one object per step), ``checkpoint.pt`` and, at the end,
    ``weights.pt``: the summarizer's own state dict. A run that was killed at any moment resumes from its last
    checkpoint with ``resume=True`` and ends with the weights of an uninterrupted run, bit for bit, on the same machine
    and with the same number of processes. Ctrl-C and SIGTERM end it after the step, with a checkpoint.

    Where ``torch.distributed`` runs several processes, all call this, and each computes its part of every batch
    (docs/distributed.md); the first writes the folder. A pretrainer with ``gather=False`` is trained by this process
    alone.

    Unit-norm features of real videos are nearly one vector, and little is learnt from them as they are
    (docs/training.md), so an untrained summarizer is trained on standardized ones and takes the features as they are
    afterwards. The change is folded into the weights where frames enter through linear layers alone (proved on real
    frames before the run starts) or the module has a method ``fold_inputs`` (:class:`visp.training.fold.FoldsInputs`).
    Elsewhere the summarizer carries it (:mod:`visp.inputs`), as does ``weights.standardization.pt`` beside
    ``weights.pt``. Whether a module has been trained is known only from ``weights`` and frozen parameters: if you have
    loaded weights yourself, give ``standardize=False``.

    Args:
        objective: What to minimise, such as :class:`visp.ViSPPretrainer`.
        dataset: Item i is the frames (T_i, ...) of video i; at least 2 videos where the objective compares videos.
        options: As keyword arguments.

    Returns:
        Number of steps, the last metrics and the folder.

    Raises:
        TypeError: If the objective is none, or the dataset has no length or its items are no tensors.
        ValueError: If an option is out of its range, there are too few videos, nothing can be trained, or there are
            more processes than videos in a batch.
        ImportError: If ``tensorboard`` is asked for and not installed.
        FileExistsError: If ``out_dir`` is not empty and ``resume`` is false.
        BlockingIOError: If another run is writing ``out_dir``.
        CheckpointError: If the checkpoint is not one, or is of a run with other settings; if ``resume`` is true and
            ``out_dir`` holds files but no checkpoint; if the weights are not the summarizer's.
        FloatingPointError: If the loss, its gradient or a buffer is not finite, or fp16 skips too many steps in a row;
            the checkpoint is of before.
        TimeoutError: If a worker does not bring its batch in time.
        ChildProcessError: If a worker dies, for instance because memory ran out.
    """
    check_objective(objective)
    _check_dataset(dataset)
    module = cast("nn.Module", objective)
    fewest = objective.min_videos if isinstance(objective, ViSPPretrainer) else 1
    if options.batch_size < fewest:
        raise ValueError(f"expected batch_size >= {fewest}, got {options.batch_size}")
    source = dataset
    names = list(dataset.names) if isinstance(dataset, VideoSource) else [str(i) for i in range(len(dataset))]
    lengths = list(dataset.lengths) if isinstance(dataset, VideoSource) else None
    if options.segment_length is not None:
        lengths = lengths or [len(check_item(dataset[index])) for index in range(len(dataset))]
        dataset = Segments(dataset, names, lengths, options.segment_length)
        names, lengths = dataset.names, dataset.lengths
    if len(dataset) < fewest:
        raise ValueError(f"pretraining compares videos with each other: expected at least {fewest}, got {len(dataset)}")
    if options.bucket_by_length and lengths is None:
        raise ValueError("bucket_by_length needs a dataset with the `lengths` of its videos")
    folder = run_folder(options)
    if options.weights is not None:
        load_weights(objective.summarizer, options.weights)
    move(module, options.device)
    state = RunState("pretrain", module, options, together=getattr(objective, "gather", True))
    plan = choose(options.standardize, objective.summarizer, dataset, from_weights=options.weights is not None)
    items = dataset if plan is None else StandardizedVideos(dataset, plan.change)
    batches = Batches(
        items,
        names,
        options,
        lengths=lengths if options.bucket_by_length else None,
        rank=state.rank,
        num_processes=state.num_processes,
        pin_memory=state.device.type == "cuda",
    )
    watch = CollapseWatch()
    num_steps = options.epochs * batches.per_epoch
    compared = watched(objective, items, num_steps, options) if state.rank == 0 else []
    movement: Movement | None = None

    def loss_of(batch: list[Any]) -> tuple[Tensor, Mapping[str, Tensor]]:
        if plan is not None:
            plan.begun = True
        if options.crop is not None:
            batch = [random_stretch(item, options.crop) for item in batch]
        output = objective(batch)
        return output.loss, output._asdict()

    def begin() -> None:
        if compared:
            state.extra = {"reference": reference(objective, compared, options, num_steps)}

    def review(metrics: dict[str, float]) -> dict[str, float]:
        if state.rank == 0 and "info_nce" in metrics:
            watch.update(metrics)
        return metrics

    def finish() -> Weights:
        nonlocal movement
        if plan is not None:
            plan.begun = True
        if compared:
            movement = judge(objective.summarizer, compared, state.extra["reference"])
        if plan is not None:
            plan.end()
        return own_state_dict(objective.summarizer), carried(objective.summarizer)

    standardized = "no" if plan is None else plan.how
    run = Run(
        state,
        batches,
        loss_of,
        options,
        folder,
        fingerprint={
            "num_videos": len(dataset),
            "videos": digest([names, lengths or []]),
            "content": None if folder is None else content_hash(source),
            "features": None if plan is None else digest([each.tolist() for each in plan.change]),
            "standardize": plan is not None,
            "standardized": standardized,
            "weights": None if options.weights is None else state_hash(own_state_dict(objective.summarizer)),
            "bucket_by_length": options.bucket_by_length,
            "crop": options.crop,
            **objective.describe(),
        },
        recorded={
            "pretrainer_seed": objective.noise.seed if isinstance(objective, ViSPPretrainer) else None,
            "features": getattr(source, "provenance", {}),
        },
        begin=begin,
        review=review,
        shown=_shown,
        finish=finish,
        wholes=[whole for part in module.children() for whole in (part, own_module(part))],
    )
    with (
        recomputing(objective, options, lengths, state.num_processes),
        contextlib.nullcontext() if plan is None else plan.during(),
    ):
        metrics = execute(run)
    if folder is not None and movement is not None:
        write_json(folder.path / "movement.json", asdict(movement))
    return PretrainResult(state.step, metrics, None if folder is None else folder.path, standardized, movement)


def _check_dataset(dataset: object) -> None:
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"expected a dataset with a length, such as a list of frames (T, d), got a {class_name(dataset)}"
        )


def _shown(metrics: Mapping[str, float]) -> dict[str, str]:
    shown = {"loss": f"{metrics['loss']:.3f}"}
    if "mi_lower_bound" in metrics:
        ceiling = metrics["mi_ceiling"]
        shown["MI"] = f"{metrics['mi_lower_bound']:.2f}/{ceiling:.2f}"
    if "keep_ratio" in metrics:
        shown["keep"] = f"{metrics['keep_ratio']:.2f}"
    if metrics.get("skipped_steps"):
        shown["skipped"] = f"{metrics['skipped_steps']:.0f}"
    return shown
