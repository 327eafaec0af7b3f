"""What a summarizer and a video encoder are, and how a module of another shape becomes one, unchanged.

Letters: T frames of one video, d feature dimension, e embedding dimension, h width of a hidden layer.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from typing_extensions import Protocol, runtime_checkable

ModuleInputs: TypeAlias = "Callable[[Tensor], Tensor | tuple[Any, ...] | Mapping[str, Any]]"
Pool: TypeAlias = "Literal['mean', 'cls'] | Callable[[Tensor], Tensor]"

PROBABILITY_MARGIN = 1e-6  # inverted probabilities stay this far from 0 and 1: logits within +-13.8
NAMES_SHOWN = 12

SUMMARIZER_TEMPLATE = """\
class MySummarizer(torch.nn.Module):
    def __init__(self, feature_dim=1024):
        super().__init__()
        self.score = torch.nn.Linear(feature_dim, 1)

    def forward(self, frames):  # (T, d)
        return self.score(frames).squeeze(-1)  # logits (T,), before any sigmoid
"""


@runtime_checkable
class Summarizer(Protocol):
    """Scores the frames of one video: ``frames (T, d) -> logits (T,)``, real numbers before any sigmoid."""

    def __call__(self, frames: Tensor) -> Tensor:
        """Return the logits (T,) of the frames (T, d)."""
        ...


@runtime_checkable
class VideoEncoder(Protocol):
    """Describes one video by one vector: ``frames (T, d) -> embedding (e,)``."""

    def __call__(self, frames: Tensor) -> Tensor:
        """Return the embedding (e,) of the frames (T, d)."""
        ...


@runtime_checkable
class EncodesVideo(Protocol):
    """A module that has, beside its ``forward``, a method ``encode``: ``frames (T, d) -> embedding (e,)``."""

    def encode(self, frames: Tensor) -> Tensor:
        """Return the embedding (e,) of the frames (T, d)."""
        ...


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
    _require_module(module)
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
    _require_module(module)
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
        return _vector(self.pool(hidden), source, "Return one vector from the pool")


def embed_with(encoder: VideoEncoder | EncodesVideo) -> Callable[[Tensor], Tensor]:
    """Return what embeds a video with this encoder: its ``encode`` if it `EncodesVideo`, else the encoder."""
    if isinstance(encoder, EncodesVideo):
        return encoder.encode
    return encoder


def check_logits(logits: object, frames: Tensor, owner: object) -> Tensor:
    """Return the logits if they are those of a `Summarizer`: a floating-point tensor (T,).

    Args:
        logits: what the summarizer returned.
        frames: the frames (T, ...) that it was given.
        owner: the summarizer, for its class name.

    Raises:
        TypeError: not a tensor, or not floating point.
        ValueError: not of shape (T,).
    """
    length = frames.shape[0]
    hint = (
        "If the summarizer returns something else, wrap it: visp.adapt_summarizer(module, output=..., "
        "logits_from=..., probabilities=...)"
    )
    returned = f"{_class_name(owner)} returned {_describe(logits, length)}"
    said = f"{returned}; expected logits (T,) with T = {length}. {hint}"
    if not isinstance(logits, Tensor):
        raise TypeError(said)
    if logits.shape != (length,):
        raise ValueError(said)
    if not logits.is_floating_point():
        raise TypeError(f"{said}; logits are real numbers")
    return logits


def check_embedding(embedding: object, owner: object) -> Tensor:
    """Return the embedding if it is that of a `VideoEncoder`: a floating-point vector (e,), e >= 1.

    Args:
        embedding: what the encoder returned.
        owner: the encoder, for its class name.

    Raises:
        TypeError: not a tensor, or not floating point.
        ValueError: not of shape (e,).
    """
    hint = (
        "Give the encoder a method encode(frames (T, d)) -> (e,), or make one of a hidden layer: "
        "visp.adapt_encoder(module, hidden_from=..., pool='mean')"
    )
    return _vector(embedding, _class_name(owner), hint)


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
    if not isinstance(value, Tensor) or not _fits(value, length):
        raise ValueError(
            f"{source} gave {_describe(value, length)}; expected logits (T,) with T = {length}. Pick or "
            "reduce the value with output=lambda value: ..., or name the layer that gives the logits with "
            "logits_from=..."
        )
    if not value.is_floating_point():
        raise TypeError(f"{source} gave {_describe(value, length)}; expected real numbers, in floating point")
    return value.reshape(length)


def _hidden(module: nn.Module, inputs: ModuleInputs | None, frames: Tensor, name: str) -> Tensor:
    """Call the module and return the layer's hidden values (L, h), without leading axes of size 1."""
    value = _run(module, inputs, frames, name)
    if isinstance(module.get_submodule(name), nn.RNNBase | nn.MultiheadAttention):
        value = value[0]
    if not isinstance(value, Tensor) or value.ndim < 2 or any(size != 1 for size in value.shape[:-2]):
        raise ValueError(
            f"{_source(module, name)} gave {_describe(value)}; expected hidden values (L, h), with any "
            "leading axes of size 1. Name another layer in hidden_from="
        )
    return value.reshape(value.shape[-2:])


def _vector(value: object, source: str, hint: str) -> Tensor:
    said = f"{source} returned {_describe(value)}; expected an embedding, one vector (e,). {hint}"
    if not isinstance(value, Tensor):
        raise TypeError(said)
    if value.ndim != 1 or value.numel() == 0:
        raise ValueError(said)
    if not value.is_floating_point():
        raise TypeError(f"{said}; embeddings are real numbers")
    return value


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


def _require_module(module: object) -> None:
    if not isinstance(module, nn.Module):
        got = f"the class {module.__name__}" if isinstance(module, type) else type(module).__name__
        looks = f"A summarizer looks like this:\n\n{SUMMARIZER_TEMPLATE}"
        raise TypeError(f"expected a torch.nn.Module instance, got {got}. {looks}")


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
    raise ValueError(f"{option}={name!r}: {_class_name(module)} has no such submodule. It has: {listed}")


def _fits(value: object, length: int) -> bool:
    """Whether the value is a tensor (T,) but for axes of size 1."""
    return isinstance(value, Tensor) and value.numel() == length and value.ndim - value.shape.count(1) <= 1


def _describe(value: object, length: int | None = None) -> str:
    """Name the type and shape of a value and of its elements, and the elements that fit (T,)."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        elements = list(value.items())
    elif isinstance(value, tuple | list):
        elements = list(enumerate(value))
    else:
        return f"a value of type {type(value).__name__}"
    lines = []
    for key, element in elements:
        shape = f" {tuple(element.shape)}" if isinstance(element, Tensor) else ""
        fits = " which fits (T,)" if length is not None and _fits(element, length) else ""
        lines.append(f"[{key!r}] {type(element).__name__}{shape}{fits}")
    return f"a {type(value).__name__} of {', '.join(lines) or 'nothing'}"


def _source(module: nn.Module, name: str | None) -> str:
    return _class_name(module) if name is None else f"submodule {name!r} of {_class_name(module)}"


def _class_name(owner: object) -> str:
    return owner if isinstance(owner, str) else type(owner).__name__
