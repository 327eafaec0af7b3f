"""Files: what may be read and written is checked before the work, and a file is complete at any moment.

A file is written under a temporary name in the same folder, brought to the disk, and renamed. Meanwhile, and for as
long as :func:`locked` says, the target is locked against other processes.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import stat
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, cast

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows: files are still whole, but two commands may write one output after each other
    fcntl = None

_NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EFBIG: "the limit of a file's size is reached",
    errno.EDQUOT: "the disk quota is used up",
}
_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


def check_input(path: str | os.PathLike[str]) -> Path:
    """Refuse what is not a regular file or a link to one, so that reading it neither blocks nor runs without end.

    Args:
        path: A file to read.

    Returns:
        The path.

    Raises:
        FileNotFoundError: There is no such file.
        IsADirectoryError: It is a folder.
        OSError: It is a pipe, a socket or a device.
    """
    path = Path(path)
    try:
        _refuse_irregular(path, path.stat().st_mode)
    except FileNotFoundError:
        raise FileNotFoundError(f"{shown(path)}: no such file") from None
    return path


def read_text(path: str | os.PathLike[str], *, limit: int = 2**26) -> str:
    """Read a text file in UTF-8, with or without a byte-order mark.

    Args:
        path: The file.
        limit: Most bytes that it may have.

    Raises:
        ValueError: It is larger, or not UTF-8.
        OSError: As in :func:`check_input`.
    """
    path = check_input(path)
    if (size := path.stat().st_size) > limit:
        raise ValueError(f"{shown(path)} has {size} bytes, expected at most {limit}")
    return path.read_text(encoding="utf-8-sig")


def parse_json(text: str) -> Any:
    """Parse JSON, and refuse an object that has a key twice and what is nested too deeply.

    Raises:
        ValueError: The text is not such JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError("nested too deeply for JSON") from None


def check_outputs(
    *outputs: str | os.PathLike[str] | None,
    inputs: Iterable[str | os.PathLike[str]] = (),
    overwrite: bool = False,
) -> None:
    """Refuse outputs that cannot or must not be written, before the work that makes them.

    A link is followed: its target is what will be written.

    Args:
        outputs: The files to write; ``None`` stands for one that is not wanted.
        inputs: The files that are read; none of them, nor a link to one, may be an output.
        overwrite: Whether files that exist may be replaced.

    Raises:
        ValueError: An output is an input, or two outputs are one file.
        FileExistsError: An output exists and ``overwrite`` is false.
        FileNotFoundError: There is no folder to write it to.
        IsADirectoryError: It is a folder.
        OSError: It is a pipe, a socket or a device, or its folder cannot be written to.
    """
    sources = [Path(path) for path in inputs]
    checked: list[Path] = []
    for output in (Path(output) for output in outputs if output is not None):
        for path in sources:
            if _same_file(output, path):
                raise ValueError(f"{shown(output)} is also an input ({shown(path)}); choose another file to write")
        for path in checked:
            if _same_file(output, path):
                raise ValueError(
                    f"{shown(output)} is to be written twice, also as {shown(path)}; choose another file for one"
                )
        checked.append(output)
        target = _target(output)
        if target.exists() and not overwrite:
            raise FileExistsError(f"{shown(output)} exists; pass overwrite=True to replace it")
        try:
            with tempfile.TemporaryFile(dir=target.parent):
                pass
        except OSError as error:
            raise type(error)(
                f"{shown(output)}: the folder {shown(target.parent)} cannot be written to ({error.strerror})"
            ) from None


def shown(path: str | os.PathLike[str]) -> str:
    """Return a path as one printable line, quoted where its name is not printable."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)


def one_line(error: BaseException) -> str:
    """Return the text of an error as one printable line of bounded length."""
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    text = text if text.isprintable() else ascii(text)
    return (text[:300] + " ..." if len(text) > 300 else text) or type(error).__name__


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other processes, and other callers of this one, from writing an output until the block ends.

    What earlier writers of a file left unfinished, because they were killed, is removed.
    The lock ends with the process, however it ends, and is not passed on to its children. Where the system or the
    file system has no locks (``flock``), there is none.

    Args:
        path: A file, whose folder exists, or a folder that exists.

    Raises:
        BlockingIOError: Something else is writing it.
    """
    with _holding(Path(os.path.realpath(path)), shown(path), shared=False):
        yield


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Give an empty file that takes the place of ``path`` when the block ends well, and vanishes if not.

    It is on the disk before it takes the place. The target is locked meanwhile; what earlier writers of it left
    unfinished, because they were killed, is removed.

    Args:
        path: The file to write, in a folder that exists; an older one is replaced at once or not at all. Of a link, the
            target is written.

    Yields:
        A name in the target's folder, hidden and with the same ending.

    Raises:
        BlockingIOError: Something else is writing the file.
        OSError: The folder does not exist or cannot be written to, there is no room, or what is there is not a file.
    """
    target = _target(path)
    with _holding(target, shown(path), shared=True):
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f"{_hidden(target)}-", suffix=target.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
        except Exception as error:
            if (reason := _no_room(error)) is not None:
                raise _NoRoomError(reason, path) from error
            raise
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` when the block ends well, and is on the disk by then.

    It may be given to ``h5py.File(file, "w")``: HDF5 then closes in order after a failed write, where with a file of
    its own it brings the process down at exit.

    Args:
        path: As in :func:`unfinished`.

    Yields:
        The file, unbuffered, open for reading and writing bytes; after a write that failed, it takes no more of them.

    Raises:
        OSError: As in :func:`unfinished`.
    """
    with unfinished(path) as temporary, _Output(str(temporary), "r+b") as file:
        try:
            yield cast(BinaryIO, file)
        except Exception as error:
            if file.failure is not None and error is not file.failure:
                raise file.failure from error
            raise
        if file.failure is not None:
            raise file.failure


class _NoRoomError(OSError):
    def __init__(self, number: int, path: Path) -> None:
        super().__init__(
            f"{shown(path)} cannot be written: {_NO_ROOM[number]}; an earlier file of that name is as it was"
        )
        self.errno = number


class _Output(io.FileIO):
    """Writes everything or fails once; after that it only pretends, for libraries that write while they give up."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while len(rest) and self.failure is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.failure = error
            raise
        return size


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!a} is given twice")
    return found


def _target(path: Path) -> Path:
    """The file that writing to ``path`` replaces or makes."""
    target = Path(os.path.realpath(path))
    try:
        _refuse_irregular(path, target.lstat().st_mode)
    except FileNotFoundError:
        if not target.parent.is_dir():
            raise FileNotFoundError(f"{shown(path)}: there is no folder {shown(target.parent)}") from None
    except NotADirectoryError:
        raise NotADirectoryError(f"{shown(path)}: {shown(target.parent)} is not a folder") from None
    except PermissionError as error:
        raise PermissionError(
            f"{shown(path)}: the folder {shown(target.parent)} cannot be written to ({error.strerror})"
        ) from None
    return target


def _refuse_irregular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((kind for is_kind, kind in _KINDS.items() if is_kind(mode)), "a link without an end")
        error = IsADirectoryError if stat.S_ISDIR(mode) else OSError
        raise error(f"{shown(path)} is {kind}, expected a regular file")


def _same_file(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:  # one of them does not exist
        return os.path.realpath(first) == os.path.realpath(second)


def _no_room(error: BaseException | None) -> int | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return error.errno
        error = error.__cause__ or error.__context__
    return None


def _hidden(target: Path) -> str:
    long = len(os.fsencode(target.name)) > 200  # names end at 255 bytes
    return ".visp-" + (hashlib.sha256(os.fsencode(target.name)).hexdigest() if long else target.name)


# --- locks ----------------------------------------------------------------------------------------------------------

_guard = threading.Lock()
_held: dict[Path, tuple[int | None, int]] = {}  # by target: the open file that holds its lock, and the number of users


@contextmanager
def _holding(target: Path, name: str, *, shared: bool) -> Iterator[None]:
    """Hold the lock of a target; ``shared`` joins a holder of this process."""
    with _guard:
        file, users = _held.get(target, (None, 0))
        if users and not shared:
            raise _busy(name)
        if not users:
            file = _acquire(target, name)
            if file is not None:
                _sweep(target)
        _held[target] = (file, users + 1)
    try:
        yield
    finally:
        with _guard:
            file, users = _held.pop(target, (None, 0))  # a child that was forked meanwhile holds nothing
            if users > 1:
                _held[target] = (file, users - 1)
            elif file is not None:
                _release(target, file)


def _acquire(target: Path, name: str) -> int | None:
    if fcntl is None:
        return None
    place = _lock_place(target)
    while True:
        file = os.open(target, os.O_RDONLY) if place is None else os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held the lock before may have removed its file since it was opened here.
            if place is None or _is_open(place, file):
                return file
        except BlockingIOError:
            os.close(file)
            raise _busy(name) from None
        except OSError as error:
            os.close(file)
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EINVAL):
                raise
            if place is not None:
                place.unlink(missing_ok=True)
            return None
        os.close(file)


def _release(target: Path, file: int) -> None:
    place = _lock_place(target)
    if place is not None:
        place.unlink(missing_ok=True)
    os.close(file)


def _sweep(target: Path) -> None:
    if not target.is_dir():
        leftover = re.compile(rf"{re.escape(_hidden(target))}-\w{{8}}{re.escape(target.suffix)}")
        for path in target.parent.iterdir():
            if leftover.fullmatch(path.name):
                path.unlink(missing_ok=True)


def _is_open(place: Path, file: int) -> bool:
    try:
        return os.path.samestat(place.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _lock_place(target: Path) -> Path | None:
    """The file whose lock stands for the target's; a folder is locked itself."""
    return None if target.is_dir() else target.with_name(f"{_hidden(target)}.lock")


def _busy(name: str) -> BlockingIOError:
    return BlockingIOError(f"{name} is being written by something else; wait for it to end, or choose another output")


def _forget_locks() -> None:
    """A forked child (a worker that reads data) must not keep the lock of a parent that was killed."""
    global _guard
    _guard = threading.Lock()
    for file, _ in _held.values():
        if file is not None:
            os.close(file)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)
