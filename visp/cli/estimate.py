"""How long a run will take, measured before it starts."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from visp.training.options import Precision

ENOUGH_VIDEOS = 8
ENOUGH_SECONDS = 2.0


def seconds_per_step(
    objective: nn.Module, items: Sequence[Any], batch_size: int, precision: Precision = "float32"
) -> float:
    """Time a step of pretraining on a few videos.

    Args:
        objective: One that is thrown away, for it counts its steps; on the device to train on.
        items: The videos, or some of them.
        batch_size: Number of videos of a step.
        precision: Of the forward pass; on a processor without its instructions bfloat16 takes many times as long.
    """
    from visp.side_inputs import placed
    from visp.training.step import autocast

    like = next(objective.parameters())
    batch = [placed(items[index], like) for index in range(min(len(items), batch_size, ENOUGH_VIDEOS))]
    for _ in range(2):  # the first is slower
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the run says it
            with autocast(precision, like.device):
                loss = objective(batch).loss
            loss.backward()
        seconds = time.perf_counter() - started
        if seconds > ENOUGH_SECONDS:
            break
    return seconds * batch_size / len(batch)


def duration(seconds: float) -> str:
    """Put a length of time into words."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
