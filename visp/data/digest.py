"""A fast hash of what videos hold, so that a run can tell whether it resumes on the same data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np

from visp.data.record import VideoRecord

_VALUES = tuple(
    f.name for f in fields(VideoRecord) if f.name not in ("name", "provenance", "features", "video_name", "side")
)


def digest_of(record: VideoRecord) -> str:
    """Return a hash of a video's features, in float32, and of all else as numbers, whatever their types.

    Name, title and provenance do not change it.
    """
    found = hashlib.blake2b(digest_size=16)
    with np.errstate(over="ignore"):
        arrays = {"features": np.ascontiguousarray(record.features, dtype=np.float32)}
    for name in _VALUES:
        value = getattr(record, name)
        if value is not None:
            arrays[name] = np.ascontiguousarray(value, dtype=np.float64)
    for name, value in sorted(record.side.items()):
        arrays[f"side {name}"] = np.ascontiguousarray(value, dtype=np.float64)
    for name, array in arrays.items():
        found.update(f"{name}{np.shape(array)}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def combined(names: Sequence[str], digests: Sequence[str], kinds: Mapping[str, str]) -> str:
    """Return one hash of the videos in their order, and of what their side inputs are."""
    pairs = [*zip(names, digests, strict=True), *kinds.items()]
    return hashlib.blake2b(json.dumps(pairs).encode(), digest_size=16).hexdigest()
