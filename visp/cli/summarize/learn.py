"""What ``visp summarize`` does without weights: learn on the videos given, and keep the run for the next time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn

    from visp.video import Extractor

_STEPS = 200
"""Steps of a run, enough on videos of minutes to hours."""
_WITH_CONTROLS = 1.2
"""Times as many steps as those, with the ones that the run is compared with."""
_PIECE = 512
"""Sampled frames of the longest piece of a video that a step sees."""
_FEWEST = 16
"""Sampled frames from which there is something to compare."""


def learn(found: Sequence[npt.NDArray[np.float32]], folder: Path, extractor: Extractor) -> nn.Module:
    """Train the light built-in summarizer on features of videos, each compared with itself; without labels.

    Args:
        found: (T, d) features of each video.
        folder: The run's folder.
        extractor: What made them; the summarizer learns on its device.

    Returns:
        The summarizer.

    Raises:
        CheckpointError: If the folder holds something else than an interrupted run on these videos, which is resumed.
        ValueError: If the videos are too short.
    """
    import torch

    from visp.cli.estimate import duration, seconds_per_step
    from visp.encoders import AttentionPoolEncoder
    from visp.pretrainer import ViSPPretrainer
    from visp.summarizers import Transformer
    from visp.training import pretrain

    features = [torch.from_numpy(video) for video in found]
    pieces = _pieces(features)
    total, width = sum(map(len, features)), int(features[0].shape[1])

    def made() -> ViSPPretrainer:
        torch.manual_seed(0)
        objective = ViSPPretrainer(Transformer(width), AttentionPoolEncoder(width), contrast="windows", seed=0)
        return objective.to(extractor.device)

    batch_size = min(8, len(pieces))
    epochs = -(-_STEPS // -(-len(pieces) // batch_size))
    seconds = seconds_per_step(made(), pieces, batch_size) * _STEPS * _WITH_CONTROLS
    print(
        f"learning from {total} sampled frames of {_videos(len(features))}, without labels: about {duration(seconds)}",
        flush=True,
    )
    made_with = extractor.provenance
    config = {"summarizer": "transformer", "extractor": made_with["extractor"], "features": made_with}
    objective = made()
    pretrain(objective, pieces, epochs=epochs, batch_size=batch_size, out_dir=folder, resume=True, config=config)
    print(f"learnt; reuse it with --weights {folder}")
    return objective.summarizer


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


def _videos(number: int) -> str:
    return "1 video" if number == 1 else f"{number} videos"
