from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from visp import cli
from visp.cli import demonstration
from visp.summarizers import Transformer

NAMES = ["untrained", "videos", "windows", "both", "scratch", "ViSP (both) + fine-tuned"]


def run(folder: Path, **options: Any) -> list[dict[str, Any]]:
    return demonstration.run_demo(folder, **{"epochs": 1, "finetune_epochs": 1, "num_videos": 10, **options})


class Done(NamedTuple):
    folder: Path
    rows: list[dict[str, Any]]
    printed: str


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("demo") / "demo"
    with redirect_stdout(io.StringIO()) as printed:
        rows = run(folder)
    return Done(folder, rows, printed.getvalue())


def test_results_have_the_documented_form(done: Done) -> None:
    results = json.loads((done.folder / "results.json").read_text())
    assert results["protocol"] == demonstration.PROTOCOL
    assert [(row["corpus"], row["name"]) for row in results["rows"]] == [
        (corpus, name) for corpus in ("shared fillers", "own fillers") for name in NAMES
    ]
    assert {frozenset(row) for row in done.rows} == {frozenset({"corpus", "name", "labels", "tau", "tau_std"})}
    assert all(-1 <= row["tau"] <= 1 and row["tau_std"] >= 0 for row in results["rows"])
    assert results["rows"] == done.rows


@pytest.mark.parametrize("corpus", ["shared-fillers", "own-fillers"])
def test_the_folder_holds_every_run(done: Done, corpus: str) -> None:
    folder = done.folder / corpus / "seed-0"
    assert {path.name for path in folder.iterdir()} == {"videos", "windows", "both", "scratch", "fine-tuned"}
    for name in ("videos", "windows", "both"):
        files = {path.name for path in (folder / name).iterdir()}
        assert files >= {"weights.pt", "metrics.jsonl", "config.json", "checkpoint.pt"}
        Transformer(64).load_state_dict(torch.load(folder / name / "weights.pt", weights_only=True), strict=True)
    for name in ("scratch", "fine-tuned"):
        assert {"weights.pt", "evaluation.json"} <= {path.name for path in (folder / name).iterdir()}


def test_the_table_names_its_protocol(done: Done) -> None:
    for row in ("untrained | 0", "scratch | 1", "ViSP, contrast windows | 0", "ViSP (both) + fine-tuned | 1"):
        assert done.printed.count(f"| {row} videos | ") == 2
    assert f"Protocol: {demonstration.PROTOCOL}." in done.printed


def test_several_seeds_are_the_runs_of_each_and_their_spread(
    done: Done, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run(tmp_path / "demo", num_seeds=2)
    assert "spread over 2 seeds" in capsys.readouterr().out
    for row, *ones in zip(rows, done.rows, run(tmp_path / "alone", seed=1), strict=True):
        taus = [one["tau"] for one in ones]
        assert (row["tau"], row["tau_std"], row["taus"]) == (np.mean(taus), np.std(taus), taus)
    assert json.loads((tmp_path / "demo" / "results.json").read_text())["num_seeds"] == 2


def test_no_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one seed, got 0"):
        run(tmp_path / "demo", num_seeds=0)


def test_fine_tuning_never_sees_the_videos_of_the_table(done: Done) -> None:
    config = json.loads((done.folder / "own-fillers" / "seed-0" / "fine-tuned" / "config.json").read_text())
    assert set(config["split"]["train"]).isdisjoint(config["split"]["test"])
    assert len(config["split"]["test"]) == 9


def test_scores_are_drawn_with_matplotlib(done: Done) -> None:
    assert (done.folder / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert "scores.png" in done.printed


def test_without_matplotlib_all_but_the_figure_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run(tmp_path / "demo")
    assert (tmp_path / "demo" / "results.json").exists()
    assert not (tmp_path / "demo" / "scores.png").exists()
    assert "scores.png" not in capsys.readouterr().out


def test_a_folder_that_is_not_empty_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("precious")
    with pytest.raises(FileExistsError, match="is not empty"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert (tmp_path / "results.json").read_text() == "precious"


def test_the_command_line_refuses_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.json").write_text("precious")
    assert cli.main(["demo", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"visp demo: {tmp_path} is not empty")
