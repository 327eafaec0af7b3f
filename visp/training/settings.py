"""How the weights of a run move."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Precision = Literal["float32", "bf16", "fp16"]
Schedule = Literal["constant", "cosine"]


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
    schedule: Schedule = "constant"
    ema_decay: float | None = None
    bucket_by_length: bool = False

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("precision", self.precision, get_args(Precision)),
            ("schedule", self.schedule, get_args(Schedule)),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in (0, 1), got {self.ema_decay!r}")

    def rate(self, step: int, num_steps: int) -> float:
        """Return the learning rate of a step, from 0, of a run of that many."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.lr
        progress = (step - self.warmup_steps) / (num_steps - self.warmup_steps)
        return self.lr * (1 + math.cos(math.pi * progress)) / 2
