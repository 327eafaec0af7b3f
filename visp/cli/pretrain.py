"""``visp pretrain``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from visp._version import __version__
from visp.cli.options import (
    Commands,
    add_command,
    add_data,
    add_folder,
    add_summarizer,
    add_training,
    check_device,
    check_resume,
    default_folder,
    given,
    open_videos,
)
from visp.cli.video import with_features

if TYPE_CHECKING:
    import torch
    from torch import nn

    from visp.pretrainer import ViSPPretrainer


def add_commands(commands: Commands) -> None:
    """Add ``visp pretrain``."""
    parser = add_command(
        commands, "pretrain", _pretrain, "pretrain a summarizer on videos or h5 files of their features, without labels"
    )
    add_data(
        parser,
        "h5 files, of which only `features` is read; or videos and folders of them: features are kept beside --out",
    )
    parser.add_argument(
        "--index",
        metavar="FILE",
        help="for large corpora: check only the shapes of the features at first, and keep them in this JSON file",
    )
    add_summarizer(parser)
    add = parser.add_argument
    add(
        "--encoder",
        default="attention",
        metavar="NAME",
        help="attention, csta, csta-literal, or package.module:factory",
    )
    add(
        "--weights",
        metavar="FILE",
        help="weights to start from, such as weights.pt of an earlier run; features are then taken as they are",
    )
    add(
        "--imagenet",
        metavar="FILE",
        help="torchvision's GoogLeNet weights, for the CNNs of the built-in models",
    )
    add("--sampler", default="concrete", choices=("concrete", "gumbel_softmax", "sigmoid"), help="Section 3.3")
    add(
        "--temperature",
        type=float,
        default=0.5,
        metavar="X",
        help="temperature of the sampler, lambda of Eq. 6",
    )
    add(
        "--gradient-flow",
        default="gating",
        choices=("gating", "marginalization", "straight_through"),
        help="Eq. 8 and 9",
    )
    add("--hard-negatives", action="store_true", help="add random summaries to the denominator of Eq. 3")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--size-target", type=float, default=0.3, metavar="X", help="share of the frames to keep")
    size.add_argument("--size-weight", type=float, metavar="X", help="fixed beta_size of Eq. 10 instead")
    add("--binary-weight", type=float, default=0.0, metavar="X", help="weight of the binary penalty")
    add(
        "--standardize",
        action=argparse.BooleanOptionalAction,
        help="train on features of mean 0 and spread 1 and take that back into the weights at the end "
        "(if not given: yes, where the summarizer can, unless it starts from --weights)",
    )
    add_training(parser, epochs=200, batch_size=32, lr=1e-3)
    add(
        "--schedule",
        default="constant",
        choices=("constant", "cosine"),
        help="what the learning rate does after the warm-up",
    )
    add("--ema-decay", type=float, metavar="X", help="end with an average of the weights over the steps, such as 0.99")
    add("--bucket-by-length", action="store_true", help="make batches of videos of similar length")
    add("--tensorboard", action="store_true", help="write event files too")
    add(
        "--recompute",
        action=argparse.BooleanOptionalAction,
        help="keep one video's activations at a time and recompute them: less memory, more time (if not given: yes, "
        "where those of built-in models would take more than half of the memory)",
    )
    add_folder(parser, "pretrain")


def _pretrain(options: argparse.Namespace) -> None:
    from visp.utils.distributed import torchrun_processes

    check_resume(options)
    check_device(options)
    with torchrun_processes(options.device) as device:
        _pretrain_on(device, options)


def _pretrain_on(device: torch.device, options: argparse.Namespace) -> None:
    import torch

    from visp.factory import make_encoder, make_summarizer
    from visp.pretrainer import ViSPPretrainer
    from visp.registry import SAMPLERS
    from visp.regularizers import FixedSize
    from visp.training import pretrain
    from visp.training.standardize import FoldsInputs
    from visp.utils.distributed import by_first, is_first
    from visp.weights import load_weights

    out = options.out = options.out or by_first(lambda: default_folder("pretrain"), device)
    options.data = with_features(options.data, out.parent, device)
    dataset = open_videos(options, index=options.index, say=is_first())
    torch.manual_seed(options.seed)
    summarizer = make_summarizer(options.summarizer, dataset.feature_dim)
    encoder = make_encoder(options.encoder, dataset.feature_dim)
    if options.imagenet is not None:
        _load_imagenet(options.imagenet, summarizer, encoder)
    if options.weights is not None:
        load_weights(summarizer, options.weights)
    standardize = options.standardize
    if standardize is None:
        standardize = options.weights is None and isinstance(summarizer, FoldsInputs)
    pretrainer = ViSPPretrainer(
        summarizer,
        encoder,
        sampler=SAMPLERS[options.sampler](options.temperature),
        gradient_flow=options.gradient_flow,
        hard_negatives=options.hard_negatives,
        size=options.size_target if options.size_weight is None else FixedSize(options.size_weight),
        binary_weight=options.binary_weight,
        seed=options.seed,
    ).to(device)
    pretrainer.recompute = _recompute(options, pretrainer, dataset.lengths, device)
    result = pretrain(
        pretrainer,
        dataset,
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        seed=options.seed,
        out_dir=out,
        resume=options.resume,
        precision=options.precision,
        schedule=options.schedule,
        ema_decay=options.ema_decay,
        bucket_by_length=options.bucket_by_length,
        standardize=standardize,
        num_workers=options.workers,
        tensorboard=options.tensorboard,
        config={
            "command_line": given(options),
            "recompute": pretrainer.recompute,
            "visp_version": __version__,
        },
    )
    if not is_first():
        return
    if result.metrics:
        print(
            f"step {result.steps}: InfoNCE {result.metrics['info_nce']:.3f}, bound on mutual information "
            f"{result.metrics['mi_lower_bound']:.3f} nats, keeps {result.metrics['keep_ratio']:.1%} of the frames"
        )
    else:
        print(f"step {result.steps}: nothing left to do")
    print(f"the summarizer's weights: {out / 'weights.pt'}")


def _recompute(
    options: argparse.Namespace, pretrainer: ViSPPretrainer, lengths: Sequence[int], device: torch.device
) -> bool:
    from visp.training.memory import should_recompute
    from visp.utils.distributed import is_first, num_processes

    if options.recompute is not None:
        return bool(options.recompute)
    batch_size = -(-options.batch_size // num_processes())
    recompute = should_recompute(pretrainer, lengths, batch_size, options.precision, device)
    if recompute and is_first():
        print("a batch's activations may not fit into memory and are recomputed; --no-recompute keeps them")
    return recompute


def _load_imagenet(path: str, *models: nn.Module) -> None:
    from visp.summarizers.cnn import CNNSummarizer

    built_in = [model for model in models if isinstance(model, CNNSummarizer)]
    if not built_in:
        raise ValueError("--imagenet needs a built-in summarizer or encoder: csta or googlenet")
    for model in built_in:
        model.load_imagenet(path)
