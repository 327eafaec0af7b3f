"""``visp summarize``: videos in, summaries out, with cut lists, pages and a reel."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visp.cli.options import FACTORY_HELP, Commands, add_command, natural
from visp.cli.video import add_extraction, counted, open_extractor

if TYPE_CHECKING:
    from torch import nn

    from visp.video import Extractor, VideoFeatures, VideoSummary

_INDEX = "summaries.json"
"""In a folder of summaries: which were made of what."""
_REEL = "--reel"
"""In the index: which file joins them."""


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
    add("--copy", action="store_true", help="cut at key frames and do not encode again; says how far each cut moved")
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


@dataclasses.dataclass(frozen=True)
class _Files:
    """What is written about one video."""

    out: Path
    report: Path | None = None
    json: Path | None = None
    storyboard: Path | None = None
    cuts: tuple[Path, ...] = ()
    clips: Path | None = None

    def all(self) -> list[Path]:
        pages = (self.report, self.json, self.storyboard)
        return [self.out, *(page for page in pages if page is not None), *self.cuts]


def _summarize(options: argparse.Namespace) -> int:
    many = len(options.videos) > 1 or options.videos[0].is_dir()
    if options.from_cuts is not None:
        return _render_again(options, many)
    if many:
        return _summarize_folder(options)
    video = options.videos[0]
    printed = options.json == Path("-")
    files = _Files(
        options.out,
        options.report,
        None if printed else options.json,
        options.storyboard,
        tuple(options.cuts),
        options.clips,
    )
    _check(files, [video], options)
    if options.reel is not None:
        raise ValueError("--reel joins the summaries of several videos, and this is one")
    extractor = _open(options)
    summarizer, named, learnt = _summarizer(options, extractor, {video.name: video}, options.out.parent)
    summary = _one(options, video, files, summarizer, named, extractor, learnt.get(video.name))
    if printed:
        print(json.dumps(summary.to_json(), indent=2))
    else:
        _describe(summary)
    return 0


def _summarize_folder(options: argparse.Namespace) -> int:
    from visp.video.decode import shown
    from visp.video.reel import write_reel
    from visp.video.sources import find_videos

    for flag in ("report", "json", "storyboard"):
        if getattr(options, flag) is not None:
            raise ValueError(f"--{flag} is of one video; of several, a page and a JSON are written beside each summary")
    folder = options.out
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{shown(folder)}: expected a folder for the summaries of several videos, and it is a file")
    inside = folder.resolve()  # summaries of an earlier run are no videos to summarize
    found = find_videos(options.videos)
    videos = {name: path for name, path in found.items() if inside not in path.resolve().parents}
    if not videos:
        raise ValueError(f"{shown(folder)}: all videos given lie in this folder for the summaries")
    files = {name: _files_in(folder, name, options) for name in videos}
    folder.mkdir(parents=True, exist_ok=True)
    made = _read_index(folder / _INDEX)
    if options.reel is not None:
        again = options.overwrite or made.get(_REEL) == str(options.reel)
        _check(_Files(options.reel), list(videos.values()), options, overwrite=again)
    extractor = _open(options)
    summarizer, named, learnt = _summarizer(options, extractor, videos, folder)
    made_with = _made_with(options, named, summarizer, extractor)
    left_out: dict[str, str] = {}
    resumed = 0
    for name, video in videos.items():
        digest = _digest(video, made_with)
        if made.get(name) == digest and all(file.is_file() for file in files[name].all()):
            resumed += 1
            continue
        try:
            files[name].out.parent.mkdir(parents=True, exist_ok=True)
            _check(files[name], [video], options, overwrite=options.overwrite or name in made)
            _write_index(folder / _INDEX, made | {name: ""})  # what is there from here on may be replaced
            summary = _one(options, video, files[name], summarizer, named, extractor, learnt.get(name), again=True)
        except (OSError, ValueError) as error:
            left_out[name] = str(error)
            continue
        _describe(summary)
        made[name] = digest
        _write_index(folder / _INDEX, made)
    done = [name for name in videos if name not in left_out]
    from_before = f" ({resumed} of them from an earlier run)" if resumed else ""
    print(f"{counted(len(done), 'summary', 'summaries')} in {shown(folder)}{from_before}")
    if options.reel is not None and done:
        made[_REEL] = str(options.reel)
        _write_index(folder / _INDEX, made)
        seconds = write_reel([files[name].out for name in done], options.reel)
        print(f"{shown(options.reel)}: {seconds:.1f} s of {counted(len(done), 'video')}")
    if left_out:
        print(f"left out {counted(len(left_out), 'file')}:", file=sys.stderr)
        for reason in left_out.values():
            print(f"  {shown(reason)}", file=sys.stderr)
    return 1 if left_out else 0


def _render_again(options: argparse.Namespace, many: bool) -> int:
    """Make a summary of the shots of an edited list."""
    import numpy as np

    from visp.video import write_summary
    from visp.video.cut_formats import write_cuts
    from visp.video.cuts import CutList, frames_of, probe_media, read_cuts, read_frame_times
    from visp.video.decode import shown
    from visp.video.remux import copy_spans
    from visp.video.render import check_ending

    for flag in ("report", "json", "storyboard", "reel", "weights"):
        if getattr(options, flag) is not None:
            raise ValueError(f"--{flag} needs shots that are chosen by their scores, and --from-cuts gives them")
    if many:
        raise ValueError("--from-cuts is the list of one video")
    video = options.videos[0]
    files = _Files(options.out, cuts=tuple(options.cuts), clips=options.clips)
    _check(files, [video, options.from_cuts], options)
    check_ending(options.out)
    media = probe_media(video)
    cuts = read_cuts(options.from_cuts, media.offset)
    frame_times = read_frame_times(video)
    spans = frames_of(cuts, frame_times)
    times = np.stack([frame_times[spans[:, 0]], frame_times[spans[:, 1] + 1]], axis=1)
    if options.copy:
        times = copy_spans(video, times, options.out)
    else:
        times = write_summary(video, spans, options.out, overwrite=options.overwrite).times
    placed = tuple(
        dataclasses.replace(cut, start=start, end=end) for cut, (start, end) in zip(cuts, times.tolist(), strict=True)
    )
    for file in files.cuts:
        write_cuts(CutList(dataclasses.replace(media, duration=float(frame_times[-1])), placed), file)
    lengths = (times[:, 1] - times[:, 0]).cumsum()
    _write_clips(options.out, [(end - (b - a), end) for (a, b), end in zip(times, lengths, strict=True)], files.clips)
    print(f"{shown(options.out)}: {lengths[-1]:.1f} s of {frame_times[-1]:.1f} s, {counted(len(cuts), 'cut')}")
    return 0


def _one(
    options: argparse.Namespace,
    video: Path,
    files: _Files,
    summarizer: nn.Module,
    named: Mapping[str, str],
    extractor: Extractor,
    features: VideoFeatures | None,
    *,
    again: bool = False,
) -> VideoSummary:
    """Summarize one video and write everything about it."""
    from visp.video import summarize_video
    from visp.video.cut_formats import write_cuts
    from visp.video.cuts import CutList, cuts_of, probe_media
    from visp.video.report import write_report
    from visp.video.result import write_json
    from visp.video.storyboard import write_storyboard

    summary = summarize_video(
        video,
        files.out,
        summarizer=summarizer,
        extractor=extractor,
        budget=options.budget,
        seconds=options.seconds,
        margin=options.margin,
        min_shot=options.min_shot,
        keep=options.keep,
        drop=options.drop,
        fps=options.fps,
        kts_frames=options.kts,
        segment_length=options.segment_length or None,
        batch_size=options.batch_size,
        features=features,
        copy=options.copy,
        overwrite=options.overwrite or again,
        progress=True,
    )
    settings = {**named, **summary.settings}
    notes = [
        f"The {model}'s weights are random, to try the pipeline: the choice of shots means nothing."
        for model in ("extractor", "summarizer")
        if settings.get(f"{model}_weights") == "random"
    ]
    summary = dataclasses.replace(summary, settings=settings, notes=[*summary.notes, *notes])
    if files.cuts:
        cuts = CutList(probe_media(video, summary.duration), cuts_of(summary))
        for file in files.cuts:
            write_cuts(cuts, file)
    _write_clips(files.out, summary.places.tolist(), files.clips)
    if files.storyboard is not None:
        write_storyboard(summary, files.storyboard)
    if files.report is not None:
        write_report(summary, files.report)
    if files.json is not None:
        write_json(summary, files.json)
    return summary


def _write_clips(out: Path, places: Sequence[Sequence[float]], folder: Path | None) -> None:
    from visp.video.remux import copy_spans

    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        digits = max(2, len(str(len(places))))
        copy_spans(out, places, [folder / f"{n:0{digits}d}{out.suffix}" for n in range(1, len(places) + 1)])


def _check(
    files: _Files, inputs: Sequence[Path], options: argparse.Namespace, *, overwrite: bool | None = None
) -> None:
    """Refuse what could not be written, before the work."""
    from visp.utils.files import check_outputs
    from visp.video.cut_formats import check_format

    for file in files.cuts:
        check_format(file)
    if files.storyboard is not None and files.storyboard.suffix.lower() != ".png":
        raise ValueError(f"--storyboard writes a .png, got {files.storyboard}")
    if files.clips is not None and files.clips.exists():
        if not files.clips.is_dir():
            raise ValueError(f"--clips {files.clips}: expected a folder, and it is a file")
        if any(files.clips.iterdir()) and not options.overwrite:
            raise FileExistsError(f"--clips {files.clips} is not empty; pass --overwrite to write there")
    inputs = [path for path in inputs if path.exists()]
    check_outputs(*files.all(), inputs=inputs, overwrite=options.overwrite if overwrite is None else overwrite)


def _files_in(folder: Path, name: str, options: argparse.Namespace) -> _Files:
    """Return the files about a video of several, under its own name in the folder."""
    base = folder / Path(name).parent / Path(name).stem
    for suffix in options.cuts:
        if suffix.parent != Path() or not suffix.name.startswith(".") or "." in suffix.name[1:]:
            raise ValueError(f"--cuts of several videos takes suffixes such as .edl, got {suffix}")
    return _Files(
        base.with_name(f"{base.name}_summary.mp4"),
        base.with_name(f"{base.name}.html"),
        base.with_name(f"{base.name}.json"),
        cuts=tuple(base.with_name(f"{base.name}{suffix}") for suffix in options.cuts),
        clips=None if options.clips is None else options.clips / name,
    )


def _open(options: argparse.Namespace) -> Extractor:
    weights = options.extractor_weights
    if weights is None and options.weights == "random" and options.extractor is None:
        weights = "random"
    return open_extractor(options, weights)


def _summarizer(
    options: argparse.Namespace, extractor: Extractor, videos: Mapping[str, Path], beside: Path
) -> tuple[nn.Module, dict[str, str], dict[str, VideoFeatures]]:
    """Return the summarizer, what to record of it, and features that were made on the way, by name of the video."""
    import torch

    from visp.cli.learn import learn
    from visp.factory import make_summarizer
    from visp.video.run import check_extractor, read_run
    from visp.weights import load_weights

    name, weights = options.summarizer, options.weights
    if weights is None:
        if name is not None:
            raise ValueError(f"--summarizer {name} needs --weights; without, a light one learns on the videos")
        folder = options.run_folder or beside / "runs" / f"summarize-{_stamp(videos, extractor, options.fps)}"
        if (folder / "weights.pt").is_file():
            print(f"using the run in {folder}, which has learnt already")
            weights = str(folder)
        else:
            found = _features_of(videos, extractor, options)
            features = [torch.from_numpy(video.features) for video in found.values()]
            device = next(iter(extractor.model.parameters()), torch.empty(0)).device
            summarizer = learn(features, folder, dict(extractor.provenance), device)
            named = {"summarizer": "transformer", "summarizer_weights": f"learnt in {folder}"}
            return summarizer, named, {} if options.kts == "all" else found
    shown_weights = Path(weights).name
    if Path(weights).is_dir():
        run = Path(weights)
        recorded = read_run(run)
        check_extractor(run, recorded, extractor)
        name, weights = name or recorded["summarizer"], str(run / "weights.pt")
    torch.manual_seed(0)
    summarizer = make_summarizer(name or "csta", extractor.feature_dim).to(options.device)
    if weights != "random":
        load_weights(summarizer, weights)
    return summarizer, {"summarizer": name or "csta", "summarizer_weights": shown_weights}, {}


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


def _made_with(
    options: argparse.Namespace, named: Mapping[str, str], summarizer: nn.Module, extractor: Extractor
) -> dict[str, Any]:
    """Return all that decides what a summary is, to know it again."""
    from visp.weights import state_hash

    names = "budget seconds margin min_shot keep drop fps kts segment_length copy".split()  # noqa: SIM905
    chosen = {name: getattr(options, name) for name in names}
    return {**chosen, **named, **extractor.provenance, "summarizer_sha256": state_hash(summarizer.state_dict())}


def _digest(video: Path, made_with: Mapping[str, Any]) -> str:
    state = video.stat()
    text = json.dumps([state.st_size, state.st_mtime_ns, made_with], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _stamp(videos: Mapping[str, Path], extractor: Extractor, fps: float) -> str:
    """Return a short text that tells these videos, as they are, and how their features are made."""
    digests = [_digest(video, {"name": name, "fps": fps, **extractor.provenance}) for name, video in videos.items()]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:8]


def _read_index(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not an index of summaries; remove it to make them again") from error
    return {str(name): str(digest) for name, digest in found.items()} if isinstance(found, dict) else {}


def _write_index(path: Path, made: Mapping[str, str]) -> None:
    from visp.utils.files import replacing

    with replacing(path) as file:
        file.write((json.dumps(made, indent=1) + "\n").encode())


def _describe(summary: VideoSummary) -> None:
    from visp.video.decode import shown

    chosen = [f"{start:.1f}-{end:.1f}" for start, end in summary.shot_times[summary.selected].tolist()]
    print(
        f"{shown(summary.out)}: {summary.summary_duration:.1f} s of {summary.duration:.1f} s, "
        f"{len(chosen)} of {counted(len(summary.shots), 'shot')}: {', '.join(chosen)} s"
    )
    for note in summary.notes:
        print(shown(note))
    print("time: " + ", ".join(f"{stage} {spent:.1f} s" for stage, spent in summary.seconds.items()))
