from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from visp.utils.files import check_input, check_outputs, locked, replacing, unfinished

NOBODY = 65534


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def write_whole(path: Path, **_: object) -> None:
    with replacing(path) as file:
        file.write(b"whole")


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    folder = Path.cwd()
    os.chdir(path.parent)  # a socket's name is at most about 100 letters long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(folder)


def make_link_to_device(path: Path) -> None:
    path.symlink_to("/dev/null")


def make_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


IRREGULAR = [
    (make_pipe, "is a pipe, expected a regular file"),
    (make_socket, "is a socket, expected a regular file"),
    (make_link_to_device, "is a device, expected a regular file"),
    (Path.mkdir, "is a folder, expected a regular file"),
]


# --- what is read ---------------------------------------------------------------------------------------------------


def test_a_file_and_a_link_to_it_may_be_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").symlink_to("a")
    assert [check_input(tmp_path / name).read_text() for name in "ab"] == ["a", "a"]


@pytest.mark.parametrize(("make", "problem"), IRREGULAR)
def test_what_is_no_regular_file_is_not_read(tmp_path: Path, make: Callable[[Path], None], problem: str) -> None:
    make(tmp_path / "in")
    with pytest.raises(OSError, match=f"in {problem}"):
        check_input(tmp_path / "in")


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="in: no such file"):
        check_input(tmp_path / "in")


# --- what is written ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_an_output_that_is_an_input_is_refused(tmp_path: Path, link: Callable[[Path, Path], None] | None) -> None:
    source, output = tmp_path / "in", tmp_path / ("in" if link is None else "out")
    source.write_text("precious")
    if link is not None:
        link(source, output)
    with pytest.raises(ValueError, match=r"is also an input .*; choose another file to write"):
        check_outputs(output, inputs=[source], overwrite=True)


def test_an_output_that_is_an_input_by_another_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("precious")
    with pytest.raises(ValueError, match="is also an input"):
        check_outputs(tmp_path / "x" / ".." / "in", inputs=[tmp_path / "in"], overwrite=True)


def test_two_outputs_in_one_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("out")
    with pytest.raises(ValueError, match="to be written twice"):
        check_outputs(tmp_path / "out", None, tmp_path / "link")


@pytest.mark.parametrize(("make", "problem"), [*IRREGULAR, (make_link_to_itself, "is a link without an end")])
@pytest.mark.parametrize("write", ["check", "unfinished"])
def test_what_is_no_regular_file_is_not_replaced(
    tmp_path: Path, make: Callable[[Path], None], problem: str, write: str
) -> None:
    make(tmp_path / "out")
    before = (tmp_path / "out").lstat()
    attempt = check_outputs if write == "check" else write_whole
    with pytest.raises(OSError, match=f"out {problem}"):
        attempt(tmp_path / "out", overwrite=True)
    assert os.path.samestat((tmp_path / "out").lstat(), before)


def test_an_existing_output_is_refused_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    (tmp_path / "link").symlink_to("out")
    for output in (tmp_path / "out", tmp_path / "link"):
        with pytest.raises(FileExistsError, match=r"exists; pass overwrite=True to replace it"):
            check_outputs(output)
        check_outputs(output, overwrite=True)


@pytest.mark.parametrize("name", ["none/a\n\x1b[31m", "a\u202e\n/b", "a\n"])
def test_a_name_that_is_not_printable_cannot_break_an_error_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "a\n").mkdir()
    with pytest.raises(OSError, match="a") as caught:
        check_outputs(tmp_path / name)
    assert str(caught.value).isprintable()


def test_an_output_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="out: there is no folder"):
        check_outputs(tmp_path / "nowhere" / "out")


def test_an_output_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        check_outputs(tmp_path / "file" / "out")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="folders of this system have no modes")
@pytest.mark.parametrize("mode", [0o555, 0o444], ids=["read and entered", "only read"])
def test_an_output_in_a_folder_that_cannot_be_written_is_refused(mode: int) -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, whose folders no other user may enter
        folder = Path(name)
        folder.chmod(mode)
        if user == 0:  # who may write everywhere
            os.seteuid(NOBODY)
        try:
            with pytest.raises(PermissionError, match=r"out: the folder .* cannot be written to \(Permission denied\)"):
                check_outputs(folder / "out")
        finally:
            os.seteuid(user)
            folder.chmod(0o755)


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check_outputs(tmp_path / "out")
    assert names(tmp_path) == []


def test_the_target_of_a_link_is_written_and_not_the_link_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/file")
    for text in (b"first", b"second"):
        with replacing(tmp_path / "link") as file:
            file.write(text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "there" / "file").read_bytes() == text
    assert names(tmp_path / "there") == ["file"]


def test_a_failure_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"earlier")

    def fail() -> None:
        with replacing(tmp_path / "out") as file:
            file.write(b"half of it")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out").read_bytes() == b"earlier"


def test_a_written_file_has_the_usual_mode(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with replacing(tmp_path / "out"):
        pass
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode


LIMITED = """
    import resource, sys
    from pathlib import Path
    import h5py, numpy as np
    from visp.utils.files import replacing
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    kind, path = sys.argv[1], Path(sys.argv[2])
    try:
        with replacing(path) as file:
            if kind == "bytes":
                file.write(bytes(10**6))
            elif kind == "torch":
                import torch
                torch.save({"weight": torch.ones(10**6)}, file)
            else:
                rows = 2 if kind == "h5, many small" else 10**5
                with h5py.File(file, "w") as h5:
                    for i in range(2000):
                        h5[f"video_{i}/features"] = np.ones((rows, 1))
    except OSError as error:
        print(error)
"""


@pytest.mark.parametrize("kind", ["bytes", "torch", "h5, large", "h5, many small"])
def test_no_room_is_one_line_and_the_earlier_file_is_kept(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out.h5"
    path.write_bytes(b"earlier")
    ended = run(LIMITED, kind, path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == (
        f"{path} cannot be written: the limit of a file's size is reached; an earlier file of that name is as it was\n"
    )
    assert names(tmp_path) == ["out.h5"]
    assert path.read_bytes() == b"earlier"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    def fill() -> None:
        with unfinished(tmp_path / "out") as name, Path("/dev/full").open("wb") as file:
            name.write_bytes(b"some")
            file.write(b"more")

    with pytest.raises(OSError, match="out cannot be written: the disk is full") as caught:
        fill()
    assert caught.value.errno == 28
    assert names(tmp_path) == []


# --- locks ----------------------------------------------------------------------------------------------------------

HOLD = """
    import os, signal, sys, time
    from pathlib import Path
    from visp.utils.files import locked, unfinished
    how, path = sys.argv[1], Path(sys.argv[2])
    with locked(path) if how == "locked" else unfinished(path):
        if len(sys.argv) > 3 and os.fork():  # a worker that outlives its parent, and says when it runs
            time.sleep(60)
        print("held", flush=True)
        time.sleep(60)
"""


def start(how: str, path: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(HOLD), how, str(path), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.parametrize("how", ["locked", "unfinished"])
def test_a_second_writer_of_a_file_is_told_until_the_first_was_killed(tmp_path: Path, how: str) -> None:
    path = tmp_path / "out.h5"
    first = start(how, path)
    try:
        for attempt in (locked, unfinished):
            with pytest.raises(BlockingIOError, match=r"out\.h5 is being written by something else"), attempt(path):
                pass
        with replacing(tmp_path / "other"):
            pass
    finally:
        end(first)
    with locked(path), replacing(path) as file:
        file.write(b"whole")
    assert names(tmp_path) == ["other", "out.h5"]  # neither the lock nor what the killed one had written


def test_a_second_run_in_a_folder_is_told_until_the_first_was_killed(tmp_path: Path) -> None:
    first = start("locked", tmp_path)
    try:
        with pytest.raises(BlockingIOError, match="is being written by something else"), locked(tmp_path):
            pass
    finally:
        end(first)
    with locked(tmp_path):
        assert names(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_a_lock_is_not_kept_by_children_that_outlive_their_parent(tmp_path: Path) -> None:
    first = start("locked", tmp_path / "out", "fork")
    os.kill(first.pid, 9)
    first.wait()
    try:
        with locked(tmp_path / "out"):
            pass
    finally:
        os.killpg(first.pid, 9)
        first.communicate()


def test_a_lock_is_refused_to_a_second_caller_of_the_same_process(tmp_path: Path) -> None:
    told = []

    def second() -> None:
        try:
            with locked(tmp_path / "out"):
                pass
        except BlockingIOError as error:
            told.append(str(error))

    with locked(tmp_path / "out"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(told) == 1
    assert names(tmp_path) == []


def test_a_link_and_its_target_have_one_lock(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("out")
    with locked(tmp_path / "link"), pytest.raises(BlockingIOError), locked(tmp_path / "out"):
        pass


def test_what_belongs_to_other_targets_is_not_swept(tmp_path: Path) -> None:
    for target in ("a.h5", "a-bcdefgh.h5", "b.h5"):
        (tmp_path / f".visp-{target}-abcd_123.h5").touch()
    write_whole(tmp_path / "a.h5")
    assert names(tmp_path) == [".visp-a-bcdefgh.h5-abcd_123.h5", ".visp-b.h5-abcd_123.h5", "a.h5"]


def test_a_name_as_long_as_a_name_can_be_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 126 + ".h5")
    write_whole(path)
    assert names(tmp_path) == [path.name]


def test_many_processes_that_write_one_file_leave_one_whole_file(tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from visp.utils.files import replacing
        number, path = sys.argv[1], Path(sys.argv[2])
        for _ in range(50):
            try:
                with replacing(path) as file:
                    file.write(number.encode() * 1000)
            except BlockingIOError:
                pass
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    started = [subprocess.Popen([*command, str(i), str(tmp_path / "out")]) for i in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert names(tmp_path) == ["out"]
    content = (tmp_path / "out").read_bytes()
    assert content in [str(i).encode() * 1000 for i in range(3)]
