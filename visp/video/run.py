"""A run folder, put to use on videos: its summarizer, and the extractor whose features it was trained on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import nn

from visp.factory import SUMMARIZERS, make_summarizer
from visp.prediction import predict
from visp.pretrained import Pretrained
from visp.recorded import Recorded, read_run
from visp.summarizers.cnn import IMAGENET_URL
from visp.video.decode import shown
from visp.video.extract import extract_features
from visp.video.extractors import EXTRACTORS, GOOGLENET, Extractor, cached_weights, make_extractor
from visp.video.summarize import summarize_video
from visp.weights import load_weights, weights_file

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

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the summarizer for others, with the name of its extractor; see :mod:`visp.pretrained`.

        Raises:
            TypeError: If the summarizer is of a kind that cannot be.
        """
        if not isinstance(self.summarizer, Pretrained):
            raise TypeError(f"{type(self.summarizer).__name__} has no save_pretrained: derive it from Pretrained")
        self.summarizer.save_pretrained(folder, features=self.extractor.provenance)


def load(
    folder: str | os.PathLike[str],
    *,
    summarizer: nn.Module | None = None,
    extractor: Extractor | nn.Module | None = None,
) -> LoadedRun:
    """Rebuild what a run made from its folder.

    Args:
        folder: The folder of a finished run of ``visp`` or :func:`visp.pretrain`, or one of ``save_pretrained``.
        summarizer: A module of the run's kind, where code made it and the run does not know its name.
        extractor: The image model of its features, where the run does not say which it was, or it cannot be made
            from its name.

    Returns:
        The summarizer with its weights, and the image model, ready for :func:`visp.video.summarize_video`.

    Raises:
        CheckpointError: If the folder holds no weights, or they do not fit.
        ValueError: If the folder is not that of a run, or the extractor is not the run's.
    """
    path = Path(folder)
    recorded = read_run(path)
    weights = weights_file(path)
    if extractor is None:
        extractor = extractor_of(path, recorded)
    image_model = extractor if isinstance(extractor, Extractor) else Extractor(extractor)
    check_extractor(path, recorded.features, image_model)
    if summarizer is None:
        summarizer = summarizer_of(path, recorded, image_model.feature_dim)
    load_weights(summarizer, weights)
    return LoadedRun(path, summarizer, image_model)


def extractor_of(folder: Path, recorded: Recorded) -> Extractor:
    """Make the extractor whose features a run was trained on. Nothing is downloaded for it.

    Raises:
        ValueError: If the run does not say which it was, or it cannot be made from its name alone.
    """
    name, weights = recorded.features.get("extractor"), recorded.features.get("extractor_weights")
    if name is None:
        raise ValueError(f"{shown(folder)}: the run does not say how its features were made: give extractor")
    weights = weights if weights == "random" else None
    if name == GOOGLENET:
        return make_extractor("googlenet", weights or cached_weights(IMAGENET_URL))
    if name not in (*EXTRACTORS, recorded.extractor):  # a file of features may name anything
        raise ValueError(f"{shown(folder)}: the run's features are those of {shown(name)}: give extractor")
    return make_extractor(name, weights)


def summarizer_of(folder: Path, recorded: Recorded, feature_dim: int) -> nn.Module:
    """Make the summarizer that a run trained, of new weights.

    Raises:
        ValueError: If the run does not say which it was.
    """
    name = recorded.summarizer
    if name is None:
        raise ValueError(f"{shown(folder)}: the run does not say which summarizer it trained: give summarizer")
    if name not in SUMMARIZERS:
        return make_summarizer(name, feature_dim)
    return SUMMARIZERS[name](**{"feature_dim": feature_dim, **recorded.arguments})


def check_extractor(folder: Path, features: Mapping[str, str], extractor: Extractor) -> None:
    """Refuse an extractor other than the one whose features a run was trained on, where the run says which.

    Raises:
        ValueError: If its weights, its preprocessing or its normalisation are others.
    """
    for key in ("extractor_sha256", "preprocessing", "normalisation"):
        if key in features and features[key] != extractor.provenance.get(key):
            raise ValueError(
                f"{shown(folder)}: the run learnt on features of another {key.replace('_', ' ')}, "
                f"{features[key]!r}, and this is {extractor.provenance.get(key)!r}"
            )
