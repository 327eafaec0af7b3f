from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

import visp
from visp import cli
from visp.data import InMemoryDataset
from visp.data.synthetic import make_corpus, write_corpus
from visp.studies.controls import Controls, Runs, controls, judge

LENGTHS = (30, 24, 40)
Logits = list[npt.NDArray[np.floating]]


def noise(seed: int) -> Logits:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(length) for length in LENGTHS]


def mixed(one: Logits, other: Logits, share: float) -> Logits:
    return [share * a + (1 - share) * b for a, b in zip(one, other, strict=True)]


VIDEOS = [np.random.default_rng(9).standard_normal((length, 5)).astype(np.float32) for length in LENGTHS]
TAUGHT = noise(0)
"""An order that the data decide."""
RUNS = Runs(
    untrained=[noise(1), noise(2)],
    learnt=[mixed(TAUGHT, noise(3), 0.8), mixed(TAUGHT, noise(4), 0.8)],
    size_only=noise(5),
    info_nce=0.5,
    info_nce_frozen=0.9,
)


def found(**changed: object) -> Controls:
    return judge(VIDEOS, replace(RUNS, **changed), identification_steps=0)  # type: ignore[arg-type]


def test_an_order_that_repeats_over_seeds_and_is_that_of_no_control_was_learnt() -> None:
    result = found()
    assert result.learnt
    assert "learnt something" in result.verdict


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({"learnt": [[0.01 * values for values in TAUGHT]] * 2}, "learnt nothing: within a video its logits spread"),
        ({"size_only": RUNS.learnt[0]}, "learnt nothing from InfoNCE: its order agrees at 1.00"),
        ({"untrained": RUNS.learnt}, "learnt nothing: its order agrees at 1.00 with that before training"),
        ({"learnt": [noise(6), noise(7)]}, "each seed another one"),
        ({"learnt": [[np.full(length, 0.4) for length in LENGTHS]] * 2}, "learnt nothing: within a video"),
    ],
)
def test_what_a_control_explains_was_not_learnt(changed: dict[str, object], verdict: str) -> None:
    result = found(**changed)
    assert not result.learnt
    assert verdict in result.verdict


def test_scores_that_follow_a_simple_rule_are_found_out() -> None:
    distances = [np.linalg.norm(video - video.mean(axis=0), axis=1) for video in VIDEOS]
    result = found(learnt=[mixed(distances, noise(seed), 0.9) for seed in (3, 4)])
    rows = {row.name: row for row in result.rows}
    assert rows["distance from the video's own mean"].learnt > 0.5
    assert abs(rows["position in the video"].learnt) < 0.3
    assert "they follow most the distance from the" in result.verdict


def test_the_table_has_a_sentence_per_row_and_leaves_open_what_does_not_apply() -> None:
    result = found(finished=RUNS.learnt[1])
    lines = result.table().splitlines()
    assert lines[-1] == result.verdict
    by_name = {row.name: line for row, line in zip(result.rows, lines[2:], strict=False)}
    assert by_name["agreement with the finished run"].count("|  |") == 1
    assert "| 0.500 |  | 0.900 |" in by_name["InfoNCE at the end, nats"]
    for row in result.rows:
        assert row.meaning in by_name[row.name]
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["rows"][4]["size_only"] is None


def test_one_call_runs_the_controls_and_leaves_the_global_random_state(tmp_path: Path) -> None:
    videos = InMemoryDataset(make_corpus(8, feature_dim=8, num_shots=4, shot_length=(2, 3)))

    def summarizer() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0))

    state = torch.get_rng_state()
    result = controls(
        summarizer,
        lambda: visp.encoders.AttentionPoolEncoder(feature_dim=8, embedding_dim=8),
        videos,
        objective={"contrast": "windows"},
        identification_steps=2,
        epochs=3,
        batch_size=8,
        progress=False,
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert len(result.rows) == 11
    assert "identification, nats" in [row.name for row in result.rows]
    with pytest.raises(ValueError, match="expected at least 2, got 1"):
        controls(summarizer, summarizer, videos, seeds=(0,))


def test_the_command_repeats_the_run_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus("data.h5", num_videos=8, feature_dim=8, num_shots=4, shot_length=(2, 3))
    summarizer = ["--summarizer", "transformer", "--size-target", "0.4"]
    assert cli.main(["pretrain", "--data", "data.h5", *summarizer, "--epochs", "4", "--out", "run"]) == 0
    assert cli.main(["study", "controls", "run", "--share-of-epochs", "0.5", "--json", "table.json"]) == 0
    out = capsys.readouterr().out
    assert "| agreement with the finished run |" in out
    assert json.loads(Path("table.json").read_text())["verdict"] in out
    Path("run/config.json").write_text("{}")
    assert cli.main(["study", "controls", "run"]) == 2
    assert "does not say data, summarizer, encoder" in capsys.readouterr().err
