"""README and docs say only what works: their Python runs, and their commands parse."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from visp.cli import make_parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def fenced(page: Path, *languages: str) -> list[str]:
    return [code for language, code in FENCE.findall(page.read_text(encoding="utf-8")) if language in languages]


def commands(page: Path) -> list[str]:
    """The command lines of a page's shell fences, continued lines joined."""
    shell = "\n".join(fenced(page, "sh", "bash", "shell", "console")).replace("\\\n", " ")
    parts = [part.strip().removeprefix("$ ") for line in shell.splitlines() for part in line.split("&&")]
    return [part for part in parts if part and not part.startswith("#")]


def all_commands(prefix: str) -> list[str]:
    return [command for page in PAGES for command in commands(page) if command.startswith(prefix)]


def python_blocks(page: Path) -> list[str]:
    return [code for code in fenced(page, "python", "py") if not code.startswith("# not run")]


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=lambda page: page.name)
def test_a_page_with_python_runs_from_top_to_bottom(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for number, code in enumerate(python_blocks(page), start=1):
        exec(compile(code, f"{page.name}, python block {number}", "exec"), namespace)


def test_the_readme_shows_python() -> None:
    assert python_blocks(ROOT / "README.md")


@pytest.mark.parametrize("command", all_commands("visp "))
def test_a_visp_command_parses(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    try:
        make_parser().parse_args(words)
    except SystemExit as ended:
        assert ended.code == 0, command  # noqa: PT017


@pytest.mark.parametrize("command", all_commands("python "))
def test_a_script_that_a_page_runs_is_there(command: str) -> None:
    script = shlex.split(command, comments=True)[1]
    assert script == "-m" or (ROOT / script).is_file()


def test_the_readme_shows_commands() -> None:
    shown = commands(ROOT / "README.md")
    assert any(command.startswith("visp pretrain") for command in shown)
    assert any(command.startswith("visp demo") for command in shown)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if not re.match(r"\w+:", t) and not (page.parent / t).exists()]
    assert missing == []
