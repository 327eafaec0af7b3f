"""On a GPU the host looks at a step's numbers one step later. Here the CPU does the same, to test all but the GPU."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import visp
from tests.training.test_loop import tell_within_step
from tests.training.test_pretrain import (
    BATCH,
    BATCHES_AN_EPOCH,
    assert_same_run,
    lines,
    noisy_pretrainer,
    pretrain,
    videos,
)
from visp.encoders import AttentionPoolEncoder
from visp.summarizers import CSTA
from visp.training import loop
from visp.training.arriving import Arriving
from visp.training.loop import Loop
from visp.training.pretrain import _PretrainLoop
from visp.weights import load_state


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
@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_a_loss_that_is_not_finite_moves_no_weight_although_its_gradient_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    def spoiled(self: Any, batch: Any) -> Any:
        total, logged = loss(self, batch)
        return (total + torch.nan, logged) if self.step + 1 == 3 else (total, logged)

    loss = _PretrainLoop._loss
    monkeypatch.setattr(_PretrainLoop, "_loss", spoiled)
    pretrainer = noisy_pretrainer()
    with pytest.raises(FloatingPointError, match="the loss of step 3 is nan"):
        pretrain(pretrainer, videos(), precision=precision, out_dir=tmp_path / "run", checkpoint_seconds=1e9)
    assert pretrainer.noise.step == 4
    two_steps = noisy_pretrainer()
    monkeypatch.setattr(_PretrainLoop, "_loss", loss)
    with pytest.raises(KeyboardInterrupt):
        pretrain(two_steps, StopsAt(2 * BATCH), precision=precision)
    for parameter, expected in zip(pretrainer.parameters(), two_steps.parameters(), strict=True):
        assert torch.equal(parameter, expected)


class StopsAt(Sequence[Tensor]):
    """Videos of which only so many can be read."""

    def __init__(self, number: int) -> None:
        self.videos, self.left = videos(), number

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.videos[index]


@pytest.mark.usefixtures("one_behind")
def test_a_signal_while_a_checkpoint_waits_for_its_step_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(noisy_pretrainer(), videos(), out_dir=tmp_path / "whole", checkpoint_seconds=1e9)
    read = Arriving.read
    told: list[int] = []

    def told_while_reading(self: Arriving) -> dict[str, float]:
        values = read(self)
        if self.step == 2 and not told:
            told.append(self.step)
            os.kill(os.getpid(), signal.SIGINT)
        return values

    monkeypatch.setattr(Arriving, "read", told_while_reading)
    with pytest.raises(KeyboardInterrupt):
        pretrain(noisy_pretrainer(), videos(), out_dir=tmp_path / "run", checkpoint_seconds=0)
    assert load_state(tmp_path / "run" / "checkpoint.pt")["step"] == len(lines(tmp_path / "run")) == 2
    pretrain(noisy_pretrainer(seed=9), videos(), out_dir=tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize("first", [0, 1])
def test_a_run_goes_on_on_another_kind_of_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    pretrain(noisy_pretrainer(), videos(), out_dir=tmp_path / "whole")
    monkeypatch.setitem(loop.STEPS_BEHIND, "cpu", first)
    pretrainer = noisy_pretrainer()
    tell_within_step(pretrainer, signal.SIGTERM, step=3)
    with pytest.raises(SystemExit):
        pretrain(pretrainer, videos(), out_dir=tmp_path / "run")
    monkeypatch.setitem(loop.STEPS_BEHIND, "cpu", 1 - first)
    pretrain(noisy_pretrainer(seed=9), videos(), out_dir=tmp_path / "run", resume=True)
    weights, expected = (load_state(tmp_path / run / "weights.pt") for run in ("run", "whole"))
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("one_behind")
def test_a_run_that_is_ended_logs_every_step_of_its_checkpoint_and_resumes_to_the_same(tmp_path: Path) -> None:
    pretrain(noisy_pretrainer(), videos(), out_dir=tmp_path / "whole", checkpoint_seconds=1e9)
    pretrainer = noisy_pretrainer()
    tell_within_step(pretrainer, signal.SIGTERM, step=4)
    with pytest.raises(SystemExit):
        pretrain(pretrainer, videos(), out_dir=tmp_path / "run", checkpoint_seconds=1e9)
    assert load_state(tmp_path / "run" / "checkpoint.pt")["step"] == 4
    assert len(lines(tmp_path / "run")) == 4
    pretrain(noisy_pretrainer(seed=9), videos(), out_dir=tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
@pytest.mark.parametrize("flow", ["gating", "marginalization", "straight_through"])
def test_a_step_on_a_gpu_never_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, precision: Any, flow: Any, recompute: bool
) -> None:
    step = Loop._train_step

    def refusing_to_wait(self: Loop, *args: Any) -> None:
        torch.cuda.set_sync_debug_mode("error" if self.step else "default")  # the first step makes the state
        try:
            step(self, *args)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Loop, "_train_step", refusing_to_wait)
    for encoder in (AttentionPoolEncoder(4, embedding_dim=8), CSTA(4, width=64, classifier=False)):
        pretrainer = visp.ViSPPretrainer(
            CSTA(4, width=64),
            encoder,
            gradient_flow=flow,
            hard_negatives=True,
            recompute=recompute,
            seed=5,
        )
        result = pretrain(pretrainer.cuda(), videos(2 * BATCH), precision=precision)
        assert result.steps == 4
