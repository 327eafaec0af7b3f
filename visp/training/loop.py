"""What every training run shares: steps, progress, metrics, checkpoints that are always whole, exact resume."""

from __future__ import annotations

import hashlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from visp.data import collate_videos
from visp.training import checkpoint

Precision = Literal["float32", "bf16", "fp16"]

_AUTOCAST = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """How the weights move; none of it may change when a run is resumed.

    Raises:
        ValueError: If a setting is out of its range.
    """

    batch_size: int
    lr: float
    weight_decay: float
    clip_grad_norm: float | None
    warmup_steps: int
    seed: int
    precision: Precision

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {self.precision!r}")


class Items(Protocol):
    """What a run learns from: item i is one tensor, or a tuple of tensors."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class Loop(ABC):
    """The state of a run and how it moves, saves and comes back.

    Args:
        module: What is trained, on the device to train on; its whole state is in the checkpoint.
        items: What is learnt from.
        names: A name for each item, for messages.
        settings: How the weights move.
        fingerprint: What else must not change when the run is resumed.
        num_workers: Worker processes that read the items.

    Raises:
        ValueError: If no parameter requires a gradient.
    """

    kind: str
    """What the run does, in the checkpoint's format and in messages."""

    def __init__(
        self,
        module: nn.Module,
        items: Items,
        names: Sequence[str],
        settings: Settings,
        fingerprint: Mapping[str, Any],
        num_workers: int,
    ) -> None:
        self.module = module
        self.items = items
        self.names = list(names)
        self.settings = settings
        self.num_workers = num_workers
        self.fingerprint: dict[str, Any] = {**fingerprint, **asdict(settings)}
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if not self.parameters:
            raise ValueError(f"there is nothing to train: no parameter of the {self.kind} run requires a gradient")
        self.device = self.parameters[0].device
        self.optimizer = torch.optim.Adam(self.parameters, lr=settings.lr, weight_decay=settings.weight_decay)
        self.autocast_dtype = _AUTOCAST[settings.precision]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        self.num_batches = math.ceil(len(items) / settings.batch_size)
        self.step = 0
        self.extra: dict[str, Any] = {}  # what else of a subclass belongs into the checkpoint

    @abstractmethod
    def _loss(self, batch: list[Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch on the device, and what else to log of it (the loss included)."""

    @abstractmethod
    def _postfix(self, metrics: Mapping[str, float]) -> dict[str, str]:
        """Return what the progress bar shows."""

    @abstractmethod
    def _final_weights(self) -> dict[str, Tensor]:
        """Return the state dict for ``weights.pt``."""

    def _reviewed(self, metrics: dict[str, float]) -> dict[str, float]:
        """Look at a step's metrics before they are written, and return them, maybe with more."""
        return metrics

    def _finish(self) -> None:
        """Put the weights to keep into the module; the checkpoint holds those of the last step."""
        return

    def execute(
        self,
        epochs: int,
        folder: Path | None,
        *,
        resume: bool,
        config: Mapping[str, Any],
        checkpoint_seconds: float,
        progress: bool,
    ) -> dict[str, float]:
        """Run, or go on, to the end of the last epoch, and return the metrics of the last step.

        The random state of the caller is left as it was.
        """
        folder = None if folder is None else prepare_folder(folder, resume)
        device_indices = [self.device.index or 0] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=device_indices):
            torch.manual_seed(self.settings.seed)
            if folder is not None:
                self._restore(folder)
                write_json(folder / "config.json", {"epochs": epochs, **self.fingerprint, **config})
            return self._run(epochs, folder, checkpoint_seconds, progress)

    def _run(self, epochs: int, folder: Path | None, checkpoint_seconds: float, progress: bool) -> dict[str, float]:
        total = epochs * self.num_batches
        metrics: dict[str, float] = {}
        modes = [(module, module.training) for module in self.module.modules()]
        self.module.train()
        log = None if folder is None else _open_metrics(folder / "metrics.jsonl", self.step)
        saved_at = time.monotonic()
        bar = tqdm(
            total=total, initial=self.step, unit="step", desc=self.kind, disable=not progress, dynamic_ncols=True
        )
        try:
            for indices, batch in self._batches(total):
                metrics = self._reviewed(self._train_step(indices, batch))
                if log is not None:
                    log.write(json.dumps(metrics) + "\n")
                    log.flush()
                bar.set_postfix(self._postfix(metrics), refresh=False)
                bar.update()
                if folder is not None and time.monotonic() - saved_at >= checkpoint_seconds:
                    self._save(folder)
                    saved_at = time.monotonic()
            if folder is not None:
                self._save(folder)
            self._finish()
            if folder is not None:
                checkpoint.save(self._final_weights(), folder / "weights.pt")
        finally:
            bar.close()
            if log is not None:
                log.close()
            self.optimizer.zero_grad()  # a loop of the user's own must not start on our last gradient
            for module, was_training in modes:
                module.training = was_training
        return metrics

    def _train_step(self, indices: Sequence[int], batch: Sequence[Any]) -> dict[str, float]:
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None):
            loss, logged = self._loss([_to(item, self.device) for item in batch])
        self._require_finite("loss", loss, indices)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * min(1.0, (self.step + 1) / max(1, self.settings.warmup_steps))
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        largest = math.inf if self.settings.clip_grad_norm is None else self.settings.clip_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, largest)
        if not self.scaler.is_enabled():  # the scaler skips such a step and lowers its scale
            self._require_finite("gradient's norm", norm, indices)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        values = torch.stack([value.detach().to(self.device, torch.float32) for value in logged.values()]).tolist()
        return {
            "step": self.step,
            "epoch": (self.step - 1) // self.num_batches + 1,
            "num_videos": len(batch),
            **dict(zip(logged, values, strict=True)),
        }

    def _require_finite(self, what: str, value: Tensor, indices: Sequence[int]) -> None:
        if not math.isfinite(float(value.detach())):
            names = ", ".join(self.names[index] for index in indices)
            raise FloatingPointError(
                f"the {what} of step {self.step + 1} is {float(value.detach())}; the weights are those before "
                f"it. Its videos: {names}. Lower the learning rate, or look at these videos' features"
            )

    def _batches(self, total: int) -> Iterator[tuple[list[int], list[Any]]]:
        """Yield the batches from the current step on; the order depends on seed and epoch alone."""
        while self.step < total:
            epoch, first = divmod(self.step, self.num_batches)
            key = np.random.SeedSequence((self.settings.seed, epoch)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(key[0]))
            order = torch.randperm(len(self.items), generator=generator)
            batches = [part.tolist() for part in order.tensor_split(self.num_batches)][first:]
            loader = DataLoader(
                cast("Dataset[Any]", self.items),
                batch_sampler=batches,
                collate_fn=collate_videos,
                num_workers=self.num_workers,
                pin_memory=self.device.type == "cuda",
                generator=generator,  # its own, so that loading draws nothing from dropout's noise
            )
            yield from zip(batches, loader, strict=True)

    @property
    def _format(self) -> str:
        return f"visp-{self.kind}-1"

    def _save(self, folder: Path) -> None:
        state = {
            "format": self._format,
            "step": self.step,
            "fingerprint": self.fingerprint,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "extra": self.extra,
        }
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        checkpoint.save(state, folder / "checkpoint.pt")

    def _restore(self, folder: Path) -> None:
        """Go on from the folder's checkpoint, or write the first one."""
        path = folder / "checkpoint.pt"
        if not path.exists():
            self._save(folder)
            return
        state = checkpoint.load(path, map_location=self.device)
        if state.get("format") != self._format:
            raise checkpoint.CheckpointError(f"{path} is not a checkpoint of a {self.kind} run")
        differences = [
            f"{name} was {state['fingerprint'].get(name)!r} and is {value!r}"
            for name, value in self.fingerprint.items()
            if state["fingerprint"].get(name) != value
        ]
        if differences:
            raise checkpoint.CheckpointError(f"{path} is of a run with other settings: {'; '.join(differences)}")
        try:
            self.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise checkpoint.CheckpointError(f"{path} is of another model: {error}") from error
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)
        self.step = state["step"]
        self.extra = state["extra"]


def digest(value: object) -> str:
    """Return a short text that changes with the value, for what is too long to show (names, lengths)."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON, under a temporary name that is then renamed."""
    with checkpoint.replacing(path) as file:
        file.write((json.dumps(value, indent=2, default=str) + "\n").encode())


def prepare_folder(folder: Path, resume: bool) -> Path:
    """Make the folder of a run, or check that it can be gone on with.

    Raises:
        FileExistsError: If it is a file, or is not empty and ``resume`` is false.
        CheckpointError: If ``resume`` is true and it holds files but no checkpoint.
    """
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


def _to(item: Any, device: torch.device) -> Any:
    if isinstance(item, Tensor):
        return item.to(device, non_blocking=True)
    return tuple(_to(part, device) for part in item)
