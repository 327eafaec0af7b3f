"""What the site needs beyond the pages: the examples as pages, and Sphinx's roles in docstrings as plain code."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_EXAMPLES = Path(__file__).parents[1] / "examples"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page per example, which ``../examples/<name>.py`` leads to, as it does in the repository."""
    for path in sorted(_EXAMPLES.glob("*.py")):
        text = f"# {path.name}\n\n```python\n{path.read_text(encoding='utf-8')}```\n"
        files.append(File.generated(config, f"examples/{path.stem}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to examples to their pages."""
    return re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](examples/\1.md)", markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Drop the names of Sphinx's roles, which docstrings put before a name: ``:func:`` and the like."""
    return re.sub(r":(?:func|class|mod|meth|data|attr):(?=<code>)", "", html)
