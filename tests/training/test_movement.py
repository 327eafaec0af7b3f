from __future__ import annotations

import json
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

import visp
from tests.training.test_pretrain import assert_same
from visp.data import InMemoryDataset
from visp.data.synthetic import CORPORA, make_corpus
from visp.encoders import AttentionPoolEncoder
from visp.training import CollapseWarning
from visp.utils.noise import seeded


@pytest.fixture(scope="module")
def videos() -> InMemoryDataset:
    return InMemoryDataset(make_corpus(8, seed=0, **CORPORA["own fillers"]))


short = pytest.mark.filterwarnings("ignore:the run seems to have taught:visp.training.CollapseWarning")


class Scorer(nn.Module):
    """With dropout and running statistics, which the comparison must leave alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 1), nn.Flatten(0)
        )

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.layers(frames)
        return logits


def run(videos: InMemoryDataset, **options: Any) -> tuple[nn.Module, Any]:
    options = {"epochs": 20, "batch_size": 8, "progress": False, **options}
    with seeded(0):
        summarizer, encoder = Scorer(), AttentionPoolEncoder(64)
    objective = visp.ViSPPretrainer(summarizer, encoder, contrast=options.pop("contrast", "windows"), seed=0)
    return summarizer, visp.pretrain(objective, videos, **options)


@short
def test_the_comparison_changes_no_weight(videos: InMemoryDataset) -> None:
    (compared, _), (alone, result) = run(videos), run(videos, controls=False)
    assert result.movement is None
    assert_same(dict(compared.state_dict()), dict(alone.state_dict()))


@short
def test_the_figures_are_those_of_the_scores_before_and_after(videos: InMemoryDataset) -> None:
    with seeded(0):
        before = Scorer().eval()
    after, result = run(videos, standardize=False)
    after.eval()
    with torch.no_grad():
        scores = [(before(video).numpy(), after(video).numpy()) for video in (videos[index] for index in range(8))]
    taus = [kendalltau(*pair).statistic for pair in scores]
    assert result.movement.untrained_order == pytest.approx(sum(taus) / 8)
    assert result.movement.spread == pytest.approx(sum(later.std() for _, later in scores) / 8)


@short
def test_a_resumed_run_compares_with_the_scores_before_its_first_step(videos: InMemoryDataset, tmp_path: Path) -> None:
    _, expected = run(videos, epochs=24)
    run(videos, epochs=20, out_dir=tmp_path / "run")
    _, resumed = run(videos, epochs=24, out_dir=tmp_path / "run", resume=True)
    written = json.loads((tmp_path / "run" / "movement.json").read_text())
    assert resumed.movement.untrained_order == written["untrained_order"] == expected.movement.untrained_order


class Interrupts(Scorer):
    """Sends Ctrl-C in the third training pass, which is one of the comparison's."""

    passes = 0

    def forward(self, frames: Tensor) -> Tensor:
        self.passes += self.training
        if self.passes == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return super().forward(frames)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@short
def test_ctrl_c_ends_the_comparison_at_once_and_the_run_resumes(videos: InMemoryDataset, tmp_path: Path) -> None:
    (straight, _) = run(videos)
    with seeded(0):
        summarizer, encoder = Interrupts(), AttentionPoolEncoder(64)
    start = {name: value.clone() for name, value in summarizer.state_dict().items()}
    objective = visp.ViSPPretrainer(summarizer, encoder, contrast="windows", seed=0)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            visp.pretrain(objective, videos, epochs=20, batch_size=8, progress=False, out_dir=tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, handler)
    assert summarizer.passes == 3
    assert_same(dict(summarizer.state_dict()), start)
    resumed, _ = run(videos, out_dir=tmp_path / "run", resume=True)
    assert_same(dict(resumed.state_dict()), dict(straight.state_dict()))


def test_a_run_that_learns_is_not_warned_about(videos: InMemoryDataset) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CollapseWarning)
        _, result = run(videos, epochs=100)
    assert result.movement.nothing_learnt is None


def test_a_run_that_moves_nothing_is_warned_about(videos: InMemoryDataset) -> None:
    with pytest.warns(CollapseWarning, match="taught the summarizer nothing"):
        run(videos, lr=1e-7)


@pytest.mark.parametrize("options", [{"epochs": 19}, {"contrast": "none"}])
def test_where_there_is_nothing_to_judge_nothing_is_said(videos: InMemoryDataset, options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, result = run(videos, **options)
    assert result.movement is None
