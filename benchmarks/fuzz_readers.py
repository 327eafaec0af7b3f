"""How the readers of files end on damaged inputs: in a result, in one line, in a traceback, or in a crash.

python benchmarks/fuzz_readers.py --inputs 10000 --seed 0 --kinds h5 packed mat tsv splits

Inputs are valid files with bytes changed, cut, copied or inserted, drawn from the seed. Batches of them run in a
child process each, so that a crash inside a library ends one batch only; its input is then found and counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from visp.data import VideoDataset, VideoRecord, read_splits, read_tvsum_mat, read_tvsum_tsv, validate_h5, write_h5
from visp.data.synthetic import make_corpus

SECONDS = 20
"""Longest time that one input may take."""
EXPECTED = (ValueError, OSError, KeyError)
"""What a reader raises on purpose; the text of each must be one line per problem."""


def main() -> int:
    """Read the inputs and print how many ended in which way; the exit status is 1 where one ended badly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000, help="inputs per kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the damage (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--batch", type=int, default=500, help="inputs per process (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first input (default: %(default)s)")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that end badly")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(ends_of(options.kinds[0], options.seed, options.first, options.inputs)))
        return 0
    bad = 0
    for kind in options.kinds:
        start = time.perf_counter()
        ends: Counter[str] = Counter()
        for first in range(options.first, options.first + options.inputs, options.batch):
            count = min(options.batch, options.first + options.inputs - first)
            for number, end in in_child(kind, options.seed, first, count):
                ends[end.partition(":")[0]] += 1
                if end.startswith(("traceback", "crash")):
                    bad += 1
                    print(f"{kind} {number}: {end}")
                    if options.keep is not None:
                        options.keep.mkdir(parents=True, exist_ok=True)
                        name = f"{kind}-{options.seed}-{number}"
                        (options.keep / name).write_bytes(damaged(kind, options.seed, number))
        told = ", ".join(f"{name} {ends[name]}" for name in ("result", "one line", "traceback", "crash"))
        print(f"{kind}: {told}; {time.perf_counter() - start:.0f} s", flush=True)
    return 1 if bad else 0


def in_child(kind: str, seed: int, first: int, count: int) -> list[tuple[int, str]]:
    """Return how each input of a batch ends; a crash is found by halving the batch."""
    command = [sys.executable, __file__, "--child", "--kinds", kind]
    numbers = ["--seed", str(seed), "--first", str(first), "--inputs", str(count)]
    try:
        ended = subprocess.run([*command, *numbers], capture_output=True, text=True, timeout=60 + SECONDS * count)
        if ended.returncode == 0:
            return list(enumerate(json.loads(ended.stdout), start=first))
        how = f"crash: exit status {ended.returncode}"
    except subprocess.TimeoutExpired:
        how = f"crash: longer than {SECONDS} s"
    if count == 1:
        return [(first, how)]
    half = count // 2
    return in_child(kind, seed, first, half) + in_child(kind, seed, first + half, count - half)


def ends_of(kind: str, seed: int, first: int, count: int) -> list[str]:
    """Return how each input of a batch ends: ``result``, ``one line`` or ``traceback: ...``."""
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "input"
        ends = []
        for number in range(first, first + count):
            path.write_bytes(damaged(kind, seed, number))
            ends.append(end_of(READERS[kind][1], path))
    return ends


def end_of(read: Callable[[Path], object], path: Path) -> str:
    """Read one file and return how that ends."""
    try:
        read(path)
    except EXPECTED as error:
        text = str(error)
        clean = all(line.isprintable() and len(line) < 2000 for line in text.splitlines())
        return "one line" if clean and path.name in text else f"traceback: message {text[:300]!a}"
    except Exception as error:  # whatever else it is, a user would see its traceback
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"traceback: {type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {str(error)[:200]!a}"
    return "result"


def damaged(kind: str, seed: int, number: int) -> bytes:
    """Return one input: a valid file of the kind with one to eight faults."""
    rng = np.random.default_rng([seed, number, list(READERS).index(kind)])
    content = bytearray(valid(kind))
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


def valid(kind: str) -> bytes:
    """Return the bytes of a valid file of a kind."""
    if kind not in _VALID:
        with tempfile.TemporaryDirectory() as folder:
            READERS[kind][0](Path(folder) / "valid")
            _VALID[kind] = (Path(folder) / "valid").read_bytes()
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


def read_h5(path: Path) -> None:
    validate_h5(path)
    for validate in ("full", "shapes"):
        with VideoDataset(path, validate=validate) as dataset:
            for i in range(len(dataset)):
                dataset[i]
                dataset.record(i)


def read_index(path: Path) -> None:
    data = path.with_name("a.h5")
    write_h5(data, [VideoRecord("video_1", np.ones((3, 2), np.float32))], overwrite=True)
    with VideoDataset(data, index=path) as dataset:
        dataset.content_hash()


READERS: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    "h5": (write_corpus, read_h5),
    "packed": (write_packed, read_h5),
    "mat": (write_mat, read_tvsum_mat),
    "tsv": (write_tsv, read_tvsum_tsv),
    "splits": (write_json_splits, read_splits),
    "yaml": (write_other_splits, read_splits),
    "lines": (write_lines, read_splits),
    "index": (write_index, read_index),
}


if __name__ == "__main__":
    sys.exit(main())
