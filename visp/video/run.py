"""A run folder, put to use on videos: its summarizer, and the extractor whose features it was trained on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import nn

from visp.factory import make_summarizer
from visp.prediction import predict
from visp.video.decode import shown
from visp.video.extract import extract_features
from visp.video.extractors import Extractor, make_extractor
from visp.video.summarize import summarize_video
from visp.weights import load_weights

if TYPE_CHECKING:
    from visp.video.result import VideoSummary


@dataclass(frozen=True)
class LoadedRun:
    """What a run made, ready for videos.

    Attributes:
        folder: The run's folder.
        summarizer: Maps features (T, d), as the extractor makes them, to logits (T,).
        extractor: The image model.
    """

    folder: Path
    summarizer: nn.Module
    extractor: Extractor

    def predict(self, path: str | os.PathLike[str], *, fps: float = 2.0) -> npt.NDArray[np.float32]:
        """Score the sampled frames of a video: (T,) in [0, 1]; see :func:`visp.predict`."""
        return predict(self.summarizer, extract_features(path, self.extractor, fps=fps).features)

    def summarize(self, path: str | os.PathLike[str], out: str | os.PathLike[str], **options: Any) -> VideoSummary:
        """Summarize a video; the options are those of :func:`visp.video.summarize_video`."""
        return summarize_video(path, out, summarizer=self.summarizer, extractor=self.extractor, **options)


def load(folder: str | os.PathLike[str], *, extractor: Extractor | nn.Module | None = None) -> LoadedRun:
    """Rebuild what a run made from its folder.

    Args:
        folder: The folder of a finished run of ``visp pretrain`` or ``visp summarize``.
        extractor: The image model of its features, where the run does not say which it was, or it cannot be made
            from its name.

    Raises:
        CheckpointError: If the weights do not fit.
        ValueError: If the folder is not that of a finished run, or the extractor is not the run's.
    """
    path = Path(folder)
    recorded = read_run(path)
    made_with = recorded.get("extractor")
    if extractor is None:
        if not isinstance(made_with, Mapping):
            raise ValueError(f"{shown(path)}: the run does not say how its features were made: give extractor")
        extractor = make_extractor(str(made_with.get("extractor")))
    image_model = extractor if isinstance(extractor, Extractor) else Extractor(extractor)
    check_extractor(path, recorded, image_model)
    summarizer = make_summarizer(recorded["summarizer"], image_model.feature_dim)
    load_weights(summarizer, path / "weights.pt")
    return LoadedRun(path, summarizer, image_model)


def read_run(folder: Path) -> dict[str, Any]:
    """Return what the folder of a finished run says of its summarizer and its features.

    Raises:
        ValueError: If the folder is not that of a finished run.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        recorded = dict(config["summarize"] if "summarize" in config else config["command_line"])
        if not isinstance(recorded["summarizer"], str):
            raise TypeError("the name of the summarizer is no text")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{shown(folder)}: no config.json here says which summarizer a run trained") from error
    if not (folder / "weights.pt").is_file():
        raise ValueError(f"{shown(folder)}: not the folder of a finished run, it has no weights.pt")
    return recorded


def check_extractor(folder: Path, recorded: Mapping[str, Any], extractor: Extractor) -> None:
    """Refuse an extractor other than the one whose features a run was trained on, where the run says which.

    Raises:
        ValueError: If its weights, its preprocessing or its normalisation are others.
    """
    made_with = recorded.get("extractor")
    if not isinstance(made_with, Mapping):
        return
    for key in ("extractor_sha256", "preprocessing", "normalisation"):
        if made_with.get(key) != extractor.provenance.get(key):
            raise ValueError(
                f"{shown(folder)}: the run learnt on features of another {key.replace('_', ' ')}, "
                f"{made_with.get(key)!r}, and this is {extractor.provenance.get(key)!r}"
            )
