"""Models by name, as the command line gives them."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from visp.encoders import AttentionPoolEncoder
from visp.summarizers import CSTA, GoogleNet

SUMMARIZERS = ("csta", "googlenet")
ENCODERS = ("attention", "csta", "csta-literal")


def make_summarizer(name: str, feature_dim: int, *, width: int = 1024) -> nn.Module:
    """Make a summarizer.

    Args:
        name: ``"csta"``, ``"googlenet"``, or ``"package.module:factory"``, where ``factory(feature_dim=...)``
            returns a module.
        feature_dim: d, dimension of a frame's features.
        width: Width of a built-in model.

    Returns:
        The module.

    Raises:
        ValueError: If the name is unknown or the factory cannot be found.
        TypeError: If the factory returns no module.
    """
    if name == "csta":
        return CSTA(feature_dim, width=width)
    if name == "googlenet":
        return GoogleNet(feature_dim, width=width)
    return _from_factory("summarizer", name, feature_dim, SUMMARIZERS)


def make_encoder(name: str, feature_dim: int, *, width: int = 1024) -> nn.Module:
    """Make a video encoder.

    Args:
        name: ``"attention"``, ``"csta"`` (a CSTA with attention pooling), ``"csta-literal"`` (a CSTA whose
            embedding is the CLS row of its final hidden state, as the paper says), or
            ``"package.module:factory"``, where ``factory(feature_dim=...)`` returns a module.
        feature_dim: d, dimension of a frame's features.
        width: Width of a CSTA.

    Returns:
        The module.

    Raises:
        ValueError: If the name is unknown or the factory cannot be found.
        TypeError: If the factory returns no module.
    """
    if name == "attention":
        return AttentionPoolEncoder(feature_dim)
    if name == "csta":
        return CSTA(feature_dim, width=width, classifier=False)
    if name == "csta-literal":
        return CSTA(feature_dim, width=width, classifier=False, pooling="cls")
    return _from_factory("encoder", name, feature_dim, ENCODERS)


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


def _from_factory(role: str, name: str, feature_dim: int, known: Sequence[str]) -> nn.Module:
    module = call_factory(role, name, known, feature_dim=feature_dim)
    if not isinstance(module, nn.Module):
        raise TypeError(f"{name} returned a {type(module).__name__}, expected a torch.nn.Module")
    return module
