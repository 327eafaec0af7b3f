"""One training step, and how an error in its numbers ends the run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visp.side_inputs import placed
from visp.training.options import Precision, RunOptions
from visp.training.run_state import RunState
from visp.utils import distributed

LossOf = Callable[[list[Any]], tuple[Tensor, Mapping[str, Tensor]]]
"""What a run minimises: a batch on the device in, its loss and what else to log of it (scalars) out."""

AUTOCAST = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

MOST_SKIPPED = 30
"""So many steps in a row may be skipped under fp16: the scale then has fallen from 65,536 to 0.00006."""


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return the context of a forward pass; of float32 one that changes nothing."""
    dtype = AUTOCAST[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def train_step(
    state: RunState, loss_of: LossOf, batch: list[Any], names: Sequence[str], options: RunOptions, num_steps: int
) -> dict[str, float]:
    """Move the weights by one batch.

    Args:
        state: What moves.
        loss_of: The loss of a batch.
        batch: This process's part of the batch, on the CPU.
        names: Names of the videos of the batch, of all processes.
        options: How the weights move.
        num_steps: Steps of the whole run.

    Returns:
        What ``loss_of`` logs of the step, and its ``loss``; under fp16 ``skipped_steps``, the number so far.

    Raises:
        FloatingPointError: If the loss, its gradient or a buffer is not finite. The parameters are those before it.
    """
    optimizer, scaler = state.optimizer, state.scaler
    optimizer.zero_grad()
    with autocast(options.precision, state.device):
        try:
            loss, logged = loss_of([placed(item, state.parameters[0]) for item in batch])
        except FloatingPointError as error:  # of the objective's own, which knows neither step nor names
            hint = f"the weights are those before it. Its videos: {', '.join(names)}."
            raise FloatingPointError(f"step {state.step + 1}: {error}; {hint}") from error
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    if state.num_processes > 1:
        distributed.average_gradients(state.parameters)
    scaler.unscale_(optimizer)
    largest = math.inf if options.clip_grad_norm is None else options.clip_grad_norm
    norm = nn.utils.clip_grad_norm_(state.parameters, largest)
    values = _read({**logged, "loss": loss, "norm": norm, "buffers": _largest(state.buffers)})
    _require_finite(values, state, names)
    for group in optimizer.param_groups:
        group["lr"] = options.rate(state.step, num_steps)
    scaler.step(optimizer)  # under fp16 a gradient that is not finite is skipped here, and the scale falls
    scaler.update()
    state.step += 1
    if state.average is not None:
        state.average.update_parameters(state.parameter_list)
    metrics = {name: values[name] for name in (*logged, "loss")}
    return {**metrics, **_count_skipped(state, values["norm"])} if scaler.is_enabled() else metrics


def _read(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Read scalars from the device, all at once."""
    device = values["loss"].device
    stacked = torch.stack([value.detach().to(device, torch.float32) for value in values.values()])
    return dict(zip(values, stacked.tolist(), strict=True))


def _largest(tensors: Sequence[Tensor]) -> Tensor:
    """Return the largest absolute value; NaN or infinite where one of them is."""
    if not tensors:
        return torch.zeros(())
    with torch.no_grad():
        return torch.stack([each.float() for each in torch._foreach_norm(list(tensors), math.inf)]).max()


def _require_finite(values: Mapping[str, float], state: RunState, names: Sequence[str]) -> None:
    step = f"step {state.step + 1}"
    hint = f"Its videos: {', '.join(names)}. Lower the learning rate, or look at these videos' features"
    watched = {"loss": "the loss", **({} if state.scaler.is_enabled() else {"norm": "the gradient's norm"})}
    for key, name in watched.items():
        if not math.isfinite(values[key]):
            raise FloatingPointError(f"{name} of {step} is {values[key]}; the weights are those before it. {hint}")
    if not math.isfinite(values["buffers"]):
        spoiled = [name for name, buffer in state.module.named_buffers() if not torch.isfinite(buffer).all()]
        raise FloatingPointError(
            f"{', '.join(spoiled[:3])} is not finite after {step}, and a network that keeps it is of no use; the "
            f"checkpoint is of before. {hint}"
        )


def _count_skipped(state: RunState, norm: float) -> dict[str, float]:
    """Count the steps that fp16 skipped.

    Raises:
        FloatingPointError: If too many in a row were.
    """
    skipped = not math.isfinite(norm)
    state.skipped += skipped
    state.skipped_in_a_row = state.skipped_in_a_row + 1 if skipped else 0
    if state.skipped_in_a_row == MOST_SKIPPED // 3:
        warnings.warn(
            f"step {state.step}: fp16 has skipped the last {state.skipped_in_a_row} steps, whose gradients were not "
            "finite; bf16 has a wider range",
            stacklevel=2,
        )
    if state.skipped_in_a_row >= MOST_SKIPPED:
        raise FloatingPointError(
            f"the gradients of the last {MOST_SKIPPED} steps, to step {state.step}, were not finite under fp16, and "
            "all were skipped: use precision='bf16' or 'float32', or lower the learning rate"
        )
    return {"skipped_steps": float(state.skipped)}
