"""Pretraining without labels: the objective of :mod:`visp.pretrainer` over a dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from visp.data import VideoSource
from visp.pretrainer import ViSPOutput, ViSPPretrainer
from visp.training.collapse import CollapseWatch
from visp.training.loop import Loop
from visp.training.run_folder import digest
from visp.training.settings import Precision, Schedule, Settings
from visp.training.standardize import (
    FrameFeatures,
    Standardization,
    StandardizedVideos,
    require_folds_inputs,
    standardization,
)
from visp.weights import own_module, own_state_dict


@dataclass(frozen=True)
class PretrainResult:
    """What a run ends with.

    Attributes:
        steps: Steps of the whole run, those before a resume included.
        metrics: Metrics of the last step, as in ``metrics.jsonl``; empty if there was no step to do.
        out_dir: The run's folder, or None.
    """

    steps: int
    metrics: Mapping[str, float]
    out_dir: Path | None


def pretrain(
    pretrainer: ViSPPretrainer,
    dataset: FrameFeatures,
    *,
    epochs: int = 200,
    batch_size: int = 32,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    clip_grad_norm: float | None = 1.0,
    warmup_steps: int = 20,
    seed: int = 0,
    out_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    precision: Precision = "float32",
    schedule: Schedule = "constant",
    ema_decay: float | None = None,
    bucket_by_length: bool = False,
    standardize: bool = False,
    checkpoint_seconds: float = 60.0,
    num_workers: int = 0,
    worker_timeout: float = 600.0,
    progress: bool = True,
    tensorboard: bool = False,
    config: Mapping[str, Any] | None = None,
) -> PretrainResult:
    """Pretrain a summarizer with Adam; it is trained in place.

    The folder then holds ``config.json``, ``metrics.jsonl`` (one object a step), ``checkpoint.pt`` and, at the
    end, ``weights.pt``: the summarizer's own state dict. A run that was killed at any moment goes on from its
    last checkpoint with ``resume=True`` and ends with the weights of an uninterrupted run, bit for bit, on the
    same machine and with the same number of processes. Ctrl-C and SIGTERM end it after the step, with a checkpoint.

    Where ``torch.distributed`` runs several processes, all call this, and each computes its part of every batch
    (docs/distributed.md); the first writes the folder. A pretrainer with ``gather=False`` is trained by this process
    alone.

    Args:
        pretrainer: The objective, on the device to train on.
        dataset: Item i is the frames (T_i, ...) of video i; at least 2 videos.
        epochs: Passes over the dataset.
        batch_size: Largest number N of videos in a batch; an epoch is cut into batches as equal as can be,
            so that none is left with too few videos to compare.
        lr: Learning rate of Adam.
        weight_decay: Weight decay of Adam.
        clip_grad_norm: Largest norm of the gradient, or None.
        warmup_steps: Steps over which the learning rate rises linearly to ``lr``, so that the size constraint
            does not overshoot before the encoder has learnt anything.
        seed: Seed of the order of the videos and of dropout; the pretrainer has its own for its noise.
        out_dir: Folder of the run, made if need be; by default nothing is written.
        resume: Go on from the folder's checkpoint if there is one.
        precision: ``"float32"``, or autocast to ``"bf16"`` or ``"fp16"``. Parameters stay as they are.
        schedule: What the learning rate does after the warm-up: stay ``"constant"``, or fall to 0 over the run as a
            ``"cosine"``.
        ema_decay: Decay, in (0, 1), of an average of the weights over the steps (at step s, at most
            (1 + s) / (10 + s)); the run then ends with the average, and ``checkpoint.pt`` holds both.
        bucket_by_length: Make batches of videos of similar length, so that several processes wait less for each other.
        standardize: Train on features of mean 0 and spread 1 (over the dataset, one scale for all dimensions) and take
            that back into the weights at the end, so that the summarizer takes the features as they are. Unit-norm
            features of real videos are nearly one vector, and CSTA learns little from them otherwise
            (docs/training.md). It needs a summarizer with ``fold_inputs``, as the built-in ones have, and is for
            weights that have not been trained on features as they are.
        checkpoint_seconds: Least time between two checkpoints; 0 writes one after every step.
        num_workers: Worker processes that read the dataset.
        worker_timeout: Seconds to wait for a worker's batch before the run ends and names its videos; 0 waits for ever.
        progress: Show a progress bar with the loss, the bound on mutual information and the keep ratio.
        tensorboard: Write event files to ``tensorboard/`` in the folder too.
        config: More to record in ``config.json``.

    Returns:
        Number of steps, the last metrics and the folder.

    Raises:
        ValueError: If an option is out of its range, there are fewer than 2 videos, nothing can be trained, or there
            are more processes than videos in a batch.
        TypeError: If ``standardize`` is asked of a summarizer that cannot take it into its weights.
        ImportError: If ``tensorboard`` is asked for and not installed.
        FileExistsError: If ``out_dir`` is not empty and ``resume`` is false.
        CheckpointError: If the checkpoint is not one, or is of a run with other settings; if ``resume`` is true
            and ``out_dir`` holds files but no checkpoint.
        FloatingPointError: If the loss or its gradient is not finite; weights and checkpoint are those before it.
        TimeoutError: If a worker does not bring its batch in time.
    """
    if epochs < 1 or batch_size < 2 or warmup_steps < 0:
        raise ValueError(
            "expected epochs >= 1, batch_size >= 2 and warmup_steps >= 0, got "
            f"{epochs}, {batch_size} and {warmup_steps}"
        )
    if tensorboard and out_dir is None:
        raise ValueError("tensorboard=True writes into the folder of the run: give out_dir too")
    if len(dataset) < 2:
        raise ValueError(f"pretraining compares videos with each other: expected at least 2, got {len(dataset)}")
    settings = Settings(
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        clip_grad_norm=clip_grad_norm,
        warmup_steps=warmup_steps,
        seed=seed,
        precision=precision,
        schedule=schedule,
        ema_decay=ema_decay,
        bucket_by_length=bucket_by_length,
    )
    loop = _PretrainLoop(pretrainer, dataset, settings, standardize, num_workers, worker_timeout)
    folder = None if out_dir is None else Path(out_dir)
    try:
        metrics = loop.execute(
            epochs,
            folder,
            resume=resume,
            config={"pretrainer_seed": pretrainer.noise.seed, **(config or {})},
            checkpoint_seconds=checkpoint_seconds,
            progress=progress,
            tensorboard=tensorboard,
        )
    finally:
        loop.take_inputs_as_they_are()
    return PretrainResult(loop.step, metrics, folder)


class _PretrainLoop(Loop):
    kind = "pretrain"

    def __init__(
        self,
        pretrainer: ViSPPretrainer,
        dataset: FrameFeatures,
        settings: Settings,
        standardize: bool,
        num_workers: int,
        worker_timeout: float,
    ) -> None:
        names = list(dataset.names) if isinstance(dataset, VideoSource) else [str(i) for i in range(len(dataset))]
        lengths = list(dataset.lengths) if isinstance(dataset, VideoSource) else []
        fingerprint = {
            "num_videos": len(dataset),
            "videos": digest([names, lengths]),
            "standardize": standardize,
            **pretrainer.describe(),
        }
        self.change: Standardization | None = None
        if standardize:
            require_folds_inputs(own_module(pretrainer.summarizer))
            self.change = standardization(dataset)
            dataset = StandardizedVideos(dataset, self.change)
        self.changed = False  # whether the weights are those for standardized features
        super().__init__(
            pretrainer,
            dataset,
            names,
            settings,
            fingerprint,
            num_workers,
            worker_timeout=worker_timeout,
            lengths=lengths or None,
            together=pretrainer.gather,
        )
        self.pretrainer = pretrainer
        self.watch = CollapseWatch()

    def _loss(self, batch: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        self.changed = self.change is not None
        output: ViSPOutput = self.pretrainer(batch)
        return output.loss, output._asdict()

    def _finish(self) -> None:
        self.changed = self.change is not None
        self.take_inputs_as_they_are()

    def take_inputs_as_they_are(self) -> None:
        """Take the standardization back into the weights, once."""
        if self.changed and self.change is not None:
            summarizer = require_folds_inputs(own_module(self.pretrainer.summarizer))
            summarizer.fold_inputs(*(value.to(self.device) for value in self.change))
        self.changed, self.change = False, None

    def _reviewed(self, metrics: dict[str, float]) -> dict[str, float]:
        if self.rank == 0:
            self.watch.update(metrics)
        return metrics

    def _postfix(self, metrics: Mapping[str, float]) -> dict[str, str]:
        return {
            "loss": f"{metrics['loss']:.3f}",
            "MI": f"{metrics['mi_lower_bound']:.2f}/{metrics['mi_ceiling']:.2f}",
            "keep": f"{metrics['keep_ratio']:.2f}",
        }

    def _final_weights(self) -> dict[str, Tensor]:
        return own_state_dict(self.pretrainer.summarizer)
