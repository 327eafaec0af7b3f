"""Layers that compute what torch's own do, with fewer passes over memory; state dicts are those of torch's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class ExactLinear(nn.Linear):
    """A linear layer whose output keeps its full precision under autocast; its gradient is computed in autocast's.

    Scores are ranked by small differences that bfloat16 rounds away; a gradient has no such need.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, the name that torch's own has
        """Map (n, in_features) to (n, out_features)."""
        device = input.device.type
        if not torch.is_autocast_enabled(device):
            return F.linear(input, self.weight, self.bias)
        with torch.autocast(device, enabled=False):
            output: Tensor = _ExactLinear.apply(input, self.weight, self.bias, torch.get_autocast_dtype(device))  # type: ignore[no-untyped-call]
        return output


class _ExactLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, gradient_type: torch.dtype) -> Tensor:
        ctx.save_for_backward(x.to(gradient_type), weight)
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        low = gradient.to(x.dtype)
        of_x = (low @ weight.to(x.dtype)).to(weight.dtype) if ctx.needs_input_grad[0] else None
        return of_x, (low.T @ x).to(weight.dtype), gradient.sum(dim=0), None


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
    if frames.ndim != 2 or frames.shape[1] != module.feature_dim or len(frames) == 0:
        raise ValueError(f"{expected} with T >= 1, got {tuple(frames.shape)}")
    if min(lengths, default=0) < 1 or sum(lengths) != len(frames):
        raise ValueError(f"{expected} of videos whose lengths >= 1 add up to T, got T={len(frames)} and {[*lengths]}")


def add_top_rows(x: Tensor, top: Tensor) -> Tensor:
    """Add (C, K, W) to the first K rows of (1, C, H, W), in place."""
    added: Tensor = _AddTopRows.apply(x, top)  # type: ignore[no-untyped-call]
    return added


class _AddTopRows(torch.autograd.Function):
    """Differentiating a sum into a slice would copy the whole gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, top: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.num_rows = top.shape[1]
        x[0, :, : top.shape[1]] += top
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        return gradient, gradient[0, :, : ctx.num_rows]


def can_pool_first(norm: nn.Module, x: Tensor) -> bool:
    """Return whether :func:`pool_norm_relu` may stand for ``norm``, ReLU and pooling of ``x``."""
    return (
        type(norm) is nn.BatchNorm2d
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and x.device.type == "cpu"
    )


def pool_norm_relu(x: Tensor, norm: nn.BatchNorm2d, signs: Tensor) -> Tensor:
    """Normalise, rectify and max-pool (3, stride 2, ceil mode), pooling first: a quarter of the values to normalise.

    Normalisation with a positive weight and ReLU never fall, so the largest value stays the largest.

    Args:
        x: (B, C, H, W) with the channels of negative ``norm.weight`` negated.
        norm: The normalisation of the channels as they were; its running statistics are updated.
        signs: (C,) of 1 and -1, the signs of ``norm.weight``.

    Returns:
        (B, C, H', W').
    """
    pooled: Tensor = _PoolNormReLU.apply(x, norm.weight * signs, norm.bias, norm, signs)  # type: ignore[no-untyped-call]
    return pooled


class _PoolNormReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d, signs: Tensor) -> Tensor:
        assert norm.running_mean is not None
        assert norm.num_batches_tracked is not None
        assert norm.momentum is not None
        norm.num_batches_tracked.add_(1)
        norm.running_mean.mul_(signs)
        mean, var = torch.batch_norm_update_stats(x, norm.running_mean, norm.running_var, norm.momentum)
        norm.running_mean.mul_(signs)
        largest, indices = F.max_pool2d(x, 3, 2, ceil_mode=True, return_indices=True)
        pooled = F.batch_norm(largest, mean, var, weight, bias, eps=norm.eps).relu_()
        ctx.save_for_backward(x, largest, indices, pooled, weight, mean, var)
        ctx.eps = norm.eps
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, largest, indices, pooled, weight, mean, var = ctx.saved_tensors
        gradient = torch.ops.aten.threshold_backward(gradient, pooled, 0)
        of_largest, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, largest, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        through_max = torch.ops.aten.max_pool2d_with_indices_backward(
            of_largest, x, [3, 3], [2, 2], [0, 0], [1, 1], True, indices
        )
        # Every value of a channel also moves the gradient through mean and variance, by offset + slope * (x - mean).
        scale = -weight * (var + ctx.eps).rsqrt() * (x.shape[1] / x.numel())
        offset, slope = scale * of_bias, scale * (var + ctx.eps).rsqrt() * of_weight
        through_statistics = F.batch_norm(x, mean, torch.ones_like(var), slope, offset, eps=0.0)
        return through_max.add_(through_statistics), of_weight, of_bias, None, None
