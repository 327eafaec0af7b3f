"""Kill commands at random moments, run them again until they end, and compare with what an undisturbed run leaves.

python benchmarks/kills.py --kills 300 --seed 0

Each of `visp pretrain`, `finetune`, `crossval`, `features` and `summarize` first runs undisturbed. Then it runs in a
process group of its own, which SIGKILL ends at a random moment, workers included, and is started again on what is
left, killed again, and so on; after some kills it may end. Its files must then hold what those of the undisturbed run
hold, bit for bit, and no temporary file may be left. Commands are forked from a process that has imported everything,
so that the moments fall into their work.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import torch._dynamo  # as the modules below, imported before commands are forked
from torch import Tensor, nn

import visp.cli.summarize.learn
import visp.studies.cross_validation
import visp.summarizers
import visp.training
import visp.video
from visp.data import make_splits, write_splits
from visp.data.synthetic import write_corpus
from visp.weights import load_state

KILLS_OF_A_ROUND = 4
"""After so many kills a command may end."""
SECONDS = 120
"""Most that an undisturbed command may take."""
OF_TIME = ("seconds", "summarizer_weights")
"""Names in JSON files under which there is how long something took, or whether this run or a killed one learnt."""


@dataclass(frozen=True)
class Command:
    """A command that writes.

    Attributes:
        prepare: Writes its inputs into a folder.
        words: Its arguments, in that folder.
        again: More of them where it was killed before.
        made: The files and folders that it leaves.
    """

    prepare: Callable[[Path], None]
    words: str
    again: str
    made: tuple[str, ...]


@dataclass
class Found:
    """What the kills of a command came to."""

    kills: int = 0
    rounds: int = 0
    problems: list[str] = field(default_factory=list)


def main() -> int:
    """Do the kills and print what came of them; the exit status is 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    options = parser.parse_args()
    problems = 0
    for name in options.commands:
        start = time.perf_counter()
        found = kill(name, -(-options.kills // len(options.commands)), options.seed)
        problems += len(found.problems)
        print(
            f"{name}: {found.kills} kills in {found.rounds} rounds, {len(found.problems)} problems; "
            f"{time.perf_counter() - start:.0f} s",
            *found.problems,
            sep="\n  ",
            flush=True,
        )
    return 1 if problems else 0


def kill(name: str, kills: int, seed: int) -> Found:
    """Kill a command at least so often, and compare what it leaves with what it should."""
    command = COMMANDS[name]
    rng = np.random.default_rng([seed, list(COMMANDS).index(name)])
    found = Found()
    with tempfile.TemporaryDirectory() as place:
        inputs, expected = Path(place) / "inputs", Path(place) / "expected"
        inputs.mkdir()
        command.prepare(inputs)
        shutil.copytree(inputs, expected)
        start = time.perf_counter()
        if (status := ended(command.words, expected, SECONDS)) != 0:
            raise RuntimeError(f"undisturbed, visp {command.words} ends with status {status}")
        lasts = time.perf_counter() - start
        while found.kills < kills:
            folder = Path(place) / f"round-{found.rounds}"
            shutil.copytree(inputs, folder)
            words, status, left = command.words, None, KILLS_OF_A_ROUND
            while status is None:
                patience = float(rng.uniform(0, lasts)) if left else SECONDS
                status = ended(words, folder, patience)
                words = f"{command.words} {command.again}"
                found.kills += status is None
                left -= 1
                if left < -1:
                    raise RuntimeError(f"visp {words} takes longer than {SECONDS} seconds")
            found.problems += [
                f"round {found.rounds}: {problem}" for problem in lost(command, expected, folder, status)
            ]
            found.rounds += 1
            shutil.rmtree(folder)
    return found


def ended(words: str, folder: Path, patience: float) -> int | None:
    """Run a command in a folder, and return its exit status, or None if it had to be killed."""
    child = multiprocessing.get_context("fork").Process(target=_run, args=(words.split(), folder))
    child.start()
    child.join(patience)
    if child.exitcode is None:
        with contextlib.suppress(ProcessLookupError):  # it has not yet its group, and no children
            os.killpg(child.pid or 0, signal.SIGKILL)
        child.kill()
        child.join()
    return None if child.exitcode == -signal.SIGKILL else child.exitcode


def _run(words: list[str], folder: Path) -> None:
    os.setsid()
    os.chdir(folder)
    for number, name in ((1, "output"), (2, "errors")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    torch.set_num_threads(1)
    visp.cli.summarize.learn._STEPS = 40
    status = visp.cli.main(words)
    gc.collect()
    sys.stdout.flush()
    os._exit(status)


def lost(command: Command, expected: Path, folder: Path, status: int) -> list[str]:
    """Say what a command that was killed and run again left otherwise than the undisturbed one."""
    if status != 0:
        return [f"status {status}: {(folder / 'errors').read_text().strip()[-300:]}"]
    wanted, there = (
        {path.relative_to(place) for made in command.made for path in [place / made, *(place / made).rglob("*")]}
        for place in (expected, folder)
    )
    problems = [f"{path} is missing" for path in sorted(wanted - there)]
    problems += [f"{path} is left" for path in sorted(there - wanted)]
    problems += [f"{path.name} is left" for path in folder.iterdir() if path.name.startswith(".")]
    problems += [
        f"{path} holds something else"
        for path in sorted(wanted & there)
        if (folder / path).is_file() and held(expected / path) != held(folder / path)
    ]
    return problems


def held(path: Path) -> Any:
    """Return what a file holds, as plain values; tensors and arrays as their bytes."""
    if path.suffix == ".pt":
        return plain(load_state(path))
    if path.suffix == ".safetensors":
        content = path.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        return [plain(json.loads(content[8:start])), content[start:]]
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            found: dict[str, Any] = {"attributes": dict(file.attrs)}
            file.visititems(lambda name, item: found.update({name: [item_of(item), dict(item.attrs)]}))
        return plain(found)
    if path.suffix == ".json":
        return plain(json.loads(path.read_text()))
    return path.read_bytes()


def item_of(item: h5py.Group | h5py.Dataset) -> Any:
    return np.asarray(item[()]) if isinstance(item, h5py.Dataset) else None


def plain(value: Any) -> Any:
    """Return a value that can be compared: nan equals nan, -0.0 is not 0.0, and times are left out."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items() if key not in OF_TIME}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, Tensor):
        return [str(value.dtype), list(value.shape), value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()]
    if isinstance(value, np.ndarray | np.generic):
        return [str(value.dtype), list(value.shape), value.tolist() if value.dtype == object else value.tobytes()]
    return repr(value)


# --- the commands ---------------------------------------------------------------------------------------------------


def write_labelled(folder: Path) -> None:
    """Write an h5 file of videos with annotations, and folds."""
    write_corpus(folder / "data.h5", num_videos=12, feature_dim=8, num_shots=6, num_users=3)
    splits = make_splits([f"video_{number}" for number in range(1, 13)], folds=3)
    write_splits(folder / "splits.json", splits)


def write_videos(folder: Path) -> None:
    """Write three clips whose colours change."""
    import av

    (folder / "videos").mkdir()
    for clip in range(3):
        with av.open(os.fspath(folder / "videos" / f"clip{clip}.mp4"), "w") as container:
            stream: Any = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number in range(120):
                image = np.full((48, 64, 3), [(clip * 50 + number // 20 * 40) % 256, number * 2, 90], np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())


class Colours(nn.Module):
    """Maps images (B, 3, 224, 224) to features (B, 12)."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean colours of the quarters of each image."""
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1) + torch.arange(12) / 10


def colours() -> nn.Module:
    return Colours()


def linear(feature_dim: int) -> nn.Module:
    """Return a summarizer with running statistics and dropout, which resuming must bring back."""
    return nn.Sequential(nn.Linear(feature_dim, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 1), nn.Flatten(0))


_LEARN = "--summarizer kills:linear --checkpoint-seconds 0.02"
_LABELS = f"--data data.h5 --splits splits.json --benchmark summe {_LEARN}"
COMMANDS = {
    "pretrain": Command(
        write_labelled,
        f"pretrain --data data.h5 --batch-size 4 --epochs 8 --ema-decay 0.9 --workers 1 --out run {_LEARN}",
        "--resume",
        ("run",),
    ),
    "finetune": Command(
        write_labelled, f"finetune {_LABELS} --epochs 12 --select test --out run", "--resume", ("run",)
    ),
    "crossval": Command(write_labelled, f"crossval {_LABELS} --epochs 4 --out run", "", ("run",)),
    "features": Command(
        write_videos,
        "features videos --out corpus.h5 --fps 5 --extractor kills:colours --workers 1",
        "--overwrite",
        ("corpus.h5",),
    ),
    "summarize": Command(
        write_videos,
        "summarize videos/clip0.mp4 --out out.mp4 --json out.json --fps 5 --extractor kills:colours --seconds 3",
        "--overwrite",
        ("out.mp4", "out.json"),
    ),
}


if __name__ == "__main__":
    sys.modules["kills"] = sys.modules["__main__"]  # the name under which commands find this file's models
    sys.exit(main())
