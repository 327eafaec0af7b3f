"""``visp finetune``, ``visp evaluate`` and ``visp crossval``: with labels."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from visp._version import __version__
from visp.cli.options import (
    Commands,
    add_command,
    add_data,
    add_folder,
    add_folds,
    add_options,
    add_summarizer,
    check_device,
    check_folder,
    check_resume,
    default_folder,
    given,
    given_options,
    name_summarizer,
    named,
    natural,
    new_summarizer,
    open_videos,
    read_scores,
    where_weights_are,
)

if TYPE_CHECKING:
    from visp.data import Split, VideoDataset
    from visp.evaluator import Evaluator


def add_commands(commands: Commands) -> None:
    """Add the three commands."""
    _add_finetune(commands)
    _add_evaluate(commands)
    _add_crossval(commands)


def _add_finetune(commands: Commands) -> None:
    add_command(commands, "finetune", _finetune, "fine-tune a summarizer on annotated videos (Eq. 11)", _fill_finetune)


def _fill_finetune(parser: argparse.ArgumentParser) -> None:
    from visp.training.options import FinetuneOptions

    add_data(parser, "h5 files with `gtscore` and what the protocol needs")
    add_summarizer(parser, device=False)
    _add_splits(parser)
    parser.add_argument("--fold", type=natural, default=0, metavar="K", help="fold of the split file, from 0")
    add_options(parser, FinetuneOptions)
    _add_protocol(parser)
    add_folder(parser, "finetune")


def _add_evaluate(commands: Commands) -> None:
    parser = add_command(commands, "evaluate", _evaluate, "compare a summarizer's scores with the users' annotations")
    add_data(parser, "h5 files with what the protocol needs")
    add_summarizer(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--weights", metavar="FILE", help="weights of the summarizer, or the folder of a run")
    source.add_argument("--scores", metavar="FILE", help="JSON of scores by video instead: {video: [score, ...]}")
    _add_splits(parser)
    parser.add_argument("--fold", type=natural, metavar="K", help="only the test videos of this fold of --splits")
    _add_protocol(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the metrics of every video")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file of --json")


def _add_crossval(commands: Commands) -> None:
    parser = add_command(
        commands, "crossval", _crossval, "fine-tune and evaluate on every fold, several rounds", _fill_crossval
    )
    parser.set_defaults(goes_on_with="the same command and --out {}")


def _fill_crossval(parser: argparse.ArgumentParser) -> None:
    from visp.studies.cross_validation import CrossValidationOptions

    add_data(parser, "h5 files with `gtscore` and what the protocol needs")
    add_summarizer(parser, device=False)
    _add_splits(parser)
    add_folds(parser)
    add_options(parser, CrossValidationOptions, leave_out=("weights", "resume", "tensorboard"))
    _add_protocol(parser)
    parser.add_argument(
        "--compare-with", type=Path, metavar="DIR", help="test the difference to another cross-validation's folder"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the run, resumed where there is one; runs/crossval-<time> if not given",
    )


def _add_splits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--splits", metavar="FILE", help="split file: JSON, YAML or CSTA's lines")


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    from visp.eval.protocols import BENCHMARKS, PROTOCOLS

    add = parser.add_argument
    add("--protocol", default="csta", choices=PROTOCOLS, help="rank correlation, see docs")
    add("--benchmark", required=True, choices=BENCHMARKS, help="whose rules hold")
    add("--user-scores", metavar="FILE", help="TVSum's raw scores: ydata-anno.tsv or ydata-tvsum50.mat")
    add(
        "--segment-length",
        type=int,
        metavar="T",
        help="score (and train on) segments of at most that many frames, for hour-long videos",
    )


def _finetune(options: argparse.Namespace) -> None:
    import torch

    from visp.training import finetune
    from visp.training.options import FinetuneOptions

    check_resume(options)
    check_folder(options)
    check_device(options)
    name_summarizer(options, getattr(options, "weights", None))
    if options.splits is None:
        raise ValueError("--splits is missing: the file that says which videos to train and to test on")
    dataset = open_videos(options)
    split = _fold(options, dataset)
    torch.manual_seed(getattr(options, "seed", 0))
    summarizer = new_summarizer(options, dataset.feature_dim)
    out = options.out = options.out or default_folder("finetune")
    result = finetune(
        summarizer,
        dataset,
        split,
        evaluator=_evaluator(options, dataset),
        **given_options(options, FinetuneOptions),
        out_dir=out,
        config={**named(options), "command_line": given(options), "visp_version": __version__},
    )
    if result.test is not None:
        print(result.test.table())
    print(f"the weights are those of epoch {result.epoch}, chosen by: {result.select}")
    if result.select == "test":
        print("the epoch was chosen on the test videos: the metrics above are better than unseen videos would show")
    print(where_weights_are(out))


def _evaluate(options: argparse.Namespace) -> None:
    import numpy as np

    from visp.training.run_folder import write_json
    from visp.utils.files import check_outputs
    from visp.weights import load_weights

    check_device(options)
    name_summarizer(options, options.weights)
    inputs = [*options.data, options.weights, options.scores, options.splits, options.user_scores]
    check_outputs(options.json, inputs=[path for path in inputs if path is not None], overwrite=options.overwrite)
    dataset = open_videos(options)
    if (options.splits is None) != (options.fold is None):
        raise ValueError("--splits and --fold belong together: the test videos of a fold are evaluated")
    names = list(dataset.names) if options.fold is None else list(_fold(options, dataset).test)
    evaluator = _evaluator(options, dataset)
    if options.scores is not None:
        scores = read_scores(options.scores)
        missing = [name for name in names if name not in scores]
        if missing:
            raise ValueError(f"{options.scores} has no scores of {', '.join(missing)}")
        found = evaluator.of_scores({name: np.asarray(scores[name], dtype=np.float64) for name in names})
    else:
        summarizer = new_summarizer(options, dataset.feature_dim)
        load_weights(summarizer, options.weights)
        found = evaluator(summarizer, names)
    print(found.table())
    if options.json is not None:
        write_json(options.json, found.to_json())


def _crossval(options: argparse.Namespace) -> None:
    from visp.data import make_splits, read_splits
    from visp.eval.metrics import METRICS
    from visp.studies.cross_validation import CrossValidationOptions, cross_validate
    from visp.studies.results import read_results, results_table
    from visp.studies.significance import compare

    check_device(options)
    name_summarizer(options, getattr(options, "pretrained", None))
    dataset = open_videos(options)
    splits = (
        make_splits(dataset.names, folds=options.folds, seed=getattr(options, "seed", 0))
        if options.splits is None
        else read_splits(options.splits, dataset.names)
    )
    other = None if options.compare_with is None else read_results(options.compare_with)
    options.out = options.out or default_folder("crossval")
    result = cross_validate(
        lambda: new_summarizer(options, dataset.feature_dim),
        dataset,
        splits,
        evaluator=_evaluator(options, dataset),
        **given_options(options, CrossValidationOptions),
        config=named(options),
        out_dir=options.out,
    )
    rows = {} if other is None else {str(options.compare_with): other}
    print(results_table({**rows, str(options.out): result}))
    if result.select == "test":
        print("epochs were chosen on the test videos: the metrics are better than unseen videos would show")
    if other is not None:
        for metric in METRICS:
            if not math.isnan(result.mean(metric)):
                print(f"{metric}: {compare(other, result, metric)}")
    print(f"video by video: {options.out / 'results.json'}")


def _fold(options: argparse.Namespace, dataset: VideoDataset) -> Split:
    from visp.data import hold_out, read_splits

    splits = read_splits(options.splits, dataset.names)
    if options.fold >= len(splits):
        raise ValueError(f"--fold {options.fold}: {options.splits} has folds 0 to {len(splits) - 1}")
    split = splits[options.fold]
    needs_validation = getattr(options, "select", "last") == "validation" and not split.validation
    return hold_out(split, seed=getattr(options, "seed", 0)) if needs_validation else split


def _evaluator(options: argparse.Namespace, dataset: VideoDataset) -> Evaluator:
    from visp.data import check_isolated, read_tvsum_mat, read_tvsum_tsv
    from visp.evaluator import Evaluator

    user_scores = None
    if options.user_scores is not None:
        matlab = options.user_scores.endswith(".mat")
        if matlab and options.isolate:
            check_isolated(options.user_scores)
        read = read_tvsum_mat if matlab else read_tvsum_tsv
        user_scores = read(options.user_scores)
    return Evaluator(
        dataset,
        protocol=options.protocol,
        benchmark=options.benchmark,
        user_scores=user_scores,
        segment_length=options.segment_length,
    )
