"""How a run ends early, and the options of its weights, its batches and its log."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import visp
from tests.training.test_pretrain import (
    BATCH,
    BATCHES_AN_EPOCH,
    VIDEOS,
    assert_same,
    assert_same_run,
    linear_pretrainer,
    lines,
    noisy_pretrainer,
    pretrain,
    videos,
)
from visp.data import InMemoryDataset
from visp.data.sampling import epoch_batches
from visp.data.synthetic import make_corpus
from visp.training.options import PretrainOptions
from visp.weights import load_state

# --- signals ------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """A shell that starts the tests in the background has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Telling(Sequence[Tensor]):
    """Videos, of which the n-th read sends this process a signal."""

    def __init__(self, number: int, read: int) -> None:
        self.videos, self.number, self.read, self.reads = videos(), number, read, 0

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        self.reads += 1
        if self.reads == self.read:
            os.kill(os.getpid(), self.number)
        return self.videos[index]


def tell_within_step(pretrainer: visp.ViSPPretrainer, number: int, *, step: int, times: int = 1) -> None:
    """Send this process a signal, or several, from the middle of a step."""

    def tell(module: nn.Module, args: Any, output: Any) -> None:
        if pretrainer.noise.step == step - 1 and not told:
            told.append(number)
            for _ in range(times):
                os.kill(os.getpid(), number)

    told: list[int] = []
    pretrainer.encoder.register_forward_hook(tell)


ENDS: list[tuple[int, type[BaseException], str]] = [
    (signal.SIGINT, KeyboardInterrupt, "^$"),
    (signal.SIGTERM, SystemExit, "143"),
]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    pretrain(noisy_pretrainer(), videos(), out_dir=folder)
    return folder


def assert_resumes_to(folder: Path, uninterrupted: Path, *, step: int) -> None:
    assert load_state(folder / "checkpoint.pt")["step"] == step
    assert not (folder / "weights.pt").exists()
    pretrain(noisy_pretrainer(seed=9), videos(), out_dir=folder, resume=True)
    assert_same_run(folder, uninterrupted)


@pytest.mark.parametrize(("number", "error", "message"), ENDS, ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_within_a_step_ends_the_run_after_it_with_a_checkpoint(
    uninterrupted: Path, tmp_path: Path, number: int, error: type[BaseException], message: str
) -> None:
    pretrainer = noisy_pretrainer()
    tell_within_step(pretrainer, number, step=2)
    with pytest.raises(error, match=message):
        pretrain(pretrainer, videos(), out_dir=tmp_path / "run", checkpoint_seconds=1e9)
    assert_resumes_to(tmp_path / "run", uninterrupted, step=2)


@pytest.mark.parametrize(("number", "error", "message"), ENDS, ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_while_videos_are_read_ends_the_run_with_a_checkpoint(
    uninterrupted: Path, tmp_path: Path, number: int, error: type[BaseException], message: str
) -> None:
    dataset = Telling(number, read=2 * BATCH + 3)
    with pytest.raises(error, match=message):
        pretrain(noisy_pretrainer(), dataset, out_dir=tmp_path / "run", checkpoint_seconds=1e9)
    assert dataset.reads == dataset.read
    assert_resumes_to(tmp_path / "run", uninterrupted, step=2)


@pytest.mark.parametrize(("number", "error", "message"), ENDS, ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_that_arrives_in_a_finalizer_ends_the_run_after_the_step_and_in_silence(
    uninterrupted: Path, tmp_path: Path, number: int, error: type[BaseException], message: str
) -> None:
    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)

    class Telling(list[Tensor]):
        reads = 0

        def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
            self.reads += 1
            if self.reads == 2 * BATCH + 3:
                Finalized()
            return super().__getitem__(index)

    with pytest.raises(error, match=message):
        pretrain(noisy_pretrainer(), Telling(videos()), out_dir=tmp_path / "run", checkpoint_seconds=1e9)
    assert_resumes_to(tmp_path / "run", uninterrupted, step=3)


def test_a_second_ctrl_c_ends_the_step_and_keeps_the_last_checkpoint(uninterrupted: Path, tmp_path: Path) -> None:
    pretrainer = noisy_pretrainer()
    tell_within_step(pretrainer, signal.SIGINT, step=3, times=2)
    with pytest.raises(KeyboardInterrupt):
        pretrain(pretrainer, videos(), out_dir=tmp_path / "run", checkpoint_seconds=0)
    assert_resumes_to(tmp_path / "run", uninterrupted, step=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_handled_a_signal_before_does_so_afterwards(number: int) -> None:
    before = signal.getsignal(number)
    pretrain(linear_pretrainer(), videos(), epochs=1)
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = pretrain(linear_pretrainer(), Telling(signal.SIGINT, read=3))
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.steps == 2 * BATCHES_AN_EPOCH


def test_a_run_in_another_thread_leaves_signals_alone() -> None:
    handlers = []

    class Looking(Telling):
        def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
            handlers.append(signal.getsignal(signal.SIGTERM))
            return super().__getitem__(index)

    thread = threading.Thread(target=lambda: pretrain(linear_pretrainer(), Looking(0, read=0), epochs=1))
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)] * VIDEOS


# --- schedule and average -----------------------------------------------------------------------------------


def settings(**options: Any) -> PretrainOptions:
    plain = {"batch_size": 8, "lr": 0.1, "weight_decay": 0.0, "clip_grad_norm": None, "warmup_steps": 4, "seed": 0}
    return PretrainOptions(**{**plain, "precision": "float32", **options})


def test_the_cosine_falls_from_the_warm_up_to_zero() -> None:
    rates = [settings(schedule="cosine").rate(step, 24) for step in range(24)]
    expected = [0.05 * (1 + math.cos(math.pi * step / 20)) for step in range(20)]
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, *expected])


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_run_that_ends_within_its_warm_up_rises_only(schedule: str) -> None:
    assert [settings(schedule=schedule).rate(step, 3) for step in range(3)] == pytest.approx([0.025, 0.05, 0.075])


def test_the_schedule_is_the_optimizers(tmp_path: Path) -> None:
    options: dict[str, Any] = {"schedule": "cosine", "lr": 0.1, "warmup_steps": 4, "epochs": 24}
    pretrain(linear_pretrainer(), videos(BATCH), out_dir=tmp_path / "run", **options)
    groups = load_state(tmp_path / "run" / "checkpoint.pt")["optimizer"]["param_groups"]
    assert groups[0]["lr"] == pytest.approx(settings(schedule="cosine").rate(23, 24))


def test_the_length_of_a_run_with_a_cosine_is_fixed(tmp_path: Path) -> None:
    pretrain(linear_pretrainer(), videos(), epochs=1, schedule="cosine", out_dir=tmp_path)
    with pytest.raises(visp.CheckpointError, match="epochs was 1 and is 2"):
        pretrain(linear_pretrainer(), videos(), epochs=2, schedule="cosine", out_dir=tmp_path, resume=True)


def test_the_average_follows_the_weights_of_every_step(tmp_path: Path) -> None:
    averaged, plain = linear_pretrainer(), linear_pretrainer()
    weights = []
    for epochs in range(1, 4):
        pretrain(plain, videos(BATCH), epochs=epochs, out_dir=tmp_path / "plain", resume=True)
        weights.append(plain.summarizer.get_parameter("score.weight").detach().clone())
    expected = linear_pretrainer().summarizer.get_parameter("score.weight").detach().clone()
    for step, weight in enumerate(weights, start=1):
        decay = min(0.25, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight

    pretrain(averaged, videos(BATCH), epochs=3, ema_decay=0.25, out_dir=tmp_path / "run")

    torch.testing.assert_close(averaged.summarizer.get_parameter("score.weight").detach(), expected)
    torch.testing.assert_close(load_state(tmp_path / "run" / "weights.pt")["score.weight"], expected)
    last = load_state(tmp_path / "run" / "checkpoint.pt")["module"]["summarizer.score.weight"]
    torch.testing.assert_close(last, weights[-1])


def test_resume_goes_on_with_schedule_average_and_batches_by_length(tmp_path: Path) -> None:
    corpus = InMemoryDataset(make_corpus(VIDEOS, feature_dim=4, num_shots=2, shot_length=(1, 3)))
    options: dict[str, Any] = {"schedule": "cosine", "ema_decay": 0.9, "bucket_by_length": True}
    pretrain(noisy_pretrainer(), corpus, out_dir=tmp_path / "straight", **options)
    interrupted = noisy_pretrainer()
    tell_within_step(interrupted, signal.SIGINT, step=4)
    with pytest.raises(KeyboardInterrupt):
        pretrain(interrupted, corpus, out_dir=tmp_path / "run", **options)
    resumed = noisy_pretrainer(seed=9)
    pretrain(resumed, corpus, out_dir=tmp_path / "run", resume=True, **options)
    assert_same_run(tmp_path / "run", tmp_path / "straight")
    assert_same(dict(resumed.summarizer.state_dict()), load_state(tmp_path / "straight" / "weights.pt"))


# --- batches ------------------------------------------------------------------------------------------------


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


LENGTHS = [(37 * index) % 211 + 1 for index in range(101)]


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["random", "by length"])
def test_an_epoch_has_every_video_once_in_batches_as_equal_as_can_be(lengths: list[int] | None) -> None:
    batches = epoch_batches(101, 12, seeded(0), lengths=lengths)
    assert sorted(index for batch in batches for index in batch) == list(range(101))
    assert sorted(map(len, batches)) == [8] * 7 + [9] * 5
    assert batches == epoch_batches(101, 12, seeded(0), lengths=lengths)
    assert batches != epoch_batches(101, 12, seeded(1), lengths=lengths)


def spread(batches: list[list[int]]) -> float:
    """Mean over batches of the longest video over the shortest."""
    ratios = [max(LENGTHS[i] for i in batch) / min(LENGTHS[i] for i in batch) for batch in batches]
    return sum(ratios) / len(ratios)


def test_a_batch_by_length_has_videos_of_similar_length_in_no_order() -> None:
    batches = epoch_batches(101, 12, seeded(0), lengths=LENGTHS)
    assert spread(batches) < 3 < 8 < spread(epoch_batches(101, 12, seeded(0)))
    means = [sum(LENGTHS[i] for i in batch) / len(batch) for batch in batches]
    assert means != sorted(means)
    assert any([LENGTHS[i] for i in batch] != sorted(LENGTHS[i] for i in batch) for batch in batches)


class Stuck(Telling):
    """Videos of which one never arrives."""

    names = tuple(f"tape_{index}" for index in range(VIDEOS))

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        if index == 5:
            threading.Event().wait(30)
        return self.videos[index]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_stalled_worker_is_told_with_its_videos(tmp_path: Path) -> None:
    stuck = Stuck(0, read=0)
    with pytest.raises(TimeoutError, match=r"step \d within 0\.5 seconds; its videos: .*\b5\b"):
        pretrain(linear_pretrainer(), stuck, out_dir=tmp_path / "run", num_workers=1, worker_timeout=0.5)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_worker_dies_of_a_signal_as_if_it_had_not_been_forked_from_a_run() -> None:
    class Killed(Telling):
        def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
            handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
            assert handlers == (signal.default_int_handler, signal.SIG_DFL)
            return self.videos[index]

    assert pretrain(linear_pretrainer(), Killed(0, read=0), epochs=1, num_workers=1).steps == BATCHES_AN_EPOCH


# --- TensorBoard --------------------------------------------------------------------------------------------


def test_without_tensorboard_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r'pip install "visp\[tensorboard\]"'):
        pretrain(linear_pretrainer(), videos(), out_dir=tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_tensorboard_without_a_folder_is_refused() -> None:
    with pytest.raises(ValueError, match="give out_dir too"):
        pretrain(linear_pretrainer(), videos(), tensorboard=True)


def test_tensorboard_gets_the_metrics_of_every_step(tmp_path: Path) -> None:
    accumulation = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pretrain(linear_pretrainer(), videos(), epochs=1, out_dir=tmp_path, tensorboard=True)
    pretrain(linear_pretrainer(), videos(), epochs=2, out_dir=tmp_path, tensorboard=True, resume=True)
    events = accumulation.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    logged = [(event.step, event.value) for event in events.Scalars("loss")]
    assert logged == [(line["step"], pytest.approx(line["loss"])) for line in lines(tmp_path)]
