"""What a case of an error is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Case(NamedTuple):
    """One way to be refused.

    Attributes:
        name: What refuses, as the API reference names it.
        error: The error that its docstring promises.
        message: Pattern of the message, which names the thing.
        call: Given what is named and an empty folder, makes it raise.
    """

    name: str
    error: type[BaseException]
    message: str
    call: Callable[[Any, Path], object]
