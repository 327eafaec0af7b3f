"""A standardization of its inputs that a summarizer carries, where its weights cannot take it.

It is a forward pre-hook on the summarizer, so that every call takes the features as they are, and a small file beside
``weights.pt``. By hand: ``mean, scale = torch.load("weights.standardization.pt").values()``, then
``summarizer((frames - mean) / scale)``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from visp.side_inputs import Video


class Standardization(NamedTuple):
    """The change of variables: ``(x - mean) / scale``.

    Attributes:
        mean: (d,) mean over the frames.
        scale: () root mean square of what is left, over frames and dimensions.
    """

    mean: Tensor
    scale: Tensor

    def __call__(self, video: Any) -> Any:
        """Return the frames (T, d), or a video with them, standardized."""
        if isinstance(video, Video):
            return replace(video, frames=self(video.frames))
        return (video - self.mean.to(video)) / self.scale.to(video)


class _StandardizeFirst:
    """Standardizes the first argument of a call."""

    def __init__(self, change: Standardization) -> None:
        self.change = change

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        frames = args[0] if args else None
        if not isinstance(frames, Tensor) or frames.ndim < 2 or frames.shape[-1:] != self.change.mean.shape:
            came = tuple(frames.shape) if isinstance(frames, Tensor) else type(frames).__name__
            raise ValueError(
                f"{type(module).__name__} standardizes its inputs: expected frames (T, "
                f"{self.change.mean.numel()}) as the first argument, got {came}"
            )
        return (self.change(frames), *args[1:])


def carried(summarizer: nn.Module) -> Standardization | None:
    """Return the standardization that a summarizer, or what it wraps, carries."""
    for module in summarizer.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, _StandardizeFirst):
                return hook.change
    return None


def carry(summarizer: nn.Module, change: Standardization | None) -> None:
    """Have a summarizer standardize its inputs, in place of what it carried; None for nothing."""
    for module in summarizer.modules():
        for number, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, _StandardizeFirst):
                del module._forward_pre_hooks[number]
    if change is not None:
        summarizer.register_forward_pre_hook(_StandardizeFirst(change))


def beside(weights: Path) -> Path:
    """Return where the standardization that belongs to a file of weights is kept."""
    return weights.with_name(f"{weights.stem}.standardization.pt")
