from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from visp import cli
from visp.cli import demonstration
from visp.summarizers import Transformer

NAMES = ["untrained", "videos", "windows", "both", "scratch", "ViSP (both) + fine-tuned"]


def run(folder: Path, **options: Any) -> list[dict[str, Any]]:
    return demonstration.run_demo(folder, **{"epochs": 1, "finetune_epochs": 1, "num_videos": 10, **options})


def test_results_have_the_documented_form(tmp_path: Path) -> None:
    rows = run(tmp_path / "demo")
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert results["protocol"] == demonstration.PROTOCOL
    assert [(row["corpus"], row["name"]) for row in results["rows"]] == [
        (corpus, name) for corpus in ("shared fillers", "own fillers") for name in NAMES
    ]
    assert {frozenset(row) for row in rows} == {frozenset({"corpus", "name", "labels", "tau", "tau_std"})}
    assert all(-1 <= row["tau"] <= 1 and row["tau_std"] >= 0 for row in results["rows"])
    assert results["rows"] == rows


@pytest.mark.parametrize("corpus", ["shared-fillers", "own-fillers"])
def test_the_folder_holds_every_run(tmp_path: Path, corpus: str) -> None:
    run(tmp_path / "demo")
    folder = tmp_path / "demo" / corpus / "seed-0"
    assert {path.name for path in folder.iterdir()} == {"videos", "windows", "both", "scratch", "fine-tuned"}
    for name in ("videos", "windows", "both"):
        files = {path.name for path in (folder / name).iterdir()}
        assert files >= {"weights.pt", "metrics.jsonl", "config.json", "checkpoint.pt"}
        Transformer(64).load_state_dict(torch.load(folder / name / "weights.pt", weights_only=True), strict=True)
    for name in ("scratch", "fine-tuned"):
        assert {"weights.pt", "evaluation.json"} <= {path.name for path in (folder / name).iterdir()}


def test_the_table_names_its_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "demo")
    out = capsys.readouterr().out
    for row in ("untrained | 0", "scratch | 1", "ViSP, contrast windows | 0", "ViSP (both) + fine-tuned | 1"):
        assert out.count(f"| {row} videos | ") == 2
    assert f"Protocol: {demonstration.PROTOCOL}." in out


def test_the_seed_makes_it_repeatable(tmp_path: Path) -> None:
    first, second, other = (run(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert first == second != other


def test_several_seeds_give_the_spread_over_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(tmp_path / "demo", num_seeds=2)
    single = [run(tmp_path / f"alone-{seed}", seed=seed) for seed in (0, 1)]
    for row, *ones in zip(rows, *single, strict=True):
        taus = [one["tau"] for one in ones]
        assert (row["tau"], row["tau_std"], row["taus"]) == (np.mean(taus), np.std(taus), taus)
    assert "spread over 2 seeds" in capsys.readouterr().out
    assert json.loads((tmp_path / "demo" / "results.json").read_text())["num_seeds"] == 2


def test_no_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one seed, got 0"):
        run(tmp_path / "demo", num_seeds=0)


def test_fine_tuning_never_sees_the_videos_of_the_table(tmp_path: Path) -> None:
    run(tmp_path / "demo")
    config = json.loads((tmp_path / "demo" / "own-fillers" / "seed-0" / "fine-tuned" / "config.json").read_text())
    assert set(config["split"]["train"]).isdisjoint(config["split"]["test"])
    assert len(config["split"]["test"]) == 9


def test_scores_are_drawn_with_matplotlib(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    run(tmp_path / "demo")
    assert (tmp_path / "demo" / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert "scores.png" in capsys.readouterr().out


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
