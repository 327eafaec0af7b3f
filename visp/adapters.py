"""How a module of another shape becomes a summarizer or a video encoder, unchanged.

Letters: T frames of one video, d feature dimension, e embedding dimension, h width of a hidden layer.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from visp.contracts import check_module, check_vector, class_name, describe_value, fits_frames

ModuleInputs: TypeAlias = "Callable[[Tensor], Tensor | tuple[Any, ...] | Mapping[str, Any]]"
Pool: TypeAlias = "Literal['mean', 'cls'] | Callable[[Tensor], Tensor]"

PROBABILITY_MARGIN = 1e-6  # inverted probabilities stay this far from 0 and 1: logits within +-13.8
NAMES_SHOWN = 12


def adapt_summarizer(
    module: nn.Module,
    *,
    inputs: ModuleInputs | None = None,
    output: Callable[[Any], Tensor] | None = None,
    logits_from: str | None = None,
    probabilities: bool = False,
    hidden_from: str | None = None,
    head: nn.Module | None = None,
) -> nn.Module:
    """Make a `Summarizer` of a module with another signature or another output.

    The module itself is trained: it sits in the result as ``.module``, keeps its own state-dict keys, and no
    hook, mode, flag or buffer set by the adapter outlives a call, also where the call raises.

    Args:
        module: the user's module.
        inputs: maps frames (T, d) to what the module takes: one tensor, a tuple (``*args``) or a dict
            (``**kwargs``; a module that takes one dict gets ``(that_dict,)``). Default: the frames.
        output: maps the value at hand (the module's return value, the output of ``logits_from``, or that
            of ``head``) to (T,). Axes of size 1 are dropped from what it returns. Default: the value itself,
            which must then be one tensor.
        logits_from: name of the submodule whose output is the logits, as in ``module.named_modules()``. It
            must run exactly once in a forward. Better than ``probabilities`` where both are possible: a
            low-precision sigmoid near 0 or 1 cannot be inverted.
        probabilities: whether the value is a probability in [0, 1]; its sigmoid is then inverted in float32,
            clamped to [1e-6, 1 - 1e-6]. No gradient passes where the clamp acts.
        hidden_from: name of a hidden layer, for modules without a score per frame; its output
            (..., T, h), with leading axes of size 1, goes through ``head``. Layers behind it get no gradient.
            Of a recurrent or attention layer of torch, the first output counts.
        head: an extra head, for pretraining only, (T, h) to (T,) or (T, 1). Default: ``nn.Linear(h, 1)``
            where the hidden layer tells its width (``out_features``, or a LayerNorm).

    Returns:
        A module with ``forward(frames (T, d)) -> logits (T,)``. That forward raises ValueError where the
        value is not (T,) or not a probability, TypeError where it is not floating point or ``inputs`` returns
        something else, and RuntimeError where the named submodule does not run exactly once.

    Raises:
        TypeError: ``module`` or ``head`` is not an ``nn.Module``, or ``inputs`` or ``output`` not callable.
        ValueError: options that exclude each other, an unknown submodule name, or a missing ``head``.
    """
    check_module("summarizer", module)
    _require_callable(inputs=inputs, output=output)
    _refuse_together(logits_from=logits_from, hidden_from=hidden_from)
    _refuse_together(probabilities=probabilities or None, hidden_from=hidden_from)
    if head is not None and hidden_from is None:
        raise ValueError("head= needs hidden_from=, the name of the layer whose output it takes")
    if head is not None and not isinstance(head, nn.Module):
        raise TypeError(f"head must be a torch.nn.Module from (T, h) to (T,) or (T, 1), got {type(head).__name__}")
    if logits_from is not None:
        _find_layer(module, logits_from, "logits_from")
    if hidden_from is not None:
        layer = _find_layer(module, hidden_from, "hidden_from")
        head = _default_head(module, layer, hidden_from) if head is None else head
    return AdaptedSummarizer(module, inputs, output, logits_from, probabilities, hidden_from, head)


def adapt_encoder(
    module: nn.Module, *, hidden_from: str, pool: Pool = "mean", inputs: ModuleInputs | None = None
) -> nn.Module:
    """Make a `VideoEncoder` of any module: the pooled output of one of its hidden layers.

    The module is trained and otherwise left as it was, as with `adapt_summarizer`.

    Args:
        module: the user's module.
        hidden_from: name of the layer whose output (..., L, h), with leading axes of size 1, is pooled; L is
            often T, and may be another length. Layers behind it get no gradient.
        pool: ``"mean"`` over the L rows, ``"cls"`` for row 0, or a callable (a module is trained, too) from
            (L, h) to (e,).
        inputs: maps frames (T, d) to what the module takes, as in `adapt_summarizer`.

    Returns:
        A module with ``forward(frames (T, d)) -> embedding (e,)``. That forward raises ValueError or
        TypeError where the hidden output is not (L, h) or the pool's result not (e,), and RuntimeError where
        the layer does not run exactly once.

    Raises:
        TypeError: ``module`` is not an ``nn.Module``, or ``inputs`` not callable.
        ValueError: an unknown layer name or pool.
    """
    check_module("encoder", module)
    _require_callable(inputs=inputs)
    _find_layer(module, hidden_from, "hidden_from")
    if pool not in ("mean", "cls") and not callable(pool):
        raise ValueError(f"pool must be 'mean', 'cls' or a callable from (L, h) to (e,), got {pool!r}")
    return AdaptedEncoder(module, hidden_from, pool, inputs)


class AdaptedSummarizer(nn.Module):
    """What `adapt_summarizer` returns: the user's module as ``module``, and ``head`` where one is used."""

    def __init__(
        self,
        module: nn.Module,
        inputs: ModuleInputs | None,
        output: Callable[[Any], Tensor] | None,
        logits_from: str | None,
        probabilities: bool,
        hidden_from: str | None,
        head: nn.Module | None,
    ) -> None:
        super().__init__()
        self.module = module
        self.head = head
        self.inputs = inputs
        self.output = output
        self.logits_from = logits_from
        self.probabilities = probabilities
        self.hidden_from = hidden_from
        self.training = module.training

    def forward(self, frames: Tensor) -> Tensor:
        """Return the logits (T,) of the frames (T, d)."""
        length = frames.shape[0]
        if self.head is not None and self.hidden_from is not None:
            source = f"the head on {_source(self.module, self.hidden_from)}"
            hidden = _hidden(self.module, self.inputs, frames, self.hidden_from)
            if hidden.shape[0] != length:
                raise ValueError(
                    f"{source} got hidden values {tuple(hidden.shape)}; expected (T, h), T = {length}. "
                    "Name a layer with one row a frame in hidden_from="
                )
            value = self.head(hidden)
        else:
            source = _source(self.module, self.logits_from)
            value = _run(self.module, self.inputs, frames, self.logits_from)
        if self.output is not None:
            value, source = self.output(value), f"output= on {source}"
        logits = _per_frame(value, length, source)
        return _invert_sigmoid(logits, source) if self.probabilities else logits


class AdaptedEncoder(nn.Module):
    """What `adapt_encoder` returns: the user's module as ``module``."""

    def __init__(self, module: nn.Module, hidden_from: str, pool: Pool, inputs: ModuleInputs | None) -> None:
        super().__init__()
        self.module = module
        self.hidden_from = hidden_from
        self.pool = pool
        self.inputs = inputs
        self.training = module.training

    def forward(self, frames: Tensor) -> Tensor:
        """Return the embedding (e,) of the frames (T, d)."""
        hidden = _hidden(self.module, self.inputs, frames, self.hidden_from)
        if self.pool == "mean":
            return hidden.mean(dim=0)
        if self.pool == "cls":
            return hidden[0]
        assert callable(self.pool)
        source = f"pool= on {_source(self.module, self.hidden_from)}"
        return check_vector(self.pool(hidden), source, "Return one vector from the pool")


def _run(module: nn.Module, inputs: ModuleInputs | None, frames: Tensor, name: str | None) -> Any:
    """Call the module; return its value, or the output of the submodule of that name."""
    args, kwargs = _arguments(inputs, frames)
    if name is None:
        return module(*args, **kwargs)
    outputs: list[Any] = []

    def keep(_layer: nn.Module, _args: object, value: Any) -> None:
        outputs.append(_copy(value))

    handle = module.get_submodule(name).register_forward_hook(keep)
    try:
        module(*args, **kwargs)
    finally:
        handle.remove()
    if len(outputs) != 1:
        times = "was never called" if not outputs else f"was called {len(outputs)} times"
        raise RuntimeError(
            f"{_source(module, name)} {times} in one forward; expected exactly one call. Name a "
            "submodule that runs once, or take the module's return value with output="
        )
    return outputs[0]


def _arguments(inputs: ModuleInputs | None, frames: Tensor) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    given = frames if inputs is None else inputs(frames)
    if isinstance(given, Tensor):
        return (given,), {}
    if isinstance(given, tuple):
        return given, {}
    if isinstance(given, Mapping):
        return (), given
    raise TypeError(
        f"inputs= must return a tensor, a tuple (*args) or a dict (**kwargs), got {type(given).__name__}; "
        "return (value,) to pass any other value as the only argument"
    )


def _copy(value: Any) -> Any:
    """Copy the tensors: an in-place activation behind the layer would overwrite what it gave."""
    if isinstance(value, Tensor):
        return value.clone()
    if type(value) is tuple:
        return tuple(_copy(element) for element in value)
    return value


def _per_frame(value: object, length: int, source: str) -> Tensor:
    """Drop the axes of size 1 and return (T,)."""
    if not isinstance(value, Tensor) or not fits_frames(value, length):
        raise ValueError(
            f"{source} gave {describe_value(value, length)}; expected logits (T,) with T = {length}. Pick or "
            "reduce the value with output=lambda value: ..., or name the layer that gives the logits with "
            "logits_from=..."
        )
    if not value.is_floating_point():
        raise TypeError(f"{source} gave {describe_value(value, length)}; expected real numbers, in floating point")
    return value.reshape(length)


def _hidden(module: nn.Module, inputs: ModuleInputs | None, frames: Tensor, name: str) -> Tensor:
    """Call the module and return the layer's hidden values (L, h), without leading axes of size 1."""
    value = _run(module, inputs, frames, name)
    if isinstance(module.get_submodule(name), nn.RNNBase | nn.MultiheadAttention):
        value = value[0]
    if not isinstance(value, Tensor) or value.ndim < 2 or any(size != 1 for size in value.shape[:-2]):
        raise ValueError(
            f"{_source(module, name)} gave {describe_value(value)}; expected hidden values (L, h), with any "
            "leading axes of size 1. Name another layer in hidden_from="
        )
    return value.reshape(value.shape[-2:])


def _invert_sigmoid(probabilities: Tensor, source: str) -> Tensor:
    """Return the logits (T,) of probabilities (T,), in float32 (or float64, if they are)."""
    rounding = torch.finfo(probabilities.dtype).eps
    if bool(((probabilities < -rounding) | (probabilities > 1 + rounding)).any()):
        low, high = probabilities.min().item(), probabilities.max().item()
        raise ValueError(
            f"probabilities=True, but {source} gave values from {low:.4g} to {high:.4g}, outside [0, 1]; "
            "drop probabilities=True if these are logits already"
        )
    exact = probabilities if probabilities.dtype == torch.float64 else probabilities.float()
    return torch.logit(exact.clamp(PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN))


def _default_head(module: nn.Module, layer: nn.Module, name: str) -> nn.Module:
    shape = getattr(layer, "normalized_shape", None) if isinstance(layer, nn.LayerNorm) else None
    width = shape[-1] if shape else getattr(layer, "out_features", None)
    if not isinstance(width, int):
        raise ValueError(
            f"hidden_from={name!r} is a {type(layer).__name__}, which does not tell its width h; give "
            "head=nn.Linear(h, 1)"
        )
    weight = next(module.parameters(), None)
    if weight is None or not weight.is_floating_point():
        return nn.Linear(width, 1)
    return nn.Linear(width, 1, device=weight.device, dtype=weight.dtype)


def _require_callable(**options: object) -> None:
    for name, option in options.items():
        if option is not None and not callable(option):
            raise TypeError(f"{name}= must be callable, got {type(option).__name__}")


def _refuse_together(**options: object) -> None:
    if all(option is not None for option in options.values()):
        first, second = options
        raise ValueError(f"{first}= and {second}= exclude each other; give one of them")


def _find_layer(module: nn.Module, name: str, option: str) -> nn.Module:
    layers: dict[str, nn.Module] = {
        known: layer for known, layer in module.named_modules(remove_duplicate=False) if known
    }
    if name in layers:
        return layers[name]
    closest = difflib.get_close_matches(str(name), layers, n=3, cutoff=0.4)
    names = [*closest, *(known for known in layers if known not in closest)]
    more = f", ... ({len(names)} in all)" if len(names) > NAMES_SHOWN else ""
    listed = ", ".join(names[:NAMES_SHOWN]) + more if names else "none"
    raise ValueError(f"{option}={name!r}: {class_name(module)} has no such submodule. It has: {listed}")


def _source(module: nn.Module, name: str | None) -> str:
    return class_name(module) if name is None else f"submodule {name!r} of {class_name(module)}"
