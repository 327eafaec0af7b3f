"""What the site needs beyond the pages: examples as pages, tables of options, Sphinx's roles in docstrings as code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page per example, and the notebooks; ``../examples/<name>`` leads to them, as it does in the repository."""
    for path in sorted((_ROOT / "examples").glob("*.py")):
        text = f"# {path.name}\n\n```python\n{path.read_text(encoding='utf-8')}```\n"
        files.append(File.generated(config, f"examples/{path.stem}.md", content=text))
    for path in sorted((_ROOT / "examples").glob("*.ipynb")):
        files.append(File.generated(config, f"examples/{path.name}", content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to examples to their pages, and put tables where ``<!-- options of FILE CLASS -->`` stands."""
    markdown = re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](examples/\1.md)", markdown)
    markdown = re.sub(r"\]\(\.\./(examples/\w+\.ipynb)\)", r"](\1)", markdown)
    return re.sub(r"<!-- options of (\S+) (\w+) -->", lambda found: options_table(found[1], found[2]), markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Drop the names of Sphinx's roles, which docstrings put before a name: ``:func:`` and the like."""
    return re.sub(r":(?:func|class|mod|meth|data|attr):(?=<code>)", "", html)


def options_table(path: str, name: str) -> str:
    """Return a table of the options of a class, read from its source: ``name: type = option(default, "text")``."""
    classes = {
        node.name: node
        for node in ast.parse((_ROOT / path).read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    rows: dict[str, str] = {}
    pending = [name]
    while pending:
        node = classes[pending.pop()]
        for line in node.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.value, ast.Call) and len(line.value.args) == 2:
                default, text = line.value.args
                option = ast.unparse(line.target)
                rows.setdefault(option, f"| `{option}` | `{ast.unparse(default)}` | {ast.literal_eval(text)} |")
        pending += [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in classes]
    if not rows:
        raise ValueError(f"{path}: {name} has no options")
    return "\n".join(["| option | default | |", "|---|---|---|", *rows.values()])
