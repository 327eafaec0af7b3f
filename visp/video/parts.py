"""The finished videos of a corpus: each is kept as soon as it is done, and trusted only if it is intact."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from visp.data import VideoRecord, read_record, write_h5
from visp.data.h5 import group_of, open_h5
from visp.data.schema import read_attributes
from visp.data.stored import names_of
from visp.video.sources import Source

_VIDEO = "video"
"""Group of the one video of a part."""
_DIGEST, _CONTENT = "source_digest", "content_sha256"
"""Attributes of a group: the digest of its source, and of its arrays."""


class Parts:
    """Videos that are done, in files of their own in a folder beside the h5 file, or in an earlier h5 file.

    Args:
        target: The h5 file, which need not exist.
        made_with: How features are made; written as attributes of the file.
        streams: Names of the streams that each video has beside its features.
    """

    def __init__(self, target: Path, made_with: Mapping[str, str], streams: Collection[str] = ()) -> None:
        self.folder = target.with_name(f".{target.name}.parts")
        self._target = target
        self._made_with = dict(made_with)
        self._streams = streams
        self._earlier_groups = _groups(target)
        self._earlier = {digest: group for group, digest in self._earlier_groups.items()}

    def has(self, source: Source) -> bool:
        """Return whether the features of a video are there, and intact; what is damaged of them is removed."""
        part = self._part(source)
        if part.exists():
            if self._is_intact(part, _VIDEO, source):
                return True
            part.unlink()
        return source.digest in self._earlier and self._is_intact(self._target, self._earlier[source.digest], source)

    def keep(self, source: Source, record: VideoRecord) -> None:
        """Write the features of a video."""
        self.folder.mkdir(exist_ok=True)
        marks = {_DIGEST: source.digest, _CONTENT: _content(record)}
        marked = replace(record, name=_VIDEO, provenance={**record.provenance, **marks})
        write_h5(self._part(source), [marked], overwrite=True)

    def join(self, sources: Sequence[Source]) -> None:
        """Write the h5 file of these videos, unless it is there, and remove the parts."""
        parts = any(self._part(source).exists() for source in sources)
        if parts or self._earlier_groups != {source.group: source.digest for source in sources}:
            self.folder.mkdir(exist_ok=True)
            whole = self.folder / f"whole{self._target.suffix}"
            write_h5(whole, map(self._record, sources), provenance=self._made_with, overwrite=True)
            whole.replace(self._target)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _part(self, source: Source) -> Path:
        return self.folder / f"{source.digest}.h5"

    def _record(self, source: Source) -> VideoRecord:
        """Read a video, which an earlier run may have written when its file had another number."""
        part = self._part(source)
        place = (part, _VIDEO) if part.exists() else (self._target, self._earlier[source.digest])
        return replace(read_record(*place, self._streams), name=source.group)

    def _is_intact(self, path: Path, group: str, source: Source) -> bool:
        try:
            record = read_record(path, group, self._streams)
        except Exception:  # whatever is wrong with it, it is made again
            return False
        marks = record.provenance
        return marks.get(_DIGEST) == source.digest and marks.get(_CONTENT) == _content(record)


def _groups(path: Path) -> dict[str, str]:
    """Return the digests of the sources in an h5 file, by group; there are none in a file of another origin."""
    if not path.exists():
        return {}
    try:
        with open_h5(path) as file:
            return {group: read_attributes(group_of(file, group)).get(_DIGEST, "") for group in names_of(file)}
    except Exception:  # whatever it is that cannot be read is about to be replaced
        return {}


def _content(record: VideoRecord) -> str:
    digest = hashlib.sha256()
    for array in (record.features, record.picks, record.change_points, record.n_frame_per_seg, record.n_frames):
        digest.update(np.ascontiguousarray(-1 if array is None else array).tobytes())
    for name in sorted(record.side):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(record.side[name]).tobytes())
    return digest.hexdigest()
