from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from visp import cli
from visp.data import InMemoryDataset, make_splits, write_h5, write_splits
from visp.data.synthetic import make_corpus, write_corpus
from visp.weights import load_state, state_hash

NAMES = tuple(f"video_{number}" for number in range(1, 7))

MODELS = """
from torch import nn


class Linear(nn.Module):
    def __init__(self, feature_dim):
        super().__init__()
        self.score = nn.Linear(feature_dim, 1)

    def forward(self, frames):
        return self.score(frames).squeeze(-1)
"""

MODEL = ("--data", "data.h5", "--summarizer", "few_models:Linear", "--benchmark", "summe")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with data.h5, splits.json and a module of models."""
    write_corpus(tmp_path / "data.h5", num_videos=6, feature_dim=8, num_shots=20, shot_length=(1, 2))
    write_splits(tmp_path / "splits.json", make_splits(NAMES, folds=3))
    (tmp_path / "few_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "few_models", raising=False)
    return tmp_path


def finetune(*more: str) -> int:
    return cli.main(["finetune", *MODEL, "--splits", "splits.json", "--epochs", "2", *more])


def test_finetune_prints_the_test_videos_and_saves_the_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert finetune("--out", "run", "--fold", "1") == 0
    out = capsys.readouterr().out
    for name in make_splits(NAMES, folds=3)[1].test:
        assert f"| {name} | " in out
    assert "tau (csta, summe)" in out
    assert "chosen by: last" in out
    assert set(torch.load("run/weights.pt", weights_only=True)) == {"score.weight", "score.bias"}
    assert json.loads(Path("run/config.json").read_text())["command_line"]["fold"] == 1


def test_finetune_starts_from_pretrained_weights() -> None:
    start = {"score.weight": torch.ones(1, 8), "score.bias": torch.zeros(1)}
    torch.save(start, "start.pt")
    assert finetune("--out", "run", "--weights", "start.pt", "--lr", "0") == 0
    found = torch.load("run/weights.pt", weights_only=True)
    assert all(torch.equal(value, found[name]) for name, value in start.items())


def test_the_folder_of_a_run_stands_for_its_weights_and_names_the_summarizer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("safetensors")
    videos = make_corpus(8, feature_dim=8, num_shots=3, shot_length=(1, 2))
    write_h5("eight.h5", videos, provenance={"extractor": "mine"})
    data = ("--data", "eight.h5")
    labels = ("--data", "data.h5", "--benchmark", "summe")
    splits = ("--splits", "splits.json", "--epochs", "1")
    assert cli.main(["pretrain", *data, "--summarizer", "few_models:Linear", "--epochs", "1", "--out", "a"]) == 0
    assert "weights: a/weights.pt, and as weights.safetensors\n" in capsys.readouterr().out
    assert cli.main(["pretrain", *data, "--weights", "a", "--epochs", "1", "--lr", "0", "--out", "b"]) == 0
    found = [load_state(f"{run}/weights.{kind}") for run in "ab" for kind in ("pt", "safetensors")]
    assert len({state_hash(state) for state in found}) == 1
    assert cli.main(["finetune", *labels, *splits, "--weights", "b", "--out", "c"]) == 0
    assert cli.main(["evaluate", *labels, "--weights", "c", "--json", "c.json"]) == 0
    assert cli.main(["crossval", *labels, *splits, "--pretrained", "c", "--out", "d"]) == 0
    assert cli.main(["evaluate", *labels, "--weights", "d/round-0/fold-0"]) == 0
    file = ("--weights", "c/weights.safetensors", "--summarizer", "few_models:Linear")
    assert cli.main(["evaluate", *labels, *file, "--json", "again.json"]) == 0
    assert Path("c.json").read_text() == Path("again.json").read_text()
    assert cli.main(["study", "controls", "b", "--identification-steps", "0"]) == 0
    config = json.loads(Path("a/config.json").read_text())
    assert config["summarizer"] == "few_models:Linear"
    assert config["features"]["extractor"] == "mine"


def test_finetune_says_that_the_test_videos_chose_the_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    assert finetune("--out", "run", "--select", "test") == 0
    assert "the epoch was chosen on the test videos" in capsys.readouterr().out


def test_finetune_holds_out_validation_videos(capsys: pytest.CaptureFixture[str]) -> None:
    assert finetune("--out", "run", "--select", "validation") == 0
    assert len(json.loads(Path("run/config.json").read_text())["split"]["validation"]) == 1


def test_finetune_goes_on_in_its_folder() -> None:
    assert finetune("--out", "run") == 0
    assert finetune("--out", "run") == 2
    assert finetune("--out", "run", "--resume") == 0


def test_evaluate_scores_given_by_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    records = make_corpus(6, feature_dim=8, num_shots=20, shot_length=(1, 2))
    scores = {record.name: np.asarray(record.gtscore).tolist() for record in records}
    Path("scores.json").write_text(json.dumps(scores))
    assert cli.main(["evaluate", *MODEL, "--scores", "scores.json", "--json", "found.json"]) == 0
    found = json.loads(Path("found.json").read_text())
    assert found["protocol"] == "csta"
    assert found["mean"]["tau"] > 0.3
    assert f"{found['mean']['tau']:.4f}" in capsys.readouterr().out


def test_evaluate_replaces_no_input_and_asks_before_it_replaces_another_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = MODEL[MODEL.index("--data") + 1]
    Path("found.json").write_text("mine")
    Path("link.json").symlink_to(data)
    before = Path(data).read_bytes()
    for json_file, more, problem in (
        (data, ["--overwrite"], "is also an input"),
        ("link.json", ["--overwrite"], "is also an input"),
        ("found.json", [], "exists"),
        ("/dev/null", ["--overwrite"], "is a device"),
    ):
        assert cli.main(["evaluate", *MODEL, "--weights", "w.pt", "--json", json_file, *more]) == 2
        assert problem in capsys.readouterr().err
    assert Path(data).read_bytes() == before
    assert Path("found.json").read_text() == "mine"


@pytest.mark.parametrize("content", [b"\xff", b"[1]", b'{"video_1": 3}', b'{"a": [1], "a": [2]}'])
def test_a_file_of_scores_that_is_damaged_is_one_line(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path("scores.json").write_bytes(content)
    assert cli.main(["evaluate", *MODEL, "--scores", "scores.json"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert "scores.json" in told[0]


def test_evaluate_weights_on_the_test_videos_of_a_fold() -> None:
    assert finetune("--out", "run", "--fold", "2") == 0
    arguments = ["--splits", "splits.json", "--fold", "2", "--json", "found.json"]
    assert cli.main(["evaluate", *MODEL, "--weights", "run/weights.pt", *arguments]) == 0
    found, expected = (json.loads(Path(name).read_text()) for name in ("found.json", "run/evaluation.json"))
    assert found["videos"] == expected["videos"]


def test_crossval_compares_two_ways_and_writes_every_video(capsys: pytest.CaptureFixture[str]) -> None:
    common = ["crossval", *MODEL, "--splits", "splits.json", "--rounds", "2", "--epochs", "2"]
    assert cli.main([*common, "--out", "a"]) == 0
    torch.save({"score.weight": torch.ones(1, 8), "score.bias": torch.zeros(1)}, "start.pt")
    assert cli.main([*common, "--out", "b", "--pretrained", "start.pt", "--compare-with", "a"]) == 0
    out = capsys.readouterr().out
    assert "| a | csta, summe | last | 2 | " in out
    assert "| b | csta, summe | last | 2 | " in out
    assert "tau: " in out
    assert "Welch" in out
    found = json.loads(Path("b/results.json").read_text())
    tested = [row["video"] for fold in found["folds"][:3] for row in fold["evaluation"]["videos"]]
    assert sorted(tested) == sorted(NAMES)


def test_crossval_draws_folds_where_no_file_gives_them() -> None:
    assert cli.main(["crossval", *MODEL, "--folds", "2", "--epochs", "1", "--out", "run"]) == 0
    assert sorted(path.name for path in Path("run/round-0").iterdir()) == ["fold-0", "fold-1"]


def test_tvsum_figures_need_the_users_raw_scores(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"score.weight": torch.ones(1, 8), "score.bias": torch.zeros(1)}, "start.pt")
    tvsum = [*MODEL[:-1], "tvsum", "--weights", "start.pt"]
    assert cli.main(["evaluate", *tvsum]) == 2
    assert "user_scores" in capsys.readouterr().err
    records = InMemoryDataset(make_corpus(6, feature_dim=8, num_shots=20, shot_length=(1, 2)))
    rows = []
    for index, name in enumerate(NAMES):
        kept = records.record(index).user_summary
        assert kept is not None
        rows += [f"{name}\tXX\t{','.join(str(1 + 4 * value) for value in user)}" for user in kept]
    Path("anno.tsv").write_text("\n".join(rows) + "\n")
    assert cli.main(["evaluate", *tvsum, "--user-scores", "anno.tsv"]) == 0
    assert "tau (csta, tvsum)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finetune", *MODEL], "--splits is missing"),
        (["finetune", *MODEL, "--splits", "splits.json", "--fold", "3"], "--fold 3: splits.json has folds 0 to 2"),
        (["finetune", *MODEL, "--splits", "none.json"], "none.json"),
        (["finetune", *MODEL, "--splits", "other.json"], "video_9"),
        (["evaluate", *MODEL, "--weights", "none.pt"], "none.pt"),
        (["evaluate", *MODEL, "--weights", "other.pt"], "does not fit the summarizer"),
        (["evaluate", *MODEL, "--scores", "splits.json"], "expected an object of scores by video, got a list"),
        (["evaluate", *MODEL, "--scores", "some.json"], "some.json has no scores of video_2"),
        (["evaluate", *MODEL, "--scores", "some.json", "--fold", "0"], "--splits and --fold belong together"),
        (["crossval", *MODEL, "--compare-with", "nowhere"], "nowhere"),
        (["crossval", *MODEL, "--folds", "7"], "folds must be between 2 and"),
    ],
)
def test_bad_input_is_one_message(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"other": torch.zeros(1)}, "other.pt")
    Path("some.json").write_text(json.dumps({"video_1": [0.5]}))
    Path("other.json").write_text(json.dumps([{"train_keys": ["video_9"], "test_keys": ["video_1"]}]))
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith(f"visp {arguments[0]}: ")


def test_highlights_are_judged_by_gtscore_or_by_ratings_of_clips(capsys: pytest.CaptureFixture[str]) -> None:
    records = make_corpus(6, feature_dim=8, num_shots=20, shot_length=(1, 2))
    perfect = {each.name: np.asarray(each.gtscore) + 1e-6 * np.arange(len(each.features)) for each in records}
    Path("scores.json").write_text(json.dumps({name: scores.tolist() for name, scores in perfect.items()}))
    data = ["highlights", "--data", "data.h5"]
    assert cli.main([*data, "--scores", "scores.json", "--json", "found.json"]) == 0
    assert json.loads(Path("found.json").read_text())["mean"][1] > 0.9
    assert "mean over batches, as published" in capsys.readouterr().out
    name, scores = next(iter(perfect.items()))
    clip = int(scores.argmax())
    query = {"vid": name, "duration": 2 * len(scores), "relevant_clip_ids": [clip], "saliency_scores": [[4, 4, 3]]}
    Path("rated.jsonl").write_text(json.dumps(query))
    assert cli.main([*data, "--ratings", "rated.jsonl", "--scores", "scores.json"]) == 0
    assert "| mean over 1 queries | 1.0000 | 1.0000 | 1.0000 | 1.0000 | 1.0000 | 0.6667 |" in capsys.readouterr().out
    assert finetune("--out", "run") == 0
    assert cli.main([*data, "--weights", "run", "--segment-length", "9"]) == 0
    write_h5("bare.h5", [replace(record, gtscore=None) for record in records])
    assert cli.main(["highlights", "--data", "bare.h5", "--scores", "scores.json"]) == 2
    assert "video_1 has no gtscore; give --ratings" in capsys.readouterr().err
