"""What may be read of an HDF5 file: what the file itself stores, and no more of it than it has room for.

HDF5 follows links into other files, fills what is missing with zeros, and takes a file's word for its sizes. Here, an
object is reached without leaving the file, and an array is read only where its bytes are in the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from visp.utils.files import one_line

MAX_VIDEOS = 1_000_000
"""Most groups of a file."""
MAX_NAME = 500
"""Most letters of a name."""
MAX_PACKED = 1100
"""Most bytes that one stored byte may stand for; deflate reaches 1032."""

_MAX_SOFT_LINKS = 10
_HEADROOM = 2**20  # bytes that need no justification
_DAMAGE = (
    OSError,
    RuntimeError,
    LookupError,
    RecursionError,
    ArithmeticError,
    TypeError,
    ValueError,
    AttributeError,
    MemoryError,
    SystemError,
)


class H5SchemaError(ValueError):
    """A file that does not hold what the field's h5 schema says."""


@contextmanager
def reading(what: str = "") -> Iterator[None]:
    """Turn whatever h5py and numpy raise on damaged contents into one error of one line.

    Args:
        what: Place and name of what is read, if the caller does not add them.

    Raises:
        H5SchemaError: Reading failed; errors of this kind pass unchanged.
    """
    try:
        yield
    except H5SchemaError:
        raise
    except _DAMAGE as error:
        raise H5SchemaError(f"{what} cannot be read ({one_line(error)})".lstrip()) from error


def names_of(group: h5py.Group) -> list[str]:
    """Return the names in a group that are not links out of the file.

    Raises:
        H5SchemaError: There are too many, or one is too long or holds what cannot be printed.
    """
    if len(group) > MAX_VIDEOS:
        raise H5SchemaError(f"{len(group)} names in {group.name!r}, expected at most {MAX_VIDEOS}")
    return [checked_name(name) for name in group]


def holds(group: h5py.Group, name: str) -> bool:
    """Return whether a group has a link of that name; unlike h5py's ``in``, without following it into another file."""
    return bool(group.id.links.exists(name.encode("utf-8", "surrogateescape")))


def checked_name(name: str | bytes) -> str:
    """Return a name that may be shown.

    Raises:
        H5SchemaError: It is too long or holds what cannot be printed.
    """
    if isinstance(name, bytes):  # which is how h5py gives names that are not UTF-8
        name = name.decode("utf-8", "surrogateescape")
    if len(name) > MAX_NAME:
        raise H5SchemaError(f"a name of {len(name)} letters, expected at most {MAX_NAME}: {name[:40]!a} ...")
    if not name.isprintable():
        raise H5SchemaError(f"a name that cannot be printed: {name!a}")
    return name


def lookup(group: h5py.Group, name: str, soft_links: int = 0) -> h5py.Group | h5py.Dataset:
    """Return what a group holds under a name, without following a link into another file.

    Args:
        group: Where to look.
        name: A name, or several with ``/`` between.
        soft_links: Number of soft links that led here.

    Raises:
        KeyError: There is nothing of that name.
        H5SchemaError: A link leads into another file, or in a circle.
    """
    item: h5py.Group | h5py.Dataset = group.file["/"] if name.startswith("/") else group
    for part in name.split("/"):
        if part in ("", "."):
            continue
        if not isinstance(item, h5py.Group) or not holds(item, part):
            raise KeyError(f"no {part!r}")
        links, encoded = item.id.links, part.encode("utf-8", "surrogateescape")
        kind = links.get_info(encoded).type
        if kind == h5py.h5l.TYPE_HARD:
            item = item[part]
        elif kind != h5py.h5l.TYPE_SOFT:
            raise H5SchemaError(f"a link into another file ({links.get_val(encoded)[0]!a}), which is not followed")
        elif soft_links == _MAX_SOFT_LINKS:
            raise H5SchemaError("a link that leads to too many others")
        else:
            item = lookup(item, links.get_val(encoded).decode("utf-8", "surrogateescape"), soft_links + 1)
    return item


def check_stored(data: h5py.Dataset) -> None:
    """Refuse an array that the file does not hold, or not as large as it says.

    Raises:
        H5SchemaError: The values are in another file, a part of them is stored nowhere, or the shape is larger than
            what is stored can be.
    """
    plist = data.id.get_create_plist()
    if plist.get_external_count():
        raise H5SchemaError("values kept in another file, which is not opened")
    if plist.get_layout() == h5py.h5d.VIRTUAL:
        _check_sources(data)
        return
    needed = _bytes(data.shape, data.dtype.itemsize)
    stored = data.id.get_storage_size()
    if plist.get_layout() == h5py.h5d.CHUNKED:
        chunks = math.prod(-(-size // chunk) for size, chunk in zip(data.shape, data.chunks, strict=True))
        if data.id.get_num_chunks() < chunks:
            raise H5SchemaError(f"{data.id.get_num_chunks()} of {chunks} parts of shape {data.shape} are stored")
        needed = chunks * _bytes(data.chunks, data.dtype.itemsize)
    packed = MAX_PACKED if plist.get_nfilters() else 1
    if needed and not stored:
        raise H5SchemaError(f"shape {data.shape}, but no value is stored")
    size = Path(data.file.filename).stat().st_size
    if needed > packed * min(stored, size) + (_HEADROOM if packed > 1 else 0):
        raise H5SchemaError(f"shape {data.shape} of {data.dtype}, but {min(stored, size)} bytes are stored")


def _check_sources(data: h5py.Dataset) -> None:
    sources = data.virtual_sources()
    if any(source.file_name != "." for source in sources):
        names = {source.file_name for source in sources if source.file_name != "."}
        raise H5SchemaError(f"values taken from another file ({_first(names)}), which is not opened")
    for name in {source.dset_name for source in sources}:
        try:
            source = lookup(data.file["/"], name)
        except KeyError:
            raise H5SchemaError(f"values taken from {name!a}, which is missing") from None
        if not isinstance(source, h5py.Dataset) or source.is_virtual:
            raise H5SchemaError(f"values taken from {name!a}, which is no array that is stored")
        check_stored(source)
    stored = sum(int(source.vspace.get_select_npoints()) for source in sources)
    if data.size > stored:
        raise H5SchemaError(f"{stored} of {data.size} values are stored")


def _bytes(shape: Iterable[int], itemsize: int) -> int:
    return math.prod(shape) * itemsize


def _first(names: Iterable[str]) -> str:
    return ascii(min(names))
