"""Several processes, started for real, against one process on the union batch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import visp
from tests.builders import make_videos
from tests.training.distributed_worker import (
    EVERYTHING,
    SPLITS,
    corpus,
    gradient_cases,
    headed_pretrainer,
    plain_pretrainer,
    two_steps,
)
from tests.training.test_pretrain import assert_same, lines, pretrain
from visp.weights import load_state, own_state_dict

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), str(Path(visp.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


def start(scenario: str, folder: Path, world: int) -> list[subprocess.Popen[str]]:
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.distributed_worker", scenario, str(folder), str(rank), str(world)],
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]


def run(scenario: str, folder: Path, world: int) -> list[Any]:
    """Run a scenario in several processes and return what each of them found."""
    processes = start(scenario, folder, world)
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * world, "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.fixture(scope="module", params=SPLITS, ids="{} processes".format)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return run("gradients", tmp_path_factory.mktemp("gradients"), request.param)


@pytest.mark.parametrize("name", gradient_cases())
def test_processes_have_the_gradient_of_their_union_batch(found: list[Any], name: str) -> None:
    case = gradient_cases()[name]
    expected = two_steps(case, slice(None), lambda module: module)
    precise = case.get("dtype") is None
    for split in SPLITS[len(found)]:
        for process in found:
            torch.testing.assert_close(
                process[f"{split} {name}"], expected, rtol=1e-9 if precise else 1e-4, atol=1e-12 if precise else 1e-5
            )


# --- batches that do not fit, and other modes ---------------------------------------------------------------


@pytest.fixture(scope="module")
def behaved(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return run("behaviours", tmp_path_factory.mktemp("behaviours"), 2)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("a video that is not finite", "process 1 .* refused its batch", "video 1 of the batch holds values that are"),
        ("no video", "process 1 brought no video", "process 1 brought no video"),
        ("other features", "a frame takes 16 bytes in process 0 and 20 in process 1", "a frame takes 16 bytes"),
        ("frames with a gradient", "carry no gradient", "carry no gradient"),
        ("an encoder that follows the frames", "look like logits", "look like logits"),
    ],
)
def test_a_batch_that_does_not_fit_in_one_process_is_refused_in_all(
    behaved: list[Any], name: str, first: str, second: str
) -> None:
    assert re.search(first, behaved[0][name])
    assert re.search(second, behaved[1][name])


@pytest.mark.parametrize("name", ["without gradients", "in evaluation mode", "seeds that differ"])
def test_the_loss_is_that_of_the_union_batch(behaved: list[Any], name: str) -> None:
    seed = 0 if name == "seeds that differ" else 11
    expected = plain_pretrainer(seed=seed, hard_negatives=False)(make_videos()).loss.detach()
    for process in behaved:
        torch.testing.assert_close(process[name].detach(), expected)


def test_the_seed_of_the_first_process_counts(behaved: list[Any]) -> None:
    assert [process["seed afterwards"] for process in behaved] == [0, 0]


def test_without_gathering_each_process_compares_its_own_videos(behaved: list[Any]) -> None:
    for process, part in zip(behaved, (slice(0, 5), slice(5, 8)), strict=True):
        with pytest.warns(UserWarning, match="a batch of"):
            expected = plain_pretrainer(seed=11, hard_negatives=False)(make_videos()[part]).loss.detach()
        torch.testing.assert_close(process["gather=False"], expected)
    told = [process["warnings of each for itself"][0] for process in behaved]
    assert [message[:20] for message in told] == ["a batch of 5 videos:", "a batch of 3 videos:"]


def test_the_size_of_the_union_batch_is_warned_of_once(behaved: list[Any]) -> None:
    told = [process["warnings of the union"] for process in behaved]
    assert [len(messages) for messages in told] == [1, 0]
    assert told[0][0].startswith("a batch of 4 videos:")


def test_gradients_are_averaged_also_where_a_process_has_none(behaved: list[Any]) -> None:
    for process in behaved:
        assert_same(process["averages"], [torch.full((2, 1), 1.5), torch.full((3,), 0.5), None])


# --- visp.pretrain ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    folder = tmp_path_factory.mktemp("pretraining")
    return folder, run("pretraining", folder, 2)


@pytest.mark.parametrize(
    ("name", "make", "options"),
    [
        ("plain", plain_pretrainer, {"epochs": 2}),
        ("marginalized", lambda: plain_pretrainer(gradient_flow="marginalization"), {"epochs": 2, **EVERYTHING}),
        ("headed", headed_pretrainer, {"epochs": 1}),
    ],
)
def test_two_processes_train_as_one(
    pretrained: tuple[Path, list[Any]], tmp_path: Path, name: str, make: Any, options: dict[str, Any]
) -> None:
    folder, processes = pretrained
    alone = make()
    result = pretrain(alone, corpus(), batch_size=12, out_dir=tmp_path / "run", **options)
    for process in processes:
        assert process[name]["metrics"] == pytest.approx(result.metrics, rel=1e-4)
        torch.testing.assert_close(process[name]["state"], alone.state_dict(), rtol=1e-4, atol=1e-5)
    metrics = [pytest.approx(line, rel=1e-4, abs=1e-6) for line in lines(tmp_path / "run")]
    assert lines(folder / name) == metrics
    weights = load_state(folder / name / "weights.pt")
    torch.testing.assert_close(weights, own_state_dict(alone.summarizer), rtol=1e-4, atol=1e-5)


def test_two_processes_leave_the_files_of_one(pretrained: tuple[Path, list[Any]]) -> None:
    folder, _ = pretrained
    assert sorted(path.name for path in (folder / "plain").iterdir()) == [
        "checkpoint.pt",
        "config.json",
        "metrics.jsonl",
        "weights.pt",
        "weights.safetensors",
    ]
    assert json.loads((folder / "plain" / "config.json").read_text())["num_processes"] == 2


def test_processes_end_with_the_same_module(pretrained: tuple[Path, list[Any]]) -> None:
    first, second = (process["noisy"]["state"] for process in pretrained[1])
    assert_same(dict(first), dict(second))


def test_resume_in_as_many_processes_is_exact(pretrained: tuple[Path, list[Any]]) -> None:
    folder, _ = pretrained
    for name in ("checkpoint.pt", "weights.pt"):
        assert_same(load_state(folder / "resumed" / name), load_state(folder / "noisy" / name))
    assert lines(folder / "resumed") == lines(folder / "noisy")


def test_resume_in_one_process_goes_on_with_a_run_of_two(pretrained: tuple[Path, list[Any]]) -> None:
    folder, processes = pretrained
    resumed = plain_pretrainer()
    pretrain(resumed, corpus(), epochs=2, batch_size=12, out_dir=folder / "half", resume=True)
    torch.testing.assert_close(resumed.state_dict(), processes[0]["plain"]["state"], rtol=1e-4, atol=1e-5)


def test_a_pretrainer_that_does_not_gather_is_trained_by_each_process_alone(
    pretrained: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    alone = plain_pretrainer()
    pretrain(alone, corpus(), epochs=1, batch_size=12)
    for process in pretrained[1]:
        assert_same(dict(process["alone"]["state"]), dict(alone.state_dict()))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a folder that is not empty", "is not empty"),
        ("a hook that fails", "step 2 of 8 videos"),
        ("batches of one", "2 processes need as many videos in every batch, and the smallest has 1"),
    ],
)
def test_what_cannot_work_is_refused_in_all_processes(
    pretrained: tuple[Path, list[Any]], name: str, message: str
) -> None:
    assert all(message in process[name] for process in pretrained[1])


def test_a_signal_to_one_process_ends_all_after_one_step_with_a_checkpoint(tmp_path: Path) -> None:
    processes = start("interrupted", tmp_path, 2)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    try:
        while not metrics.exists() or metrics.read_text().count("\n") < 5:
            assert time.monotonic() < deadline, "the run takes too long"
            time.sleep(0.01)
        processes[1].send_signal(signal.SIGTERM)
        errors = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    assert [load_state(tmp_path / f"{rank}.pt") for rank in range(2)] == [{"status": 143}] * 2
    assert load_state(tmp_path / "run" / "checkpoint.pt")["step"] == len(lines(tmp_path / "run")) >= 5


def test_the_torchrun_example_trains_as_in_one_process(tmp_path: Path) -> None:
    script = [str(ROOT / "examples" / "torchrun_pretrain.py"), "--epochs", "2", "--out"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for command in ([sys.executable, *script, "one"], [*torchrun, *script, "two"]):
        subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, check=True, timeout=120)
    one, two = (load_state(tmp_path / name / "weights.pt") for name in ("one", "two"))
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)
