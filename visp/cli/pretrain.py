"""``visp pretrain``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

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
    check_resume,
    default_folder,
    given,
    given_options,
    name_summarizer,
    open_videos,
    where_weights_are,
)
from visp.cli.video import with_features

if TYPE_CHECKING:
    import torch
    from torch import nn


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
    objective = parser.add_argument_group("the objective, visp.ViSPPretrainer")
    add = objective.add_argument
    add("--contrast", default=unset, choices=tuple(CONTRASTS), help="what a summary is compared with (default: both)")
    add("--window", type=int, default=unset, metavar="T", help="frames in a window, of --contrast windows and both")
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
    check_device(options)
    name_summarizer(options, getattr(options, "weights", None))
    with torchrun_processes(getattr(options, "device", "cpu")) as device:
        _pretrain_on(device, options)


def _pretrain_on(device: torch.device, options: argparse.Namespace) -> None:
    import torch

    from visp.factory import make_encoder, make_summarizer
    from visp.pretrainer import ViSPPretrainer
    from visp.registry import SAMPLERS
    from visp.regularizers import FixedSize
    from visp.training import pretrain
    from visp.training.options import PretrainOptions
    from visp.utils.distributed import by_first, is_first

    out = options.out = options.out or by_first(lambda: default_folder("pretrain"), device)
    options.data = with_features(options.data, out.parent, device)
    dataset = open_videos(options, index=options.index, say=is_first())
    run_options = given_options(options, PretrainOptions)
    seed = PretrainOptions(**{name: run_options[name] for name in ("seed",) if name in run_options}).seed
    torch.manual_seed(seed)
    summarizer = make_summarizer(options.summarizer, dataset.feature_dim)
    encoder = make_encoder(options.encoder, dataset.feature_dim)
    if options.imagenet is not None:
        _load_imagenet(options.imagenet, summarizer, encoder)
    names = ("contrast", "window", "sampler", "gradient_flow", "similarity", "hard_negatives", "binary_weight")
    chosen = {name: getattr(options, name) for name in names if hasattr(options, name)}
    if hasattr(options, "size_target"):
        chosen["size"] = options.size_target
    if hasattr(options, "size_weight"):
        chosen["size"] = FixedSize(options.size_weight)
    if hasattr(options, "temperature"):
        chosen["sampler"] = SAMPLERS[chosen.get("sampler", "concrete")](options.temperature)
    pretrainer = ViSPPretrainer(summarizer, encoder, **chosen, seed=seed)
    config = {"summarizer": options.summarizer, "command_line": given(options), "visp_version": __version__}
    result = pretrain(pretrainer, dataset, **{**run_options, "device": device, "out_dir": out, "config": config})
    if not is_first():
        return
    if result.metrics:
        print(
            f"step {result.steps}: InfoNCE {result.metrics['info_nce']:.3f}, bound on mutual information "
            f"{result.metrics['mi_lower_bound']:.3f} nats, keeps {result.metrics['keep_ratio']:.1%} of the frames"
        )
    else:
        print(f"step {result.steps}: nothing left to do")
    print(where_weights_are(out))
    if result.standardized == "carried":
        print(f"they are for standardized features: keep {out / 'weights.standardization.pt'} beside them")


def _load_imagenet(path: str, *models: nn.Module) -> None:
    from visp.summarizers.cnn import CNNAttention

    built_in = [model for model in models if isinstance(model, CNNAttention)]
    if not built_in:
        raise ValueError("--imagenet needs a built-in summarizer or encoder: csta or googlenet")
    for model in built_in:
        model.load_imagenet(path)
