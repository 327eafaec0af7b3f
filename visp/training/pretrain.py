"""The pretraining loop: progress, metrics, checkpoints that are always whole, exact resume."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from visp.data import VideoSource, collate_videos
from visp.pretrainer import ViSPOutput, ViSPPretrainer
from visp.training import checkpoint
from visp.training.watch import CollapseWatch

Precision = Literal["float32", "bf16", "fp16"]

_AUTOCAST = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class FrameFeatures(Protocol):
    """What the loop needs of a dataset: item i is the frames (T_i, ...) of video i."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Tensor: ...


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
    checkpoint_seconds: float = 60.0,
    num_workers: int = 0,
    progress: bool = True,
    config: Mapping[str, Any] | None = None,
) -> PretrainResult:
    """Pretrain a summarizer with Adam; it is trained in place.

    The folder then holds ``config.json``, ``metrics.jsonl`` (one object a step), ``checkpoint.pt`` and, at the
    end, ``weights.pt``: the summarizer's own state dict. A run that was killed at any moment goes on from its
    last checkpoint with ``resume=True`` and ends with the weights of an uninterrupted run, bit for bit, on the
    same machine.

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
        checkpoint_seconds: Least time between two checkpoints; 0 writes one after every step.
        num_workers: Worker processes that read the dataset.
        progress: Show a progress bar with the loss, the bound on mutual information and the keep ratio.
        config: More to record in ``config.json``.

    Returns:
        Number of steps, the last metrics and the folder.

    Raises:
        ValueError: If an option is out of its range, there are fewer than 2 videos, or nothing can be trained.
        FileExistsError: If ``out_dir`` is not empty and ``resume`` is false.
        CheckpointError: If the checkpoint is not one, or is of a run with other settings; if ``resume`` is true
            and ``out_dir`` holds files but no checkpoint.
        FloatingPointError: If the loss or its gradient is not finite; weights and checkpoint are those before it.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
    if epochs < 1 or batch_size < 2 or warmup_steps < 0:
        raise ValueError(
            "expected epochs >= 1, batch_size >= 2 and warmup_steps >= 0, got "
            f"{epochs}, {batch_size} and {warmup_steps}"
        )
    if len(dataset) < 2:
        raise ValueError(f"pretraining compares videos with each other: expected at least 2, got {len(dataset)}")
    settings = _Settings(
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        clip_grad_norm=clip_grad_norm,
        warmup_steps=warmup_steps,
        seed=seed,
        precision=precision,
    )
    run = _Run(pretrainer, dataset, settings, num_workers)
    folder = None if out_dir is None else _prepare_folder(Path(out_dir), resume)
    device_indices = [run.device.index or 0] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices=device_indices):
        torch.manual_seed(seed)
        if folder is not None:
            run.restore(folder)
            recorded = {"epochs": epochs, **run.fingerprint, "pretrainer_seed": pretrainer.seed, **(config or {})}
            with checkpoint.replacing(folder / "config.json") as file:
                file.write((json.dumps(recorded, indent=2, default=str) + "\n").encode())
        return run.run(epochs, folder, checkpoint_seconds, progress)


@dataclass(frozen=True)
class _Settings:
    """What must not change when a run is resumed, beside the videos and the models."""

    batch_size: int
    lr: float
    weight_decay: float
    clip_grad_norm: float | None
    warmup_steps: int
    seed: int
    precision: Precision


class _Run:
    """The state of a run and how it moves, saves and comes back."""

    def __init__(
        self, pretrainer: ViSPPretrainer, dataset: FrameFeatures, settings: _Settings, num_workers: int
    ) -> None:
        self.pretrainer = pretrainer
        self.dataset = dataset
        self.settings = settings
        self.num_workers = num_workers
        self.names = list(dataset.names) if isinstance(dataset, VideoSource) else [str(i) for i in range(len(dataset))]
        lengths = dataset.lengths if isinstance(dataset, VideoSource) else []
        self.fingerprint: dict[str, Any] = {
            "num_videos": len(dataset),
            "videos": hashlib.sha256(json.dumps([self.names, list(lengths)]).encode()).hexdigest(),
            **pretrainer.describe(),
            **asdict(settings),
        }
        self.parameters = [parameter for parameter in pretrainer.parameters() if parameter.requires_grad]
        if not self.parameters:
            raise ValueError("there is nothing to train: no parameter of the pretrainer requires a gradient")
        self.device = self.parameters[0].device
        self.optimizer = torch.optim.Adam(self.parameters, lr=settings.lr, weight_decay=settings.weight_decay)
        self.autocast_dtype = _AUTOCAST[settings.precision]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        self.num_batches = math.ceil(len(dataset) / settings.batch_size)
        self.step = 0

    def run(self, epochs: int, folder: Path | None, checkpoint_seconds: float, progress: bool) -> PretrainResult:
        total = epochs * self.num_batches
        watch = CollapseWatch()
        metrics: dict[str, float] = {}
        modes = [(module, module.training) for module in self.pretrainer.modules()]
        self.pretrainer.train()
        log = None if folder is None else _open_metrics(folder / "metrics.jsonl", self.step)
        saved_at = time.monotonic()
        bar = tqdm(total=total, initial=self.step, unit="step", disable=not progress, dynamic_ncols=True)
        try:
            for indices, videos in self._batches(total):
                metrics = self._train_step(indices, videos)
                if log is not None:
                    log.write(json.dumps(metrics) + "\n")
                    log.flush()
                watch.update(metrics)
                bar.set_postfix(
                    loss=f"{metrics['loss']:.3f}",
                    MI=f"{metrics['mi_lower_bound']:.2f}/{math.log(metrics['num_videos']):.2f}",
                    keep=f"{metrics['keep_ratio']:.2f}",
                    refresh=False,
                )
                bar.update()
                if folder is not None and time.monotonic() - saved_at >= checkpoint_seconds:
                    self.save(folder)
                    saved_at = time.monotonic()
            if folder is not None:
                self.save(folder)
                checkpoint.save(checkpoint.own_state_dict(self.pretrainer.summarizer), folder / "weights.pt")
        finally:
            bar.close()
            if log is not None:
                log.close()
            self.optimizer.zero_grad()  # a loop of the user's own must not start on our last gradient
            for module, was_training in modes:
                module.training = was_training
        return PretrainResult(self.step, metrics, folder)

    def _train_step(self, indices: Sequence[int], videos: Sequence[Tensor]) -> dict[str, float]:
        videos = [frames.to(self.device, non_blocking=True) for frames in videos]
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None):
            output: ViSPOutput = self.pretrainer(videos)
        self._require_finite("loss", output.loss, indices)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * min(1.0, (self.step + 1) / max(1, self.settings.warmup_steps))
        self.scaler.scale(output.loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        largest = math.inf if self.settings.clip_grad_norm is None else self.settings.clip_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, largest)
        if not self.scaler.is_enabled():  # the scaler skips such a step and lowers its scale
            self._require_finite("gradient's norm", norm, indices)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        values = torch.stack([value.detach().to(self.device, torch.float32) for value in output]).tolist()
        return {
            "step": self.step,
            "epoch": (self.step - 1) // self.num_batches + 1,
            "num_videos": len(videos),
            **dict(zip(ViSPOutput._fields, values, strict=True)),
        }

    def _require_finite(self, what: str, value: Tensor, indices: Sequence[int]) -> None:
        if not math.isfinite(float(value.detach())):
            names = ", ".join(self.names[index] for index in indices)
            raise FloatingPointError(
                f"the {what} of step {self.step + 1} is {float(value.detach())}; the weights are those before "
                f"it. Its videos: {names}. Lower the learning rate, or look at these videos' features"
            )

    def _batches(self, total: int) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Yield the batches from the current step on; the order depends on seed and epoch alone."""
        while self.step < total:
            epoch, first = divmod(self.step, self.num_batches)
            key = np.random.SeedSequence((self.settings.seed, epoch)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(key[0]))
            order = torch.randperm(len(self.dataset), generator=generator)
            batches = [part.tolist() for part in order.tensor_split(self.num_batches)][first:]
            loader = DataLoader(
                cast("Dataset[Tensor]", self.dataset),
                batch_sampler=batches,
                collate_fn=collate_videos,
                num_workers=self.num_workers,
                pin_memory=self.device.type == "cuda",
                generator=generator,  # its own, so that loading draws nothing from dropout's noise
            )
            yield from zip(batches, loader, strict=True)

    def save(self, folder: Path) -> None:
        state = {
            "format": "visp-pretrain-1",
            "step": self.step,
            "fingerprint": self.fingerprint,
            "pretrainer": self.pretrainer.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        checkpoint.save(state, folder / "checkpoint.pt")

    def restore(self, folder: Path) -> None:
        """Go on from the folder's checkpoint, or write the first one."""
        path = folder / "checkpoint.pt"
        if not path.exists():
            self.save(folder)
            return
        state = checkpoint.load(path, map_location=self.device)
        if state.get("format") != "visp-pretrain-1":
            raise checkpoint.CheckpointError(f"{path} is not a checkpoint of a pretraining run")
        differences = [
            f"{name} was {state['fingerprint'].get(name)!r} and is {value!r}"
            for name, value in self.fingerprint.items()
            if state["fingerprint"].get(name) != value
        ]
        if differences:
            raise checkpoint.CheckpointError(f"{path} is of a run with other settings: {'; '.join(differences)}")
        try:
            self.pretrainer.load_state_dict(state["pretrainer"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise checkpoint.CheckpointError(f"{path} is of another model: {error}") from error
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)
        self.step = state["step"]


def _prepare_folder(folder: Path, resume: bool) -> Path:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, expected a folder for the run")
    if folder.exists() and any(folder.iterdir()) and not resume:
        raise FileExistsError(f"{folder} is not empty; resume the run in it, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for unfinished in folder.glob(".*.pt.*"):  # of a run that was killed while it saved
        unfinished.unlink()
    if resume and any(folder.iterdir()) and not (folder / "checkpoint.pt").exists():
        raise checkpoint.CheckpointError(f"{folder} is not empty and holds no checkpoint.pt to resume from")
    return folder


def _open_metrics(path: Path, step: int) -> Any:
    """Open the metrics for appending, without the lines of steps after the checkpoint."""
    lines = path.read_text().splitlines(keepends=True)[:step] if path.exists() else []
    with checkpoint.replacing(path) as file:
        file.write("".join(lines).encode())
    return path.open("a")
