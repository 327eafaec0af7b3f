"""Every error that the API reference documents can be met, with a message that names the thing; and the reverse."""

from __future__ import annotations

import ast
import inspect
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.raises import CASES
from tests.raises.case import Case
from tests.raises.reference import documented, promised, resolve

DOCUMENTED = documented()
NEEDS = {"visp.video": "av", "visp.plots": "matplotlib"}
CONSTRUCTORS = ("__init__", "__post_init__", "__call__", "__getitem__")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.error.__name__}-{case.message[:30]}")
@pytest.mark.filterwarnings("ignore")  # warnings of what is refused a moment later
def test_a_documented_error_is_raised(case: Case, tmp_path: Path) -> None:
    for room, package in NEEDS.items():
        if case.name.startswith(room):
            pytest.importorskip(package)
    with pytest.raises(case.error, match=case.message) as caught:
        case.call(resolve(case.name), tmp_path)
    kinds = [each.__name__ for each in type(caught.value).__mro__]
    assert next((kind for kind in kinds if kind in promised(DOCUMENTED[case.name])), None) == case.error.__name__


def test_every_documented_error_has_a_case() -> None:
    pairs = {(name, error) for name, thing in DOCUMENTED.items() for error in promised(thing)}
    assert sorted(pairs - {(case.name, case.error.__name__) for case in CASES}) == []


def test_every_case_is_of_a_documented_error() -> None:
    pairs = {(name, error) for name, thing in DOCUMENTED.items() for error in promised(thing)}
    assert sorted({(case.name, case.error.__name__) for case in CASES} - pairs) == []


def raised_in(thing: Any) -> set[str]:
    """Names of the errors in the ``raise`` statements of a function, or of what makes and calls an object."""
    parts: list[ast.stmt] = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))).body
    if isinstance(parts[0], ast.ClassDef):
        parts = [each for each in parts[0].body if isinstance(each, ast.FunctionDef) and each.name in CONSTRUCTORS]
    raises = [each.exc for part in parts for each in ast.walk(part) if isinstance(each, ast.Raise)]
    return {ast.unparse(exc.func) for exc in raises if isinstance(exc, ast.Call)} - {"AssertionError"}


@pytest.mark.parametrize("name", [name for name, thing in DOCUMENTED.items() if not inspect.ismodule(thing)])
def test_what_raises_says_so(name: str) -> None:
    assert raised_in(DOCUMENTED[name]) - set(promised(DOCUMENTED[name])) == set()
