"""One writer for each output: a second command on the same file is told so."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import errno
    import fcntl

_held: set[int] = set()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of an output, ``.<name>.lock`` beside it; it ends with the process, however that ends.

    Args:
        path: The output, in a folder that exists.

    Raises:
        BlockingIOError: If it is held already.
        OSError: If the folder cannot be written to.
    """
    lock = path.with_name(f".{path.name}.lock")
    handle = _acquired(lock, path)
    _held.add(handle)
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows removes no file that is open
            lock.unlink(missing_ok=True)
        _held.discard(handle)
        os.close(handle)


def _acquired(lock: Path, path: Path) -> int:
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle, path)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), lock.stat()):  # not one that its holder has just removed
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, path: Path) -> None:
    busy = f"{path}: another visp process is writing it; wait for that one, or give another name"
    if sys.platform == "win32":
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(busy) from error
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BlockingIOError(busy) from error
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
        warnings.warn(f"{path}: its file system has no locks; let one process at a time write it", stacklevel=4)


def _close_held() -> None:
    """Leave the locks to the parent: a child that outlives it must not hold them."""
    for handle in _held:
        os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_held)
