"""One writer for each output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from visp.utils.lock import locked


@contextmanager
def holder(path: Path, *, with_child: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, and where wanted a child of its own that outlives it by 60 s."""
    fork = "\nif os.fork() == 0:\n    time.sleep(60)\n    os._exit(0)" if with_child else ""
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom visp.utils.lock import locked\n"
        f"lock = locked(Path(sys.argv[1]))\nlock.__enter__(){fork}\nprint('held', flush=True)\ntime.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        with suppress(ProcessLookupError):  # all of them are gone
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_second_holder_is_told_so_and_the_next_one_is_not(tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    with locked(out), pytest.raises(BlockingIOError, match=r"out\.h5: another visp process is writing it"), locked(out):
        pass
    with locked(out):
        pass
    assert list(tmp_path.iterdir()) == []


def test_other_outputs_are_free(tmp_path: Path) -> None:
    with locked(tmp_path / "a.h5"), locked(tmp_path / "b.h5"):
        pass


def test_another_process_holds_it_until_it_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    with holder(out) as process:
        with pytest.raises(BlockingIOError, match="another visp process"), locked(out):
            pass
        process.kill()
        process.wait()
        with locked(out):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_outlives_its_parent_does_not_hold_it(tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    with holder(out, with_child=True) as process:
        process.kill()
        process.wait()
        with locked(out):
            pass


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), locked(tmp_path / "none" / "out.h5"):
        pass
