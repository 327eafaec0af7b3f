"""``visp summarize`` of several videos: a folder of summaries, resumed video by video, and a reel."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visp.cli.summarize.models import Models, choose_models, digest_of
from visp.cli.summarize.one import Files, check, describe, summarize_one
from visp.cli.video import counted

_INDEX = "summaries.json"
"""In a folder of summaries: which were made of what."""
_REEL = "--reel"
"""In the index: which file joins them."""


def summarize_folder(options: argparse.Namespace) -> int:
    """Summarize every video of the folders and files given, and return the exit status."""
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
        check(Files(options.reel), list(videos.values()), options, overwrite=again)
    models = choose_models(options, videos, folder)
    made_with = _made_with(options, models)
    left_out: dict[str, str] = {}
    resumed = 0
    for name, video in videos.items():
        digest = digest_of(video, made_with)
        if made.get(name) == digest and all(file.is_file() for file in files[name].all()):
            resumed += 1
            continue
        try:
            files[name].out.parent.mkdir(parents=True, exist_ok=True)
            check(files[name], [video], options, overwrite=options.overwrite or name in made)
            _write_index(folder / _INDEX, made | {name: ""})  # what is there from here on may be replaced
            summary = summarize_one(options, name, video, files[name], models, again=True)
        except (OSError, ValueError) as error:
            left_out[name] = str(error)
            continue
        describe(summary)
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


def _files_in(folder: Path, name: str, options: argparse.Namespace) -> Files:
    """Return the files about a video of several, under its own name in the folder."""
    base = folder / Path(name).parent / Path(name).stem
    for suffix in options.cuts:
        if suffix.parent != Path() or not suffix.name.startswith(".") or "." in suffix.name[1:]:
            raise ValueError(f"--cuts of several videos takes suffixes such as .edl, got {suffix}")
    return Files(
        base.with_name(f"{base.name}_summary.mp4"),
        base.with_name(f"{base.name}.html"),
        base.with_name(f"{base.name}.json"),
        cuts=tuple(base.with_name(f"{base.name}{suffix}") for suffix in options.cuts),
        clips=None if options.clips is None else options.clips / name,
    )


def _made_with(options: argparse.Namespace, models: Models) -> dict[str, Any]:
    """Return all that decides what a summary is, to know it again."""
    from visp.weights import state_hash

    names = "budget seconds margin min_shot keep drop fps kts segment_length copy".split()  # noqa: SIM905
    chosen = {name: getattr(options, name) for name in names}
    summarizer = {**models.named, "summarizer_sha256": state_hash(models.summarizer.state_dict())}
    return {**chosen, **summarizer, **models.extractor.provenance}


def _read_index(path: Path) -> dict[str, str]:
    from visp.utils.files import parse_json, read_text

    if not path.is_file():
        return {}
    try:
        found = parse_json(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path}: not an index of summaries; remove it to make them again") from error
    return {str(name): str(digest) for name, digest in found.items()} if isinstance(found, dict) else {}


def _write_index(path: Path, made: Mapping[str, str]) -> None:
    from visp.utils.files import replacing

    with replacing(path) as file:
        file.write((json.dumps(made, indent=1) + "\n").encode())
