"""``visp features``: videos in, an h5 file of features out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visp.cli.options import Commands, add_command, check_device, natural

if TYPE_CHECKING:
    import torch

    from visp.video import Extractor


def add_commands(commands: Commands) -> None:
    """Add ``visp features``."""
    _add_features(commands)


def _add_features(commands: Commands) -> None:
    parser = add_command(commands, "features", _features, "make an h5 file of features from videos")
    parser.set_defaults(goes_on_with="the same command")
    add = parser.add_argument
    add("inputs", nargs="+", metavar="VIDEO_OR_FOLDER", help="videos, or folders of them")
    add("-o", "--out", type=Path, required=True, metavar="FILE", help="the h5 file")
    add_extraction(parser)
    add(
        "--stream",
        action="append",
        default=[],
        metavar="NAME=EXTRACTOR",
        help="keep the rows of a further extractor, named as for --extractor, beside the features, for "
        "--with NAME=frames; repeatable",
    )
    add(
        "--stream-weights",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="weights of the extractor of that stream, as for --extractor-weights; repeatable",
    )
    add("--workers", type=natural, default=0, metavar="N", help="processes that decode, each its own videos")
    add("--device", default="cpu", help="torch device, such as cpu or cuda")
    add("--overwrite", action="store_true", help="replace an existing file")


def add_extraction(parser: argparse.ArgumentParser) -> None:
    """Add the options of how features are made."""
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
    from visp.utils.distributed import launched
    from visp.video import extract_corpus

    first = launched()[0] == 0
    extractor = open_extractor(options, options.extractor_weights)
    streams = _open_streams(options)
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
        streams=streams,
    )
    if not first:
        return 0
    resumed = f" ({corpus.resumed} of them from an earlier run)" if corpus.resumed else ""
    print(f"{counted(len(corpus.videos), 'video')} in {options.out}{resumed}")
    print("time: " + ", ".join(f"{stage} {spent:.1f} s" for stage, spent in corpus.seconds.items()))
    if corpus.left_out:
        print(f"left out {counted(len(corpus.left_out), 'file')}:", file=sys.stderr)
        for reason in corpus.left_out.values():
            print(f"  {reason}", file=sys.stderr)
    return 1 if corpus.left_out else 0


def open_extractor(options: argparse.Namespace, how: str | Callable[[], Extractor] | None) -> Extractor:
    """Make the extractor of ``--extractor`` with these weights, or another way, on ``--device``."""
    from visp.video import make_extractor
    from visp.video.decode import require_av

    check_device(options)
    try:
        require_av()
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error
    if options.extractor == "googlenet" and how is None:
        raise ValueError(
            "--extractor googlenet needs --extractor-weights: `imagenet` to fetch torchvision's, FILE, or `random`"
        )
    return _moved(how() if callable(how) else make_extractor(options.extractor, how), options)


def _open_streams(options: argparse.Namespace) -> dict[str, Extractor]:
    """Make the extractors of ``--stream``, on ``--device``."""
    from visp.data.h5 import check_side_name
    from visp.video import make_extractor

    names, weights = _named(options.stream, "--stream"), _named(options.stream_weights, "--stream-weights")
    for name in weights.keys() - names.keys():
        raise ValueError(f"--stream-weights names {name!r}, which is no --stream")
    streams = {}
    for name, extractor in names.items():
        check_side_name(name)
        if extractor == "googlenet" and name not in weights:
            raise ValueError(
                f"--stream {name}=googlenet needs --stream-weights {name}=imagenet to fetch torchvision's, "
                f"{name}=FILE, or {name}=random"
            )
        streams[name] = _moved(make_extractor(extractor, weights.get(name)), options)
    return streams


def _named(given: Sequence[str], flag: str) -> dict[str, str]:
    """Return the values of a flag that is given as NAME=VALUE, by name."""
    found: dict[str, str] = {}
    for each in given:
        name, _, value = each.partition("=")
        if not name or not value:
            raise ValueError(f"{flag}: expected NAME=VALUE, got {each!r}")
        if name in found:
            raise ValueError(f"{flag}: {name!r} is given twice")
        found[name] = value
    return found


def _moved(extractor: Extractor, options: argparse.Namespace) -> Extractor:
    """Move the model of an extractor to ``--device``, of torchrun's processes each to its own."""
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


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number of things in words."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"
