"""``visp pretrain``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from visp._version import __version__
from visp.cli.options import (
    Commands,
    add_command,
    add_data,
    add_summarizer,
    add_training,
    check_device,
    check_resume,
    default_folder,
    given,
    new_summarizer,
    open_videos,
)

if TYPE_CHECKING:
    from torch import nn


def add_commands(commands: Commands) -> None:
    """Add ``visp pretrain``."""
    parser = add_command(
        commands, "pretrain", _pretrain, "pretrain a summarizer on h5 files of features, without labels"
    )
    add_data(parser, "h5 files; only `features` is read")
    add_summarizer(parser)
    add = parser.add_argument
    add(
        "--encoder",
        default="attention",
        metavar="NAME",
        help="attention, csta, csta-literal, or package.module:factory",
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
    add("--size-target", type=float, metavar="X", help="share of frames to keep (0.3 if nothing is given)")
    add("--size-weight", type=float, metavar="X", help="fixed weight of the size penalty, instead of a target")
    add("--binary-weight", type=float, default=0.0, metavar="X", help="weight of the binary penalty")
    add_training(parser, epochs=200, batch_size=32, lr=1e-3)
    add(
        "--checkpoint-videos",
        action="store_true",
        help="keep one video's activations at a time (less memory)",
    )
    add("--out", type=Path, metavar="DIR", help="folder of the run (runs/pretrain-<time> if not given)")
    add("--resume", action="store_true", help="go on with the run in --out")


def _pretrain(options: argparse.Namespace) -> None:
    import torch

    from visp.factory import make_encoder
    from visp.pretrainer import SAMPLERS, ViSPPretrainer
    from visp.training import pretrain

    check_resume(options)
    check_device(options)
    out = options.out = options.out or default_folder("pretrain")
    dataset = open_videos(options)
    torch.manual_seed(options.seed)
    summarizer = new_summarizer(options, dataset.feature_dim)
    encoder = make_encoder(options.encoder, dataset.feature_dim)
    if options.imagenet is not None:
        _load_imagenet(options.imagenet, summarizer, encoder)
    pretrainer = ViSPPretrainer(
        summarizer,
        encoder,
        sampler=SAMPLERS[options.sampler](options.temperature),
        gradient_flow=options.gradient_flow,
        hard_negatives=options.hard_negatives,
        size_weight=options.size_weight,
        size_target=options.size_target,
        binary_weight=options.binary_weight,
        checkpoint_videos=options.checkpoint_videos,
        seed=options.seed,
    ).to(options.device)
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
        num_workers=options.workers,
        config={"command_line": given(options), "visp_version": __version__},
    )
    if result.metrics:
        print(
            f"step {result.steps}: InfoNCE {result.metrics['info_nce']:.3f}, bound on mutual information "
            f"{result.metrics['mi_lower_bound']:.3f} nats, keeps {result.metrics['keep_ratio']:.1%} of the frames"
        )
    else:
        print(f"step {result.steps}: nothing left to do")
    print(f"the summarizer's weights: {out / 'weights.pt'}")


def _load_imagenet(path: str, *models: nn.Module) -> None:
    from visp.summarizers.cnn import CNNSummarizer

    built_in = [model for model in models if isinstance(model, CNNSummarizer)]
    if not built_in:
        raise ValueError("--imagenet needs a built-in summarizer or encoder: csta or googlenet")
    for model in built_in:
        model.load_imagenet(path)
