"""What ``visp summarize`` does without weights: learn on the videos given, and keep the run for the next time."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_STEPS = 200
"""Steps of a run, enough on videos of minutes to hours."""
_PIECE = 512
"""Sampled frames of the longest piece of a video that a step sees."""
_FEWEST = 16
"""Sampled frames from which there is something to compare."""


def learn(features: Sequence[Tensor], folder: Path, extractor: dict[str, str], device: torch.device) -> nn.Module:
    """Train the light built-in summarizer on features of videos, each compared with itself; without labels.

    Args:
        features: (T, d) features of each video.
        folder: The run's folder.
        extractor: How the features were made, to record.
        device: Where to train.

    Returns:
        The summarizer.

    Raises:
        CheckpointError: If the folder holds something else than an interrupted run on these videos, which is resumed.
        ValueError: If the videos are too short.
    """
    import torch

    from visp.encoders import AttentionPoolEncoder
    from visp.pretrainer import ViSPPretrainer
    from visp.summarizers import Transformer
    from visp.training import pretrain

    pieces = _pieces(features)
    total, width = sum(map(len, features)), int(features[0].shape[1])
    torch.manual_seed(0)
    objective = ViSPPretrainer(Transformer(width), AttentionPoolEncoder(width), contrast="windows", seed=0).to(device)
    batch_size = min(8, len(pieces))
    epochs = -(-_STEPS // -(-len(pieces) // batch_size))
    seconds = _seconds_per_step(objective, [piece.to(device) for piece in pieces[:batch_size]]) * _STEPS
    print(
        f"learning from {total} sampled frames of {_videos(len(features))}, without labels: about {_duration(seconds)}",
        flush=True,
    )
    config: dict[str, Any] = {"summarizer": "transformer", "feature_dim": width, "extractor": extractor}
    torch.manual_seed(0)
    summarizer = Transformer(width)
    objective = ViSPPretrainer(summarizer, AttentionPoolEncoder(width), contrast="windows", seed=0).to(device)
    pretrain(
        objective,
        pieces,
        epochs=epochs,
        batch_size=batch_size,
        out_dir=folder,
        resume=True,
        config={"summarize": config},
    )
    print(f"learnt; reuse it with --weights {folder}")
    return summarizer


def run_summarizer(folder: Path, feature_dim: int) -> tuple[str, Path]:
    """Return the name of a run's summarizer and its weights.

    Raises:
        ValueError: If the folder is not that of a finished run, or its features have another dimension.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        recorded = config["summarize"] if "summarize" in config else config["command_line"]
        name, width = recorded["summarizer"], recorded.get("feature_dim", feature_dim)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{folder}: no config.json here says which summarizer the run trained") from error
    if not isinstance(name, str) or not (folder / "weights.pt").is_file():
        raise ValueError(f"{folder}: not the folder of a finished run, it has no weights.pt")
    if width != feature_dim:
        raise ValueError(
            f"{folder}: its summarizer takes features of dimension {width}, the extractor's have {feature_dim}"
        )
    return name, folder / "weights.pt"


def _pieces(features: Sequence[Tensor]) -> list[Tensor]:
    """Cut the videos into pieces of at most ``_PIECE`` frames, two or more in all."""
    total = sum(map(len, features))
    if total < _FEWEST:
        raise ValueError(
            f"{total} sampled frames are too few to learn from, {_FEWEST} are needed: sample more (--fps), or give "
            "--weights"
        )
    longest = min(_PIECE, -(-total // 2)) if len(features) == 1 else _PIECE
    return [piece for video in features for piece in video.chunk(-(-len(video) // longest))]


def _seconds_per_step(objective: nn.Module, batch: list[Tensor]) -> float:
    started = time.perf_counter()
    for _ in range(2):  # the first is slower
        started = time.perf_counter()
        objective(batch).loss.backward()
    return time.perf_counter() - started


def _videos(number: int) -> str:
    return "1 video" if number == 1 else f"{number} videos"


def _duration(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} minutes"
