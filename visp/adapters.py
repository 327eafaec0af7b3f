"""How a module of another shape becomes a summarizer or a video encoder, unchanged.

Letters: T frames of one video, d feature dimension, e embedding dimension, h width of a hidden layer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from visp.contracts import check_module, check_vector, class_name, describe_value, fits_frames
from visp.layer_output import LayerOutput, find_layer_output

Side: TypeAlias = Mapping[str, Tensor]
"""Side inputs by name; see :class:`visp.data.Video`."""
ModuleInputs: TypeAlias = "Callable[..., Tensor | tuple[Any, ...] | Mapping[str, Any]]"
Call: TypeAlias = "Callable[..., Any]"
Pool: TypeAlias = "Literal['mean', 'cls'] | Callable[[Tensor], Tensor]"

PROBABILITY_MARGIN = 1e-6  # inverted probabilities stay this far from 0 and 1: logits within +-13.8


def adapt_summarizer(
    module: nn.Module,
    *,
    inputs: ModuleInputs | None = None,
    call: Call | None = None,
    output: Callable[..., Tensor] | None = None,
    logits_from: str | None = None,
    probabilities: bool = False,
) -> nn.Module:
    """Make a `Summarizer` of a module with another signature or another output.

    For a module without a score per frame, see `attach_head`.

    The module itself is trained: it sits in the result as ``.module`` and keeps its own state-dict keys. No hook,
    mode, flag or buffer set by the adapter outlives a call, also where the call raises. The module is given a copy of
    the frames, so it may write into its input. Made of named functions instead of lambdas, the result can be pickled.

    Args:
        module: the user's module.
        inputs: maps frames (T, d) to what the module takes: one tensor, a tuple (``*args``) or a dict
            (``**kwargs``; a module that takes one dict gets ``(that_dict,)``). If two of its parameters have no
            default, it is given ``(frames, side)``, the side inputs of the video by name
            (:class:`visp.data.Video`). Default: the frames.
        call: runs the module instead, ``call(module, frames (T, d)) -> value``: for modules whose ``forward`` is not
            what gives the scores, for an ``nn.ModuleDict`` of parts, and for padding that needs T. If three of its
            parameters have no default, it is given ``(module, frames, side)``.
        output: maps the value at hand (the module's return value, or the output of ``logits_from``) to (T,). Axes of
            size 1 are dropped from what it returns. If two of its parameters have no default, it is given
            ``(value, frames)``. Default: the value itself, which must then be one tensor.
        logits_from: name of the submodule whose output is the logits, as in ``module.named_modules()``, with the
            part where it returns several: ``"attention[0]"``, ``"decoder['scores']"``. It must run once in a
            forward, or once per window of the video, in order: outputs whose rows sum to T are joined. Better than
            ``probabilities`` where both are possible: a low-precision sigmoid near 0 or 1 cannot be inverted.
        probabilities: whether the value is a probability in [0, 1]; its sigmoid is then inverted in float32,
            clamped to [1e-6, 1 - 1e-6]. No gradient passes where the clamp acts.

    Returns:
        A module with ``forward(frames (T, d), side=None) -> logits (T,)``. That forward raises ValueError where
        side inputs are wanted and there are none, or the value is not (T,) or not a probability, TypeError where it is
        not floating point or ``inputs`` returns something else, and RuntimeError where the named submodule does not
        run once, or once per window.

    Raises:
        TypeError: ``module`` is not an ``nn.Module``, or ``inputs``, ``call`` or ``output`` not callable.
        ValueError: options that exclude each other, or an unknown submodule name.
    """
    check_module("summarizer", module)
    _require_callable(inputs=inputs, call=call, output=output)
    _refuse_together(inputs=inputs, call=call)
    logits = None if logits_from is None else find_layer_output(module, logits_from, "logits_from")
    return AdaptedSummarizer(module, inputs, call, output, logits, probabilities)


def attach_head(
    module: nn.Module,
    hidden_from: str,
    *,
    head: nn.Module | None = None,
    inputs: ModuleInputs | None = None,
    call: Call | None = None,
    output: Callable[..., Tensor] | None = None,
) -> nn.Module:
    """Make a `Summarizer` of a module without a score per frame: an extra head on one of its hidden layers.

    The head is for pretraining; the module is trained and otherwise left as it was, as with `adapt_summarizer`.

    Args:
        module: the user's module.
        hidden_from: name of the layer whose output (..., T, h), with leading axes of size 1, goes through ``head``,
            as for ``logits_from`` of `adapt_summarizer`. Layers behind it get no gradient. Of a recurrent or
            attention layer of torch, the first output counts.
        head: maps (T, h) to (T,) or (T, 1). Default: ``nn.Linear(h, 1)`` where the hidden layer tells its width
            (``out_features``, or a LayerNorm).
        inputs: maps frames (T, d) to what the module takes, as in `adapt_summarizer`.
        call: runs the module instead, as in `adapt_summarizer`.
        output: maps the head's output to (T,), as in `adapt_summarizer`.

    Returns:
        A module with ``forward(frames (T, d)) -> logits (T,)``, the user's as ``.module`` and the head as ``.head``.
        That forward raises as that of `adapt_summarizer` does.

    Raises:
        TypeError: ``module`` or ``head`` is not an ``nn.Module``, or ``inputs``, ``call`` or ``output`` not callable.
        ValueError: ``inputs`` and ``call`` are both given, an unknown layer name, or a missing ``head``.
    """
    check_module("summarizer", module)
    _require_callable(inputs=inputs, call=call, output=output)
    _refuse_together(inputs=inputs, call=call)
    if head is not None and not isinstance(head, nn.Module):
        raise TypeError(f"head must be a torch.nn.Module from (T, h) to (T,) or (T, 1), got {type(head).__name__}")
    hidden = _find_hidden(module, hidden_from)
    return AdaptedSummarizer(
        module, inputs, call, output, hidden=hidden, head=_default_head(module, hidden) if head is None else head
    )


def adapt_encoder(
    module: nn.Module,
    *,
    hidden_from: str,
    pool: Pool = "mean",
    inputs: ModuleInputs | None = None,
    call: Call | None = None,
) -> nn.Module:
    """Make a `VideoEncoder` of any module: the pooled output of one of its hidden layers.

    The module is trained and otherwise left as it was, as with `adapt_summarizer`.

    Args:
        module: the user's module.
        hidden_from: name of the layer whose output (..., L, h), with leading axes of size 1, is pooled, as in
            `adapt_summarizer`; L is often T, and may be another length. Layers behind it get no gradient.
        pool: ``"mean"`` over the L rows, ``"cls"`` for row 0, or a callable (a module is trained, too) from
            (L, h) to (e,).
        inputs: maps frames (T, d) to what the module takes, as in `adapt_summarizer`.
        call: runs the module instead, as in `adapt_summarizer`.

    Returns:
        A module with ``forward(frames (T, d)) -> embedding (e,)``. That forward raises ValueError or
        TypeError where the hidden output is not (L, h) or the pool's result not (e,), and RuntimeError where
        the layer does not run once, or once per window.

    Raises:
        TypeError: ``module`` is not an ``nn.Module``, or ``inputs`` or ``call`` not callable.
        ValueError: an unknown layer name or pool, or ``inputs`` or ``call`` wants side inputs.
    """
    check_module("encoder", module)
    _require_callable(inputs=inputs, call=call)
    _refuse_together(inputs=inputs, call=call)
    hidden = _find_hidden(module, hidden_from)
    if _takes_side(inputs, call):
        raise ValueError("the encoder is given frames alone, for side inputs would give a video away")
    if pool not in ("mean", "cls") and not callable(pool):
        raise ValueError(f"pool must be 'mean', 'cls' or a callable from (L, h) to (e,), got {pool!r}")
    return AdaptedEncoder(module, hidden, pool, inputs, call)


class AdaptedSummarizer(nn.Module):
    """What `adapt_summarizer` and `attach_head` return: the user's module as ``module``, and ``head`` or None."""

    def __init__(
        self,
        module: nn.Module,
        inputs: ModuleInputs | None,
        call: Call | None,
        output: Callable[..., Tensor] | None,
        logits: LayerOutput | None = None,
        probabilities: bool = False,
        hidden: LayerOutput | None = None,
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.head = head
        self.inputs = inputs
        self.call = call
        self.output = output
        self.output_takes_frames = output is not None and _num_parameters(output) == 2
        self.logits = logits
        self.probabilities = probabilities
        self.hidden = hidden
        self.takes_side = _takes_side(inputs, call)
        self.training = module.training

    def forward(self, frames: Tensor, side: Side | None = None) -> Tensor:
        """Return the logits (T,) of the frames (T, d) and what is beside them."""
        value, source = self._value(frames, self._copied(side))
        if self.output is not None:
            value = self.output(value, frames) if self.output_takes_frames else self.output(value)
            source = f"output= on {source}"
        logits = _per_frame(value, len(frames), source)
        return _invert_sigmoid(logits, source) if self.probabilities else logits

    def _copied(self, side: Side | None) -> Side | None:
        """Return a copy of the side inputs where ``inputs`` or ``call`` takes them."""
        if not self.takes_side:
            return None
        if side is None:
            raise ValueError(
                f"{'inputs' if self.call is None else 'call'}= takes side inputs, and the video carries none: give a "
                "visp.data.Video, or a dataset with with_="
            )
        return {name: value.clone() for name, value in side.items()}

    def _value(self, frames: Tensor, side: Side | None) -> tuple[Any, str]:
        """Return what ``output`` is given, and where it comes from in words."""
        length = len(frames)
        if self.hidden is not None and self.head is not None:
            source = f"the head on {self.hidden.source(self.module)}"
            hidden = _hidden(self.module, self.call, self.inputs, frames, self.hidden, side)
            if len(hidden) != length:
                raise ValueError(
                    f"{source} got hidden values {tuple(hidden.shape)}; expected (T, h), T = {length}. "
                    "Name a layer with one row per frame in hidden_from="
                )
            return self.head(hidden), source
        if self.logits is not None:
            values = self.logits.caught(self.module, lambda: _run(self.module, self.call, self.inputs, frames, side))
            return self.logits.joined(self.module, values, length), self.logits.source(self.module)
        return _run(self.module, self.call, self.inputs, frames, side), class_name(self.module)


class AdaptedEncoder(nn.Module):
    """What `adapt_encoder` returns: the user's module as ``module``."""

    def __init__(
        self, module: nn.Module, hidden: LayerOutput, pool: Pool, inputs: ModuleInputs | None, call: Call | None
    ) -> None:
        super().__init__()
        self.module = module
        self.hidden = hidden
        self.pool = pool
        self.inputs = inputs
        self.call = call
        self.training = module.training

    def forward(self, frames: Tensor) -> Tensor:
        """Return the embedding (e,) of the frames (T, d)."""
        hidden = _hidden(self.module, self.call, self.inputs, frames, self.hidden)
        if self.pool == "mean":
            return hidden.mean(dim=0)
        if self.pool == "cls":
            return hidden[0]
        assert callable(self.pool)
        source = f"pool= on {self.hidden.source(self.module)}"
        return check_vector(self.pool(hidden), source, "Return one vector from the pool")


def _run(
    module: nn.Module, call: Call | None, inputs: ModuleInputs | None, frames: Tensor, side: Side | None = None
) -> Any:
    """Run the module on a copy of the frames: what it writes into its input must not reach anyone else."""
    given: tuple[Any, ...] = (frames.clone(),) if side is None else (frames.clone(), side)
    if call is not None:
        return call(module, *given)
    args, kwargs = _arguments(given[0] if inputs is None else inputs(*given))
    return module(*args, **kwargs)


def _arguments(given: object) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
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


def _takes_side(inputs: ModuleInputs | None, call: Call | None) -> bool:
    """Return whether ``inputs`` wants (frames, side), or ``call`` (module, frames, side)."""
    return _num_parameters(call) == 3 if call is not None else inputs is not None and _num_parameters(inputs) == 2


def _num_parameters(function: Callable[..., Any]) -> int:
    """Return how many positional parameters of a function have no default; 0 where it does not tell."""
    try:
        called = function.forward if isinstance(function, nn.Module) else function
        parameters = inspect.signature(called).parameters.values()
    except (TypeError, ValueError):  # some functions of torch tell no signature
        return 0
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.kind in positional and one.default is inspect.Parameter.empty for one in parameters)


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


def _hidden(
    module: nn.Module,
    call: Call | None,
    inputs: ModuleInputs | None,
    frames: Tensor,
    layer: LayerOutput,
    side: Side | None = None,
) -> Tensor:
    """Run the module and return the layer's hidden values (L, h), without leading axes of size 1."""
    values = layer.caught(module, lambda: _run(module, call, inputs, frames, side))
    value = layer.joined(module, values, len(frames), axis=-2)
    if not isinstance(value, Tensor) or value.ndim < 2 or any(size != 1 for size in value.shape[:-2]):
        part = f"; name the part, such as '{layer.name}[0]'" if isinstance(value, tuple | list | Mapping) else ""
        raise ValueError(
            f"{layer.source(module)} gave {describe_value(value)}; expected hidden values (L, h), with any "
            f"leading axes of size 1. Name another layer in hidden_from={part}"
        )
    return value.reshape(value.shape[-2:])


def _find_hidden(module: nn.Module, name: str) -> LayerOutput:
    """Find the layer; of a recurrent or attention layer of torch, the first output."""
    layer = find_layer_output(module, name, "hidden_from")
    if not layer.parts and isinstance(module.get_submodule(layer.name), nn.RNNBase | nn.MultiheadAttention):
        return replace(layer, parts=(0,))
    return layer


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


def _default_head(module: nn.Module, hidden: LayerOutput) -> nn.Module:
    layer = module.get_submodule(hidden.name)
    shape = getattr(layer, "normalized_shape", None) if isinstance(layer, nn.LayerNorm) else None
    width = shape[-1] if shape else getattr(layer, "out_features", None)
    if not isinstance(width, int) or hidden.parts:
        raise ValueError(
            f"hidden_from={hidden.text!r} is a {type(layer).__name__}, which does not tell its width h; give "
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
