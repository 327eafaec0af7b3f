"""What the built-in summarizers share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ExactLinear(nn.Linear):
    """A linear layer in the precision of its weights, also under autocast.

    Scores are ranked by small differences that bfloat16 rounds away.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, the name that torch's own has
        """Map (n, in_features) to (n, out_features)."""
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(input.to(self.weight.dtype), self.weight, self.bias)


@torch.no_grad()
def fold_into(layer: nn.Linear, mean: Tensor, scale: Tensor) -> None:
    """Change a linear layer so that x gives what ``(x - mean) / scale`` gave before; (d,) and () as ``fold_inputs``."""
    layer.bias.sub_(layer.weight @ mean / scale)
    layer.weight.div_(scale)


def check_frames(module: nn.Module, frames: Tensor, lengths: Sequence[int]) -> None:
    """Refuse frames that are not (L, d) of the module's ``feature_dim`` or that the lengths of the videos do not fit.

    Raises:
        ValueError: If so.
    """
    expected = f"{type(module).__name__}(feature_dim={module.feature_dim}) expected frames (T, {module.feature_dim})"
    if frames.ndim != 2 or frames.shape[1] != module.feature_dim or frames.shape[0] == 0:
        raise ValueError(f"{expected} with T >= 1, got {tuple(frames.shape)}")
    if min(lengths, default=0) < 1 or sum(lengths) != frames.shape[0]:
        raise ValueError(f"{expected} of videos whose lengths >= 1 add up to T, got T={len(frames)} and {[*lengths]}")
