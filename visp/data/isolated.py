"""Files that are not trusted, read once in a child process first: HDF5 can crash or hang on damaged ones."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from visp.data.annotations import read_tvsum_mat
from visp.data.dataset import VideoDataset
from visp.data.h5 import validate_h5
from visp.data.stored import H5SchemaError
from visp.utils.files import check_input, one_line, shown

SECONDS, BYTES_PER_SECOND = 60.0, 4 * 2**20
"""How long a child may take by default, and for how many bytes of the files a second more."""
MEMORY = 4 * 2**30
"""Bytes of memory that a child may take by default, beside what it takes without any file."""

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from visp.data import isolated; isolated.main()"
_NEXT = "next"


def check_isolated(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    seconds: float | None = None,
    memory: int = MEMORY,
) -> None:
    """Read h5 files wholly in a child process, so that what would crash, hang or fill this one is an error instead.

    A damaged or hostile file can crash or hang the HDF5 library, which no check in Python prevents. What the child
    could read, this process then reads in the same way, as long as the files stay as they are. The child is no
    sandbox: it may do what this process may.

    Args:
        paths: One h5 file or several of the field's schema; one that ends in ``.mat`` is read as TVSum's annotations.
        seconds: Longest time for all files; None for 60 seconds and one more for every 4 MiB of the files.
        memory: Most bytes of memory, beside what the child takes without any file. Only Linux keeps this bound.

    Raises:
        FileNotFoundError: There is no such file.
        H5SchemaError: A file breaks the schema or cannot be read, or reading it crashed, took too long or took too much
            memory; the message names the file.
        OSError: A file is a pipe, a socket, a device or a folder.
    """
    files = [check_input(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
    if seconds is None:
        seconds = SECONDS + sum(path.stat().st_size for path in files) / BYTES_PER_SECOND
    command = [sys.executable, "-I", "-c", _START, json.dumps(sys.path), str(memory)]
    try:
        ended = subprocess.run(
            command,
            input=json.dumps([os.fspath(path) for path in files]).encode(),
            capture_output=True,
            timeout=seconds,
            check=False,
        )
        output, how = ended.stdout, _ending(ended)
    except subprocess.TimeoutExpired as late:
        output, how = late.stdout or b"", f"reading it took longer than {seconds:.0f} seconds"
    if how is None:
        return
    *_, last = lines = output.decode().splitlines() or [""]
    if last not in ("", _NEXT):
        raise H5SchemaError(json.loads(last))
    reached = lines.count(_NEXT)  # the number of the file that was being read, from 1
    raise H5SchemaError(f"{shown(files[max(reached, 1) - 1])}: {how}, in a child process")


def main() -> None:
    """Read the files that standard input names; print a line before each, and the problem that ends the reading."""
    files = [Path(name) for name in json.load(sys.stdin)]
    bound_memory(int(sys.argv[2]))
    for path in files:
        print(_NEXT, flush=True)
        try:
            read_wholly(path)
        except (OSError, ValueError, KeyError, MemoryError) as error:
            text = str(error) if isinstance(error, ValueError) else f"{shown(path)}: {one_line(error)}"
            print(json.dumps(text), flush=True)
            sys.exit(1)


def read_wholly(path: Path) -> None:
    """Read everything that any command reads of a file; raise what the reading raises."""
    if path.suffix == ".mat":
        read_tvsum_mat(path)
        return
    validate_h5(path)
    for validate in ("full", "shapes"):
        with VideoDataset(path, validate=validate) as dataset:
            for index in range(len(dataset)):
                dataset[index]
                dataset.record(index)


def bound_memory(memory: int) -> None:
    """Keep this process from taking more than so many bytes beside those that it has; only Linux does."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    taken = Path("/proc/self/statm")
    if taken.exists():
        pages = int(taken.read_text().split()[0])
        limit, most = pages * resource.getpagesize() + memory, resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))


def _ending(ended: subprocess.CompletedProcess[bytes]) -> str | None:
    if ended.returncode == 0:
        return None
    if ended.returncode < 0:
        return f"reading it crashed the HDF5 library ({signal.Signals(-ended.returncode).name})"
    lines = ended.stderr.decode(errors="replace").strip().splitlines()
    return f"reading it failed ({one_line(RuntimeError(lines[-1] if lines else ended.returncode))})"
