"""What a run keeps apart and keeps whole: threads, folders, checkpoints, workers."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import visp
from tests.builders import MeanEncoder, make_videos
from visp.data import InMemoryDataset, as_dataset
from visp.training import pretrain
from visp.training.run_folder import RunFolder
from visp.utils.files import locked
from visp.weights import CheckpointError, load_state, save_state


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.layers(frames).squeeze(-1)
        return logits


def untrained(seed: int) -> visp.ViSPPretrainer:
    summarizer = Noisy()
    with torch.no_grad():
        for number, parameter in enumerate(summarizer.parameters()):
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter) + number / 10)
    return visp.ViSPPretrainer(summarizer, MeanEncoder(), contrast="videos", seed=seed)


def trained(seed: int, pretrainer: visp.ViSPPretrainer | None = None, **options: Any) -> dict[str, Tensor]:
    pretrainer = pretrainer or untrained(seed)
    given = {"epochs": 4, "batch_size": 4, "standardize": False, "progress": False, **options}
    pretrain(pretrainer, as_dataset(make_videos()), seed=seed, **given)
    return dict(pretrainer.summarizer.state_dict())


@pytest.mark.filterwarnings("ignore")
def test_two_runs_in_two_threads_give_what_each_gives_alone() -> None:
    alone = [trained(seed) for seed in (1, 2)]
    together: dict[int, dict[str, Tensor]] = {}
    # Made here, for a new module draws its weights of the global generator, between another run's draws of dropout.
    made = {seed: untrained(seed) for seed in (1, 2)}
    threads = [
        threading.Thread(target=lambda seed=seed: together.update({seed: trained(seed, made[seed])})) for seed in (1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, expected in zip((1, 2), alone, strict=True):
        for name, value in expected.items():
            assert torch.equal(together[seed][name], value)


@pytest.mark.filterwarnings("ignore")
def test_a_folder_that_is_written_is_refused_and_free_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with locked(folder), pytest.raises(BlockingIOError, match="is being written by something else"):
        trained(1, out_dir=folder)
    trained(1, out_dir=folder)
    with locked(folder):
        pass


def test_a_run_killed_before_its_first_checkpoint_is_resumed_from_the_start(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, resume=True)
    (tmp_path / ".visp-config.json-abcdefgh.json").write_text("{")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").touch()
    assert folder.open() is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "metrics.jsonl"]
    folder.close()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"fingerprint": 3}, "is damaged: it does not hold fingerprint as it should"),
        ({"step": "2"}, "is damaged: it does not hold step as it should"),
        ({"skipped": [1]}, "is damaged: it does not hold skipped as it should"),
        ({"extra": None}, "is damaged: it does not hold extra as it should"),
        ({"optimizer": {"state": {0: {}}}}, "is of another model, or damaged: exp_avg"),
        ({"optimizer": {"state": {99: {}}}}, "is of another model, or damaged"),
        ({"module": {}}, "is of another model: .* missing"),
    ],
)
def test_a_checkpoint_of_another_structure_is_one_line(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    trained(1, out_dir=tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    save_state({**load_state(checkpoint), **change}, checkpoint)
    with pytest.raises(CheckpointError, match=rf"checkpoint\.pt {problem}"):
        trained(1, out_dir=tmp_path / "run", resume=True)


class Dying(InMemoryDataset):
    def __getitem__(self, index: int) -> Any:
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class Refusing(InMemoryDataset):
    def __getitem__(self, index: int) -> Any:
        if torch.utils.data.get_worker_info() is not None:
            raise OSError("a.h5: video_1 cannot be read")
        return super().__getitem__(index)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            Dying,
            r"a worker that reads videos has ended \((killed by signal: Killed|exited unexpectedly)\) before step 1,.*",
        ),
        (Refusing, r"a\.h5: video_1 cannot be read"),
    ],
)
def test_a_worker_that_fails_is_one_line(kind: type[InMemoryDataset], message: str) -> None:
    plain = as_dataset(make_videos())
    assert isinstance(plain, InMemoryDataset)
    videos = kind([plain.record(index) for index in range(len(plain))])
    pretrainer = visp.ViSPPretrainer(Noisy(), visp.encoders.AttentionPoolEncoder(4), contrast="videos", seed=0)
    with pytest.raises(OSError, match=r"^.+$") as caught:
        pretrain(pretrainer, videos, epochs=1, batch_size=4, standardize=False, progress=False, num_workers=1)
    assert re.fullmatch(message, str(caught.value))
