"""The metrics of a run, one JSON object per step, and on request for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visp.utils.files import replacing


class MetricsLog:
    """Appends to ``metrics.jsonl`` of a run's folder, and to the event files in ``tensorboard/`` if asked to.

    Args:
        folder: Folder of the run.
        step: Steps done; what an earlier run logged of later ones is dropped, and so is a line that was cut.
        tensorboard: Whether to write event files too.
    """

    def __init__(self, folder: Path, step: int, *, tensorboard: bool = False) -> None:
        path = folder / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)[:step] if path.exists() else []
        with replacing(path) as file:
            file.writelines(line for line in lines if _is_whole(line))
        self._file = path.open("a")
        self._writer: Any = None
        if tensorboard:
            self._writer = summary_writer()(folder / "tensorboard", purge_step=step + 1)

    def write(self, metrics: Mapping[str, float]) -> None:
        """Add the metrics of one step; ``step`` is one of them."""
        self._file.write(json.dumps(metrics) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in metrics.items():
                if name != "step":
                    self._writer.add_scalar(name, value, int(metrics["step"]))

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def summary_writer() -> Any:
    """Return torch's writer of TensorBoard's event files.

    Raises:
        ImportError: If TensorBoard is not installed; the message says how to get it.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            'logging for TensorBoard needs the package tensorboard: pip install "visp[tensorboard]"'
        ) from error
    return SummaryWriter
