"""Several processes: joined as torchrun started them, their batches as one, and what the first does for all."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from itertools import accumulate, pairwise
from typing import Any, TypeVar, cast
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor, nn

_Result = TypeVar("_Result")

PATIENCE = 660.0
"""Seconds that a process waits for the others."""

_OWN_ID, _LAUNCH = uuid4().hex, "visp/launch"

_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "imed out", "imeout", "gloo", "NCCL")
"""What torch's errors say where another process is gone, or does not answer."""


def num_processes() -> int:
    """Return the number of processes of ``torch.distributed``, 1 where it is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if num_processes() > 1 else 0


def exchange(numbers: Sequence[int], device: torch.device) -> list[list[int]]:
    """Return the whole numbers of every process, by rank; each may bring another number of them."""
    own = torch.tensor(numbers, dtype=torch.int64, device=device)
    sizes = torch.cat(_all_gather(torch.tensor([len(own)], device=device))).tolist()
    padded = own.new_zeros(max(sizes))
    padded[: len(own)] = own
    return [values[:size].tolist() for values, size in zip(_all_gather(padded), sizes, strict=True)]


@dataclass(frozen=True)
class UnionBatch:
    """The videos of all processes as one batch, those of lower ranks first.

    Attributes:
        rank: Number of this process.
        lengths: Number of frames T of each video, by process.
    """

    rank: int
    lengths: Sequence[Sequence[int]]

    @property
    def first(self) -> int:
        """Index of this process's first video."""
        return sum(map(len, self.lengths[: self.rank]))

    @property
    def num_videos(self) -> int:
        """N, the number of videos of all processes."""
        return sum(map(len, self.lengths))

    def gather(self, parts: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Gather one vector per video, for each of several parts.

        Every process must then compute the same loss. The gradient is that of the loss times the number of processes:
        their average, as DDP takes it, is the gradient of the loss.

        Args:
            parts: Each one vector per video of this process, of any length.

        Returns:
            The parts with one vector per video of the union batch.
        """
        if len(self.lengths) == 1:
            return [list(part) for part in parts]
        own = [vector for part in parts for vector in part]
        sizes = exchange([len(vector) for vector in own], own[0].device)
        flat: Tensor = _Gather.apply(torch.cat(own), [sum(theirs) for theirs in sizes], self.rank)  # type: ignore[no-untyped-call]
        gathered: list[list[Tensor]] = [[] for _ in parts]
        vectors = iter(torch.split(flat, [size for theirs in sizes for size in theirs]))
        for lengths in self.lengths:
            for part, union in zip(parts, gathered, strict=True):
                union += [next(vectors).to(part[0].dtype) for _ in lengths]
        return gathered

    def gather_rows(self, parts: Sequence[Sequence[Tensor]], counts: Sequence[int]) -> list[list[Tensor]]:
        """Gather one matrix (K_i, e) per video, for each of several parts, as :meth:`gather` does.

        Args:
            parts: Each one matrix per video of this process.
            counts: K of each video of the union batch.
        """
        flat = self.gather([[matrix.flatten() for matrix in part] for part in parts])
        return [[vector.view(count, -1) for vector, count in zip(part, counts, strict=True)] for part in flat]

    def fetch(self, videos: Sequence[Tensor], indices: Sequence[int]) -> list[Tensor]:
        """Fetch a video of the union batch for each video of this process; only those needed are sent.

        Args:
            videos: (T_i, ...) frames of this process's videos.
            indices: For each video of the union batch, the index of the video to fetch for it; every process gives
                the same.

        Returns:
            (T_j, ...) frames, one tensor for each of ``videos``.

        Raises:
            ValueError: If frames that require a gradient would have to be sent.
        """
        starts = accumulate(map(len, self.lengths), initial=0)
        spans = [range(start, stop) for start, stop in pairwise(starts)]  # by process
        own = spans[self.rank]
        found = dict(zip(own, videos, strict=True))
        if len(spans) > 1:
            if any(frames.requires_grad for frames in videos):
                raise ValueError("frames that are sent to other processes as donors carry no gradient; detach them")
            needed = [sorted({indices[video] for video in span}) for span in spans]  # by process
            sent = [
                [j for j in needs if j in own and span is not own] for needs, span in zip(needed, spans, strict=True)
            ]
            came = [[j for j in needed[self.rank] if j in span and span is not own] for span in spans]
            found |= self._swap(videos, sent, came)
        return [found[indices[video]] for video in own]

    def _swap(
        self, videos: Sequence[Tensor], sent: Sequence[Sequence[int]], came: Sequence[Sequence[int]]
    ) -> dict[int, Tensor]:
        """Send videos to each process and return those that came from each, by their index in the union batch."""
        example = videos[0]
        length_of = [length for lengths in self.lengths for length in lengths]
        frame_bytes = math.prod(example.shape[1:]) * example.element_size()
        sizes_out, sizes_in = (
            [sum(length_of[j] for j in indices) * frame_bytes for indices in to_each] for to_each in (sent, came)
        )
        bytes_out = [videos[j - self.first].flatten().view(torch.uint8) for indices in sent for j in indices]
        empty = example.new_empty(0, dtype=torch.uint8)
        bytes_in = empty.new_empty(sum(sizes_in))
        dist.all_to_all_single(bytes_in, torch.cat([empty, *bytes_out]), sizes_in, sizes_out)
        order = [j for indices in came for j in indices]
        parts = torch.split(bytes_in, [length_of[j] * frame_bytes for j in order])
        return {
            j: part.view(example.dtype).reshape(length_of[j], *example.shape[1:])
            for j, part in zip(order, parts, strict=True)
        }


def join(
    videos: Sequence[Tensor], check: Callable[[Sequence[Tensor]], None], numbers: Sequence[int], device: torch.device
) -> tuple[UnionBatch, list[int]]:
    """Join this process's batch with those of the others, who join theirs at the same time.

    Args:
        videos: (T_i, ...) frames, at least one video.
        check: Raises ValueError if the videos do not fit; the other processes then raise one too.
        numbers: What all must agree on.
        device: Where the backend of ``torch.distributed`` takes its tensors.

    Returns:
        The union batch, and the ``numbers`` of the first process.

    Raises:
        ValueError: If a process brings no video, or one that does not fit.
    """
    try:
        check(videos)
    except ValueError:
        exchange([], device)
        raise
    frame_bytes = videos[0].element_size() * math.prod(videos[0].shape[1:]) if len(videos) else 0
    headers = exchange([frame_bytes, *numbers, *(len(frames) for frames in videos)], device)
    first_length = 1 + len(numbers)
    for process, header in enumerate(headers):
        if len(header) <= first_length:
            raise ValueError(f"process {process} brought no video, or refused its batch; see its own message")
        if header[0] != headers[0][0]:
            raise ValueError(
                f"a frame takes {headers[0][0]} bytes in process 0 and {header[0]} in process {process}: expected "
                "frames of one shape and type from all"
            )
    return UnionBatch(rank(), [header[first_length:] for header in headers]), headers[0][1:first_length]


class _Gather(torch.autograd.Function):
    """Concatenates the vectors of all processes; see :meth:`UnionBatch.gather` for the gradient."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: list[int], rank: int) -> Tensor:
        ctx.start, ctx.size, ctx.num_processes = sum(sizes[:rank]), sizes[rank], len(sizes)
        padded = own.new_zeros(max(sizes))
        padded[: len(own)] = own
        return torch.cat([vector[:size] for vector, size in zip(_all_gather(padded), sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        return gradient[ctx.start : ctx.start + ctx.size] * ctx.num_processes, None, None


def _all_gather(tensor: Tensor) -> list[Tensor]:
    gathered = [torch.empty_like(tensor) for _ in range(num_processes())]
    dist.all_gather(gathered, tensor)
    return gathered


@contextmanager
def torchrun_processes(device: str | torch.device, *, seconds: float = PATIENCE) -> Iterator[torch.device]:
    """Join the processes that torchrun started, if it started several, and leave them at the end.

    Args:
        device: Where to compute. ``"cuda"`` becomes this process's own GPU.
        seconds: How long to wait for another process before it counts as lost.

    Yields:
        The device of this process.

    Raises:
        ConnectionError: Another process has ended, or has not answered for so long.
        SystemExit: The same, and a process that is still there has said so before.
    """
    device = torch.device(device)
    if launched()[1] == 1 or dist.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) if device.index is None else device.index)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(seconds=seconds))
    try:
        yield device
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _LOST):
            raise
        if not _is_first_to_know():
            raise SystemExit(2) from error
        raise ConnectionError(
            f"process {dist.get_rank()} has lost another one, which has ended or not answered for {seconds:g} seconds, "
            "and ends too; the checkpoint is whole, and the run can be resumed"
        ) from error
    finally:
        dist.destroy_process_group()


def _is_first_to_know() -> bool:
    """Return whether no other process has asked this before; yes where torchrun itself is gone."""
    try:
        store = dist.distributed_c10d._get_default_store()
        store.set_timeout(timedelta(seconds=5))
        return int(store.add("visp/lost", 1)) == 1
    except RuntimeError:
        return True


def launched() -> tuple[int, int]:
    """Return the number of this process among those that torchrun started, and how many; (0, 1) without torchrun."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def launch_id() -> str:
    """Return a text that all processes of one start by torchrun share, and those of no other; "" without torchrun.

    The first process draws it and the others wait for it, up to an hour. Processes that something else started, which
    does not say where the first one is, share none: each has its own.
    """
    if launched()[1] == 1:
        return ""
    place = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    return _OWN_ID if None in place or not dist.is_available() else _agreed(place)[0]


@cache
def _agreed(place: tuple[str | None, str | None]) -> tuple[str, object]:
    """Return what the first process draws, and the store that hands it over, which may end with that process."""
    from torch.distributed.rendezvous import rendezvous

    store, number, _ = next(rendezvous("env://", timeout=timedelta(hours=1)))
    if number == 0:
        store.set(_LAUNCH, _OWN_ID)
    return store.get(_LAUNCH).decode(), store


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
