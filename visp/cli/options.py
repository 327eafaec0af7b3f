"""What several commands share."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

    from visp.data import VideoDataset

Commands = Any  # argparse's type of a parser's subparsers is private


def add_command(commands: Commands, name: str, run: Any, help_text: str) -> argparse.ArgumentParser:
    """Add a command that calls ``run(options)``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=help_text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def add_data(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add the options that say which videos."""
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help=help_text)
    parser.add_argument("--stride", type=natural, default=1, metavar="K", help="take every K-th sampled frame")


def add_summarizer(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which summarizer, and where it computes."""
    parser.add_argument(
        "--summarizer", default="csta", metavar="NAME", help="csta, googlenet, transformer, or package.module:factory"
    )
    parser.add_argument("--device", default="cpu", help="torch device, such as cpu or cuda")


def add_training(parser: argparse.ArgumentParser, *, epochs: int, batch_size: int, lr: float) -> None:
    """Add the options of a training run."""
    add = parser.add_argument
    add("--epochs", type=int, default=epochs, metavar="N", help="passes over the videos")
    add("--batch-size", type=int, default=batch_size, metavar="N", help="largest number of videos a step")
    add("--lr", type=float, default=lr, metavar="X", help="learning rate of Adam")
    add("--seed", type=natural, default=0, metavar="N", help="seed of the weights, the order and the noise")
    add(
        "--precision",
        default="float32",
        choices=("float32", "bf16", "fp16"),
        help="autocast of the forward pass",
    )
    add("--workers", type=int, default=0, metavar="N", help="processes that read the data")


def add_folder(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the options of a run's folder."""
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"folder of the run (runs/{command}-<time> if not given)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.set_defaults(goes_on_with="--out {} --resume")


def natural(text: str) -> int:
    """Parse a whole number of at least 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text}")
    return number


def default_folder(command: str) -> Path:
    """Return ``runs/<command>-<time>``."""
    return Path("runs") / f"{command}-{time.strftime('%Y%m%d-%H%M%S')}"


def open_videos(options: argparse.Namespace, *, index: str | None = None, say: bool = True) -> VideoDataset:
    """Open the files of ``--data`` and say what is in them; with an index only their shapes are checked."""
    from visp.data import VideoDataset

    validate: Literal["full", "shapes"] = "full" if index is None else "shapes"
    dataset = VideoDataset(options.data, stride=options.stride, validate=validate, index=index)
    if say:
        print(
            f"{len(dataset)} videos, {sum(dataset.lengths)} frames ({min(dataset.lengths)} to {max(dataset.lengths)} "
            f"a video), features of dimension {dataset.feature_dim}"
        )
    return dataset


def new_summarizer(options: argparse.Namespace, feature_dim: int) -> nn.Module:
    """Make the summarizer of ``--summarizer``, untrained, on ``--device``."""
    from visp.factory import make_summarizer

    return make_summarizer(options.summarizer, feature_dim).to(options.device)


def check_device(options: argparse.Namespace) -> None:
    """Refuse a ``--device`` that cannot be used."""
    import torch

    try:
        torch.empty(0, device=options.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {options.device} cannot be used: {error}") from error


def check_resume(options: argparse.Namespace) -> None:
    """Refuse ``--resume`` without the folder to go on with."""
    if options.resume and options.out is None:
        raise ValueError("--resume needs --out, the folder of the run to go on with")


def given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options as they were given, to record beside a run."""
    return {
        name: value
        for name, value in vars(options).items()
        if name not in ("command", "out", "resume", "run", "goes_on_with")
    }
