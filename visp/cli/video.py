"""``visp features`` and ``visp summarize``: videos in, features or a summary out."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visp.cli.options import Commands, add_command, add_summarizer, check_device, natural, new_summarizer

if TYPE_CHECKING:
    import torch

    from visp.video import Extractor, VideoSummary


def add_commands(commands: Commands) -> None:
    """Add the two commands."""
    _add_features(commands)
    _add_summarize(commands)


def _add_features(commands: Commands) -> None:
    parser = add_command(commands, "features", _features, "make an h5 file of features from videos")
    parser.set_defaults(goes_on_with="the same command")
    add = parser.add_argument
    add("inputs", nargs="+", metavar="VIDEO_OR_FOLDER", help="videos, or folders of them")
    add("-o", "--out", type=Path, required=True, metavar="FILE", help="the h5 file")
    _add_extraction(parser)
    add("--workers", type=natural, default=0, metavar="N", help="processes that decode, each its own videos")
    add("--device", default="cpu", help="torch device, such as cpu or cuda")
    add("--overwrite", action="store_true", help="replace an existing file")


def _add_summarize(commands: Commands) -> None:
    parser = add_command(commands, "summarize", _summarize, "cut a video down to its best shots, with sound")
    add = parser.add_argument
    add("video", type=Path, metavar="VIDEO")
    add("-o", "--out", type=Path, required=True, metavar="FILE", help="the summary: .mp4, .mov or .mkv")
    add(
        "--weights",
        required=True,
        metavar="FILE",
        help="weights of the summarizer; `random`, to try the pipeline, implies a random extractor too",
    )
    add_summarizer(parser)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--budget", type=float, default=0.15, metavar="X", help="longest summary, share of the video")
    length.add_argument("--seconds", type=float, metavar="S", help="longest summary in seconds, instead")
    _add_extraction(parser)
    add(
        "--segment-length",
        type=natural,
        default=2000,
        metavar="T",
        help="score segments of at most that many sampled frames, so that memory stays small; 0 for no limit",
    )
    add("--report", type=Path, metavar="FILE", help="write an HTML page about the summary")
    add("--json", type=Path, metavar="FILE", help="write the shots with their times; - prints them")
    add("--overwrite", action="store_true", help="replace existing files")


def _add_extraction(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--fps", type=float, default=2.0, metavar="X", help="frames to sample a second of video")
    add("--kts", default="sampled", choices=("sampled", "all"), help="frames at which shots may be cut")
    add(
        "--extractor",
        metavar="NAME",
        help="efficientnet-lite0 (where no weights are given), googlenet (where some are), or package.module:factory, "
        "called as factory()",
    )
    add(
        "--extractor-weights",
        metavar="FILE",
        help="weights of the extractor; `imagenet` fetches torchvision's for googlenet; `random` to try the pipeline",
    )
    add(
        "--batch-size",
        type=int,
        metavar="N",
        help="frames that go through the extractor together (if not given: 4 on a CPU, 32 elsewhere)",
    )


def _features(options: argparse.Namespace) -> int:
    from visp.video import extract_corpus

    first = os.environ.get("RANK", "0") == "0"  # of the processes of torchrun
    extractor = _extractor(options, options.extractor_weights)
    corpus = extract_corpus(
        options.inputs,
        options.out,
        extractor,
        fps=options.fps,
        kts_frames=options.kts,
        batch_size=options.batch_size,
        workers=options.workers,
        overwrite=options.overwrite,
        progress=first,
    )
    if not first:
        return 0
    resumed = f" ({corpus.resumed} of them from an earlier run)" if corpus.resumed else ""
    print(f"{_counted(len(corpus.videos), 'video')} in {options.out}{resumed}")
    print("time: " + ", ".join(f"{stage} {spent:.1f} s" for stage, spent in corpus.seconds.items()))
    if corpus.left_out:
        print(f"left out {_counted(len(corpus.left_out), 'file')}:", file=sys.stderr)
        for reason in corpus.left_out.values():
            print(f"  {reason}", file=sys.stderr)
    return 1 if corpus.left_out else 0


def _summarize(options: argparse.Namespace) -> int:
    import torch

    from visp.video import summarize_video
    from visp.weights import load_weights

    extractor_weights = options.extractor_weights
    if extractor_weights is None and options.weights == "random" and options.extractor is None:
        extractor_weights = "random"
    extractor = _extractor(options, extractor_weights)
    torch.manual_seed(0)
    summarizer = new_summarizer(options, extractor.feature_dim)
    if options.weights != "random":
        load_weights(summarizer, options.weights)
    to_stdout = options.json == Path("-")
    summary = summarize_video(
        options.video,
        options.out,
        summarizer=summarizer,
        extractor=extractor,
        budget=options.budget,
        seconds=options.seconds,
        fps=options.fps,
        kts_frames=options.kts,
        segment_length=options.segment_length or None,
        batch_size=options.batch_size,
        report=options.report,
        json_file=None if to_stdout else options.json,
        settings={"summarizer": options.summarizer, "summarizer_weights": Path(options.weights).name},
        overwrite=options.overwrite,
        progress=True,
    )
    if to_stdout:
        print(json.dumps(summary.to_json(), indent=2))
    else:
        _describe(summary)
    return 0


def _extractor(options: argparse.Namespace, weights: str | None) -> Extractor:
    from visp.video import make_extractor
    from visp.video.decode import require_av

    check_device(options)
    try:
        require_av()
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error
    if options.extractor == "googlenet" and weights is None:
        raise ValueError(
            "--extractor googlenet needs --extractor-weights: `imagenet` to fetch torchvision's, FILE, or `random`"
        )
    extractor = make_extractor(options.extractor, weights)
    local = os.environ.get("LOCAL_RANK", "0")
    extractor.model.to(f"cuda:{local}" if options.device == "cuda" else options.device)
    return extractor


def with_features(data: Sequence[str], folder: Path, device: torch.device) -> list[str]:
    """Put the h5 file of their features in the place of videos and folders of them, made or reused in ``folder``."""
    from visp.utils.distributed import is_first
    from visp.video import features_of, make_extractor
    from visp.video.sources import is_named_like_a_video

    videos = [path for path in data if Path(path).is_dir() or is_named_like_a_video(Path(path))]
    if not videos:
        return list(data)
    extractor = make_extractor()
    extractor.model.to(device)
    features = features_of(videos, folder, extractor, progress=is_first())
    if is_first():
        print(f"features of {', '.join(videos)}: {features}")
    return [*(path for path in data if path not in videos), str(features)]


def _describe(summary: VideoSummary) -> None:
    chosen = [f"{start:.1f}-{end:.1f}" for start, end in summary.shot_times[summary.selected].tolist()]
    print(
        f"{summary.out}: {summary.summary_duration:.1f} s of {summary.duration:.1f} s, "
        f"{len(chosen)} of {_counted(len(summary.shots), 'shot')}: {', '.join(chosen)} s"
    )
    for note in summary.notes:
        print(note)
    print("time: " + ", ".join(f"{stage} {spent:.1f} s" for stage, spent in summary.seconds.items()))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
