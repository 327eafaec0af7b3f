"""The folder of a run, and the plain files in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from visp.utils.files import replacing
from visp.weights import CheckpointError


def digest(value: object) -> str:
    """Return a short text that changes with the value, for what is too long to show (names, lengths)."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON, under a temporary name that is then renamed."""
    with replacing(path) as file:
        file.write((json.dumps(value, indent=2, default=str) + "\n").encode())


def prepare_folder(folder: Path, resume: bool) -> Path:
    """Make the folder of a run, or check that it can be gone on with.

    Raises:
        FileExistsError: If it is a file, or is not empty and ``resume`` is false.
        CheckpointError: If ``resume`` is true and it holds files but no checkpoint.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, expected a folder for the run")
    if folder.exists() and any(folder.iterdir()) and not resume:
        raise FileExistsError(f"{folder} is not empty; resume the run in it, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for unfinished in folder.glob(".visp-*"):  # of a run that was killed while it saved
        unfinished.unlink()
    if resume and any(folder.iterdir()) and not (folder / "checkpoint.pt").exists():
        raise CheckpointError(f"{folder} is not empty and holds no checkpoint.pt to resume from")
    return folder
