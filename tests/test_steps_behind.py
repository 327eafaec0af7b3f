"""On a GPU the host looks at a step's numbers one step later. Here the CPU does the same, to test all but the GPU."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import LinearSummarizer, MeanEncoder
from test_loop import tell_within_step
from test_pretrain import (
    BATCH,
    BATCHES_AN_EPOCH,
    SpoiledAtStep,
    assert_same_run,
    lines,
    noisy_pretrainer,
    pretrain,
    videos,
)

import visp
from visp.training import checkpoint, loop
from visp.training.loop import Loop


@pytest.fixture
def one_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loop.STEPS_BEHIND, "cpu", 1)


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("one_behind")
def test_a_step_is_read_after_the_next_one_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    step, read = Loop._train_step, Loop._read

    def noted_step(self: Loop, *args: Any) -> None:
        step(self, *args)
        events.append(f"do {self.step}")

    def noted_read(self: Loop, arriving: Any) -> dict[str, float]:
        events.append(f"read {arriving.step}")
        return read(self, arriving)

    monkeypatch.setattr(Loop, "_train_step", noted_step)
    monkeypatch.setattr(Loop, "_read", noted_read)
    pretrain(noisy_pretrainer(), videos(), epochs=1)
    assert events == ["do 1", "do 2", "read 1", "do 3", "read 2", "read 3"]


def test_the_run_is_that_of_a_host_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = noisy_pretrainer()
    pretrain(waiting, videos(), out_dir=tmp_path / "waiting", checkpoint_seconds=1e9)
    monkeypatch.setitem(loop.STEPS_BEHIND, "cpu", 1)
    behind = noisy_pretrainer()
    result = pretrain(behind, videos(), out_dir=tmp_path / "behind", checkpoint_seconds=1e9)
    assert [m["step"] for m in lines(tmp_path / "behind")] == list(range(1, 2 * BATCHES_AN_EPOCH + 1))
    assert result.metrics == lines(tmp_path / "behind")[-1]
    for one, other in zip(lines(tmp_path / "behind"), lines(tmp_path / "waiting"), strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    for parameter, other_parameter in zip(behind.parameters(), waiting.parameters(), strict=True):
        torch.testing.assert_close(parameter, other_parameter, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("one_behind")
@pytest.mark.parametrize("gradient_only", [False, True], ids=["loss", "gradient"])
def test_a_step_that_is_not_finite_leaves_the_weights_before_it_although_another_has_begun(
    tmp_path: Path, gradient_only: bool
) -> None:
    def spoiled() -> visp.ViSPPretrainer:
        return visp.ViSPPretrainer(SpoiledAtStep(3, gradient_only=gradient_only), MeanEncoder(), seed=5)

    at_once = spoiled()
    with pytest.raises(FloatingPointError):
        pretrain(at_once, videos(), out_dir=tmp_path / "at_once", checkpoint_seconds=0)
    before = checkpoint.load(tmp_path / "at_once" / "checkpoint.pt")
    assert before["step"] == 2

    later = spoiled()
    what = "gradient's norm" if gradient_only else "loss"
    with pytest.raises(FloatingPointError, match=f"the {what} of step 3 is nan"):
        pretrain(later, videos(), out_dir=tmp_path / "later", checkpoint_seconds=1e9)
    assert later.step == 4
    for name, parameter in later.named_parameters():
        assert torch.equal(parameter, before["module"][name])
    assert len(lines(tmp_path / "later")) == 2
    assert not (tmp_path / "later" / "weights.pt").exists()


@pytest.mark.usefixtures("one_behind")
def test_a_run_that_is_ended_logs_every_step_of_its_checkpoint_and_resumes_to_the_same(tmp_path: Path) -> None:
    pretrain(noisy_pretrainer(), videos(), out_dir=tmp_path / "whole", checkpoint_seconds=1e9)
    pretrainer = noisy_pretrainer()
    tell_within_step(pretrainer, signal.SIGTERM, step=4)
    with pytest.raises(SystemExit):
        pretrain(pretrainer, videos(), out_dir=tmp_path / "run", checkpoint_seconds=1e9)
    assert checkpoint.load(tmp_path / "run" / "checkpoint.pt")["step"] == 4
    assert len(lines(tmp_path / "run")) == 4
    pretrain(noisy_pretrainer(seed=9), videos(), out_dir=tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("checkpoint_videos", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_step_on_a_gpu_never_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, precision: Any, checkpoint_videos: bool
) -> None:
    step = Loop._train_step

    def refusing_to_wait(self: Loop, *args: Any) -> None:
        torch.cuda.set_sync_debug_mode("error" if self.step else "default")  # the first step makes the state
        try:
            step(self, *args)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Loop, "_train_step", refusing_to_wait)
    pretrainer = visp.ViSPPretrainer(
        LinearSummarizer(), MeanEncoder(), seed=5, hard_negatives=True, checkpoint_videos=checkpoint_videos
    )
    result = pretrain(pretrainer.cuda(), videos(2 * BATCH), precision=precision)
    assert result.steps == 4
