"""README and docs say only what works: their Python runs, and their commands parse."""

from __future__ import annotations

import inspect
import re
import shlex
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import visp
from tests.raises.reference import documented, resolve
from tests.summarizer_shapes import SHAPES, D, PGLSUMShaped, ShapedSummarizer, WindowedShaped, video_and_text
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


class TokensShaped(WindowedShaped):
    """As LLMVS: several token embeddings per frame."""

    def forward(self, frames: Tensor) -> Tensor:  # type: ignore[override]  # (T, tokens, d / tokens)
        return self.score(self.hidden(frames.flatten(1))).sigmoid()  # type: ignore[no-any-return]

    def true_logits(self, frames: Tensor) -> Tensor:
        return super().true_logits(frames.flatten(1))


class ThreeStreamsShaped(ShapedSummarizer):
    """As TripleSumm: three streams, of a third of d each."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(D // 3, 1)

    def forward(self, first: Tensor, second: Tensor, third: Tensor) -> Tensor:  # (1, T, d / 3) each
        return self.score(first - second * third).sigmoid()  # type: ignore[no-any-return]

    def true_logits(self, frames: Tensor) -> Tensor:
        first, second, third = frames[:, :2], frames[:, 2:4], frames[:, 4:]
        logits: Tensor = self.score(first - second * third)[:, 0]
        return logits


class FixedWindowsShaped(WindowedShaped):
    """As STVT: windows of four frames and no others."""

    def forward(self, frames: Tensor) -> Tensor:  # type: ignore[override]  # (4 k, d)
        return self.score(self.hidden(frames.view(-1, 4, D)))  # type: ignore[no-any-return]


class HiddenShaped(ShapedSummarizer):
    """As SummDiff: an encoder of frames, and no single pass that scores them."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(D, 4)

    def forward(self, frames: Tensor) -> Tensor:
        return self.encoder(frames).mean(dim=0)  # type: ignore[no-any-return]


PAGES_OF_API = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("api*.md"))


@pytest.mark.parametrize("home", ["visp", "visp.data", "visp.eval", "visp.summarizers", "visp.video"])
def test_the_api_reference_has_every_public_name(home: str) -> None:
    module = import_module(home)
    public = {name: getattr(module, name) for name in module.__all__ if name != "__version__"}
    names = {name for name, value in public.items() if not isinstance(value, ModuleType)}
    shown = re.findall(r"^::: (\S+)|heading: (\S+)", PAGES_OF_API, re.MULTILINE)
    assert {f"{home}.{name}" for name in names} <= {name for pair in shown for name in pair}


@pytest.mark.parametrize("name", documented())
def test_a_public_name_says_what_it_is_and_names_all_that_it_takes(name: str) -> None:
    thing = resolve(name)
    text = inspect.cleandoc(thing.__doc__ or "")
    assert text
    if "Args:" in text and inspect.isfunction(thing):
        taken = [each for each in inspect.signature(thing).parameters if each != "self"]
        assert [each for each in taken if not re.search(rf"^ +(\*\*)?{each}: ", text, re.M)] == []


def test_the_site_leads_to_every_page() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f": {page.name}\n" not in nav] == []


STAND_INS = {
    **{shape.name: shape.make for shape in SHAPES},
    "CA-SUM": PGLSUMShaped,
    "LLMVS": TokensShaped,
    "TripleSumm": ThreeStreamsShaped,
    "STVT": FixedWindowsShaped,
    "SummDiff": HiddenShaped,
}
LINES = dict(
    re.findall(r"^\| ([^|]+?) \|.*\| `(visp\.\w+\(module, .*)` \|$", (ROOT / "docs/wrap.md").read_text(), re.M)
)


def padded_to_windows(module: nn.Module, frames: Tensor) -> Tensor:
    missing = -len(frames) % 4
    value: Tensor = module(torch.cat([frames, frames[-1:].expand(missing, -1)]))
    return value


def test_the_table_of_public_models_is_whole() -> None:
    asked = "PGL-SUM, CA-SUM, VASNet, DSNet anchor-free, DSNet anchor-based, DSN, CSTA, MSVA, LLMVS, TripleSumm, SSPVS"
    assert {*asked.split(", "), "STVT", "SummDiff"} <= LINES.keys()


@pytest.mark.parametrize("model", LINES)
def test_the_line_of_a_public_model_gives_the_logits_of_its_shape(model: str) -> None:
    torch.manual_seed(0)
    module, frames = STAND_INS[model](), torch.randn(7, D)
    frames = frames.reshape(7, 2, -1) if isinstance(module, TokensShaped) else frames
    names = {"padded_to_windows": padded_to_windows, "video_and_text": video_and_text}
    adapted = eval(LINES[model], {"visp": visp, "module": module, **names})
    logits = adapted(frames)
    if isinstance(module, HiddenShaped):
        expected = adapted.head(module.encoder(frames))[:, 0]
    else:
        expected = module.true_logits(frames)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
