"""What ``visp summarize`` writes about a video: checked before the work, written after it."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visp.cli.video import counted

if TYPE_CHECKING:
    from visp.cli.summarize.models import Models
    from visp.video import VideoSummary


@dataclasses.dataclass(frozen=True)
class Files:
    """What is written about one video."""

    out: Path
    report: Path | None = None
    json: Path | None = None
    storyboard: Path | None = None
    cuts: tuple[Path, ...] = ()
    clips: Path | None = None

    def all(self) -> list[Path]:
        """Return the files, without the clips."""
        pages = (self.report, self.json, self.storyboard)
        return [self.out, *(page for page in pages if page is not None), *self.cuts]


def check(files: Files, inputs: Sequence[Path], options: argparse.Namespace, *, overwrite: bool | None = None) -> None:
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


def write_clips(out: Path, places: Sequence[Sequence[float]], folder: Path | None) -> None:
    """Write every shot of a summary, whose place in it is given in seconds, as a file of its own."""
    from visp.video.remux import copy_spans

    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        digits = max(2, len(str(len(places))))
        copy_spans(out, places, [folder / f"{n:0{digits}d}{out.suffix}" for n in range(1, len(places) + 1)])


def summarize_one(
    options: argparse.Namespace, name: str, video: Path, files: Files, models: Models, *, again: bool = False
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
        summarizer=models.summarizer,
        extractor=models.extractor,
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
        features=models.features.get(name),
        copy=options.copy,
        overwrite=options.overwrite or again,
        progress=True,
    )
    settings = {**models.named, **summary.settings}
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
    write_clips(files.out, summary.places.tolist(), files.clips)
    if files.storyboard is not None:
        write_storyboard(summary, files.storyboard)
    if files.report is not None:
        write_report(summary, files.report)
    if files.json is not None:
        write_json(summary, files.json)
    return summary


def describe(summary: VideoSummary) -> None:
    """Print what became of a video."""
    from visp.video.decode import shown

    chosen = [f"{start:.1f}-{end:.1f}" for start, end in summary.shot_times[summary.selected].tolist()]
    print(
        f"{shown(summary.out)}: {summary.summary_duration:.1f} s of {summary.duration:.1f} s, "
        f"{len(chosen)} of {counted(len(summary.shots), 'shot')}: {', '.join(chosen)} s"
    )
    for note in summary.notes:
        print(shown(note))
    print("time: " + ", ".join(f"{stage} {spent:.1f} s" for stage, spent in summary.seconds.items()))
