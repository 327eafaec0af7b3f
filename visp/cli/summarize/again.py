"""``visp summarize --from-cuts``: a summary rendered again from an edited list."""

from __future__ import annotations

import argparse
import dataclasses

from visp.cli.summarize.one import Files, check, write_clips
from visp.cli.video import counted


def render_again(options: argparse.Namespace, many: bool) -> int:
    """Make a summary of the shots of an edited list, and return the exit status."""
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
    files = Files(options.out, cuts=tuple(options.cuts), clips=options.clips)
    check(files, [video, options.from_cuts], options)
    check_ending(options.out)
    media = probe_media(video)
    cuts = read_cuts(options.from_cuts, media.offset)
    frame_times = read_frame_times(video)
    spans = frames_of(cuts, frame_times)
    times = np.stack([frame_times[spans[:, 0]], frame_times[spans[:, 1] + 1]], axis=1)
    if options.copy:
        times = copy_spans(video, times, options.out).times
    else:
        times = write_summary(video, spans, options.out, overwrite=options.overwrite).times
    placed = tuple(
        dataclasses.replace(cut, start=start, end=end) for cut, (start, end) in zip(cuts, times.tolist(), strict=True)
    )
    for file in files.cuts:
        write_cuts(CutList(dataclasses.replace(media, duration=float(frame_times[-1])), placed), file)
    lengths = (times[:, 1] - times[:, 0]).cumsum()
    write_clips(options.out, [(end - (b - a), end) for (a, b), end in zip(times, lengths, strict=True)], files.clips)
    print(f"{shown(options.out)}: {lengths[-1]:.1f} s of {frame_times[-1]:.1f} s, {counted(len(cuts), 'cut')}")
    return 0
