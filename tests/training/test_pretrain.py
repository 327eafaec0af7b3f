from __future__ import annotations

import json
import math
import os
import pickle
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import visp
from tests.builders import LENGTHS, LinearSummarizer, MeanEncoder, make_videos
from visp.data import InMemoryDataset
from visp.data.synthetic import make_corpus
from visp.encoders import AttentionPoolEncoder
from visp.prediction import segment_bounds
from visp.training.collapse import CollapseWarning, CollapseWatch
from visp.weights import CheckpointError, load_state, save_state

BATCH = 8
BATCHES_AN_EPOCH = 3
VIDEOS = BATCH * BATCHES_AN_EPOCH


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class NoisySummarizer(nn.Module):
    """Has what makes exact resume hard: dropout, which draws noise, and BatchNorm, which keeps statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.layers(frames).squeeze(-1)
        return logits


def noisy_pretrainer(seed: int = 0) -> visp.ViSPPretrainer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return visp.ViSPPretrainer(NoisySummarizer(), MeanEncoder(), hard_negatives=True, seed=5)


def linear_pretrainer(**options: Any) -> visp.ViSPPretrainer:
    return visp.ViSPPretrainer(LinearSummarizer(), MeanEncoder(), **{"seed": 5, **options})


def videos(number: int = VIDEOS) -> list[Tensor]:
    return make_videos([LENGTHS[index % len(LENGTHS)] for index in range(number)])


def pretrain(pretrainer: visp.ViSPPretrainer, dataset: Any, **options: Any) -> visp.training.PretrainResult:
    given = {"epochs": 2, "batch_size": BATCH, "progress": False, "standardize": False, "controls": False, **options}
    return visp.pretrain(pretrainer, dataset, **given)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same(first: Any, second: Any) -> None:
    """Compare nested state dicts bit by bit."""
    assert type(first) is type(second)
    if isinstance(first, Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    else:
        assert first == second


def assert_same_run(first: Path, second: Path) -> None:
    assert (first / "metrics.jsonl").read_bytes() == (second / "metrics.jsonl").read_bytes()
    assert_same(load_state(first / "weights.pt"), load_state(second / "weights.pt"))
    assert_same(load_state(first / "checkpoint.pt"), load_state(second / "checkpoint.pt"))


class Reads(Sequence[Tensor]):
    """Videos that note which of them was read when, and may fail or take their time."""

    def __init__(self, number: int = VIDEOS, *, fail_at: int | None = None, seconds: float = 0.0) -> None:
        self.videos = videos(number)
        self.fail_at = fail_at
        self.seconds = seconds
        self.order: list[int] = []

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        self.order.append(index)
        if self.fail_at == len(self.order):
            raise DiskError(index)
        time.sleep(self.seconds)
        return self.videos[index]


class DiskError(Exception):
    pass


# --- resume -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    torch.set_num_threads(1)
    pretrain(noisy_pretrainer(), videos(), epochs=4, out_dir=folder)
    return folder


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9], ids=["checkpoint every step", "first checkpoint only"])
@pytest.mark.parametrize("fail_at", [3, 24, 37, 80], ids="read {}".format)
def test_resume_after_an_error_equals_an_uninterrupted_run(
    uninterrupted: Path, tmp_path: Path, fail_at: int, checkpoint_seconds: float
) -> None:
    options = {"epochs": 4, "out_dir": tmp_path / "run", "checkpoint_seconds": checkpoint_seconds}
    with pytest.raises(DiskError):
        pretrain(noisy_pretrainer(), Reads(fail_at=fail_at), **options)
    pretrain(noisy_pretrainer(seed=9), videos(), **options, resume=True)
    assert_same_run(tmp_path / "run", uninterrupted)


def test_resume_hands_back_the_model_of_an_uninterrupted_run(tmp_path: Path) -> None:
    straight, resumed = noisy_pretrainer(), noisy_pretrainer(seed=9)
    pretrain(straight, videos(), out_dir=tmp_path / "straight")
    with pytest.raises(DiskError):
        pretrain(noisy_pretrainer(), Reads(fail_at=30), out_dir=tmp_path / "run", checkpoint_seconds=0)
    pretrain(resumed, videos(), out_dir=tmp_path / "run", resume=True)
    assert_same(straight.state_dict(), resumed.state_dict())


KILL_TEN_TIMES = """
import os, random, signal, sys, time, warnings
from pathlib import Path
import torch
import torch._dynamo  # which the first optimizer of each child would import
torch.set_num_threads(1)
from tests.training.test_pretrain import Reads, noisy_pretrainer, pretrain

run, metrics = Path(sys.argv[1]), Path(sys.argv[1]) / "metrics.jsonl"
for number in range(10):
    child = os.fork()  # as good as a new process, and it need not import torch again
    if child == 0:
        warnings.simplefilter("ignore")
        pretrain(noisy_pretrainer(), Reads(seconds=0.001), epochs=12, out_dir=run, checkpoint_seconds=0, resume=True)
        os._exit(0)
    steps = random.randint(3 * number + 1, 3 * number + 3)
    while not metrics.exists() or metrics.read_text().count("\\n") < steps:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the run ended before it could be killed"
        time.sleep(0.001)
    seconds = random.random() * 0.02
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the run ended before it could be killed"
    print("killed", seconds, "seconds after step", steps)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_resume_after_ten_kills_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(visp.__file__).parents[1])])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([paths, os.environ.get("PYTHONPATH", "")])}
    killed = subprocess.run(
        [sys.executable, "-c", KILL_TEN_TIMES, str(run)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert killed.returncode == 0, killed.stderr
    print(killed.stdout)
    assert len(lines(run)) < 36
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)  # there is little to learn in noise
        pretrain(noisy_pretrainer(seed=9), videos(), epochs=12, out_dir=run, resume=True)
        pretrain(noisy_pretrainer(), videos(), epochs=12, out_dir=tmp_path / "straight")
    assert_same_run(run, tmp_path / "straight")


def test_resume_of_a_finished_run_does_nothing(tmp_path: Path) -> None:
    trained, loaded = noisy_pretrainer(), noisy_pretrainer(seed=9)
    pretrain(trained, videos(), out_dir=tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    result = pretrain(loaded, videos(), out_dir=tmp_path / "run", resume=True)
    assert (result.steps, result.metrics) == (2 * BATCHES_AN_EPOCH, {})
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    assert_same(loaded.state_dict(), trained.state_dict())


def test_more_epochs_may_be_given_at_resume(uninterrupted: Path, tmp_path: Path) -> None:
    pretrain(noisy_pretrainer(), videos(), epochs=1, out_dir=tmp_path / "run")
    result = pretrain(noisy_pretrainer(seed=9), videos(), epochs=4, out_dir=tmp_path / "run", resume=True)
    assert result.steps == 4 * BATCHES_AN_EPOCH
    assert_same_run(tmp_path / "run", uninterrupted)


def test_resume_without_a_checkpoint_starts_a_run(tmp_path: Path) -> None:
    result = pretrain(linear_pretrainer(), videos(), out_dir=tmp_path / "new", resume=True)
    assert result.steps == len(lines(tmp_path / "new")) == 2 * BATCHES_AN_EPOCH


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", 12),
        ("lr", 3e-4),
        ("weight_decay", 0.1),
        ("clip_grad_norm", None),
        ("warmup_steps", 3),
        ("seed", 4),
        ("precision", "bf16"),
        ("ema_decay", 0.9),
    ],
)
def test_resume_with_another_setting_is_refused_by_name(tmp_path: Path, option: str, value: Any) -> None:
    pretrain(linear_pretrainer(), videos(), epochs=1, out_dir=tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(CheckpointError, match=rf"other settings: {option} was .* and is {value!r}$"):
        pretrain(linear_pretrainer(), videos(), out_dir=tmp_path / "run", resume=True, **{option: value})
    assert contents(tmp_path / "run") == before


def test_resume_with_another_number_of_videos_is_refused(tmp_path: Path) -> None:
    pretrain(linear_pretrainer(), videos(), epochs=1, out_dir=tmp_path / "run")
    with pytest.raises(CheckpointError, match="num_videos was 24 and is 16"):
        pretrain(linear_pretrainer(), videos(16), out_dir=tmp_path / "run", resume=True)


def other_summarizer() -> visp.ViSPPretrainer:
    return visp.ViSPPretrainer(torch.nn.Sequential(LinearSummarizer()), MeanEncoder(), seed=5)


def frozen_summarizer() -> visp.ViSPPretrainer:
    pretrainer = linear_pretrainer()
    pretrainer.summarizer.requires_grad_(False)
    return pretrainer


@pytest.mark.parametrize("make", [other_summarizer, frozen_summarizer])
def test_resume_with_another_model_is_refused(tmp_path: Path, make: Any) -> None:
    pretrain(linear_pretrainer(), videos(), epochs=1, out_dir=tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt is of another model"):
        pretrain(make(), videos(), out_dir=tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("size", 0.2, r"size was 'TargetSize\(target=0\.3.*' and is 'TargetSize\(target=0\.2"),
        ("hard_negatives", True, "hard_negatives was 'False' and is 'True'"),
        ("sampler", visp.ConcreteSampler(2.0), r"sampler was 'ConcreteSampler\(temperature=0.5\)' and is"),
    ],
)
def test_resume_with_another_objective_is_refused_by_name(tmp_path: Path, option: str, value: Any, named: str) -> None:
    pretrain(linear_pretrainer(), videos(), epochs=1, out_dir=tmp_path / "run")
    with pytest.raises(CheckpointError, match=rf"other settings: {named}"):
        pretrain(linear_pretrainer(**{option: value}), videos(), out_dir=tmp_path / "run", resume=True)


# --- files of a run -----------------------------------------------------------------------------------------


def test_a_run_folder_holds_the_documented_files(tmp_path: Path) -> None:
    result = pretrain(linear_pretrainer(), videos(), out_dir=tmp_path / "a" / "run")
    assert result.out_dir == tmp_path / "a" / "run"
    documented = ["checkpoint.pt", "config.json", "metrics.jsonl", "weights.pt", "weights.safetensors"]
    assert sorted(contents(tmp_path / "a" / "run")) == documented


def test_metrics_hold_one_object_a_step(tmp_path: Path) -> None:
    result = pretrain(linear_pretrainer(), videos(), out_dir=tmp_path / "run")
    metrics = lines(tmp_path / "run")
    assert [set(line) for line in metrics] == [{"step", "epoch", "num_videos", *visp.ViSPOutput._fields}] * 6
    assert [(line["step"], line["epoch"]) for line in metrics] == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)]
    assert [line["num_videos"] for line in metrics] == [BATCH] * 6
    assert metrics[-1] == result.metrics
    assert all(math.isclose(m["mi_lower_bound"], m["mi_ceiling"] - m["info_nce"], abs_tol=1e-6) for m in metrics)


def test_weights_load_into_the_plain_module(tmp_path: Path) -> None:
    pretrainer = noisy_pretrainer()
    pretrain(pretrainer, videos(), out_dir=tmp_path / "run")
    plain = NoisySummarizer()
    plain.load_state_dict(torch.load(tmp_path / "run" / "weights.pt", weights_only=True), strict=True)
    assert_same(dict(plain.state_dict()), dict(pretrainer.summarizer.state_dict()))


class TupleSummarizer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(4, 3)
        self.score = nn.Linear(3, 1)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(frames)
        return torch.sigmoid(self.score(hidden)), hidden


@pytest.mark.parametrize(
    "adapt", [partial(visp.adapt_summarizer, logits_from="score"), partial(visp.attach_head, hidden_from="hidden")]
)
def test_weights_of_an_adapted_summarizer_have_its_own_keys(
    tmp_path: Path, adapt: Callable[[nn.Module], nn.Module]
) -> None:
    module = TupleSummarizer()
    pretrainer = visp.ViSPPretrainer(adapt(module), MeanEncoder(), seed=5)
    pretrain(pretrainer, videos(), out_dir=tmp_path / "run")
    plain = TupleSummarizer()
    plain.load_state_dict(torch.load(tmp_path / "run" / "weights.pt", weights_only=True), strict=True)
    assert_same(dict(plain.state_dict()), dict(module.state_dict()))


def test_the_checkpoint_needs_no_code_to_load(tmp_path: Path) -> None:
    pretrain(noisy_pretrainer(), videos(), out_dir=tmp_path / "run")
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 6


def test_config_records_the_settings(tmp_path: Path) -> None:
    pretrain(linear_pretrainer(), videos(), out_dir=tmp_path / "run", seed=3, lr=0.01, config={"note": "mine"})
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    expected = {"epochs": 2, "batch_size": BATCH, "seed": 3, "lr": 0.01, "precision": "float32", "num_videos": VIDEOS}
    assert config.items() >= {**expected, "pretrainer_seed": 5, "note": "mine"}.items()


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = pretrain(linear_pretrainer(), videos())
    assert result.out_dir is None
    assert contents(tmp_path) == {}


def test_a_folder_that_is_not_empty_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_text("precious")
    with pytest.raises(FileExistsError, match="is not empty"):
        pretrain(linear_pretrainer(), videos(), out_dir=tmp_path)
    assert contents(tmp_path) == {"weights.pt": b"precious"}


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("precious")
    with pytest.raises(FileExistsError, match="is a file"):
        pretrain(linear_pretrainer(), videos(), out_dir=tmp_path / "run", resume=True)
    assert (tmp_path / "run").read_text() == "precious"


def text_file(path: Path) -> None:
    path.write_text("not a checkpoint\n")


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def pickled_set(path: Path) -> None:
    path.write_bytes(pickle.dumps({1, 2}))


def pickled_code(path: Path) -> None:
    path.write_bytes(pickle.dumps(print))


def saved_list(path: Path) -> None:
    torch.save([1, 2], path)


def plain_weights(path: Path) -> None:
    torch.save(LinearSummarizer().state_dict(), path)


def truncated(path: Path) -> None:
    pretrain(linear_pretrainer(), videos(), epochs=1, out_dir=path.parent / "whole")
    whole = (path.parent / "whole" / "checkpoint.pt").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    "spoil", [text_file, empty_file, pickled_set, pickled_code, saved_list, plain_weights, truncated]
)
def test_a_checkpoint_that_is_not_one_is_refused_and_kept(tmp_path: Path, spoil: Any) -> None:
    path = tmp_path / "checkpoint.pt"
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt (is not a|holds a)"):
        pretrain(linear_pretrainer(), videos(), out_dir=tmp_path, resume=True)
    assert path.read_bytes() == before


def test_a_failing_save_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    save_state({"step": 1}, tmp_path / "checkpoint.pt")
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        save_state({"weights": torch.ones(1000), "step": lambda: 2}, tmp_path / "checkpoint.pt")
    assert list(contents(tmp_path)) == ["checkpoint.pt"]
    assert load_state(tmp_path / "checkpoint.pt") == {"step": 1}


def test_a_failing_first_save_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        save_state({"step": lambda: 2}, tmp_path / "checkpoint.pt")
    assert contents(tmp_path) == {}


def test_loading_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_state(tmp_path / "none.pt")


# --- order and noise ----------------------------------------------------------------------------------------


def order_of(pretrainer: visp.ViSPPretrainer, **options: Any) -> list[int]:
    dataset = Reads()
    pretrain(pretrainer, dataset, **options)
    return dataset.order


def test_the_order_of_videos_depends_on_the_seed_only() -> None:
    torch.manual_seed(1)
    expected = order_of(linear_pretrainer(), seed=3)
    torch.manual_seed(2)
    assert order_of(noisy_pretrainer(), seed=3, lr=0.1, precision="bf16") == expected
    assert order_of(linear_pretrainer(), seed=4) != expected


def test_an_epoch_shows_every_video_once_in_an_order_of_its_own() -> None:
    order = order_of(linear_pretrainer())
    first, second = order[:VIDEOS], order[VIDEOS:]
    assert sorted(first) == sorted(second) == list(range(VIDEOS))
    assert first != second


@pytest.mark.parametrize(
    ("number", "batch_size", "sizes"), [(25, 12, [9, 8, 8]), (17, 16, [9, 8]), (24, 8, [8, 8, 8]), (9, 32, [9])]
)
def test_batches_of_an_epoch_are_as_equal_as_can_be(
    tmp_path: Path, number: int, batch_size: int, sizes: list[int]
) -> None:
    pretrain(linear_pretrainer(), videos(number), epochs=1, batch_size=batch_size, out_dir=tmp_path / "run")
    assert [line["num_videos"] for line in lines(tmp_path / "run")] == sizes


def test_global_random_states_are_untouched() -> None:
    torch.manual_seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]  # noqa: NPY002
    pretrain(noisy_pretrainer(), videos())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]  # noqa: NPY002
    assert random.getstate() == states[2]


def test_a_run_does_not_depend_on_global_random_states() -> None:
    first, second = noisy_pretrainer(), noisy_pretrainer()
    torch.manual_seed(1)
    pretrain(first, videos())
    torch.manual_seed(2)
    pretrain(second, videos())
    assert_same(first.state_dict(), second.state_dict())


@pytest.mark.parametrize("fail_at", [None, 20], ids=["ends well", "fails"])
def test_training_modes_are_put_back_module_by_module(fail_at: int | None) -> None:
    pretrainer = noisy_pretrainer()
    pretrainer.summarizer.eval()
    pretrainer.encoder.train()
    modes = {name: module.training for name, module in pretrainer.named_modules()}
    try:
        pretrain(pretrainer, Reads(fail_at=fail_at))
    except DiskError:
        assert fail_at is not None
    assert {name: module.training for name, module in pretrainer.named_modules()} == modes


class WithNorm(nn.Module):
    """A summarizer whose BatchNorm is a direct part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(64)
        self.score = nn.Linear(64, 1)

    def forward(self, frames: Tensor) -> Tensor:
        return cast("Tensor", self.score(self.norm(frames)).squeeze(-1))


@pytest.mark.parametrize("adapted", [False, True], ids=["itself", "adapted"])
@pytest.mark.parametrize("run", ["pretrain", "finetune"])
@pytest.mark.parametrize(("frozen", "after_use"), [(True, False), (False, False), (False, True)])
def test_a_part_that_its_user_put_into_evaluation_mode_stays_there(
    run: str, frozen: bool, after_use: bool, adapted: bool
) -> None:
    corpus = InMemoryDataset(make_corpus(8, num_shots=4, shot_length=(2, 3)))
    module = WithNorm()
    if frozen:
        module.norm.eval()
    if after_use:
        module.eval()
    summarizer = visp.adapt_summarizer(module) if adapted else module
    if run == "pretrain":
        objective = visp.ViSPPretrainer(summarizer, AttentionPoolEncoder(64))
        visp.pretrain(objective, corpus, epochs=2, batch_size=8, standardize=False, progress=False)
    else:
        visp.finetune(summarizer, corpus, visp.data.Split(corpus.names, ()), epochs=2, progress=False)
    assert (module.norm.state_dict()["num_batches_tracked"].item() == 0) is frozen


def test_no_gradient_is_left_behind() -> None:
    pretrainer = linear_pretrainer()
    pretrain(pretrainer, videos())
    assert [name for name, parameter in pretrainer.named_parameters() if parameter.grad is not None] == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes:UserWarning")
def test_workers_change_no_weight() -> None:
    alone, helped = noisy_pretrainer(), noisy_pretrainer()
    pretrain(alone, videos(), epochs=1)
    pretrain(helped, videos(), epochs=1, num_workers=2)
    assert_same(alone.state_dict(), helped.state_dict())


# --- what moves, and how far --------------------------------------------------------------------------------


def moved(pretrainer: visp.ViSPPretrainer, **options: Any) -> set[str]:
    before = {name: parameter.detach().clone() for name, parameter in pretrainer.named_parameters()}
    pretrain(pretrainer, videos(), **options)
    return {name for name, parameter in pretrainer.named_parameters() if not torch.equal(parameter, before[name])}


def test_summarizer_and_encoder_move() -> None:
    pretrainer = linear_pretrainer()
    assert moved(pretrainer) == {name for name, _ in pretrainer.named_parameters()}


def test_under_a_frozen_summarizer_the_encoder_alone_moves() -> None:
    assert moved(frozen_summarizer()) == {"encoder.embed.weight", "encoder.embed.bias"}


def test_a_frozen_part_of_the_summarizer_stays() -> None:
    pretrainer = linear_pretrainer()
    assert isinstance(pretrainer.summarizer, LinearSummarizer)
    pretrainer.summarizer.score.weight.requires_grad_(False)
    assert moved(pretrainer, weight_decay=0.1) >= {"summarizer.score.bias"}
    assert "summarizer.score.weight" not in moved(pretrainer, weight_decay=0.1)


def test_nothing_to_train_is_an_error() -> None:
    pretrainer = linear_pretrainer()
    pretrainer.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        pretrain(pretrainer, videos())


def test_the_learning_rate_warms_up_linearly(tmp_path: Path) -> None:
    rates = {}
    for epochs in (1, 5, 10, 14):
        options = {"epochs": epochs, "lr": 0.01, "warmup_steps": 10, "out_dir": tmp_path, "resume": True}
        pretrain(linear_pretrainer(), videos(BATCH), **options)
        rates[epochs] = load_state(tmp_path / "checkpoint.pt")["optimizer"]["param_groups"][0]["lr"]
    assert rates == pytest.approx({1: 0.001, 5: 0.005, 10: 0.01, 14: 0.01})


@pytest.mark.parametrize(("warmup_steps", "expected"), [(0, 0.01), (1, 0.01), (10, 0.001)])
def test_the_first_step_is_as_long_as_the_warm_up_says(warmup_steps: int, expected: float) -> None:
    pretrainer = linear_pretrainer()
    before = pretrainer.encoder.get_parameter("embed.weight").detach().clone()
    pretrain(pretrainer, videos(BATCH), epochs=1, lr=0.01, warmup_steps=warmup_steps, clip_grad_norm=None)
    longest = (pretrainer.encoder.get_parameter("embed.weight") - before).abs().max().item()
    assert longest == pytest.approx(expected, rel=1e-3)  # Adam's first step is lr in every coordinate


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_float32_weights(precision: str) -> None:
    pretrainer = linear_pretrainer()
    result = pretrain(pretrainer, videos(), precision=precision)
    assert math.isfinite(result.metrics["loss"])
    assert {parameter.dtype for parameter in pretrainer.parameters()} == {torch.float32}


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "float16"}, "precision must be one of 'float32', 'bf16', 'fp16', got 'float16'"),
        ({"schedule": "linear"}, "schedule must be one of 'constant', 'cosine', got 'linear'"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \(0, 1\), got 1.0"),
        ({"bucket_by_length": True}, "bucket_by_length needs a dataset with the `lengths`"),
        ({"batch_size": 1}, "batch_size >= 2"),
        ({"epochs": 0}, "epochs >= 1"),
        ({"warmup_steps": -1}, "warmup_steps >= 0"),
    ],
)
def test_an_option_out_of_range_is_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pretrain(linear_pretrainer(contrast="videos"), videos(), out_dir=tmp_path / "run", **options)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("number", [0, 1])
def test_fewer_than_two_videos_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"expected at least 2, got {number}"):
        pretrain(linear_pretrainer(contrast="videos"), videos(number))


class SpoiledAtStep(nn.Module):
    """A linear summarizer whose logits, or only their gradient, turn NaN in one training step."""

    def __init__(self, step: int, *, gradient_only: bool) -> None:
        super().__init__()
        self.linear = LinearSummarizer()
        self.first, self.gradient_only = (step - 1) * BATCH, gradient_only
        self.calls = 0

    def forward(self, frames: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.linear(frames)
        if self.calls <= self.first:
            return logits
        zero = (logits - logits).abs()
        return logits + (zero.sqrt() if self.gradient_only else zero / zero)  # the slope of sqrt at 0 is infinite


@pytest.mark.parametrize("gradient_only", [False, True], ids=["loss", "gradient"])
@pytest.mark.parametrize("clip_grad_norm", [1.0, None], ids=["clipped", "unclipped"])
def test_a_loss_or_gradient_that_is_not_finite_stops_the_run_before_the_update(
    tmp_path: Path, gradient_only: bool, clip_grad_norm: float | None
) -> None:
    corpus = InMemoryDataset(make_corpus(16, feature_dim=4, num_shots=2, shot_length=(1, 2)))
    pretrainer = visp.ViSPPretrainer(SpoiledAtStep(4, gradient_only=gradient_only), MeanEncoder(), seed=5)
    with pytest.raises(FloatingPointError, match=r"step 4.*: video_\d+(, video_\d+){7}\.") as caught:
        pretrain(pretrainer, corpus, out_dir=tmp_path, checkpoint_seconds=0, clip_grad_norm=clip_grad_norm)
    assert ("gradient" if gradient_only else "logits that are not finite") in str(caught.value)
    state = load_state(tmp_path / "checkpoint.pt")
    assert state["step"] == 3
    assert len(lines(tmp_path)) == 3
    for name, parameter in pretrainer.named_parameters():
        assert torch.equal(parameter, state["module"][name])
    assert not (tmp_path / "weights.pt").exists()


# --- collapse -----------------------------------------------------------------------------------------------

LOG_16 = math.log(16)
HEALTHY = {
    "mi_lower_bound": LOG_16 - 1,
    "mi_ceiling": LOG_16,
    "info_nce": 1.0,
    "keep_ratio": 0.3,
    "saturated_share": 0.0,
}
SIGNS = [
    ({"keep_ratio": 0.001}, "keeps 0.1% of the frames.*raise the size target"),
    ({"keep_ratio": 0.999}, "keeps 99.9% of the frames.*set a size target"),
    ({"saturated_share": 0.95}, "95% of the logits are saturated"),
    ({"info_nce": LOG_16, "mi_lower_bound": 0.0}, r"InfoNCE stays at log N = 2\.77"),
    ({"info_nce": 0.01, "mi_lower_bound": LOG_16 - 0.01}, "has reached log N"),
]


@pytest.mark.parametrize(("sign", "message"), SIGNS, ids=["drops all", "keeps all", "saturated", "flat", "too easy"])
def test_a_lasting_sign_of_collapse_warns_once(sign: dict[str, float], message: str) -> None:
    watch = CollapseWatch(window=5)
    for step in range(1, 5):
        watch.update({**HEALTHY, **sign, "step": step})
    with pytest.warns(CollapseWarning, match=f"step 5: .*{message}"):
        watch.update({**HEALTHY, **sign, "step": 5})
    for step in range(6, 30):
        watch.update({**HEALTHY, **sign, "step": step})


@pytest.mark.parametrize(("sign", "message"), SIGNS, ids=["drops all", "keeps all", "saturated", "flat", "too easy"])
def test_a_passing_sign_of_collapse_does_not_warn(sign: dict[str, float], message: str) -> None:
    watch = CollapseWatch(window=5)
    for step in range(1, 30):
        watch.update({**HEALTHY, **({} if step % 5 == 0 else sign), "step": step})


def test_a_healthy_run_does_not_warn() -> None:
    watch = CollapseWatch(window=5)
    for step in range(1, 30):
        watch.update({**HEALTHY, "step": step})


class StuckSummarizer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(20.0))

    def forward(self, frames: Tensor) -> Tensor:
        return self.offset.expand(len(frames))


def test_a_run_that_keeps_everything_warns_once() -> None:
    pretrainer = visp.ViSPPretrainer(StuckSummarizer(), MeanEncoder(), size=visp.FixedSize(1e-6), seed=5)
    with pytest.warns(CollapseWarning) as caught:
        pretrain(pretrainer, videos(), epochs=20)
    told = [str(warning.message) for warning in caught]
    assert sum("keeps 100.0% of the frames and no longer learns" in message for message in told) == 1
    assert len(told) == len(set(told))


def test_resume_in_a_folder_without_a_checkpoint_leaves_its_files(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_text("of another run")
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=r"holds no checkpoint\.pt to resume from"):
        pretrain(linear_pretrainer(), videos(), out_dir=tmp_path, resume=True)
    assert contents(tmp_path) == before


class Places(nn.Module):
    """Remembers the first and second feature of the frames that it scores: their place, and the video's length."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(3, 1)
        self.seen: list[tuple[int, list[int]]] = []

    def forward(self, frames: Tensor) -> Tensor:
        self.seen.append((int(frames[0, 1]), frames[:, 0].int().tolist()))
        return self.score(frames).squeeze(-1)  # type: ignore[no-any-return]


def test_a_crop_is_a_stretch_of_each_video_drawn_anew_in_every_step() -> None:
    summarizer = Places()
    pretrainer = visp.ViSPPretrainer(summarizer, MeanEncoder(3), seed=0)
    shortest = {10: 6, 11: 7, 20: 12, 1: 1, 2: 2, 30: 18, 25: 15, 16: 10}
    places = [torch.stack([torch.arange(n), torch.full((n,), n), torch.zeros(n)], dim=1).float() for n in shortest]

    pretrain(pretrainer, places, epochs=20, crop=0.6, standardize=False, controls=False)

    assert len(summarizer.seen) == 20 * len(shortest)
    for length, seen in summarizer.seen:
        assert seen == list(range(seen[0], seen[-1] + 1))
        assert shortest[length] <= len(seen) <= length
    of_longest = [seen for length, seen in summarizer.seen if length == 30]
    assert len({len(seen) for seen in of_longest}) > 5
    assert len({seen[0] for seen in of_longest}) > 5


def test_a_resumed_run_draws_the_crops_of_an_uninterrupted_one(tmp_path: Path) -> None:
    for folder, epochs in (("resumed", (1, 3)), ("straight", (3,))):
        for number in epochs:
            pretrain(noisy_pretrainer(), videos(), epochs=number, crop=0.5, out_dir=tmp_path / folder, resume=True)
    assert_same_run(tmp_path / "resumed", tmp_path / "straight")
    with pytest.raises(CheckpointError, match=r"crop was 0\.5 and is"):
        pretrain(noisy_pretrainer(), videos(), epochs=4, crop=0.7, out_dir=tmp_path / "resumed", resume=True)


@pytest.mark.parametrize("crop", [0.0, 1.0, -1.0, math.nan])
def test_a_crop_that_is_no_share_is_refused(crop: float) -> None:
    with pytest.raises(ValueError, match=r"crop must be in \(0, 1\), got"):
        pretrain(linear_pretrainer(), videos(), crop=crop)


def test_segments_are_videos_of_their_own(tmp_path: Path) -> None:
    found = []
    whole = InMemoryDataset(make_corpus(8, feature_dim=4, num_shots=3, shot_length=(2, 3)))
    videos = [whole[index] for index in range(len(whole))]
    parts = [video[start:stop] for video in videos for start, stop in segment_bounds(len(video), 5)]
    assert len(parts) > len(videos)
    runs: list[tuple[Any, dict[str, Any]]] = [(whole, {"segment_length": 5, "out_dir": tmp_path}), (parts, {})]
    for dataset, options in runs:
        pretrainer = linear_pretrainer()
        pretrain(pretrainer, dataset, **options)
        found.append(pretrainer.state_dict())
    assert_same(*found)
    with pytest.raises(CheckpointError, match="num_videos"):
        pretrain(linear_pretrainer(), whole, out_dir=tmp_path, resume=True)
