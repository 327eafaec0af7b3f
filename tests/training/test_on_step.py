"""A function of the user's is told of every step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import visp
from tests.training.test_pretrain import assert_same_run, linear_pretrainer, lines, noisy_pretrainer, pretrain, videos
from visp.data import InMemoryDataset, Split
from visp.data.synthetic import make_corpus
from visp.summarizers import Transformer
from visp.weights import load_state


class Told:
    """Keeps what it is told, spoils its own copy, and may fail at a step."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.heard: list[dict[str, float]] = []
        self.fails_at = fails_at

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        assert step == metrics["step"]
        self.heard.append(dict(metrics))
        assert isinstance(metrics, dict)
        metrics.clear()
        if step == self.fails_at:
            raise ConnectionError("the server is down")


def test_it_is_told_what_the_log_gets(tmp_path: Path) -> None:
    told = Told()
    result = pretrain(linear_pretrainer(), videos(), out_dir=tmp_path / "run", on_step=told)
    assert told.heard == lines(tmp_path / "run")
    assert result.metrics == told.heard[-1]


def test_it_is_told_without_a_folder() -> None:
    told = Told()
    pretrain(linear_pretrainer(), videos(), on_step=told)
    assert [metrics["step"] for metrics in told.heard] == [1, 2, 3, 4, 5, 6]


def test_finetuning_tells_of_its_steps(tmp_path: Path) -> None:
    told = Told()
    dataset = InMemoryDataset(make_corpus(3, feature_dim=4, num_shots=2))
    summarizer = Transformer(dataset.feature_dim, width=8)
    split = Split(tuple(dataset.names), ())
    visp.finetune(summarizer, dataset, split, epochs=2, out_dir=tmp_path / "run", progress=False, on_step=told)
    assert told.heard == lines(tmp_path / "run")
    assert told.heard


def test_its_error_ends_the_run_after_a_checkpoint_that_resumes_exactly(tmp_path: Path) -> None:
    plain = noisy_pretrainer()
    pretrain(plain, videos(), out_dir=tmp_path / "plain")
    with pytest.raises(ConnectionError, match="the server is down"):
        pretrain(noisy_pretrainer(), videos(), out_dir=tmp_path / "run", checkpoint_seconds=1e9, on_step=Told(4))
    assert load_state(tmp_path / "run" / "checkpoint.pt")["step"] == 4
    assert len(lines(tmp_path / "run")) == 4
    told, resumed = Told(), noisy_pretrainer(seed=7)
    pretrain(resumed, videos(), out_dir=tmp_path / "run", resume=True, on_step=told)
    assert [metrics["step"] for metrics in told.heard] == [5, 6]
    assert_same_run(tmp_path / "plain", tmp_path / "run")


def test_what_resume_compares_and_what_is_recorded_do_not_name_it(tmp_path: Path) -> None:
    pretrain(linear_pretrainer(), videos(), epochs=1, out_dir=tmp_path / "run", on_step=Told())
    pretrain(linear_pretrainer(), videos(), epochs=2, out_dir=tmp_path / "run", resume=True)
    assert "on_step" not in (tmp_path / "run" / "config.json").read_text()
