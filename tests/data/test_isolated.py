"""Reading in a child process: what brings the child down is one line in the parent."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from visp.cli import main
from visp.data import H5SchemaError, VideoRecord, check_isolated, validate_h5, write_h5
from visp.data.isolated import bound_memory

ONES = np.ones((6, 4), dtype=np.float32)


def good(path: Path) -> Path:
    write_h5(path, [VideoRecord("video_1", ONES)])
    return path


def endless(path: Path) -> Path:
    """Write a file whose text makes HDF5 2.0 search the heap of texts without end: an object of no size in it."""
    with h5py.File(path, "w") as file:
        file["video_1/features"] = ONES
        file["video_1/video_name"] = "one"
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    content[heap + 16 + 8 : heap + 16 + 16] = bytes(8)  # the size of the heap's first object
    content[heap + 16 : heap + 18] = bytes(2)  # its number: free space
    path.write_bytes(content)
    return path


def test_files_that_can_be_read_pass(tmp_path: Path) -> None:
    check_isolated([good(tmp_path / "a.h5"), good(tmp_path / "b.h5")])


def test_a_problem_is_told_as_the_reader_tells_it(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_h5(path, [VideoRecord("video_1", ONES * np.nan)])
    with pytest.raises(H5SchemaError) as direct:
        validate_h5(path)
    with pytest.raises(H5SchemaError) as apart:
        check_isolated([good(tmp_path / "b.h5"), path])
    assert str(apart.value) == str(direct.value)


def test_a_file_that_hangs_the_library_is_given_up(tmp_path: Path) -> None:
    path = endless(tmp_path / "a.h5")
    start = time.monotonic()
    with pytest.raises(H5SchemaError, match=r"a\.h5: reading it took longer than 8 seconds, in a child process"):
        check_isolated([good(tmp_path / "b.h5"), path], seconds=8)
    assert time.monotonic() - start < 30


def test_a_crash_names_the_file_and_the_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crashing = f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})"
    start = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from visp.data import isolated; "
    monkeypatch.setattr(
        "visp.data.isolated._START", f"{start}isolated.read_wholly = lambda path: exec({crashing!r}); isolated.main()"
    )
    path = good(tmp_path / "a.h5")
    with pytest.raises(H5SchemaError, match=r"a\.h5: reading it crashed the HDF5 library \(SIGSEGV\), in a child"):
        check_isolated(path)


def test_memory_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "video_1/features", (2**16, 256), "f4", chunks=(2**12, 256), compression="gzip", compression_opts=1
        )
        data[:] = np.zeros((1, 256), dtype=np.float32)
    assert path.stat().st_size < 2**19  # of 64 MiB when it is read
    with pytest.raises(H5SchemaError, match=r"a\.h5: .*(allocate|memory)"):
        check_isolated(path, memory=2**25)
    check_isolated(path)


def test_the_bound_on_memory_is_of_this_process_alone() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    child = os.fork()
    if not child:
        bound_memory(2**20)
        os._exit(0 if resource.getrlimit(resource.RLIMIT_AS) != before else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_what_is_no_file_is_refused_before_a_child_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("a child was started"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is a pipe"):
        check_isolated(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        check_isolated(tmp_path / "nothing")


def test_a_command_refuses_what_the_child_could_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.h5"
    write_h5(path, [VideoRecord("video_1", ONES * np.nan)])
    command = ["evaluate", "--data", str(path), "--benchmark", "summe", "--weights", "w.pt", "--isolate"]
    assert main(command) == 2
    assert "video_1/features: 24 values are not finite" in capsys.readouterr().err
