"""The command line: ``visp pretrain`` and ``visp demo``."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visp._version import __version__

if TYPE_CHECKING:
    from torch import nn

    from visp.data import VideoDataset


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 2 for bad input, 130 when interrupted."""
    parser = _parser()
    options = parser.parse_args(arguments)
    warnings.showwarning = _show_warning
    try:
        if options.command == "demo":
            _demo(options)
        else:
            _pretrain(options)
    except KeyboardInterrupt:
        resumable = options.command == "pretrain" and options.out is not None
        hint = f"; go on with --out {options.out} --resume" if resumable else ""
        print(f"visp {options.command}: interrupted{hint}", file=sys.stderr)
        return 130
    except (OSError, ValueError, TypeError, FloatingPointError) as error:
        print(f"visp {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="visp", description="Pretrain any video summarizer on unlabelled videos.")
    parser.add_argument("--version", action="version", version=f"visp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="watch a CSTA learn which frames matter, without labels, on the embedded corpus",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--out", type=Path, help="folder of the run (runs/demo-<time> if not given)")
    demo.add_argument("--seed", type=_natural, default=0, help="seed of the corpus, the weights and the noise")

    pretrain = commands.add_parser(
        "pretrain",
        help="pretrain a summarizer on h5 files of features",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = pretrain.add_argument
    add("--data", nargs="+", required=True, metavar="FILE", help="h5 files; only `features` is read")
    add("--stride", type=int, default=1, metavar="K", help="take every K-th sampled frame")
    add("--summarizer", default="csta", metavar="NAME", help="csta, googlenet, or package.module:factory")
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
    add("--epochs", type=int, default=200, metavar="N", help="passes over the videos")
    add("--batch-size", type=int, default=32, metavar="N", help="largest number of videos compared at a time")
    add("--lr", type=float, default=1e-3, metavar="X", help="learning rate of Adam")
    add("--seed", type=_natural, default=0, metavar="N", help="seed of the weights, the order and the noise")
    add(
        "--precision",
        default="float32",
        choices=("float32", "bf16", "fp16"),
        help="autocast of the forward pass",
    )
    add(
        "--checkpoint-videos",
        action="store_true",
        help="keep one video's activations at a time (less memory)",
    )
    add("--workers", type=int, default=0, metavar="N", help="processes that read the data")
    add("--device", default="cpu", help="torch device, such as cpu or cuda")
    add("--out", type=Path, metavar="DIR", help="folder of the run (runs/pretrain-<time> if not given)")
    add("--resume", action="store_true", help="go on with the run in --out")
    return parser


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text}")
    return number


def _pretrain(options: argparse.Namespace) -> None:
    import torch

    from visp.data import VideoDataset
    from visp.factory import make_encoder, make_summarizer
    from visp.pretrainer import SAMPLERS, ViSPPretrainer
    from visp.training import pretrain

    if options.resume and options.out is None:
        raise ValueError("--resume needs --out, the folder of the run to go on with")
    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {options.device} cannot be used: {error}") from error
    out = options.out = options.out or _default_folder("pretrain")
    dataset = VideoDataset(options.data, stride=options.stride)
    _describe(dataset)
    torch.manual_seed(options.seed)
    summarizer = make_summarizer(options.summarizer, dataset.feature_dim)
    encoder = make_encoder(options.encoder, dataset.feature_dim)
    if options.imagenet is not None:
        _load_imagenet(options.imagenet, summarizer, encoder)
    sampler = SAMPLERS[options.sampler](options.temperature)
    pretrainer = ViSPPretrainer(
        summarizer,
        encoder,
        sampler=sampler,
        gradient_flow=options.gradient_flow,
        hard_negatives=options.hard_negatives,
        size_weight=options.size_weight,
        size_target=options.size_target,
        binary_weight=options.binary_weight,
        checkpoint_videos=options.checkpoint_videos,
        seed=options.seed,
    ).to(options.device)
    given = {name: value for name, value in vars(options).items() if name not in ("command", "out", "resume")}
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
        config={"command_line": given, "visp_version": __version__},
    )
    if result.metrics:
        print(
            f"step {result.steps}: InfoNCE {result.metrics['info_nce']:.3f}, bound on mutual information "
            f"{result.metrics['mi_lower_bound']:.3f} nats, keeps {result.metrics['keep_ratio']:.1%} of the frames"
        )
    else:
        print(f"step {result.steps}: nothing left to do")
    print(f"the summarizer's weights: {out / 'weights.pt'}")


def _demo(options: argparse.Namespace) -> None:
    from visp.demo import run_demo

    run_demo(options.out or _default_folder("demo"), seed=options.seed)


def _describe(dataset: VideoDataset) -> None:
    print(
        f"{len(dataset)} videos, {sum(dataset.lengths)} frames ({min(dataset.lengths)} to {max(dataset.lengths)} "
        f"a video), features of dimension {dataset.feature_dim}"
    )


def _load_imagenet(path: str, *models: nn.Module) -> None:
    from visp.summarizers.cnn import CNNSummarizer

    built_in = [model for model in models if isinstance(model, CNNSummarizer)]
    if not built_in:
        raise ValueError("--imagenet needs a built-in summarizer or encoder: csta or googlenet")
    for model in built_in:
        model.load_imagenet(path)


def _default_folder(command: str) -> Path:
    return Path("runs") / f"{command}-{time.strftime('%Y%m%d-%H%M%S')}"


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"visp: warning: {message}", file=sys.stderr)
