"""Make ``examples/tour.ipynb`` of the example scripts: ``python docs/make_notebook.py``.

A script's docstring becomes text, its code cells, cut at blank lines; where it reads the command line, a cell holds the
options with their defaults.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOK = EXAMPLES / "tour.ipynb"
SCRIPTS = ("wrap_your_own", "pretrain_transformer", "controls", "finetune_and_compare")
OPENING = """# A tour of visp

Pretrain a summarizer of your own on videos without labels, the built-in one, see whether a run taught anything, and
fine-tune. It needs `visp` alone; everything runs on the embedded corpus, in a few minutes on a CPU. For files of your
own, give their names as `data=["my_videos.h5"]` in the cells of options.

`python docs/make_notebook.py` makes this notebook of the scripts in `examples`: change those."""


def main() -> None:
    """Write the notebook."""
    NOTEBOOK.write_text(notebook(), encoding="utf-8")


def notebook() -> str:
    """Return the notebook as JSON, nbformat 4.5."""
    cells: list[dict[str, Any]] = [_text(OPENING)]
    for name in SCRIPTS:
        cells += _cells(name, (EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
    content = {
        "cells": [{"id": f"cell-{number}", **cell} for number, cell in enumerate(cells)],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _cells(name: str, source: str) -> list[dict[str, Any]]:
    tree = ast.parse(source)
    said = ast.get_docstring(tree) or ""
    said = "\n".join(line for line in said.splitlines() if not line.startswith("python "))
    headline, _, rest = said.strip().partition("\n")
    cells = [_text(f"## {headline.rstrip('.')}\n\n{rest.strip()}\n\nFrom `examples/{name}.py`.")]
    lines = source.splitlines()
    last = tree.body[0].end_lineno or 0  # of the docstring
    block: list[str] = []
    for statement in tree.body[1:]:
        end = statement.end_lineno or statement.lineno
        first = min([statement.lineno, *(each.lineno for each in getattr(statement, "decorator_list", ()))])
        before = lines[last : first - 1]
        if block and any(not line for line in before) and not _imports(statement):
            cells.append(_code(block))
            block = []
        block += before
        if _reads_options(statement):
            block.append(_options(tree))
        elif not _of_the_parser(statement):
            block += lines[first - 1 : end]
        last = end
    return [*cells, _code([*block, *lines[last:]])]


def _imports(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Import | ast.ImportFrom)


def _of_the_parser(statement: ast.stmt) -> bool:
    return ast.unparse(statement).startswith(("parser = ", "parser.add_argument("))


def _reads_options(statement: ast.stmt) -> bool:
    return ast.unparse(statement) == "options = parser.parse_args()"


def _options(tree: ast.Module) -> str:
    """Return the options with their defaults, as the parser would give them."""
    defaults = {}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if ast.unparse(call.func) == "parser.add_argument":
            given = {each.arg: ast.unparse(each.value) for each in call.keywords}
            defaults[ast.literal_eval(call.args[0]).removeprefix("--")] = given.get("default", "None").replace("'", '"')
    return f"options = argparse.Namespace({', '.join(f'{name}={value}' for name, value in defaults.items())})"


def _text(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": _lines(text)}


def _code(lines: list[str]) -> dict[str, Any]:
    text = "\n".join(lines).strip("\n")
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": _lines(text)}


def _lines(text: str) -> list[str]:
    return re.sub(r"\n{3,}", "\n\n", text).splitlines(keepends=True)


if __name__ == "__main__":
    main()
