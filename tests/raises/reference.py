"""What the pages of the API reference list, and which errors the docstrings there promise."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"


def resolve(name: str) -> Any:
    """Import what a dotted name says: the longest module, then attributes of it."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
            for part in parts[end:]:
                found = inspect.getattr_static(found, part) if inspect.isclass(found) else getattr(found, part)
        except (ImportError, AttributeError):
            continue
        return found.fget if isinstance(found, property) else getattr(found, "__func__", found)
    raise LookupError(f"{name} is in the API reference, and cannot be imported")


def documented() -> dict[str, Any]:
    """Every object that the site shows by its name there: what ``:::`` names, and the public members of it."""
    found: dict[str, Any] = {}
    for page in sorted(DOCS.glob("api*.md")):
        for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.MULTILINE):
            found.update(_with_members(name))
    return found


def _with_members(name: str) -> Iterator[tuple[str, Any]]:
    thing = resolve(name)
    yield name, thing
    if inspect.ismodule(thing):
        for member, value in vars(thing).items():
            if not member.startswith("_") and getattr(value, "__module__", None) == thing.__name__:
                yield from _with_members(f"{name}.{member}")
    elif inspect.isclass(thing):
        for member, value in vars(thing).items():
            if not member.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
                yield f"{name}.{member}", resolve(f"{name}.{member}")


def promised(thing: Any) -> list[str]:
    """Names of the errors in the ``Raises:`` of a docstring, Google style; a class has that of its ``__init__`` too."""
    texts = [inspect.cleandoc(thing.__doc__ or "")]
    if inspect.isclass(thing) and "__init__" in vars(thing):
        texts.append(inspect.cleandoc(vars(thing)["__init__"].__doc__ or ""))
    sections = [re.search(r"^Raises:\n((?:(?: .*)?\n)*)", text + "\n", re.MULTILINE) for text in texts]
    lines = [line for section in sections if section for line in section[1].splitlines()]
    return [said[1] for line in lines if (said := re.match(r" {4}(\w+):", line))]
