"""What one layer of a module gives in a forward pass: found by name, caught by a hook that does not outlive the call.

Letters: T frames of one video, L rows of a layer's output, h its width.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visp.contracts import class_name, describe_value

NAMES_SHOWN = 12

_WITH_PARTS = re.compile(r"""(?P<name>.*?)(?P<parts>(\[(-?\d+|'[^']*'|"[^"]*")\])+)""")


@dataclass(frozen=True)
class LayerOutput:
    """A layer's output, or a part of it where the layer returns several values.

    Attributes:
        text: As the user named it, such as ``"attention[0]"``.
        name: The layer's name, as in ``module.named_modules()``.
        parts: Indices and keys that lead from the output to the value, such as ``(0,)``.
    """

    text: str
    name: str
    parts: tuple[int | str, ...]

    def caught(self, module: nn.Module, run: Callable[[], object]) -> list[Any]:
        """Return copies of what the layer gave, one per call, while ``run()`` runs the module.

        They are copies because an in-place activation behind the layer would overwrite what it gave.

        Raises:
            ValueError: If an output has no such part.
        """
        values: list[Any] = []

        def keep(_layer: nn.Module, _args: object, output: Any) -> None:
            values.append(_copy(self._part(module, output)))

        handle = module.get_submodule(self.name).register_forward_hook(keep)
        try:
            run()
        finally:
            handle.remove()
        return values

    def joined(self, module: nn.Module, values: list[Any], length: int, *, axis: int | None = None) -> Any:
        """Return the value of one call, or those of several calls joined along the frames.

        Args:
            module: The module, for messages.
            values: What `caught` returned.
            length: T, number of frames of the video.
            axis: The axis of the frames; by default the only one along which the sizes sum to T.

        Raises:
            RuntimeError: If there was no call, or several whose rows do not sum to T or do so along several axes.
        """
        if len(values) == 1:
            return values[0]
        if not values:
            raise RuntimeError(
                f"{self.source(module)} was never called in one forward; expected one call, or one per window. Name "
                "a submodule that runs, or take the module's return value with output="
            )
        axes = _axes_of_frames(values, length, axis)
        if len(axes) == 1 or (axes and values[0].numel() == 1):
            return torch.cat(values, dim=axes[0])
        shapes = ", ".join(
            str(tuple(value.shape)) if isinstance(value, Tensor) else "no tensor" for value in values[:3]
        )
        why = f"along several axes sum to T = {length}" if axes else f"do not sum to T = {length} rows"
        raise RuntimeError(
            f"{self.source(module)} was called {len(values)} times in one forward, and its outputs ({shapes}"
            f"{', ...' if len(values) > 3 else ''}) {why}; expected one call, or calls on the windows of the video one "
            "after the other. Name a submodule that runs once, or take the module's return value with output="
        )

    def source(self, module: nn.Module) -> str:
        """Return the layer and its module in words, for messages."""
        return f"submodule {self.text!r} of {class_name(module)}"

    def _part(self, module: nn.Module, output: Any) -> Any:
        value = output
        try:
            for part in self.parts:
                if isinstance(value, Tensor):
                    raise TypeError("a tensor is one value")
                value = value[part]
        except (IndexError, KeyError, TypeError) as error:
            said = f"{self.source(module)}: the layer gave {describe_value(output)}, which has no such part"
            raise ValueError(said) from error
        return value


def find_layer_output(module: nn.Module, text: str, option: str) -> LayerOutput:
    """Find a layer by its name, with the part of its output in brackets where it returns several values.

    Args:
        module: The module.
        text: The name, such as ``"attention"``, ``"attention[0]"`` or ``"encoder['hidden']"``.
        option: Name of the parameter, for the message.

    Raises:
        ValueError: If there is no such layer; the message lists the closest names first.
    """
    layers = dict.fromkeys(name for name, _ in module.named_modules(remove_duplicate=False) if name)
    if text in layers:
        return LayerOutput(text, text, ())
    match = _WITH_PARTS.fullmatch(str(text))
    if match and match["name"] in layers:
        parts = re.findall(r"""\[(-?\d+|'[^']*'|"[^"]*")\]""", match["parts"])
        return LayerOutput(text, match["name"], tuple(ast.literal_eval(part) for part in parts))
    closest = difflib.get_close_matches(match["name"] if match else str(text), layers, n=3, cutoff=0.4)
    names = [*closest, *(known for known in layers if known not in closest)]
    more = f", ... ({len(names)} in all)" if len(names) > NAMES_SHOWN else ""
    listed = ", ".join(names[:NAMES_SHOWN]) + more if names else "none"
    raise ValueError(f"{option}={text!r}: {class_name(module)} has no such submodule. It has: {listed}")


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if type(value) in (tuple, list):
        return type(value)(_copy(element) for element in value)
    if isinstance(value, Mapping):
        return {key: _copy(element) for key, element in value.items()}
    return value


def _axes_of_frames(values: list[Any], length: int, axis: int | None) -> list[int]:
    """Return the axes along which the values can be concatenated to T rows."""
    if not all(isinstance(value, Tensor) and value.ndim == values[0].ndim for value in values):
        return []
    shapes = [list(value.shape) for value in values]
    dims = len(shapes[0])
    candidates = range(dims) if axis is None else [axis % dims] if -dims <= axis < dims else []
    return [
        dim
        for dim in candidates
        if sum(shape[dim] for shape in shapes) == length
        and len({(*shape[:dim], *shape[dim + 1 :]) for shape in shapes}) == 1
    ]
