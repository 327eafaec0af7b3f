"""The pretraining loop: progress, metrics, checkpoints that are always whole, exact resume."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    lr: float = 5e-4,
    weight_decay: float = 0.0,
    clip_grad_norm: float | None = 1.0,
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
        ValueError: If an option is out of its range or there are fewer than 2 videos.
        FileExistsError: If ``out_dir`` is not empty and ``resume`` is false.
        CheckpointError: If the checkpoint is not one, or is of a run with other settings.
        FloatingPointError: If the loss is not finite; weights and checkpoint are those before that step.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
    if epochs < 1 or batch_size < 2:
        raise ValueError(f"expected epochs >= 1 and batch_size >= 2, got {epochs} and {batch_size}")
    if len(dataset) < 2:
        raise ValueError(f"pretraining compares videos with each other: expected at least 2, got {len(dataset)}")
    run = _Run(pretrainer, dataset, batch_size, lr, weight_decay, clip_grad_norm, seed, precision, num_workers)
    folder = None
    if out_dir is not None:
        settings = {
            "epochs": epochs,
            **run.fingerprint,
            "weight_decay": weight_decay,
            "clip_grad_norm": clip_grad_norm,
            "pretrainer_seed": pretrainer.seed,
            **(config or {}),
        }
        folder = _prepare_folder(Path(out_dir), resume, settings)
    device_indices = [run.device.index or 0] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices=device_indices):
        torch.manual_seed(seed)
        if folder is not None:
            run.restore(folder)
        return run.run(epochs, folder, checkpoint_seconds, progress)


class _Run:
    """The state of a run and how it moves, saves and comes back."""

    def __init__(
        self,
        pretrainer: ViSPPretrainer,
        dataset: FrameFeatures,
        batch_size: int,
        lr: float,
        weight_decay: float,
        clip_grad_norm: float | None,
        seed: int,
        precision: Precision,
        num_workers: int,
    ) -> None:
        self.pretrainer = pretrainer
        self.dataset = dataset
        self.names = list(dataset.names) if isinstance(dataset, VideoSource) else [str(i) for i in range(len(dataset))]
        self.parameters = [parameter for parameter in pretrainer.parameters() if parameter.requires_grad]
        self.device = self.parameters[0].device
        self.optimizer = torch.optim.Adam(self.parameters, lr=lr, weight_decay=weight_decay)
        self.autocast_dtype = _AUTOCAST[precision]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.clip_grad_norm = clip_grad_norm
        self.seed = seed
        self.num_workers = num_workers
        self.num_batches = math.ceil(len(dataset) / batch_size)
        self.step = 0
        self.fingerprint: dict[str, Any] = {
            "num_videos": len(dataset),
            "batch_size": batch_size,
            "lr": lr,
            "seed": seed,
            "precision": precision,
        }

    def run(self, epochs: int, folder: Path | None, checkpoint_seconds: float, progress: bool) -> PretrainResult:
        total = epochs * self.num_batches
        watch = CollapseWatch()
        metrics: dict[str, float] = {}
        was_training = self.pretrainer.training
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
            self.pretrainer.train(was_training)
        return PretrainResult(self.step, metrics, folder)

    def _train_step(self, indices: Sequence[int], videos: Sequence[Tensor]) -> dict[str, float]:
        videos = [frames.to(self.device, non_blocking=True) for frames in videos]
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None):
            output: ViSPOutput = self.pretrainer(videos)
        names = ", ".join(self.names[index] for index in indices)
        if not math.isfinite(float(output.loss.detach())):
            raise FloatingPointError(
                f"the loss of step {self.step + 1} is {float(output.loss.detach())}; the weights are those before "
                f"it. Its videos: {names}. Lower the learning rate, or look at these videos' features"
            )
        self.scaler.scale(output.loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        if self.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_grad_norm)
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

    def _batches(self, total: int) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Yield the batches from the current step on; the order depends on seed and epoch alone."""
        while self.step < total:
            epoch, first = divmod(self.step, self.num_batches)
            key = np.random.SeedSequence((self.seed, epoch)).generate_state(1, np.uint64)
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
        except RuntimeError as error:
            raise checkpoint.CheckpointError(f"{path} is of another model: {error}") from error
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)
        self.step = state["step"]


def _prepare_folder(folder: Path, resume: bool, settings: Mapping[str, Any]) -> Path:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, expected a folder for the run")
    if folder.exists() and any(folder.iterdir()) and not resume:
        raise FileExistsError(f"{folder} is not empty; resume the run in it, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.json").exists():
        with checkpoint.replacing(folder / "config.json") as file:
            file.write((json.dumps(settings, indent=2, default=str) + "\n").encode())
    return folder


def _open_metrics(path: Path, step: int) -> Any:
    """Open the metrics for appending, without the lines of steps after the checkpoint."""
    lines = path.read_text().splitlines(keepends=True)[:step] if path.exists() else []
    with checkpoint.replacing(path) as file:
        file.write("".join(lines).encode())
    return path.open("a")
