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
        values: Scalars by name, read as float32, of which a copy to the host is begun.
        device: Where the step is computed.
    """

    def __init__(self, step: int, videos: Sequence[str], values: Mapping[str, Tensor], device: torch.device) -> None:
        self.step = step
        self.videos = videos
        self._names = list(values)
        on_gpu = device.type == "cuda"
        stacked = torch.stack([value.detach().to(device, torch.float32) for value in values.values()])
        self._values = stacked.to("cpu", non_blocking=on_gpu)
        self._copied = torch.cuda.current_stream(device).record_event() if on_gpu else None

    def read(self) -> dict[str, float]:
        """Wait for the numbers and return them by name."""
        if self._copied is not None:
            self._copied.synchronize()
        return dict(zip(self._names, self._values.tolist(), strict=True))

    def require_finite(self, *names: str) -> None:
        """Wait for the numbers and look at those of these names.

        Raises:
            FloatingPointError: If one of them is not finite; the message names the step and its videos.
        """
        values = self.read()
        for name in names:
            if not math.isfinite(values[name]):
                raise FloatingPointError(
                    f"the {name} of step {self.step} is {values[name]}; the weights are those before it. Its videos: "
                    f"{', '.join(self.videos)}. Lower the learning rate, or look at these videos' features"
                )
