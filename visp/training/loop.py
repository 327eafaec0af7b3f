"""Steps to the end of the last epoch: progress, metrics, checkpoints that are complete at any moment, exact resume."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn

from visp.inputs import Standardization
from visp.training.batches import Batches
from visp.training.interruption import Interruption
from visp.training.options import RunOptions
from visp.training.run_folder import RunFolder
from visp.training.run_state import RunState
from visp.training.step import LossOf, train_step
from visp.utils import distributed
from visp.utils.modes import training_mode
from visp.utils.noise import seeded
from visp.utils.progress import Bar

_Result = TypeVar("_Result")

Weights = tuple[Mapping[str, Tensor], Standardization | None]
"""A state dict under the module's own keys, and the standardization that the summarizer carries."""


@dataclass(frozen=True)
class Run:
    """What a run is made of.

    Attributes:
        state: What is trained, and what the checkpoint holds.
        batches: What is learnt from.
        loss_of: The loss of a batch.
        options: How the weights move.
        folder: Where it is written, or None.
        fingerprint: What must not change when the run is resumed, beside the options that move the weights.
        review: Looks at the metrics of each step before they are written, and returns them, maybe with more.
        shown: What the progress bar shows of the metrics.
        finish: Puts the weights to keep into the module and returns them; the checkpoint holds those of the last step.
        wholes: The modules that their user sees as wholes; see :func:`visp.utils.modes.training_mode`.
        recorded: More for ``config.json``.
        begin: Done before the first step of all.
        ended: Whether the run ends before the last epoch, asked before every step.
    """

    state: RunState
    batches: Batches
    loss_of: LossOf
    options: RunOptions
    folder: RunFolder | None
    fingerprint: Mapping[str, Any]
    review: Callable[[dict[str, float]], dict[str, float]]
    shown: Callable[[Mapping[str, float]], dict[str, str]]
    finish: Callable[[], Weights]
    wholes: Sequence[nn.Module] = ()
    recorded: Mapping[str, Any] = field(default_factory=dict)
    begin: Callable[[], None] = lambda: None
    ended: Callable[[], bool] = lambda: False


MOVING = (
    "batch_size",
    "lr",
    "weight_decay",
    "clip_grad_norm",
    "warmup_steps",
    "seed",
    "precision",
    "schedule",
    "ema_decay",
)
"""Options that move the weights: none may change when a run is resumed."""


def execute(run: Run) -> dict[str, float]:
    """Run, or resume, to the end of the last epoch, and return the metrics of the last step.

    The random state of the caller is left as it was, and so are the modes of the modules. Ctrl-C and SIGTERM wait for
    the end of a step and leave a checkpoint. Of several processes, the first writes.
    """
    state, folder, options = run.state, run.folder, run.options
    num_steps = options.epochs * run.batches.per_epoch
    fingerprint = {**run.fingerprint, **{name: getattr(options, name) for name in MOVING}}
    if options.schedule == "cosine":
        fingerprint["epochs"] = options.epochs  # the end of the run is what the learning rate falls to
    writes = folder is not None and state.rank == 0
    metrics: dict[str, float] = {}

    def save() -> None:
        if folder is not None and writes:
            folder.save_checkpoint(state.checkpoint(fingerprint))

    if state.num_processes > 1:
        distributed.share_state(state.module)
    hooked = _by_first(state, lambda: options.on_step is not None)
    modes = training_mode(state.module, *run.wholes)
    with modes, _tidied(state, folder):
        if folder is not None:
            checkpoint = _by_first(state, folder.open)
            if checkpoint is not None:
                state.restore(checkpoint, fingerprint, folder.path / "checkpoint.pt")
            if writes:
                processes = {"num_processes": state.num_processes}
                config = {
                    "epochs": options.epochs,
                    **fingerprint,
                    **processes,
                    **run.recorded,
                    **(options.config or {}),
                }
                folder.start(state.step, config)
            if checkpoint is None:
                save()
        interruption = Interruption(_agreement(state))
        with _bar(run, num_steps) as bar, interruption:
            if state.step == 0:
                run.begin()  # interrupted, it leaves the checkpoint that is there
            saved_at = time.monotonic()
            try:
                for names, batch in run.batches(state.step, num_steps):
                    if run.ended():
                        save()
                        break
                    with interruption.step(), seeded(run.batches.seed_of(state.step), state.device):
                        values = train_step(state, run.loss_of, batch, names, options, num_steps)
                        epoch = (state.step - 1) // run.batches.per_epoch + 1
                        place = {"step": state.step, "epoch": epoch, "num_videos": len(names)}
                        metrics = run.review({**place, **values})
                        if folder is not None and writes:
                            folder.log(metrics)
                        bar.set_postfix(run.shown(metrics), refresh=False)
                        bar.update()
                    if hooked:
                        try:
                            _by_first(state, partial(_call, options.on_step, metrics))
                        except Exception:
                            save()
                            raise
                    if state.step == num_steps or time.monotonic() - saved_at >= options.checkpoint_seconds:
                        save()
                        saved_at = time.monotonic()
            except (KeyboardInterrupt, SystemExit):
                if not interruption.torn:
                    save()
                raise
        if state.num_processes > 1:
            distributed.share_state(state.module)  # running statistics are each process's own
        state.keep_average()
        weights, change = run.finish()
        if folder is not None:
            _by_first(state, lambda: folder.save_weights(weights, change))
    return metrics


def _call(hook: Callable[[int, Mapping[str, float]], object] | None, metrics: Mapping[str, float]) -> None:
    if hook is not None:
        hook(int(metrics["step"]), dict(metrics))


def _agreement(state: RunState) -> Callable[[int], int] | None:
    return None if state.num_processes == 1 else lambda number: distributed.largest(number, state.device)


def _by_first(state: RunState, function: Callable[[], _Result]) -> _Result:
    return function() if state.num_processes == 1 else distributed.by_first(function, state.device)


def _bar(run: Run, num_steps: int) -> Any:
    return Bar(
        total=num_steps,
        initial=run.state.step,
        unit="step",
        desc=run.state.kind,
        disable=not run.options.progress or run.state.rank != 0,
        dynamic_ncols=True,
        leave=None,  # unless it runs below the bar of a cross-validation
    )


@contextmanager
def _tidied(state: RunState, folder: RunFolder | None) -> Iterator[None]:
    try:
        yield
    finally:
        state.module.zero_grad()  # a loop of the user's own must not start on our last gradient
        if folder is not None:
            folder.close()
