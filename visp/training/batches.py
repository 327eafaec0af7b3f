"""Where the batches of a run come from: their order, the workers that read them, and the noise of each step."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np
from torch.utils.data import DataLoader, Dataset

from visp.data import collate_videos
from visp.data.sampling import epoch_batches
from visp.training.interruption import leave_signals_alone
from visp.training.options import RunOptions
from visp.utils.noise import keyed_generator, seed_of, seeded


class Items(Protocol):
    """What a run learns from: item i is one tensor, or a tuple of tensors."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class Batches:
    """The batches of every epoch; their order depends on seed and epoch alone.

    Args:
        items: What is learnt from.
        names: A name for each item, for messages.
        options: How they are put together and read.
        lengths: Number of frames of each item, for batches of similar length; None for batches in a random order.
        rank: Number of this process.
        num_processes: Number of processes that share every batch.
        pin_memory: Whether the batches go to a GPU.

    Raises:
        ValueError: If there are more processes than items in a batch.
    """

    def __init__(
        self,
        items: Items,
        names: Sequence[str],
        options: RunOptions,
        *,
        lengths: Sequence[int] | None = None,
        rank: int = 0,
        num_processes: int = 1,
        pin_memory: bool = False,
    ) -> None:
        self.items = items
        self.names = list(names)
        self.seed = options.seed
        self.num_workers = options.num_workers
        self.timeout = options.worker_timeout if options.num_workers else 0.0
        self.lengths = lengths
        self.rank = rank
        self.num_processes = num_processes
        self.pin_memory = pin_memory
        self.per_epoch = math.ceil(len(items) / options.batch_size)
        if len(items) // self.per_epoch < num_processes:
            raise ValueError(
                f"{num_processes} processes need as many videos in every batch, and the smallest has "
                f"{len(items) // self.per_epoch}; raise batch_size or start fewer processes"
            )

    def __call__(self, step: int, num_steps: int) -> Iterator[tuple[list[str], list[Any]]]:
        """Yield the batches from a step on: the names of its items, and those items that are this process's part.

        What items draw of torch's global generator is keyed by the step too.

        Raises:
            TimeoutError: If a worker does not bring its batch in time.
        """
        while step < num_steps:
            epoch, first = divmod(step, self.per_epoch)
            generator = keyed_generator(self.seed, epoch)
            batches = epoch_batches(len(self.items), self.per_epoch, generator, lengths=self.lengths)[first:]
            parts = [np.array_split(batch, self.num_processes)[self.rank].tolist() for batch in batches]
            loader = DataLoader(
                cast("Dataset[Any]", self.items),
                batch_sampler=parts,
                collate_fn=collate_videos,
                num_workers=self.num_workers,
                timeout=self.timeout,
                worker_init_fn=leave_signals_alone,
                pin_memory=self.pin_memory,
                generator=generator,  # its own, so that loading draws nothing from dropout's noise
            )
            loaded = iter(loader)
            for indices, part in zip(batches, parts, strict=True):
                # Workers draw of generators of their own, and waiting for them must not keep another thread's run.
                with contextlib.nullcontext() if self.num_workers else seeded(self.seed_of(step)):
                    items = self._next(loaded, part, step)
                yield [self.names[index] for index in indices], items
                step += 1

    def seed_of(self, step: int) -> int:
        """Return the seed of this process's noise in a step, such as dropout's.

        A resumed run needs no random state of an earlier one.
        """
        return seed_of(self.seed, step, self.rank, spawn_key=(1,))

    def _next(self, loaded: Iterator[list[Any]], part: Sequence[int], step: int) -> list[Any]:
        try:
            return next(loaded)
        except Exception as error:
            names = ", ".join(self.names[index] for index in part)
            if "DataLoader worker" in str(error) and isinstance(error, RuntimeError):
                raise ChildProcessError(
                    f"a worker that reads videos has ended ({_signal_of(error)}) before step {step + 1}, whose videos "
                    f"are {names}; the checkpoint is whole"
                ) from error
            if (told := _told_by_worker(error)) is not None:
                raise told from error
            if "DataLoader timed out" not in str(error):
                raise
            raise TimeoutError(
                f"no worker has brought the batch of step {step + 1} within {self.timeout:g} seconds; its videos: "
                f"{names}. Look at their files, or raise worker_timeout"
            ) from error


def _signal_of(error: BaseException) -> str:
    found = re.search(r"(?:killed by signal|exited unexpectedly)[^.]*", str(error))
    return found[0] if found else "for no known reason"


def _told_by_worker(error: Exception) -> Exception | None:
    """Return the error of a worker's reading without the traceback that torch writes into its text."""
    _, traceback, text = str(error).rpartition(f"{type(error).__name__}: ")
    if not traceback or "Original Traceback" not in str(error):
        return None
    try:
        return type(error)(text.strip())
    except TypeError:  # a type that is made of something else than a text
        return None
