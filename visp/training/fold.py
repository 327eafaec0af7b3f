"""Weights that take features as they are, after training on standardized ones: the change folded in, exactly.

A linear layer can take it. Where frames enter a module through linear layers alone is found by looking: hooks on a copy
note which layers are given the frames themselves, the copy's layers take the change, and the copy must then give, on
real frames, what the module gives on standardized ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Protocol, runtime_checkable

from visp.calls import score
from visp.contracts import check_logits
from visp.inputs import Standardization
from visp.side_inputs import Video, frames_of, placed
from visp.utils.noise import seeded
from visp.weights import own_module

TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest of them where that is more than 1."""

LAYERS = (nn.Linear, nn.Conv1d, nn.RNNBase, nn.MultiheadAttention)
"""Layers of torch that may take it; where frames also go elsewhere, the proof fails."""

Fold = Callable[[nn.Module, Standardization], None]
"""Changes the weights of a summarizer so that frames x give what ``(x - mean) / scale`` gave before."""


@runtime_checkable
class FoldsInputs(Protocol):
    """A module that can take a change of its inputs into its weights.

    Needed only where frames enter it otherwise than through linear layers of torch; those are found by looking.
    """

    def fold_inputs(self, mean: Tensor, scale: Tensor) -> None:
        """Change the weights so that frames x give what ``(x - mean) / scale`` gave before.

        Args:
            mean: (d,), on the device of the parameters.
            scale: ().
        """
        ...


def find_fold(summarizer: nn.Module, change: Standardization, videos: Sequence[Tensor | Video]) -> Fold | None:
    """Find out how a summarizer's weights can take a standardization.

    Args:
        summarizer: Left as it is; a copy is tried.
        change: The standardization.
        videos: (T_i, d) frames as they are, or videos that carry side inputs, to prove it on.

    Returns:
        What does it, or None if the weights cannot.

    Raises:
        ValueError: If the summarizer does not return logits (T,).
        TypeError: If it returns no floating-point tensor.
    """
    if isinstance(own_module(summarizer), FoldsInputs):
        return _by_its_own_method
    try:
        trial = copy.deepcopy(summarizer).eval()
    except Exception:  # a module may refuse to be copied in any way it likes
        return None
    like = next(summarizer.parameters(), torch.empty(0))
    there = [placed(video, like) for video in videos]
    with torch.no_grad(), seeded(0, like.device):
        layers = _entered(trial, change(there[0]))
        if not layers:
            return None
        expected = [_logits(trial, change(video)) for video in there]
        for name, roles in layers.items():
            if not _fold_layer(trial.get_submodule(name), roles, change):
                return None
        found = [_logits(trial, video) for video in there]
    for one, other in zip(found, expected, strict=True):
        if not float((one - other).abs().max()) <= TOLERANCE * max(1.0, float(other.abs().max())):
            return None

    def fold(module: nn.Module, change: Standardization) -> None:
        with torch.no_grad():
            for name, roles in layers.items():
                _fold_layer(module.get_submodule(name), roles, change)

    return fold


def _by_its_own_method(summarizer: nn.Module, change: Standardization) -> None:
    module: Any = own_module(summarizer)
    device = next(module.parameters()).device
    module.fold_inputs(change.mean.to(device), change.scale.to(device))


def _logits(summarizer: nn.Module, video: Tensor | Video) -> Tensor:
    torch.manual_seed(0)  # of what draws noise in evaluation mode too
    return check_logits(score(summarizer, video), frames_of(video), summarizer).float()


def _entered(summarizer: nn.Module, video: Tensor | Video) -> dict[str, frozenset[int | str]]:
    """Return the layers that are given the frames themselves, and as which arguments."""
    frames: Tensor = frames_of(video)
    entered: dict[str, frozenset[int | str]] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
            roles = frozenset(role for role, value in given if isinstance(value, Tensor) and _is_view_of(value, frames))
            if roles and isinstance(module, LAYERS):
                entered[name] = entered.get(name, frozenset()) | roles

        return hook

    handles = [
        module.register_forward_pre_hook(note(name), with_kwargs=True) for name, module in summarizer.named_modules()
    ]
    try:
        _logits(summarizer, video)
    finally:
        for handle in handles:
            handle.remove()
    return entered


def _is_view_of(value: Tensor, frames: Tensor) -> bool:
    """Return whether a tensor is the frames, or an adapter's copy of them, whatever its axes."""
    if value.untyped_storage().nbytes() != frames.untyped_storage().nbytes() or value.dtype != frames.dtype:
        return False
    return torch.equal(value.as_strided((frames.numel(),), (1,), 0), frames.flatten())


def _fold_layer(layer: nn.Module, roles: frozenset[int | str], change: Standardization) -> bool:
    """Have the first weights of a layer take the change; return False, and change nothing, if they cannot."""
    if isinstance(layer, nn.Linear) or (
        isinstance(layer, nn.Conv1d) and layer.kernel_size == (1,) and layer.groups == 1 and layer.padding == (0,)
    ):
        pairs = [(_own(layer, "weight"), _own(layer, "bias"))]
    elif isinstance(layer, nn.RNNBase):
        ends = ["", "_reverse"] if layer.bidirectional else [""]
        pairs = [(_own(layer, f"weight_ih_l0{end}"), _own(layer, f"bias_ih_l0{end}")) for end in ends]
    elif isinstance(layer, nn.MultiheadAttention):
        pairs = _projections(layer, roles)
    else:
        return False
    if any(weight is None or bias is None for weight, bias in pairs):
        return False
    if any(weight.flatten(1).shape[1] != change.mean.numel() for weight, _ in pairs if weight is not None):
        return False  # it is given a part of each frame
    for weight, bias in pairs:
        assert weight is not None
        assert bias is not None
        mean, scale = change.mean.to(weight.device, torch.float64), change.scale.to(weight.device, torch.float64)
        folded = weight.double() / scale
        bias.copy_(bias.double() - folded.flatten(1) @ mean)
        weight.copy_(folded)
    return True


def _projections(
    layer: nn.MultiheadAttention, roles: frozenset[int | str]
) -> list[tuple[Tensor | None, Tensor | None]]:
    """Return weights and bias of those projections of an attention layer that are given the frames."""
    bias = _own(layer, "in_proj_bias")
    if bias is None:
        return [(None, None)]
    if _own(layer, "in_proj_weight") is not None:
        weights = list(layer.in_proj_weight.chunk(3))
    else:
        weights = [getattr(layer, f"{letter}_proj_weight") for letter in "qkv"]
    given = [bool({index, name} & roles) for index, name in enumerate(("query", "key", "value"))]
    return [pair for pair, taken in zip(zip(weights, bias.chunk(3), strict=True), given, strict=True) if taken]


def _own(layer: nn.Module, name: str) -> Tensor | None:
    """Return a parameter that is stored as such; a parametrized one is computed anew in each call."""
    return layer._parameters.get(name)
