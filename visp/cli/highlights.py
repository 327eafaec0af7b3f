"""``visp highlights``: highlight detection, by importance per second or by ratings of clips."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from visp.cli.options import (
    Commands,
    add_command,
    add_data,
    add_summarizer,
    check_device,
    name_summarizer,
    new_summarizer,
    open_videos,
    read_scores,
)


def add_commands(commands: Commands) -> None:
    """Add ``visp highlights``."""
    parser = add_command(
        commands,
        "highlights",
        _highlights,
        "evaluate highlight detection: mAP@50 and mAP@15 by gtscore, or HIT@1 and mAP by QVHighlights' ratings",
    )
    add_data(parser, "h5 files; with gtscore, one step per second, where there are no --ratings")
    add_summarizer(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights", metavar="FILE", help="weights of the summarizer, or the folder of a run")
    source.add_argument("--scores", metavar="FILE", help="JSON of scores by video instead: {video: [score, ...]}")
    add = parser.add_argument
    add("--segment-length", type=int, metavar="T", help="score segments of at most that many frames")
    add("--ratings", metavar="FILE", help="jsonl of QVHighlights' form; a step of the data is then a clip of 2 seconds")
    add(
        "--rounding",
        default="up",
        choices=("up", "down"),
        help="number of relevant segments: up as TripleSumm, down as MR.HiSum",
    )
    add("--batch-size", type=int, default=1, metavar="N", help="videos per batch of the published mean over batches")
    add("--json", type=Path, metavar="FILE", help="write the metrics of every video or query")
    add("--overwrite", action="store_true", help="replace an existing file of --json")


def _highlights(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from visp.data import read_qvhighlights
    from visp.eval.highlights import evaluate_highlights, evaluate_rated
    from visp.training.run_folder import write_json
    from visp.utils.files import check_outputs

    check_device(options)
    name_summarizer(options, options.weights)
    inputs = [*options.data, options.weights, options.scores, options.ratings]
    check_outputs(options.json, inputs=[path for path in inputs if path is not None], overwrite=options.overwrite)
    videos = open_videos(options)
    found: Any
    if options.ratings is not None:
        queries = [(query.video, query.ratings) for query in read_qvhighlights(options.ratings)]
        found = evaluate_rated(_scores(options, videos, {video for video, _ in queries}), queries)
    else:
        truths = {name: videos.record(index).gtscore for index, name in enumerate(videos.names)}
        without = [name for name, truth in truths.items() if truth is None]
        if without:
            raise ValueError(f"{without[0]} has no gtscore; give --ratings for clips that are rated")
        scores = _scores(options, videos, set(truths))
        found = evaluate_highlights(scores, truths, rounding=options.rounding, batch_size=options.batch_size)  # type: ignore[arg-type]
    print(found.table())
    if options.json is not None:
        write_json(options.json, asdict(found))


def _scores(options: argparse.Namespace, videos: Any, wanted: set[str]) -> dict[str, Any]:
    """Return the scores of those of the wanted videos that there are, in the order of the data."""
    from visp.prediction import predict
    from visp.weights import load_weights

    if options.scores is not None:
        given = read_scores(options.scores)
        return {name: given[name] for name in videos.names if name in wanted and name in given}
    summarizer = new_summarizer(options, videos.feature_dim)
    load_weights(summarizer, options.weights)
    return {
        name: predict(summarizer, videos[index], options.segment_length)
        for index, name in enumerate(videos.names)
        if name in wanted
    }
