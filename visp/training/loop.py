"""What every training run shares: steps, progress, metrics, checkpoints that are always whole, exact resume."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from visp.data import collate_videos
from visp.data.sampling import epoch_batches
from visp.training.arriving import Arriving
from visp.training.interruption import Interruption, leave_signals_alone
from visp.training.metrics_log import MetricsLog, summary_writer
from visp.training.run_folder import prepare_folder, write_json
from visp.training.settings import Settings
from visp.utils import distributed
from visp.utils.distributed import num_processes, rank
from visp.weights import CheckpointError, load_state, save_state

_Result = TypeVar("_Result")

_NORM = "gradient's norm"
_AUTOCAST = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

STEPS_BEHIND = {"cuda": 1}
"""How many steps later the host looks at a step's numbers, by type of device: it need not wait for a GPU then."""


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
        worker_timeout: Seconds to wait for a worker's batch; 0 waits for ever.
        lengths: Number of frames of each item, for batches of similar length.
        together: Whether several processes train one module, each on its part of every batch. The loss must then be
            that of the whole batch. Without, this process trains for itself.

    Raises:
        ValueError: If no parameter requires a gradient, there are no lengths to make batches by, or there are more
            processes than items in a batch.
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
        *,
        worker_timeout: float = 0.0,
        lengths: Sequence[int] | None = None,
        together: bool = False,
    ) -> None:
        self.module = module
        self.items = items
        self.names = list(names)
        self.settings = settings
        self.num_workers = num_workers
        self.worker_timeout = worker_timeout if num_workers else 0.0
        if settings.bucket_by_length and lengths is None:
            raise ValueError("bucket_by_length needs a dataset with the `lengths` of its videos")
        self.lengths = lengths if settings.bucket_by_length else None
        self.fingerprint: dict[str, Any] = {**fingerprint, **asdict(settings)}
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        if not self.parameters:
            raise ValueError(f"there is nothing to train: no parameter of the {self.kind} run requires a gradient")
        self.device = self.parameters[0].device
        self.rank, self.num_processes = (rank(), num_processes()) if together else (0, 1)
        # Several processes wait for each other in every step, so there is nothing to gain.
        self.behind = STEPS_BEHIND.get(self.device.type, 0) if self.num_processes == 1 else 0
        self.optimizer = torch.optim.Adam(
            self.parameters,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=self._fused,
        )
        self.autocast_dtype = _AUTOCAST[settings.precision]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        self.num_batches = math.ceil(len(items) / settings.batch_size)
        if len(items) // self.num_batches < self.num_processes:
            raise ValueError(
                f"{self.num_processes} processes need as many videos in every batch, and the smallest has "
                f"{len(items) // self.num_batches}; raise batch_size or start fewer processes"
            )
        self.averages = [parameter.detach().clone() for parameter in self.parameters] if settings.ema_decay else []
        self.step = 0
        self.extra: dict[str, Any] = {}  # what else of a subclass belongs into the checkpoint
        self._arriving: deque[Arriving] = deque()
        self._sound = torch.ones((), device=self.device)  # NaN once a step was not finite, which spoils all after it

    @property
    def _fused(self) -> bool | None:
        return True if self.behind else None  # fused, it can skip a step without asking the host

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

    def _needs_weights(self) -> bool:
        """Return whether the review of the step that was just done needs the weights as they are now."""
        return False

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
        tensorboard: bool = False,
    ) -> dict[str, float]:
        """Run, or go on, to the end of the last epoch, and return the metrics of the last step.

        The random state of the caller is left as it was. Ctrl-C and SIGTERM wait for the end of a step and leave a
        checkpoint. Of several processes, the first writes.
        """
        if tensorboard:
            summary_writer()  # refused before anything is written
        num_steps = epochs * self.num_batches
        if self.settings.schedule == "cosine":
            self.fingerprint["epochs"] = epochs  # the end of the run is what the learning rate falls to
        device_indices = [self.device.index or 0] if self.device.type == "cuda" else []
        log = None
        if self.num_processes > 1:
            distributed.share_state(self.module)
        with torch.random.fork_rng(devices=device_indices):
            if folder is not None:
                self._by_first(lambda: prepare_folder(folder, resume))
                self._restore(folder)
                if self.rank == 0:
                    processes = {"num_processes": self.num_processes}
                    write_json(folder / "config.json", {"epochs": epochs, **self.fingerprint, **processes, **config})
                    log = MetricsLog(folder, self.step, tensorboard=tensorboard)
            hidden = not progress or self.rank != 0
            with tqdm(
                total=num_steps,
                initial=self.step,
                unit="step",
                desc=self.kind,
                disable=hidden,
                dynamic_ncols=True,
                leave=None,  # unless it runs below the bar of a cross-validation
            ) as bar:
                return self._run(num_steps, folder, checkpoint_seconds, log, bar)

    def _run(
        self, num_steps: int, folder: Path | None, checkpoint_seconds: float, log: MetricsLog | None, bar: Any
    ) -> dict[str, float]:
        metrics: dict[str, float] = {}

        def look(behind: int = 0) -> None:
            """Take in what the steps gave, but for the last few, which a device may still be at."""
            nonlocal metrics
            while len(self._arriving) > behind:
                metrics = self._reviewed(self._read(self._arriving.popleft()))
                if log is not None:
                    log.write(metrics)
                bar.set_postfix(self._postfix(metrics), refresh=False)
                bar.update()

        modes = [(module, module.training) for module in self.module.modules()]
        self.module.train()
        saved_at = time.monotonic()
        interruption = Interruption(None if self.num_processes == 1 else self._agree)
        try:
            try:
                with interruption:
                    for indices, batch in self._batches(num_steps):
                        with interruption.step():
                            self._train_step(indices, batch, num_steps)
                            due = self.step == num_steps or time.monotonic() - saved_at >= checkpoint_seconds
                            look(0 if due or self._needs_weights() else self.behind)
                        if due:
                            self._save(folder)
                            saved_at = time.monotonic()
            except (KeyboardInterrupt, SystemExit):
                if not interruption.torn:
                    look()
                    self._save(folder)
                raise
            except Exception as error:
                if not isinstance(error, FloatingPointError):
                    look()  # an earlier step that was not finite comes first
                raise
            if self.num_processes > 1:
                distributed.share_state(self.module)  # running statistics are each process's own
            self._keep_averages()
            self._finish()
            if folder is not None:
                self._by_first(lambda: save_state(self._final_weights(), folder / "weights.pt"))
        finally:
            if log is not None:
                log.close()
            self.optimizer.zero_grad()  # a loop of the user's own must not start on our last gradient
            for module, was_training in modes:
                module.training = was_training
        return metrics

    def _agree(self, number: int) -> int:
        return distributed.largest(number, self.device)

    def _by_first(self, function: Callable[[], _Result]) -> _Result:
        return function() if self.num_processes == 1 else distributed.by_first(function, self.device)

    def _keep_averages(self) -> None:
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.averages, strict=bool(self.averages)):
                parameter.copy_(average)

    def _update_averages(self) -> None:
        if self.settings.ema_decay is not None:
            decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))  # the first weights fade sooner
            for parameter, average in zip(self.parameters, self.averages, strict=True):
                average.lerp_(parameter.detach(), 1 - decay)

    def _train_step(self, indices: Sequence[int], batch: Sequence[Any], num_steps: int) -> None:
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None):
            try:
                loss, logged = self._loss([_to(item, self.device) for item in batch])
            except FloatingPointError as error:
                raise FloatingPointError(
                    f"step {self.step + 1}: {error}; the weights are those before it. Its videos: "
                    f"{', '.join(self.names[i] for i in indices)}."
                ) from error
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(self.step, num_steps)
        if self.behind:
            self._keep_sound(loss.detach())
        self.scaler.scale(loss * self._sound).backward()  # type: ignore[no-untyped-call]
        if self.num_processes > 1:
            distributed.average_gradients(self.parameters)
        self.scaler.unscale_(self.optimizer)
        largest = math.inf if self.settings.clip_grad_norm is None else self.settings.clip_grad_norm
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, largest)
        values = {**logged, "loss": loss, _NORM: norm}
        arriving = Arriving(self.step + 1, [self.names[i] for i in indices], values, self.device)
        if not self.behind:
            self._require_finite(arriving)
        elif not self.scaler.is_enabled():
            self._keep_sound(norm)
            self.optimizer.found_inf = self._sound.isnan().float()  # type: ignore[attr-defined]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self._arriving.append(arriving)
        self._update_averages()

    def _keep_sound(self, value: Tensor) -> None:
        """Have the optimizer leave the weights as they are, from this step on, if a value is not finite."""
        self._sound = torch.where(value.isfinite(), self._sound, torch.nan)

    def _require_finite(self, arriving: Arriving) -> None:
        # The scaler skips a step whose gradient is not finite, lowers its scale and goes on.
        arriving.require_finite("loss", *(() if self.scaler.is_enabled() else (_NORM,)))

    def _read(self, arriving: Arriving) -> dict[str, float]:
        if self.behind:  # or it was looked at before the update
            self._require_finite(arriving)
        values = arriving.read()
        del values[_NORM]
        return {
            "step": arriving.step,
            "epoch": (arriving.step - 1) // self.num_batches + 1,
            "num_videos": len(arriving.videos),
            **values,
        }

    def _batches(self, num_steps: int) -> Iterator[tuple[list[int], list[Any]]]:
        """Yield the batches from the current step on, and of each the items that are this process's part.

        The order depends on seed and epoch alone.
        """
        while self.step < num_steps:
            epoch, first = divmod(self.step, self.num_batches)
            generator = torch.Generator().manual_seed(_key((self.settings.seed, epoch)))
            batches = epoch_batches(len(self.items), self.num_batches, generator, lengths=self.lengths)[first:]
            parts = [np.array_split(batch, self.num_processes)[self.rank].tolist() for batch in batches]
            loader = DataLoader(
                cast("Dataset[Any]", self.items),
                batch_sampler=parts,
                collate_fn=collate_videos,
                num_workers=self.num_workers,
                timeout=self.worker_timeout,
                worker_init_fn=leave_signals_alone,
                pin_memory=self.device.type == "cuda",
                generator=generator,  # its own, so that loading draws nothing from dropout's noise
            )
            loaded = iter(loader)
            for indices, part in zip(batches, parts, strict=True):
                # Dropout's noise is keyed by step and process: a resumed run needs no random state of an earlier one.
                torch.manual_seed(_key((self.settings.seed, self.step, self.rank), purpose=1))
                yield indices, self._next(loaded, part)

    def _next(self, loaded: Iterator[list[Any]], part: Sequence[int]) -> list[Any]:
        try:
            return next(loaded)
        except RuntimeError as error:
            if "DataLoader timed out" not in str(error):
                raise
            names = ", ".join(self.names[index] for index in part)
            raise TimeoutError(
                f"no worker has brought the batch of step {self.step + 1} within {self.worker_timeout:g} seconds; "
                f"its videos: {names}. Look at their files, or raise worker_timeout"
            ) from error

    @property
    def _format(self) -> str:
        return f"visp-{self.kind}-1"

    def _save(self, folder: Path | None) -> None:
        if folder is None or self.rank != 0:
            return
        state = {
            "format": self._format,
            "step": self.step,
            "fingerprint": self.fingerprint,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "averages": self.averages,
            "extra": self.extra,
        }
        save_state(state, folder / "checkpoint.pt")

    def _restore(self, folder: Path) -> None:
        """Go on from the folder's checkpoint, or write the first one."""
        path = folder / "checkpoint.pt"
        state = self._by_first(lambda: load_state(path) if path.exists() else None)
        if state is None:
            self._save(folder)
            return
        if state.get("format") != self._format:
            raise CheckpointError(f"{path} is not a checkpoint of a {self.kind} run")
        differences = [
            f"{name} was {state['fingerprint'].get(name)!r} and is {value!r}"
            for name, value in self.fingerprint.items()
            if state["fingerprint"].get(name) != value
        ]
        if differences:
            raise CheckpointError(f"{path} is of a run with other settings: {'; '.join(differences)}")
        for group in state["optimizer"]["param_groups"]:
            group["fused"] = self._fused  # the run may go on on another device
        try:
            self.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} is of another model: {error}") from error
        self.scaler.load_state_dict(state["scaler"])
        for average, saved in zip(self.averages, state["averages"], strict=True):
            average.copy_(saved)
        self.step = state["step"]
        self.extra = state["extra"]


def _key(entropy: tuple[int, ...], *, purpose: int | None = None) -> int:
    spawn_key = () if purpose is None else (purpose,)
    return int(np.random.SeedSequence(entropy, spawn_key=spawn_key).generate_state(1, np.uint64)[0])


def _to(item: Any, device: torch.device) -> Any:
    if isinstance(item, Tensor):
        return item.to(device, non_blocking=True)
    return tuple(_to(part, device) for part in item)
