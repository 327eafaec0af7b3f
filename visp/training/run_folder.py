"""The folder of a run: its settings, its log, its checkpoint and its weights."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor

from visp.inputs import Standardization
from visp.training.metrics_log import MetricsLog, summary_writer
from visp.training.options import RunOptions
from visp.utils.files import locked, replacing
from visp.weights import (
    CheckpointError,
    has_safetensors,
    load_state,
    save_safetensors,
    save_standardization,
    save_state,
)

_BEFORE_THE_FIRST_STEP = {"checkpoint.pt", "config.json", "metrics.jsonl"}


def digest(value: object) -> str:
    """Return a short text that changes with the value, for what is too long to show (names, lengths)."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def content_hash(dataset: object) -> str | None:
    """Return the hash of what the videos of a dataset hold, if it offers one, as those of ``visp.data`` do."""
    hashed = getattr(dataset, "content_hash", None)
    return hashed() if callable(hashed) else None


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON, under a temporary name that is then renamed."""
    with replacing(path) as file:
        file.write((json.dumps(value, indent=2, default=str) + "\n").encode())


def run_folder(options: RunOptions) -> RunFolder | None:
    """Return the folder that the options name, if they do."""
    if options.out_dir is None:
        return None
    return RunFolder(options.out_dir, resume=options.resume, tensorboard=options.tensorboard)


class RunFolder:
    """Writes ``config.json``, ``metrics.jsonl``, ``checkpoint.pt`` and ``weights.pt``.

    Where safetensors is installed, ``weights.safetensors`` holds the weights too, with the settings in its metadata.

    Args:
        path: The folder; :meth:`open` makes it.
        resume: Whether to resume the run in it.
        tensorboard: Whether to write event files too.

    Raises:
        ImportError: If ``tensorboard`` is asked for and not installed.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool = False, tensorboard: bool = False) -> None:
        self.path = Path(path)
        self.resume = resume
        self.tensorboard = tensorboard
        self._log: MetricsLog | None = None
        self._config: dict[str, Any] = {}
        self._held = ExitStack()
        if tensorboard:
            summary_writer()  # refused before anything is written

    def open(self) -> dict[str, Any] | None:
        """Make the folder, or check that its run can be resumed, and return the checkpoint if there is one.

        Raises:
            FileExistsError: If it is a file, or is not empty and ``resume`` is false. What a run left that did no step
                does not count.
            BlockingIOError: If another run is writing it.
            CheckpointError: If ``resume`` is true and it holds files but no checkpoint, or the checkpoint is not one.
        """
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"{self.path} is a file, expected a folder for the run")
        self.path.mkdir(parents=True, exist_ok=True)
        self._held.enter_context(locked(self.path))
        for unfinished in self.path.glob(".visp-*"):  # of a run that was killed while it saved
            unfinished.unlink()
        if any(self.path.iterdir()) and not self.resume and not self._without_a_step():
            raise FileExistsError(f"{self.path} is not empty; resume the run in it, or choose another folder")
        checkpoint = self.path / "checkpoint.pt"
        if not self.resume:
            return None
        if any(self.path.iterdir()) and not checkpoint.exists() and not self._without_a_step():
            raise CheckpointError(f"{self.path} is not empty and holds no checkpoint.pt to resume from")
        return load_state(checkpoint) if checkpoint.exists() else None

    def start(self, step: int, config: Mapping[str, Any]) -> None:
        """Write the settings, and open the log after so many steps."""
        self._config = dict(config)
        write_json(self.path / "config.json", config)
        self._log = MetricsLog(self.path, step, tensorboard=self.tensorboard)

    def log(self, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a step to the log."""
        assert self._log is not None, "start() opens the log"
        self._log.write(metrics)

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint."""
        save_state(dict(state), self.path / "checkpoint.pt")

    def save_weights(self, state: Mapping[str, Tensor], change: Standardization | None) -> None:
        """Write the weights that the run ends with, and the standardization that the summarizer carries."""
        path = self.path / "weights.pt"
        save_standardization(change, path)
        save_state(dict(state), path)
        if has_safetensors():
            config = json.dumps(self._config, default=str)
            try:
                save_safetensors(state, path.with_suffix(".safetensors"), {"config": config})
            except ValueError as error:
                warnings.warn(f"weights.safetensors is not written beside weights.pt: {error}", stacklevel=2)

    def close(self) -> None:
        """Close the log, and let others write the folder."""
        if self._log is not None:
            self._log.close()
        self._held.close()

    def _without_a_step(self) -> bool:
        log = self.path / "metrics.jsonl"
        names = {path.name for path in self.path.iterdir()}
        return names <= _BEFORE_THE_FIRST_STEP and (self.path / "config.json").exists() and not (
            log.exists() and log.read_bytes()
        )  # fmt: skip
