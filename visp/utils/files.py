"""Files that are whole at any moment: written under a temporary name, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Give an empty file that takes the place of ``path`` when the block ends well, and vanishes if not.

    It is on the disk before it takes the place.

    Args:
        path: The file to write, in a folder that exists; an older one is replaced at once or not at all.

    Yields:
        A name in the same folder, hidden and with the same ending.

    Raises:
        OSError: If the folder does not exist or cannot be written to.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".visp-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` when the block ends well.

    Args:
        path: As in :func:`unfinished`.

    Yields:
        The file, open for writing bytes.

    Raises:
        OSError: As in :func:`unfinished`.
    """
    with unfinished(path) as temporary, temporary.open("wb") as file:
        yield file
