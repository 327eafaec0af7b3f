"""Whether the activations of a batch fit into memory, or are better recomputed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from visp.pretrainer import ViSPPretrainer
from visp.summarizers.cnn import CNNAttention
from visp.training.options import Precision, PretrainOptions
from visp.utils.distributed import is_first

KIB_PER_FRAME = {"float32": 920, "bf16": 610, "fp16": 610}
"""Activations that one pass of a built-in model of width 1024 keeps of a frame, measured (docs/performance.md)."""

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Where Linux tells what a container may take."""

LARGEST_SHARE = 0.5
"""Share of the device's memory that activations may take."""


@contextmanager
def recomputing(
    objective: Any, options: PretrainOptions, lengths: Sequence[int] | None, num_processes: int
) -> Iterator[None]:
    """Have the objective recompute activations in the block if the options say so, or if they would not fit."""
    if not hasattr(objective, "recompute"):
        yield
        return
    before: bool = objective.recompute
    recompute = before if options.recompute is None else options.recompute
    if options.recompute is None and not before and lengths is not None and isinstance(objective, ViSPPretrainer):
        batch_size = -(-options.batch_size // num_processes)
        device = next(objective.parameters()).device
        recompute = should_recompute(objective, lengths, batch_size, options.precision, device)
        if recompute and options.progress and is_first():
            print(
                "a batch's activations may not fit into memory and are recomputed; recompute=False keeps them",
                file=sys.stderr,
            )
    objective.recompute = recompute
    try:
        yield
    finally:
        objective.recompute = before


def should_recompute(
    pretrainer: ViSPPretrainer, lengths: Sequence[int], batch_size: int, precision: Precision, device: torch.device
) -> bool:
    """Decide whether the largest batch's activations would take more than half of the device's memory.

    Only the built-in models are counted, as summarizer and as encoder; of other modules nothing is known.

    Args:
        pretrainer: The objective; its summarizer and its encoder are what runs.
        lengths: Number of frames T of each video.
        batch_size: Largest number N of videos of a batch in this process.
        precision: As in :func:`visp.pretrain`.
        device: Where it runs.

    Returns:
        True if they would.
    """
    frames = sum(sorted(lengths)[-batch_size:])
    return LARGEST_SHARE * memory_of(device) < frames * 1024 * KIB_PER_FRAME[precision] * _widths(pretrainer)


def memory_of(device: torch.device) -> int:
    """Return the bytes that this process may take: a GPU's, or its part of what the machine or container has.

    Where the system does not tell, 8 GiB of memory are assumed.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    total = 8 * 2**30
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if CGROUP_LIMIT.exists() and (limit := CGROUP_LIMIT.read_text().strip()).isdigit():
        total = min(total, int(limit))
    return total // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _widths(pretrainer: ViSPPretrainer) -> float:
    """Return how many passes of a model of width 1024 a video takes."""
    passes = ((pretrainer.summarizer, 1), (pretrainer.encoder, 3 if pretrainer.hard_negatives else 2))
    return sum(number * module.width / 1024 for module, number in passes if isinstance(module, CNNAttention))
