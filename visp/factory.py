"""Models by name, as the command line gives them."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from visp.encoders import AttentionPoolEncoder
from visp.summarizers import CSTA, CSTAEncoder, GoogleNet, Transformer

SUMMARIZERS: dict[str, Callable[..., nn.Module]] = {kind.factory_name: kind for kind in (CSTA, GoogleNet, Transformer)}
ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "attention": AttentionPoolEncoder,
    "csta": CSTAEncoder,
    "csta-literal": partial(CSTAEncoder, pooling="cls"),
}


def make_summarizer(name: str, feature_dim: int, *, width: int | None = None) -> nn.Module:
    """Make a summarizer.

    Args:
        name: ``"csta"``, ``"googlenet"``, ``"transformer"``, or ``"package.module:factory"``, where
            ``factory(feature_dim=...)`` returns a module.
        feature_dim: d, dimension of a frame's features.
        width: Width of a built-in model; its own default if ``None``.

    Returns:
        The module.

    Raises:
        ValueError: If the name is unknown, the factory cannot be found, or it is given a width.
        TypeError: If the factory returns no module.
    """
    return _make("summarizer", name, feature_dim, width, SUMMARIZERS)


def make_encoder(name: str, feature_dim: int, *, width: int | None = None) -> nn.Module:
    """Make a video encoder.

    Args:
        name: ``"attention"``, ``"csta"`` (a :class:`visp.summarizers.CSTAEncoder`), ``"csta-literal"`` (one whose
            embedding is the CLS row of its final hidden state, as the paper says), or
            ``"package.module:factory"``, where ``factory(feature_dim=...)`` returns a module.
        feature_dim: d, dimension of a frame's features.
        width: Width of a CSTA, its own default if ``None``; ``"attention"`` has none and ignores it.

    Returns:
        The module.

    Raises:
        ValueError: If the name is unknown, the factory cannot be found, or it is given a width.
        TypeError: If the factory returns no module.
    """
    return _make("encoder", name, feature_dim, None if name == "attention" else width, ENCODERS)


def find_factory(role: str, name: str, known: Sequence[str]) -> Callable[..., Any]:
    """Find a factory of a user's own.

    Args:
        role: What it makes, for messages.
        name: ``"package.module:factory"``; the current folder is searched too.
        known: The names that need no factory, for messages.

    Raises:
        ValueError: If the name is of another form or the factory cannot be found.
    """
    module_name, _, attribute = name.partition(":")
    if not attribute:
        raise ValueError(f"unknown {role} {name!r}: expected {', '.join(known)} or package.module:factory")
    if "" not in sys.path:
        sys.path.insert(0, "")  # modules in the current folder, as `python -m` finds them
    try:
        factory: Callable[..., Any] = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the {role} {name!r} cannot be found: {error}") from error
    return factory


def call_factory(role: str, name: str, known: Sequence[str], **arguments: Any) -> Any:
    """Find a factory of a user's own and call it with keyword arguments.

    Raises:
        ValueError: If the name is of another form or the factory cannot be found.
        TypeError: If it does not take the arguments; the message says how it is called.
    """
    factory = find_factory(role, name, known)
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        call = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise TypeError(f"the {role} factory {name} is called as {name.partition(':')[2]}({call}): {error}") from error
    except ValueError:  # of what is not written in Python the signature may be unknown
        pass
    return factory(**arguments)


def _make(
    role: str, name: str, feature_dim: int, width: int | None, known: Mapping[str, Callable[..., nn.Module]]
) -> nn.Module:
    options = {} if width is None else {"width": width}
    if name in known:
        return known[name](feature_dim, **options)
    if options:
        raise ValueError(f"width={width} is for the built-in {role}s: let {name} choose the width of what it makes")
    module = call_factory(role, name, tuple(known), feature_dim=feature_dim)
    if not isinstance(module, nn.Module):
        raise TypeError(f"{name} returned a {type(module).__name__}, expected a torch.nn.Module")
    return module
