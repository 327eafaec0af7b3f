from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import visp
from visp.data import InMemoryDataset, Split, VideoRecord
from visp.data.synthetic import make_corpus
from visp.weights import CheckpointError, load_state, save_state


class Scorer(nn.Module):
    """Small, with dropout, so that resume must carry its noise."""

    def __init__(self, feature_dim: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(feature_dim, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.layers(frames).squeeze(-1)
        return logits


def scorer(seed: int = 0) -> Scorer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Scorer()


@pytest.fixture(scope="module")
def records() -> list[VideoRecord]:
    return make_corpus(10, num_shots=10, shot_length=(1, 2))


@pytest.fixture(scope="module")
def videos(records: list[VideoRecord]) -> InMemoryDataset:
    return InMemoryDataset(records)


@pytest.fixture(scope="module")
def split(videos: InMemoryDataset) -> Split:
    return Split(train=videos.names[:5], validation=videos.names[5:7], test=videos.names[7:])


@pytest.fixture(scope="module")
def evaluator(records: list[VideoRecord], videos: InMemoryDataset) -> visp.Evaluator:
    return visp.Evaluator(videos, user_scores={record.name: user_summary(record) for record in records})


def weight(module: nn.Module) -> Tensor:
    return next(module.parameters())


def user_summary(record: VideoRecord) -> Any:
    assert record.user_summary is not None
    return record.user_summary


def run(summarizer: nn.Module, videos: InMemoryDataset, split: Split, **options: Any) -> visp.training.FinetuneResult:
    return visp.finetune(summarizer, videos, split, **{"epochs": 3, "progress": False, **options})


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_loss_is_the_squared_error_between_probability_and_gtscore(
    records: list[VideoRecord], videos: InMemoryDataset, tmp_path: Path
) -> None:
    summarizer = scorer().eval()
    summarizer.layers[2] = nn.Identity()
    split = Split(train=("video_1",), test=())
    gtscore = records[0].gtscore
    assert gtscore is not None
    probability = torch.sigmoid(summarizer(videos[0])).tolist()
    expected = sum((p - y) ** 2 for p, y in zip(probability, gtscore.tolist(), strict=True)) / len(gtscore)
    run(summarizer, videos, split, epochs=1, out_dir=tmp_path / "run")
    assert lines(tmp_path / "run")[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_batch_weights_its_videos_equally(
    records: list[VideoRecord], videos: InMemoryDataset, tmp_path: Path
) -> None:
    summarizer = nn.Sequential(nn.Linear(64, 1), nn.Flatten(0))
    split = Split(train=videos.names[:3], test=())
    losses = []
    for index in range(3):
        gtscore = records[index].gtscore
        assert gtscore is not None
        with torch.no_grad():
            error = torch.sigmoid(summarizer(videos[index])) - torch.from_numpy(gtscore)
        losses.append(float(error.square().mean()))
    run(summarizer, videos, split, epochs=1, batch_size=3, out_dir=tmp_path / "run")
    assert lines(tmp_path / "run")[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_labels_are_learnt(videos: InMemoryDataset, split: Split, evaluator: visp.Evaluator) -> None:
    torch.manual_seed(0)
    summarizer = nn.Sequential(nn.Linear(64, 1), nn.Flatten(0))
    assert evaluator(summarizer, split.train).tau < 0.1
    run(summarizer, videos, split, epochs=60, lr=0.03)
    assert evaluator(summarizer, split.train).tau > 0.4


def test_only_training_videos_are_read_for_training(split: Split, records: list[VideoRecord]) -> None:
    unlabelled = [record if record.name in split.train else replace(record, gtscore=None) for record in records]
    run(scorer(), InMemoryDataset(unlabelled), split)


def test_last_keeps_the_last_epoch(videos: InMemoryDataset, split: Split, tmp_path: Path) -> None:
    summarizer = scorer()
    result = run(summarizer, videos, split, out_dir=tmp_path / "run")
    assert (result.steps, result.epoch, result.select, result.test) == (15, 3, "last", None)
    weights = load_state(tmp_path / "run" / "weights.pt")
    assert all(torch.equal(value, weights[name]) for name, value in summarizer.state_dict().items())


@pytest.mark.parametrize("select", ["validation", "test"])
@pytest.mark.parametrize("metric", ["tau", "rho", "f_score"])
def test_the_best_epoch_on_the_chosen_videos_is_kept(
    videos: InMemoryDataset, split: Split, evaluator: visp.Evaluator, tmp_path: Path, select: str, metric: str
) -> None:
    summarizer = scorer()
    result = run(
        summarizer, videos, split, evaluator=evaluator, select=select, metric=metric, epochs=6, lr=0.03,
        out_dir=tmp_path / "run",
    )  # fmt: skip
    found = [line[metric] for line in lines(tmp_path / "run") if metric in line]
    assert len(found) == 6
    assert result.epoch == int(np.argmax(found)) + 1
    assert getattr(evaluator(summarizer, getattr(split, select)), metric) == max(found)


def test_tau_and_rho_must_both_rise(
    videos: InMemoryDataset, split: Split, evaluator: visp.Evaluator, tmp_path: Path
) -> None:
    result = run(
        scorer(), videos, split, evaluator=evaluator, select="test", epochs=8, lr=0.03, out_dir=tmp_path / "run"
    )
    best, kept = (-1.0, -1.0), 0
    for line in lines(tmp_path / "run"):
        if "tau" in line and line["tau"] > best[0] and line["rho"] > best[1]:
            best, kept = (line["tau"], line["rho"]), int(line["epoch"])
    assert result.epoch == kept


def test_the_evaluation_says_how_the_epoch_was_chosen(
    videos: InMemoryDataset, split: Split, evaluator: visp.Evaluator, tmp_path: Path
) -> None:
    result = run(scorer(), videos, split, evaluator=evaluator, select="test", out_dir=tmp_path / "run")
    written = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert written["select"] == "test"
    assert written["epoch"] == result.epoch
    assert result.test is not None
    assert written["mean"]["tau"] == result.test.tau
    assert [video["video"] for video in written["videos"]] == list(split.test)


def test_segments_are_items_of_their_own(videos: InMemoryDataset, tmp_path: Path) -> None:
    split = Split(train=("video_1",), test=())
    length = videos.lengths[0]
    run(scorer(), videos, split, epochs=1, segment_length=10, out_dir=tmp_path / "run")
    assert len(lines(tmp_path / "run")) == -(-length // 10)


def test_the_order_and_the_noise_follow_the_seed(videos: InMemoryDataset, split: Split) -> None:
    def weights(seed: int) -> Tensor:
        summarizer = scorer()
        run(summarizer, videos, split, seed=seed)
        return weight(summarizer)

    first, again, other = weights(1), weights(1), weights(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_modes_and_the_callers_noise_are_left_as_they_were(videos: InMemoryDataset, split: Split) -> None:
    summarizer = scorer().eval()
    before = torch.get_rng_state()
    run(summarizer, videos, split)
    assert not any(module.training for module in summarizer.modules())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("stop_after", [2, 5, 9])
def test_resume_ends_with_the_same_weights_and_the_same_epoch(
    videos: InMemoryDataset,
    split: Split,
    evaluator: visp.Evaluator,
    tmp_path: Path,
    stop_after: int,
) -> None:
    options: dict[str, Any] = {"evaluator": evaluator, "select": "validation", "epochs": 4, "lr": 0.03}
    whole = scorer()
    expected = run(whole, videos, split, out_dir=tmp_path / "whole", **options)

    class Stops(Scorer):
        calls = 0

        def forward(self, frames: Tensor) -> Tensor:
            if self.training:
                Stops.calls += 1
            if Stops.calls > stop_after:
                raise KeyboardInterrupt
            return super().forward(frames)

    stopped = Stops()
    stopped.load_state_dict(scorer().state_dict())
    with pytest.raises(KeyboardInterrupt):
        run(stopped, videos, split, out_dir=tmp_path / "run", checkpoint_seconds=0, **options)
    resumed = scorer(9)
    result = run(resumed, videos, split, out_dir=tmp_path / "run", resume=True, **options)
    assert result.epoch == expected.epoch
    assert result.test == expected.test
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")


def test_a_finished_run_resumes_to_its_chosen_weights(
    videos: InMemoryDataset, split: Split, evaluator: visp.Evaluator, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"evaluator": evaluator, "select": "test", "epochs": 5, "lr": 0.05}
    first = run(scorer(), videos, split, out_dir=tmp_path / "run", **options)
    again = run(scorer(3), videos, split, out_dir=tmp_path / "run", resume=True, **options)
    assert again == first


def test_a_run_that_is_killed_goes_on(tmp_path: Path) -> None:
    script = """
import sys, torch, visp
sys.path.insert(0, sys.argv[1])
from tests.training.test_finetune import scorer
from visp.data import InMemoryDataset, Split
from visp.data.synthetic import make_corpus
torch.set_num_threads(1)
videos = InMemoryDataset(make_corpus(4, num_shots=4))
for folder in sys.argv[2:]:
    visp.finetune(scorer(), videos, Split(videos.names, ()), epochs=40, out_dir=folder,
                  resume=True, checkpoint_seconds=0, progress=False)
"""
    command = [sys.executable, "-c", script, str(Path(__file__).parents[2])]
    with subprocess.Popen([*command, str(tmp_path / "killed")]) as process:
        path = tmp_path / "killed" / "metrics.jsonl"
        while process.poll() is None and not (path.exists() and path.read_text().count("\n") > 20):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    subprocess.run([*command, str(tmp_path / "killed"), str(tmp_path / "whole")], check=True)
    killed, whole = (load_state(tmp_path / folder / "weights.pt") for folder in ("killed", "whole"))
    assert all(torch.equal(value, killed[name]) for name, value in whole.items())


def test_a_resumed_run_with_other_settings_is_refused(videos: InMemoryDataset, split: Split, tmp_path: Path) -> None:
    run(scorer(), videos, split, out_dir=tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"lr was 0\.001 and is 0\.01"):
        run(scorer(), videos, split, out_dir=tmp_path / "run", resume=True, lr=0.01)


def test_a_checkpoint_of_pretraining_is_refused(videos: InMemoryDataset, split: Split, tmp_path: Path) -> None:
    save_state({"format": "visp-pretrain-1"}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of a finetune run"):
        run(scorer(), videos, split, out_dir=tmp_path, resume=True)


def test_an_adapted_module_is_trained_and_saved_under_its_own_keys(
    videos: InMemoryDataset, split: Split, tmp_path: Path
) -> None:
    module = nn.Sequential(nn.Linear(64, 1), nn.Sigmoid())
    before = weight(module).clone()
    run(visp.adapt_summarizer(module, probabilities=True), videos, split, out_dir=tmp_path / "run")
    assert not torch.equal(before, weight(module))
    weights = load_state(tmp_path / "run" / "weights.pt")
    assert set(weights) == {"0.weight", "0.bias"}
    other = nn.Sequential(nn.Linear(64, 1), nn.Sigmoid())
    visp.load_weights(visp.adapt_summarizer(other, probabilities=True), tmp_path / "run" / "weights.pt")
    assert torch.equal(weight(other), weight(module))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"select": "best"}, "select must be one of 'last', 'validation', 'test', got 'best'"),
        ({"metric": "auc"}, "metric must be one of"),
        ({"select": "test"}, "select='test' compares epochs on annotated videos and needs an evaluator"),
        ({"epochs": 0}, "epochs >= 1"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"segment_length": 0}, "segment_length"),
    ],
)
def test_options_out_of_range_are_refused(
    videos: InMemoryDataset, split: Split, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run(scorer(), videos, split, **change)


def test_select_needs_its_videos(videos: InMemoryDataset, evaluator: visp.Evaluator) -> None:
    split = Split(train=videos.names[:5], test=videos.names[5:])
    with pytest.raises(ValueError, match=re.escape("needs videos in split.validation, and there are none")):
        run(scorer(), videos, split, evaluator=evaluator, select="validation")


def test_a_split_of_another_dataset_is_refused(videos: InMemoryDataset) -> None:
    with pytest.raises(ValueError, match="'video_99' is not among the 10 of the dataset"):
        run(scorer(), videos, Split(train=("video_99",), test=()))


@pytest.mark.parametrize(
    ("gtscore", "message"),
    [(None, "video_1 has no gtscore"), (np.array([0.0, 2.0]), r"video_1: expected gtscore in \[0, 1\], got 0 to 2")],
)
def test_labels_that_cannot_be_learnt_are_refused(gtscore: Any, message: str) -> None:
    record = VideoRecord("video_1", np.zeros((2, 64), dtype=np.float32), gtscore=gtscore)
    with pytest.raises(ValueError, match=message):
        run(scorer(), InMemoryDataset([record]), Split(train=("video_1",), test=()))


def test_a_summarizer_of_another_shape_is_told_the_shape(videos: InMemoryDataset, split: Split) -> None:
    with pytest.raises(ValueError, match=r"returned shape \(\d+, 1\) for frames"):
        run(nn.Linear(64, 1), videos, split)


def test_a_loss_that_is_not_finite_names_the_video(split: Split, records: list[VideoRecord]) -> None:
    huge = np.float32(3e38)
    broken = [replace(r, features=huge * np.sign(r.features) if r.name == "video_3" else r.features) for r in records]
    with pytest.raises(FloatingPointError, match="video_3"):
        run(scorer(), InMemoryDataset(broken), split)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not fit the summarizer"):
        visp.load_weights(scorer(), {"other": torch.zeros(1)})


def test_an_epoch_is_judged_by_its_own_weights(
    videos: InMemoryDataset, split: Split, evaluator: visp.Evaluator
) -> None:
    summarizer = scorer()
    result = run(summarizer, videos, split, evaluator=evaluator, select="validation", metric="tau")
    taus = []
    for epochs in (1, 2, 3):
        other = scorer()
        run(other, videos, split, epochs=epochs)
        taus.append(evaluator(other, split.validation).tau)
    assert evaluator(summarizer, split.validation).tau == taus[result.epoch - 1] == max(taus)


def test_a_frozen_part_of_a_summarizer_after_use_is_not_trained(videos: InMemoryDataset, split: Split) -> None:
    summarizer = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 1), nn.Flatten(0))
    summarizer.eval()
    visp.finetune(summarizer, videos, split, epochs=1, freeze=("0", "1"), progress=False)
    moved = [summarizer.state_dict()[f"{index}.num_batches_tracked"].item() > 0 for index in (0, 2)]
    assert moved == [False, True]
    assert not any(module.training for module in summarizer.modules())
