"""How the readers of files end on damaged inputs: in a result, in one line, in a traceback, or in a crash.

python benchmarks/fuzz.py --inputs 10000 --seed 0 --kinds h5 packed mat tsv splits

Inputs are valid files with bytes changed, cut, copied or inserted, or with a value put in another's place, drawn from
the seed. They are read in a child process, which is killed where one takes too long, so that a crash inside a library
costs one input; an h5 file that crashes or hangs HDF5 is then given to `visp.data.check_isolated`, which must refuse
it in one line.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import io
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

import visp
from visp.cli import study
from visp.cli.options import read_scores
from visp.data import (
    InMemoryDataset,
    VideoDataset,
    VideoRecord,
    check_isolated,
    read_splits,
    read_tvsum_mat,
    read_tvsum_tsv,
    write_h5,
)
from visp.data.isolated import bound_memory, read_wholly
from visp.data.synthetic import make_corpus
from visp.studies.results import read_fold, read_results
from visp.training import pretrain
from visp.weights import load_weights, save_state

EXPECTED = (ValueError, OSError, KeyError)
"""What a reader raises on purpose; the text of each must be one line per problem."""
ENDS = ("result", "one line", "traceback", "crash")
Rng = np.random.Generator


def main() -> int:
    """Read the inputs and print how many ended in which way; the exit status is 1 where one ended in a traceback."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000, help="inputs per kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the damage (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--first", type=int, default=0, help="number of the first input (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5, help="most that one may take (default: %(default)g)")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that end badly")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    inputs = range(options.first, options.first + options.inputs)
    if options.child:
        for end in ends_of(options.kinds[0], options.seed, inputs):
            print(json.dumps(end), flush=True)
        return 0
    print(f"HDF5 {h5py.version.hdf5_version}, torch {torch.__version__}, av {importlib.metadata.version('av')}")
    bad = 0
    for kind in options.kinds:
        start = time.perf_counter()
        ends: Counter[str] = Counter()
        for number, end in in_children(kind, options.seed, inputs, options.seconds):
            how = end.partition(":")[0]
            ends[how] += 1
            if how == "crash" and KINDS[kind].is_h5:
                end += f"; apart: {apart(kind, options.seed, number)}"
            if how in ("traceback", "crash"):
                bad += how == "traceback" or "apart: one line" not in end
                print(f"{kind} {number}: {end}", flush=True)
                if options.keep is not None:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{kind}-{options.seed}-{number}").write_bytes(damaged(kind, options.seed, number))
        told = ", ".join(f"{name} {ends[name]}" for name in ENDS)
        print(f"{kind}: {told}; {time.perf_counter() - start:.0f} s", flush=True)
    return 1 if bad else 0


def in_children(kind: str, seed: int, inputs: range, seconds: float) -> Iterator[tuple[int, str]]:
    """Yield how each input ends; after a crash another child reads the rest."""
    start = inputs.start
    while start < inputs.stop:
        command = [sys.executable, __file__, "--child", "--kinds", kind, "--seed", str(seed)]
        numbers = ["--first", str(start), "--inputs", str(inputs.stop - start)]
        with subprocess.Popen(
            [*command, *numbers], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        ) as child:
            assert child.stdout is not None
            how, patience = "", seconds + 60  # of which 60 are for the child to start
            while start < inputs.stop and not how:
                if not _comes(child.stdout, patience):
                    how = f"crash: longer than {seconds:g} s"
                elif line := child.stdout.readline():
                    yield start, json.loads(line)
                    start, patience = start + 1, seconds
                else:
                    how = f"crash: exit status {child.wait()}"
            child.kill()
        if how:
            yield start, how
            start += 1


def _comes(stream: Any, seconds: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        return bool(selector.select(seconds))


def apart(kind: str, seed: int, number: int) -> str:
    """Return how an input ends that is read in a child process first."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / KINDS[kind].name
        path.write_bytes(damaged(kind, seed, number))
        return end_of(lambda path: check_isolated(path, seconds=10), path)


def ends_of(kind: str, seed: int, inputs: range) -> Iterator[str]:
    """Yield how each input ends: ``result``, ``one line`` or ``traceback: ...``."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    bound_memory(4 * 2**30)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / KINDS[kind].name
        for number in inputs:
            path.write_bytes(damaged(kind, seed, number))
            yield end_of(KINDS[kind].read, path)


def end_of(read: Callable[[Path], object], path: Path) -> str:
    """Read one file and return how that ends."""
    try:
        read(path)
    except EXPECTED as error:
        text = str(error)
        clean = all(line.isprintable() and len(line) < 2000 for line in text.splitlines())
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}"
        return "one line" if clean and path.name in text else f"traceback: {where}: message {text[:300]!a}"
    except Exception as error:  # whatever else it is, a user would see its traceback
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"traceback: {type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {str(error)[:200]!a}"
    return "result"


def damaged(kind: str, seed: int, number: int) -> bytes:
    """Return one input: a valid file of the kind with one to eight faults."""
    rng = np.random.default_rng([seed, number, list(KINDS).index(kind)])
    return KINDS[kind].damage(valid(kind), rng)


def damage_bytes(valid: bytes, rng: Rng) -> bytes:
    """Change, cut, copy or insert bytes in one to eight places."""
    content = bytearray(valid)
    for _ in range(int(rng.integers(1, 9))):
        at = int(rng.integers(len(content))) if content else 0
        fault = rng.choice(["bit", "byte", "word", "cut", "copy", "insert", "header"])
        if fault == "bit" and content:
            content[at] ^= 1 << int(rng.integers(8))
        elif fault == "byte" and content:
            content[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))]))
        elif fault == "word":
            content[at : at + 8] = int(rng.choice([0, 1, 2**31, 2**45, 2**62, 2**63 - 1])).to_bytes(8, "little")
        elif fault == "cut" and rng.random() < 0.2:
            del content[at:]
        elif fault == "copy":
            source = int(rng.integers(len(content) + 1))
            content[at : at + 16] = content[source : source + 16]
        elif fault == "insert":
            content[at:at] = bytes(rng.choice(list(b'"[]{}:,\t/\n\x1b\x00- 9e'), size=int(rng.integers(1, 4))).tolist())
        elif fault == "header" and content:
            content[int(rng.integers(min(len(content), 4096)))] = int(rng.integers(256))
    return bytes(content)


def damage_json(valid: bytes, rng: Rng) -> bytes:
    """Put a value in another's place, or damage the bytes."""
    if rng.random() < 0.3:
        return damage_bytes(valid, rng)
    return json.dumps(damage_value(json.loads(valid), rng)).encode()


def damage_state(valid: bytes, rng: Rng) -> bytes:
    """Put a value in another's place in a state, and save it again with its hash."""
    state = damage_value(torch.load(io.BytesIO(valid), weights_only=True), rng)
    with tempfile.TemporaryDirectory() as folder:
        save_state(state, Path(folder) / "state.pt")
        return (Path(folder) / "state.pt").read_bytes()


def damage_value(value: Any, rng: Rng) -> Any:
    """Replace, remove or add one to three values somewhere in lists and dicts."""
    whole = {"root": copy.deepcopy(value)}
    for _ in range(int(rng.integers(1, 4))):
        places = [place for place in _places(whole) if place[0] is not whole or rng.random() < 0.05]
        if not places:
            continue
        holder, key = places[int(rng.integers(len(places)))]
        others: list[Any] = [
            None,
            True,
            -1,
            0,
            2**70,
            1e400,
            "",
            "\x1b[2J",
            "x" * 600,
            [],
            {},
            [[]],
            {"a": 1},
            copy.copy(whole),
        ]
        fault = int(rng.integers(len(others) + 2))
        if fault < len(others) - 1 or holder is whole:
            holder[key] = others[fault % (len(others) - 1)]
        elif fault == len(others) - 1:
            other, its_key = places[int(rng.integers(len(places)))]
            holder[key] = copy.deepcopy(other[its_key])
        else:
            del holder[key]
    return whole["root"]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a value in nested lists and dicts: what holds it, and its key or index."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def valid(kind: str) -> bytes:
    """Return the bytes of a valid file of a kind."""
    if kind not in _VALID:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / KINDS[kind].name
            KINDS[kind].write(path)
            _VALID[kind] = path.read_bytes()
    return _VALID[kind]


_VALID: dict[str, bytes] = {}


def write_corpus(path: Path) -> None:
    write_h5(path, make_corpus(2, feature_dim=4, num_shots=3, num_users=2))


def write_packed(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file["all"] = np.ones((6, 4), np.float32)
        for i in range(2):
            group = file.create_group(f"video_{i}")
            group.create_dataset("features", data=np.ones((6, 4), np.float16), chunks=(2, 4), compression="gzip")
            group["video_name"] = "one"
            group["n_frames"] = 6.0
        file.create_group("video_2")["features"] = h5py.SoftLink("/all")


def write_mat(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        for field, value in {"video": np.array([[97], [98]], np.uint16), "user_anno": np.ones((3, 9))}.items():
            references = file.create_dataset(f"tvsum50/{field}", (2, 1), dtype=h5py.ref_dtype)
            for i in range(2):
                file[f"#refs#/{field}{i}"] = value
                references[i, 0] = file[f"#refs#/{field}{i}"].ref


def write_tsv(path: Path) -> None:
    path.write_text("".join(f"{video}\tVT\t{','.join('12345' * 4)}\n" for video in "ab" for _ in range(3)))


def write_json_splits(path: Path) -> None:
    fold = {"train_keys": ["a.h5/video_1", "a.h5/video_2"], "test_keys": ["a.h5/video_3"], "val_keys": ["a.h5/b"]}
    path.write_text(json.dumps([fold, fold], indent=1))


def write_other_splits(path: Path) -> None:
    path.write_text("- train_keys:\n  - video_1\n  - 'video_2'\n  test_keys:\n  - video_3\n")


def write_lines(path: Path) -> None:
    path.write_text("summe/split0/video_1,video_2/video_3\nsumme/split1/video_1,video_3/video_2\n")


def write_index(path: Path) -> None:
    write_h5(path.with_name("a.h5"), [VideoRecord("video_1", np.ones((3, 2), np.float32))])
    VideoDataset(path.with_name("a.h5"), index=path).content_hash()


def read_index(path: Path) -> None:
    data = path.with_name("a.h5")
    write_h5(data, [VideoRecord("video_1", np.ones((3, 2), np.float32))], overwrite=True)
    with VideoDataset(data, index=path) as dataset:
        dataset.content_hash()


# --- weights and run folders ----------------------------------------------------------------------------------------


def summarizer() -> torch.nn.Module:
    """Return a small summarizer with parameters and buffers."""
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.ReLU(), torch.nn.Linear(3, 1))


def write_weights(path: Path) -> None:
    save_state(summarizer().state_dict(), path)


def write_plain_weights(path: Path) -> None:
    torch.save({"state_dict": summarizer().state_dict()}, path)


def write_old_weights(path: Path) -> None:
    torch.save(summarizer().state_dict(), path, _use_new_zipfile_serialization=False)


def read_summarizer(path: Path) -> None:
    load_weights(summarizer(), path)


def run(folder: Path, *, resume: bool = False) -> None:
    """Do a run of pretraining of two steps, or resume it."""
    torch.manual_seed(0)
    module = torch.nn.Linear(4, 1)
    pretrainer = visp.ViSPPretrainer(
        visp.adapt_summarizer(module), visp.encoders.AttentionPoolEncoder(4), contrast="videos", seed=0
    )
    options: dict[str, Any] = {"standardize": False, "progress": False, "out_dir": folder, "resume": resume}
    pretrain(pretrainer, InMemoryDataset(make_corpus(8, feature_dim=4)), epochs=1, batch_size=4, **options)


def write_of_run(path: Path) -> None:
    run(path.parent)


def resume_with(path: Path) -> None:
    """Resume a run in whose folder the file stands for the valid one."""
    folder = path.parent / "run"
    if not folder.exists():
        run(folder)
    with tempfile.TemporaryDirectory(dir=path.parent) as copied:
        run_copy = Path(copied) / "run"
        shutil.copytree(folder, run_copy)
        shutil.copy(path, run_copy / path.name)
        run(run_copy, resume=True)


def write_crossval(path: Path) -> None:
    """Cross-validate, for the two files that this leaves."""
    from visp.data import make_splits
    from visp.evaluator import Evaluator
    from visp.studies.cross_validation import cross_validate

    videos = InMemoryDataset(make_corpus(4, feature_dim=4, num_shots=3, num_users=2))
    cross_validate(
        lambda: torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0)),
        videos,
        make_splits(videos.names, folds=2),
        evaluator=Evaluator(videos, protocol="csta", benchmark="summe"),
        out_dir=path.parent / "crossval",
        epochs=1,
        progress=False,
    )
    found = path.parent / "crossval"
    shutil.copy(next(found.rglob(path.name)), path)


def write_config(path: Path) -> None:
    given = {"data": ["a.h5"], "summarizer": "csta", "encoder": "attention", "stride": 1}
    path.write_text(json.dumps({"command_line": given, "epochs": 3, "seed": 0, "lr": 1e-4, "standardized": "no"}))


def write_scores(path: Path) -> None:
    path.write_text(json.dumps({"video_1": [0.1, 0.5, 0.2], "video_2": [0.3, 1e-3]}))


# --- videos ---------------------------------------------------------------------------------------------------------


def write_video(path: Path, codec: str, options: dict[str, str] | None = None) -> None:
    """Write a clip of 20 frames, with sound."""
    import av

    with av.open(os.fspath(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        stream.options = options or {}
        for number in range(20):
            image = np.full((16, 32, 3), 12 * number, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def read_video(path: Path) -> None:
    from visp.video.extract import read_batches

    for _ in read_batches(path, [lambda image: torch.from_numpy(image[:4, :4].copy())], threads=1):
        pass


def read_part(path: Path) -> None:
    from visp.video.parts import Parts
    from visp.video.sources import Source

    parts = Parts(path.with_name("whole.h5"), {})
    parts.folder.mkdir(exist_ok=True)
    source = Source(path, "a", "video_1", "0" * 32)
    shutil.copy(path, parts.folder / f"{source.digest}.h5")
    parts.has(source)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        write: Writes a valid file.
        read: Reads a file as visp does.
        name: Its name.
        damage: Returns an input, made of a valid file.
        is_h5: Whether HDF5 reads it.
    """

    write: Callable[[Path], object]
    read: Callable[[Path], object]
    name: str = "input"
    damage: Callable[[bytes, Rng], bytes] = damage_bytes
    is_h5: bool = False


KINDS = {
    "h5": Kind(write_corpus, read_wholly, is_h5=True),
    "packed": Kind(write_packed, read_wholly, is_h5=True),
    "mat": Kind(write_mat, read_tvsum_mat, "input.mat", is_h5=True),
    "tsv": Kind(write_tsv, read_tvsum_tsv),
    "splits": Kind(write_json_splits, read_splits),
    "yaml": Kind(write_other_splits, read_splits),
    "lines": Kind(write_lines, read_splits),
    "index": Kind(write_index, read_index),
    "folds": Kind(write_json_splits, read_splits, damage=damage_json),
    "weights": Kind(write_weights, read_summarizer),
    "plain-weights": Kind(write_plain_weights, read_summarizer),
    "old-weights": Kind(write_old_weights, read_summarizer),
    "forged-weights": Kind(write_weights, read_summarizer, damage=damage_state),
    "checkpoint": Kind(write_of_run, resume_with, "checkpoint.pt"),
    "forged-checkpoint": Kind(write_of_run, resume_with, "checkpoint.pt", damage=damage_state),
    "log": Kind(write_of_run, resume_with, "metrics.jsonl"),
    "config": Kind(write_config, lambda path: study._read_config(path.parent), "config.json", damage=damage_json),
    "fold": Kind(write_crossval, read_fold, "fold.json", damage=damage_json),
    "results": Kind(write_crossval, lambda path: read_results(path.parent), "results.json", damage=damage_json),
    "scores": Kind(write_scores, lambda path: read_scores(str(path)), damage=damage_json),
    "mp4": Kind(lambda path: write_video(path, "libx264", {"bf": "1"}), read_video, "input.mp4"),
    "mkv": Kind(lambda path: write_video(path, "mpeg4"), read_video, "input.mkv"),
    "avi": Kind(lambda path: write_video(path, "mpeg4"), read_video, "input.avi"),
    "ts": Kind(lambda path: write_video(path, "mpeg2video"), read_video, "input.ts"),
    "webm": Kind(lambda path: write_video(path, "libvpx"), read_video, "input.webm"),
    "part": Kind(write_corpus, read_part, "part.h5", is_h5=True),
}


if __name__ == "__main__":
    sys.exit(main())
