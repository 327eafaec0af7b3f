"""The processes of a run: joined as torchrun started them, and what the first of them does for all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from visp.processes import num_processes, rank

_Result = TypeVar("_Result")


@contextmanager
def torchrun_processes(device: str | torch.device) -> Iterator[torch.device]:
    """Join the processes that torchrun started, if it started several, and leave them at the end.

    Args:
        device: Where to compute. ``"cuda"`` becomes this process's own GPU.

    Yields:
        The device of this process.
    """
    device = torch.device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) if device.index is None else device.index)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def is_first() -> bool:
    """Return whether this is the first process, the one that writes files and messages."""
    return rank() == 0


def by_first(function: Callable[[], _Result], device: torch.device) -> _Result:
    """Call a function in the first of several processes, and return its result, or raise its error, in all of them.

    Args:
        function: Returns what can be pickled.
        device: Where the backend of ``torch.distributed`` takes its tensors.
    """
    if num_processes() == 1:
        return function()
    outcome: list[Any] = [None, None]
    if is_first():
        try:
            outcome[0] = function()
        except Exception as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, device=device)
    if outcome[1] is not None:
        raise outcome[1]
    return cast(_Result, outcome[0])


def largest(number: int, device: torch.device) -> int:
    """Return the largest of the numbers that the processes bring."""
    if num_processes() == 1:
        return number
    tensor = torch.tensor(number, device=device)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give every process the average of the processes' gradients.

    Unlike in DDP a parameter may be left without a gradient: in all processes, then it stays so, or in some.
    """
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    present = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    flat = torch.cat([present, *(gradient.flatten() for gradient in gradients)])
    dist.all_reduce(flat)
    averages = torch.split(flat[len(parameters) :] / num_processes(), [p.numel() for p in parameters])
    for parameter, count, average in zip(parameters, flat[: len(parameters)].tolist(), averages, strict=True):
        parameter.grad = average.view_as(parameter).to(parameter.dtype) if count else None


def share_state(module: nn.Module) -> None:
    """Give every process the parameters and buffers of the first one."""
    device = next(module.parameters()).device

    def state_on_cpu() -> dict[str, Any]:
        return {
            name: value.cpu() if isinstance(value, Tensor) else value for name, value in module.state_dict().items()
        }

    module.load_state_dict(by_first(state_on_cpu, device))
