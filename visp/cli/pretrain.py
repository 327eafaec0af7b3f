"""``visp pretrain``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visp._version import __version__
from visp.cli.options import (
    FACTORY_HELP,
    Commands,
    add_command,
    add_data,
    add_folder,
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
    open_videos,
    where_weights_are,
)
from visp.cli.video import with_features

if TYPE_CHECKING:
    import torch
    from torch import nn

    from visp.training.options import PretrainOptions
    from visp.training.pretrain import PretrainResult


def add_commands(commands: Commands) -> None:
    """Add ``visp pretrain``."""
    add_command(
        commands,
        "pretrain",
        _pretrain,
        "pretrain a summarizer on videos or h5 files of features, without labels",
        _add_arguments,
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    from visp.registry import CONTRASTS, GRADIENT_FLOWS, SAMPLERS, SIMILARITIES
    from visp.training.options import PretrainOptions

    add_data(
        parser,
        "h5 files, of which only `features` is read; or videos and folders of them: features are kept beside --out",
    )
    parser.add_argument(
        "--index",
        metavar="FILE",
        help="for large corpora: check only the shapes of the features at first, and keep them in this JSON file",
    )
    add_summarizer(parser, device=False)
    add = parser.add_argument
    add("--encoder", default="attention", metavar="NAME", help=f"attention, csta, csta-literal, {FACTORY_HELP}")
    add("--imagenet", metavar="FILE", help="torchvision's GoogLeNet weights, for the CNNs of the built-in models")
    unset = argparse.SUPPRESS  # the library decides
    add(
        "--objective",
        default="visp",
        choices=("visp", "pseudo-summaries"),
        help="visp.ViSPPretrainer; or, the paper's baseline on files with `gtscore`, visp.PseudoSummaryPretrainer",
    )
    add(
        "--pseudo-share",
        type=float,
        default=0.15,
        metavar="X",
        help="share of the best frames by `gtscore` that are a video's pseudo-summary",
    )
    objective = parser.add_argument_group("the objective visp, visp.ViSPPretrainer")
    add = objective.add_argument
    add("--contrast", default=unset, choices=tuple(CONTRASTS), help="what a summary is compared with (default: both)")
    add("--window", type=int, default=unset, metavar="T", help="frames in a window, of --contrast windows and both")
    add("--window-weight", type=float, default=unset, metavar="X", help="of windows in --contrast both (default: 0.5)")
    add("--sampler", default=unset, choices=tuple(SAMPLERS), help="Section 3.3 (default: concrete)")
    add("--temperature", type=float, default=unset, metavar="X", help="of the sampler, lambda of Eq. 6 (default: 0.5)")
    add("--gradient-flow", default=unset, choices=tuple(GRADIENT_FLOWS), help="Eq. 8 and 9 (default: gating)")
    add("--similarity", default=unset, choices=tuple(SIMILARITIES), help="of embeddings (default: inner)")
    add("--hard-negatives", default=unset, action="store_true", help="add random summaries to the denominator of Eq. 3")
    size = objective.add_mutually_exclusive_group()
    size.add_argument("--size-target", type=float, default=unset, metavar="X", help="share to keep (default: 0.3)")
    size.add_argument("--size-weight", type=float, default=unset, metavar="X", help="fixed beta_size of Eq. 10 instead")
    add("--binary-weight", type=float, default=unset, metavar="X", help="weight of the binary penalty (default: 0)")
    add_options(parser.add_argument_group("the run, visp.pretrain"), PretrainOptions)  # type: ignore[arg-type]
    add_folder(parser, "pretrain")


def _pretrain(options: argparse.Namespace) -> None:
    from visp.utils.distributed import torchrun_processes

    check_resume(options)
    check_folder(options)
    check_device(options)
    name_summarizer(options, getattr(options, "weights", None))
    # Each process waits for a worker first, and the others wait for it.
    waits = getattr(options, "worker_timeout", 0.0)
    patience = {"seconds": waits + 60} if waits else {}
    with torchrun_processes(getattr(options, "device", "cpu"), **patience) as device:
        _pretrain_on(device, options)


def _pretrain_on(device: torch.device, options: argparse.Namespace) -> None:
    from visp.pseudo_summary import PseudoSummaries
    from visp.training import pretrain
    from visp.training.options import PretrainOptions
    from visp.utils.distributed import by_first, is_first, num_processes
    from visp.utils.noise import seeded

    chosen = _objective_options(options)
    out = options.out = options.out or by_first(lambda: default_folder("pretrain"), device)
    options.data = with_features(options.data, out.parent, device)
    dataset = open_videos(options, index=options.index, say=is_first())
    run_options = given_options(options, PretrainOptions)
    resolved = PretrainOptions(**run_options)
    items = dataset if options.objective == "visp" else PseudoSummaries(dataset, options.pseudo_share)

    def make() -> Any:
        with seeded(resolved.seed):
            return _objective(options, chosen, dataset.feature_dim, resolved.seed)

    if num_processes() == 1 and not resolved.resume:  # a step needs them all
        _say_how_long(make().to(device), items, resolved)
    config = {**named(options), "command_line": given(options), "visp_version": __version__}
    result = pretrain(make(), items, **{**run_options, "device": device, "out_dir": out, "config": config})
    if is_first():
        _report(result, out)


def _objective_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of :class:`visp.ViSPPretrainer` that were given."""
    from visp.registry import PLAIN_OPTIONS, objective_options

    chosen = {name: getattr(options, name) for name in PLAIN_OPTIONS if hasattr(options, name)}
    if chosen and options.objective != "visp":
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in chosen)
        raise ValueError(f"{flags}: of --objective visp, not of {options.objective}")
    return objective_options(chosen)


def _objective(options: argparse.Namespace, chosen: dict[str, Any], feature_dim: int, seed: int) -> Any:
    from visp.factory import make_encoder, make_summarizer
    from visp.pretrainer import ViSPPretrainer
    from visp.pseudo_summary import PseudoSummaryPretrainer

    summarizer = make_summarizer(options.summarizer, feature_dim, width=options.width)
    if options.objective != "visp":
        _load_imagenet(options.imagenet, summarizer)
        return PseudoSummaryPretrainer(summarizer)
    encoder = make_encoder(options.encoder, feature_dim)
    _load_imagenet(options.imagenet, summarizer, encoder)
    return ViSPPretrainer(summarizer, encoder, **chosen, seed=seed)


def _say_how_long(objective: Any, items: Any, options: PretrainOptions) -> None:
    from visp.cli.estimate import duration, seconds_per_step

    steps = options.epochs * -(-len(items) // options.batch_size)
    try:
        per_step = seconds_per_step(objective, items, min(options.batch_size, len(items)), options.precision)
    except (ValueError, TypeError, RuntimeError, FloatingPointError):
        return  # the run meets it too, and says more
    what = f"{steps} steps of" if steps > 1 else "1 step of"
    print(f"{what} about {per_step:.2g} s: about {duration(steps * per_step)}", flush=True)


def _report(result: PretrainResult, out: Path) -> None:
    metrics = result.metrics
    if "info_nce" in metrics:
        print(
            f"step {result.steps}: InfoNCE {metrics['info_nce']:.3f}, bound on mutual information "
            f"{metrics['mi_lower_bound']:.3f} nats, keeps {metrics['keep_ratio']:.1%} of the frames"
        )
    elif metrics:
        print(f"step {result.steps}: loss {metrics['loss']:.3f}, keeps {metrics['keep_ratio']:.1%} of the frames")
    else:
        print(f"step {result.steps}: nothing left to do")
    if result.movement is not None:
        print(result.movement)
    print(where_weights_are(out))
    if result.standardized == "carried":
        print(f"they are for standardized features: keep {out / 'weights.standardization.pt'} beside them")


def _load_imagenet(path: str | None, *models: nn.Module) -> None:
    from visp.summarizers.cnn import CNNAttention

    if path is None:
        return
    built_in = [model for model in models if isinstance(model, CNNAttention)]
    if not built_in:
        raise ValueError("--imagenet needs a built-in summarizer or encoder: csta or googlenet")
    for model in built_in:
        model.load_imagenet(path)
