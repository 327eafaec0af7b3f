"""Which models ``visp summarize`` uses: those of a run, those of files, or a summarizer that learns on the videos."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visp.cli.summarize.learn import learn
from visp.cli.video import open_extractor

if TYPE_CHECKING:
    from torch import nn

    from visp.video import Extractor, VideoFeatures


@dataclass(frozen=True)
class Models:
    """What scores the frames.

    Attributes:
        extractor: The image model.
        summarizer: Maps its features to logits.
        named: What to record of the summarizer.
        features: Features that were made on the way, by name of the video.
    """

    extractor: Extractor
    summarizer: nn.Module
    named: dict[str, str]
    features: dict[str, VideoFeatures]


def choose_models(options: argparse.Namespace, videos: Mapping[str, Path], beside: Path) -> Models:
    """Make the models of the options, or have a summarizer learn on the videos; its run is kept beside the output."""
    extractor = _extractor(options)
    if options.weights is not None:
        return _given(options, options.weights, extractor)
    if options.summarizer is not None:
        raise ValueError(
            f"--summarizer {options.summarizer} needs --weights; without, a light one learns on the videos"
        )
    folder = options.run_folder or beside / "runs" / f"summarize-{_stamp(videos, extractor, options.fps)}"
    if (folder / "weights.pt").is_file():
        print(f"using the run in {folder}, which has learnt already")
        return _given(options, str(folder), extractor)
    found = _features_of(videos, extractor, options)
    summarizer = learn([video.features for video in found.values()], folder, extractor)
    named = {"summarizer": "transformer", "summarizer_weights": f"learnt in {folder}"}
    return Models(extractor, summarizer, named, {} if options.kts == "all" else found)


def _extractor(options: argparse.Namespace) -> Extractor:
    """Make the extractor of the options, or that of the run whose folder the weights are."""
    from visp.recorded import read_run
    from visp.video.run import extractor_of

    weights, run = options.extractor_weights, options.weights
    if weights is None and options.extractor is None and run is not None:
        if run == "random":
            weights = "random"
        elif Path(run).is_dir() and (recorded := read_run(run)).features:
            return open_extractor(options, lambda: extractor_of(Path(run), recorded))
    return open_extractor(options, weights)


def _given(options: argparse.Namespace, weights: str, extractor: Extractor) -> Models:
    """Make the summarizer of weights that are there."""
    import torch

    from visp.factory import make_summarizer
    from visp.recorded import read_run
    from visp.video.run import check_extractor, summarizer_of
    from visp.weights import load_weights

    run = Path(weights)
    recorded = read_run(run) if run.is_dir() else None
    if recorded is not None:
        check_extractor(run, recorded.features, extractor)
    torch.manual_seed(0)
    if recorded is not None and options.summarizer is None:
        name, summarizer = recorded.summarizer or "", summarizer_of(run, recorded, extractor.feature_dim)
    else:
        name = options.summarizer or "csta"
        summarizer = make_summarizer(name, extractor.feature_dim)
    summarizer = summarizer.to(options.device)
    if weights != "random":
        load_weights(summarizer, weights)
    return Models(extractor, summarizer, {"summarizer": name, "summarizer_weights": run.name}, {})


def _features_of(
    videos: Mapping[str, Path], extractor: Extractor, options: argparse.Namespace
) -> dict[str, VideoFeatures]:
    """Extract the features of the videos that can be read; of one, an error is the command's."""
    from visp.video import extract_features

    found = {}
    for name, video in videos.items():
        try:
            found[name] = extract_features(
                video, extractor, fps=options.fps, batch_size=options.batch_size, progress=True
            )
        except (OSError, ValueError) as error:  # noqa: PERF203
            if len(videos) == 1:
                raise
            print(f"not learnt from: {error}", file=sys.stderr)
    if not found:
        raise ValueError("not one of the videos could be read")
    return found


def digest_of(video: Path, made_with: Mapping[str, Any]) -> str:
    """Return a text that changes with a video, and with what is made of it and how."""
    state = video.stat()
    text = json.dumps([state.st_size, state.st_mtime_ns, made_with], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _stamp(videos: Mapping[str, Path], extractor: Extractor, fps: float) -> str:
    """Return a short text that tells these videos, as they are, and how their features are made."""
    digests = [digest_of(video, {"name": name, "fps": fps, **extractor.provenance}) for name, video in videos.items()]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:8]
