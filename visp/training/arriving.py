"""The numbers of a step on their way from the device to the host, which meanwhile goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class Arriving:
    """A step and what it gave.

    Args:
        step: Number of the step, from 1.
        videos: Names of the videos of its batch.
        values: Scalars by name, of which a copy to the host is begun.
        device: Where the step is computed.
    """

    def __init__(self, step: int, videos: Sequence[str], values: Mapping[str, Tensor], device: torch.device) -> None:
        self.step = step
        self.videos = videos
        self._names = list(values)
        stacked = torch.stack([value.detach().to(device, torch.float32) for value in values.values()])
        self._values = stacked.to("cpu", non_blocking=True)
        self._copied = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None

    def read(self, *, finite: Sequence[str]) -> dict[str, float]:
        """Wait for the numbers and return them by name.

        Args:
            finite: Names of those that must be finite.

        Raises:
            FloatingPointError: If one of them is not.
        """
        if self._copied is not None:
            self._copied.synchronize()
        values: dict[str, float] = dict(zip(self._names, self._values.tolist(), strict=True))
        for name in finite:
            if not math.isfinite(values[name]):
                raise FloatingPointError(
                    f"the {name} of step {self.step} is {values[name]}; the weights are those before it. Its videos: "
                    f"{', '.join(self.videos)}. Lower the learning rate, or look at these videos' features"
                )
        return values
