"""``visp study ablation`` and the other studies of variants: data, runs, and where the report goes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visp.cli.options import FACTORY_HELP, Commands, add_command, add_folds, default_folder, natural

if TYPE_CHECKING:
    from visp.studies.study import Labelled, Study, StudyResult, Variant

_WHERE = (
    "the field's files are eccv16_dataset_summe_google_pool5.h5 and eccv16_dataset_tvsum_google_pool5.h5, which the "
    "READMEs of vsumm-reinforce, PGL-SUM and CSTA link to, and ydata-anno.tsv of TVSum's own release for "
    "--user-scores; for --qfvs a file of your own, with features and gtscore of the four UT Egocentric videos that "
    "Sharghi et al. (QFVS, CVPR 2017) annotated, see docs/studies.md"
)


def add_commands(studies: Commands) -> None:
    """Add the studies of variants, and the command that makes one of their runs again."""
    add_command(studies, "ablation", _ablation, "Table 3: the default against variants of one part", _fill)
    add_command(studies, "search", _search, "Table 1, Figures 4 and 5: temperature and penalties", _fill_search)
    add_command(studies, "batch-size", _batch_size, "Figure 3: videos per step of pretraining", _fill_batch_size)
    add_command(studies, "scaling", _scaling, "Figure 7: how many videos, and whose, are pretrained on", _fill_scaling)
    add_command(studies, "significance", _significance, "Figure 6: rounds with and without pretraining, tested", _fill)
    add_command(studies, "diversity", _diversity, "Section 4.4: what summaries drawn from the scores cover", _fill)
    add_command(
        studies, "table", _table, "Table 2: summarizers with and without ViSP, beside published ones", _fill_table
    )
    add_command(studies, "saliency", _saliency, "Figure 8: what models and users find important", _fill_saliency)
    repeat = add_command(studies, "repeat", _repeat, "make a run of a study again, from its run.json")
    repeat.add_argument("run_file", type=Path, metavar="RUN.JSON")
    repeat.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the run")


def _fill(parser: argparse.ArgumentParser) -> None:
    from visp.eval.protocols import PROTOCOLS

    add = parser.add_argument_group("videos").add_argument
    add("--summe", metavar="FILE", help="annotated videos judged by SumMe's rules")
    add("--tvsum", metavar="FILE", help="annotated videos judged by TVSum's rules")
    add("--qfvs", metavar="FILE", help="annotated hour-long videos, judged by the correlation with gtscore alone")
    add("--user-scores", metavar="FILE", help="TVSum's raw scores: ydata-anno.tsv or ydata-tvsum50.mat")
    add("--summe-splits", metavar="FILE", help="split file; folds are drawn if not given")
    add("--tvsum-splits", metavar="FILE", help="split file; folds are drawn if not given")
    add_folds(parser)
    add("--protocol", default="csta", choices=PROTOCOLS, help="rank correlation, see docs")
    add("--pretrain-data", nargs="+", default=(), metavar="FILE", help="pretrain on these, not on the annotated videos")
    add("--corpus", type=int, metavar="N", help="two embedded corpora of N videos each in place of files")
    add("--stride", type=int, default=1, metavar="K", help="take every K-th sampled frame")
    add = parser.add_argument_group("runs").add_argument
    add("--summarizer", default="csta", metavar="NAME", help=f"csta, googlenet, transformer, {FACTORY_HELP}")
    add("--encoder", default="attention", metavar="NAME", help=f"attention, csta, csta-literal, {FACTORY_HELP}")
    add("--seeds", type=int, default=3, metavar="K", help="number of seeds, from 0")
    add("--metric", default="tau", choices=("tau", "rho", "f_score"), help="what the figure shows")
    unset = argparse.SUPPRESS  # the library decides
    add("--epochs", type=int, default=unset, metavar="N", help="epochs of pretraining")
    add("--batch-size", type=int, default=unset, metavar="N", help="videos per step of pretraining")
    add(
        "--segment-length",
        type=int,
        default=unset,
        metavar="T",
        help="train on and score segments of at most that many frames, for hour-long videos; the paper's 5000 for QFVS",
    )
    add("--lr", type=float, default=unset, metavar="X", help="learning rate of pretraining")
    add("--contrast", default=unset, help="of all variants that do not say it themselves")
    add("--window-weight", type=float, default=unset, metavar="X", help="of windows in --contrast both (default: 0.5)")
    add("--size-target", type=float, default=unset, metavar="X", help="share to keep, likewise")
    add("--finetune-epochs", type=int, default=unset, metavar="N", help="epochs of fine-tuning")
    add("--finetune-lr", type=float, default=unset, metavar="X", help="learning rate of fine-tuning")
    add("--select", default=unset, choices=("last", "validation", "test"), help="epoch of fine-tuning to keep")
    add("--device", default=unset, help="torch device, such as cpu or cuda")
    add("--jobs", type=natural, default=1, metavar="N", help="processes; the tables do not depend on it")
    add("--cache", type=Path, metavar="DIR", help="folder of the runs, for several studies; <out>/runs if not given")
    add("--out", type=Path, metavar="DIR", help="folder of the study, resumed where there is one")
    parser.set_defaults(goes_on_with="the same command and --out {}")


def _fill_search(parser: argparse.ArgumentParser) -> None:
    _fill(parser)
    add = parser.add_argument_group("the search").add_argument
    add("--points", type=int, default=16, metavar="N", help="points of the Sobol sequence, a power of two")
    add("--sampler", default="concrete", choices=("concrete", "sigmoid"), help="sigmoid for Figure 5")
    add(
        "--objective",
        default="fine-tuned",
        choices=("fine-tuned", "before", "identification"),
        help="what is looked for; identification needs no label",
    )


def _fill_batch_size(parser: argparse.ArgumentParser) -> None:
    _fill(parser)
    parser.add_argument("--sizes", type=int, nargs="+", default=(4, 8, 16, 32), metavar="N", help="videos per step")


def _fill_scaling(parser: argparse.ArgumentParser) -> None:
    _fill(parser)
    add = parser.add_argument_group("the videos to pretrain on").add_argument
    add("--shares", type=float, nargs="+", default=(0.25, 0.5, 1.0), metavar="X", help="shares of them, in (0, 1]")
    add("--out-domain", nargs="+", default=(), metavar="FILE", help="h5 files of videos of other kinds")
    add("--with-test-videos", action="store_true", help="also shares that may hold test videos, marked as such")


def _fill_table(parser: argparse.ArgumentParser) -> None:
    _fill(parser)
    parser.add_argument(
        "--summarizers", nargs="+", default=("csta", "googlenet"), metavar="NAME", help="in place of --summarizer"
    )


def _table(options: argparse.Namespace) -> None:
    from visp.studies.ablation import draw_variants
    from visp.studies.table import best_rounds, with_and_without

    _run(options, "table", with_and_without(options.summarizers), draw_variants, best_rounds, needs_labels=True)


def _fill_saliency(parser: argparse.ArgumentParser) -> None:
    from visp.cli.options import add_data, add_summarizer

    add_data(parser, "h5 file with the video's features")
    add_summarizer(parser, device=False)
    add = parser.add_argument
    add("--video", required=True, metavar="NAME", help="name of the video in the file")
    add(
        "--weights",
        nargs="+",
        required=True,
        metavar="NAME=FILE",
        help="weights of the summarizer by name of their row",
    )
    add("--video-file", metavar="FILE", help="the video itself, for thumbnails")
    add("--share", type=float, default=0.15, metavar="X", help="share of each row in the strong colour")
    add("--out", type=Path, required=True, metavar="FILE", help="the figure, .png or .pdf")


def _saliency(options: argparse.Namespace) -> None:
    from matplotlib.figure import Figure

    from visp.cli.options import name_summarizer, open_videos
    from visp.factory import make_summarizer
    from visp.studies.saliency import draw_saliency, saliency_rows, thumbnails
    from visp.utils.files import check_outputs, replacing
    from visp.weights import load_weights

    check_outputs(options.out, overwrite=True)
    videos = open_videos(options)
    models = {}
    for given in options.weights:
        name, equals, path = given.partition("=")
        if not equals:
            raise ValueError(f"--weights {given}: expected NAME=FILE")
        name_summarizer(options, path)
        models[name] = make_summarizer(options.summarizer, videos.feature_dim)
        load_weights(models[name], path)
    rows = saliency_rows(videos, options.video, models)
    images = None
    if options.video_file is not None:
        picks = videos.record(videos.names.index(options.video)).picks
        if picks is None:
            raise ValueError(f"{options.video} has no picks, which say where its frames are in the video")
        images = thumbnails(options.video_file, picks, next(iter(rows.values())))
    figure = Figure(layout="constrained")
    draw_saliency(rows, figure, share=options.share, images=images)
    with replacing(options.out) as file:
        figure.savefig(file, dpi=150, format=options.out.suffix.removeprefix(".") or "png")
    print(f"drawn: {options.out}")


def _search(options: argparse.Namespace) -> None:
    from functools import partial

    from visp.studies.search import best_points, draw_search, sobol_points

    if hasattr(options, "size_target"):
        raise ValueError("--size-target: the search varies the weight of the size penalty instead")
    points = sobol_points(options.points, sampler=options.sampler)
    draw = partial(draw_search, objective=options.objective)
    _run(options, "search", points, draw, lambda result: best_points(result, options.objective))


def _batch_size(options: argparse.Namespace) -> None:
    from visp.studies.batch_size import batch_sizes, draw_batch_sizes

    _run(options, "batch-size", batch_sizes(options.sizes), draw_batch_sizes, needs_labels=True)


def _scaling(options: argparse.Namespace) -> None:
    from visp.studies.scaling import draw_scales, scales

    chosen = scales(options.shares, out_domain=tuple(options.out_domain), with_test_videos=options.with_test_videos)
    _run(options, "scaling", chosen, draw_scales, needs_labels=True)


def _significance(options: argparse.Namespace) -> None:
    from visp.studies.rounds import WITH_AND_WITHOUT, comparisons_json, comparisons_text, draw_rounds

    _run(options, "significance", WITH_AND_WITHOUT, draw_rounds, comparisons_text, comparisons_json, needs_labels=True)


def _diversity(options: argparse.Namespace) -> None:
    from visp.studies.diversity import diversity, diversity_text, draw_diversity
    from visp.studies.rounds import WITH_AND_WITHOUT

    found: dict[str, Any] = {}

    def measure(result: StudyResult) -> str:
        found.update(diversity(result, options.cache or options.out / "runs"))
        return diversity_text(found)

    def draw(result: StudyResult, figure: Any) -> None:
        draw_diversity(found, figure)

    _run(options, "diversity", WITH_AND_WITHOUT, draw, measure, lambda result: {"diversity": found}, needs_labels=True)


def _ablation(options: argparse.Namespace) -> None:
    from visp.studies.ablation import NO_FSA, ablation, draw_variants

    fsa = len(_labelled(options)) > 1
    _run(options, "ablation", ablation(fsa=fsa), draw_variants, lambda result: "" if fsa else NO_FSA)


def _repeat(options: argparse.Namespace) -> None:
    import json

    from visp.studies.execution import repeat

    print(json.dumps(repeat(options.run_file, options.out), indent=2))


def _run(
    options: argparse.Namespace,
    name: str,
    variants: tuple[Variant, ...],
    draw: Any,
    more: Callable[[StudyResult], str] = lambda result: "",
    values: Callable[[StudyResult], dict[str, Any]] = lambda result: {},
    *,
    needs_labels: bool = False,
) -> None:
    from visp.studies.execution import FailedRunError
    from visp.studies.report import write_report
    from visp.studies.study import run_study
    from visp.utils.distributed import launched

    study = _study(options, name, variants)
    if needs_labels and not study.labelled:
        raise ValueError(f"visp study {name} compares with labels: expected --summe, --tvsum or --qfvs; {_WHERE}")
    first = launched()[0] == 0
    try:
        result = run_study(study, options.out, cache=options.cache, jobs=options.jobs)
    except FailedRunError:
        if first:
            raise
        return  # the first process of torchrun says which, and ends with an error
    if not first:
        return
    cache = options.cache or options.out / "runs"
    print(write_report(result, options.out, draw=draw, more=more(result), more_values=values(result), cache=cache))
    print(f"\nwritten: {options.out}")


def _study(options: argparse.Namespace, name: str, variants: tuple[Variant, ...]) -> Study:
    from visp.studies.study import Study

    def given(**names: str) -> dict[str, Any]:
        return {to: getattr(options, name) for name, to in names.items() if hasattr(options, name)}

    return Study(
        name,
        variants,
        _labelled(options),
        tuple(options.pretrain_data),
        tuple(range(options.seeds)),
        options.summarizer,
        options.encoder,
        given(contrast="contrast", window_weight="window_weight", size_target="size"),
        given(epochs="epochs", batch_size="batch_size", lr="lr", device="device", segment_length="segment_length"),
        given(
            finetune_epochs="epochs",
            finetune_lr="lr",
            select="select",
            device="device",
            segment_length="segment_length",
        ),
        options.metric,
        options.stride,
    )


def _labelled(options: argparse.Namespace) -> tuple[Labelled, ...]:
    """Return the annotated videos; refuse files that are not there, and say which the field has."""
    from visp.studies.runs import USER_SUMMARY
    from visp.studies.study import Labelled
    from visp.utils.distributed import launched

    if options.out is None and launched()[1] > 1:
        raise ValueError("--out is missing: the folder that the processes of torchrun share")
    options.out = options.out or default_folder(f"study-{options.study}")
    if options.corpus is not None:
        options.summe, options.tvsum = (_corpus(options, number) for number in (1, 2))
        options.user_scores = USER_SUMMARY
    files = (
        options.summe,
        options.tvsum,
        options.qfvs,
        options.summe_splits,
        options.tvsum_splits,
        *options.pretrain_data,
    )
    missing = [path for path in files if path is not None and not Path(path).exists()]
    if missing or not (options.summe or options.tvsum or options.qfvs or options.pretrain_data):
        wanted = "expected --summe, --tvsum, --qfvs or --pretrain-data"
        what = f"no such file: {', '.join(missing)}" if missing else wanted
        raise FileNotFoundError(f"{what}; {_WHERE}; --corpus N takes embedded corpora instead")
    found = []
    if options.summe:
        found.append(Labelled(options.summe, "summe", options.protocol, None, options.summe_splits, options.folds))
    if options.tvsum:
        scores = options.user_scores
        found.append(Labelled(options.tvsum, "tvsum", options.protocol, scores, options.tvsum_splits, options.folds))
    if options.qfvs:
        found.append(Labelled(options.qfvs, "qfvs", "scores", folds=options.folds))
    return tuple(found)


def _corpus(options: argparse.Namespace, number: int) -> str:
    """Write an embedded corpus into the folder of the study, if it is not there, and return its path."""
    from visp.data.synthetic import write_corpus
    from visp.utils.distributed import launched

    path = Path(options.out, f"corpus_{number}.h5")
    while launched()[0] > 0 and not path.exists():
        time.sleep(0.1)  # the first process writes it
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_corpus(path, num_videos=options.corpus, seed=number)
    return str(path)
