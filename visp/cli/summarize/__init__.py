"""``visp summarize``: videos in, summaries out, with cut lists, pages and a reel."""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path

from visp.cli.options import FACTORY_HELP, Commands, add_command, natural
from visp.cli.summarize.again import render_again
from visp.cli.summarize.many import summarize_folder
from visp.cli.summarize.models import choose_models
from visp.cli.summarize.one import Files, check, describe, summarize_one
from visp.cli.video import add_extraction


def add_commands(commands: Commands) -> None:
    """Add ``visp summarize``."""
    add_command(commands, "summarize", _summarize, "cut videos down to their best shots, with sound", _fill)


def _fill(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(goes_on_with="the same command")
    add = parser.add_argument
    add("videos", nargs="+", type=Path, metavar="VIDEO_OR_FOLDER")
    add(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the summary, .mp4, .mov or .mkv; of a folder or several videos, the folder of their summaries",
    )
    add(
        "--weights",
        metavar="FILE",
        help="weights of the summarizer, or the folder of a run; `random`, to try the pipeline, implies a random "
        "extractor too. If not given, the summarizer learns on these videos first, without labels",
    )
    add(
        "--run",
        dest="run_folder",
        type=Path,
        metavar="DIR",
        help="folder of the run that learns; runs/ beside the summary if not given",
    )
    add(
        "--summarizer",
        metavar="NAME",
        help=f"csta, googlenet, transformer, {FACTORY_HELP}; the run's own, or csta, if not given",
    )
    add("--device", default="cpu", help="torch device, such as cpu or cuda")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--budget", type=float, default=0.15, metavar="X", help="longest summary, share of the video")
    length.add_argument("--seconds", type=float, metavar="S", help="longest summary in seconds, instead")
    add("--margin", type=float, default=0.0, metavar="S", help="widen every chosen shot by S seconds on both sides")
    add("--min-shot", type=float, default=0.0, metavar="S", help="take no shot of less than S seconds")
    add("--keep", type=time_range, nargs="+", default=(), metavar="A-B", help="keep these spans, such as 1:00-1:10")
    add("--drop", type=time_range, nargs="+", default=(), metavar="A-B", help="leave these spans out")
    add_extraction(parser)
    add(
        "--segment-length",
        type=natural,
        default=2000,
        metavar="T",
        help="score segments of at most that many sampled frames, so that memory stays small; 0 for no limit",
    )
    add(
        "--copy",
        action="store_true",
        help="copy, and encode only the borders of H.264; says how far others moved",
    )
    add(
        "--from-cuts",
        type=Path,
        metavar="FILE",
        help="take the shots from this edited .csv (of --cuts) or .json (of --json) instead of choosing any",
    )
    add(
        "--cuts",
        type=Path,
        nargs="+",
        default=(),
        metavar="FILE",
        help="write the cuts for other programs, by suffix: .csv (LosslessCut), .edl, .fcpxml, .otio, .v1 "
        "(auto-editor), .ffmeta (chapters), .txt (YouTube's), .ffconcat; of several videos, suffixes alone",
    )
    add("--clips", type=Path, metavar="DIR", help="write every chosen shot as a file of its own too")
    add("--storyboard", type=Path, metavar="FILE", help="write a .png of the chosen shots' best frames")
    add("--reel", type=Path, metavar="FILE", help="join the summaries of all videos into one")
    add("--report", type=Path, metavar="FILE", help="write an HTML page about the summary")
    add("--json", type=Path, metavar="FILE", help="write the shots with their times; - prints them")
    add("--overwrite", action="store_true", help="replace existing files")


def time_range(text: str) -> tuple[float, float]:
    """Parse a span such as ``1:00-1:10``, ``90-95.5`` or ``1:02:03-`` as seconds."""
    start, dash, end = text.partition("-")
    try:
        if not dash:
            raise ValueError
        begin, stop = _seconds(start) if start else 0.0, _seconds(end) if end else math.inf
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a span such as 1:00-1:10, got {text!r}") from None
    return begin, stop


def _seconds(text: str) -> float:
    if not re.fullmatch(r"(\d+:)?(\d+:)?\d+(\.\d+)?", text):
        raise ValueError
    total = 0.0
    for part in text.split(":"):
        total = 60 * total + float(part)
    return total


def _summarize(options: argparse.Namespace) -> int:
    many = len(options.videos) > 1 or options.videos[0].is_dir()
    if options.from_cuts is not None:
        return render_again(options, many)
    if many:
        return summarize_folder(options)
    video = options.videos[0]
    printed = options.json == Path("-")
    files = Files(
        options.out,
        options.report,
        None if printed else options.json,
        options.storyboard,
        tuple(options.cuts),
        options.clips,
    )
    check(files, [video], options)
    if options.reel is not None:
        raise ValueError("--reel joins the summaries of several videos, and this is one")
    models = choose_models(options, {video.name: video}, options.out.parent)
    summary = summarize_one(options, video.name, video, files, models)
    if printed:
        print(json.dumps(summary.to_json(), indent=2))
    else:
        describe(summary)
    return 0
