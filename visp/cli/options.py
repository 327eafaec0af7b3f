"""What several commands share: flags made of the library's options, which alone know the defaults."""

from __future__ import annotations

import argparse
import difflib
import reprlib
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from torch import nn

    from visp.data import VideoDataset

Commands = Any  # argparse's type of a parser's subparsers is private

_LARGEST_SCORES = 2**30

FACTORY_HELP = "or package.module:factory, called as factory(feature_dim=...)"


class CommandParser(argparse.ArgumentParser):
    """A parser of one command that gets its arguments when they are needed: the library's options import torch."""

    fill: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments of the command."""
        fill, self.fill = self.fill, None
        if fill is not None:
            fill(self)
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:  # refused here, where the command's own flags are known
            flags = [flag for action in self._actions for flag in action.option_strings]
            near = difflib.get_close_matches(unknown[0].partition("=")[0], flags, n=1)
            self.error(f"unrecognized arguments: {' '.join(unknown)}" + (f"; did you mean {near[0]}?" if near else ""))
        return parsed, unknown


def add_command(
    commands: Commands,
    name: str,
    run: Any,
    help_text: str,
    fill: Callable[[argparse.ArgumentParser], None] | None = None,
) -> argparse.ArgumentParser:
    """Add a command that calls ``run(options)``; ``fill`` adds its arguments once they are needed."""
    parser: CommandParser = commands.add_parser(
        name, help=help_text, description=help_text, formatter_class=_HelpFormatter
    )
    parser.fill = fill
    parser.set_defaults(run=run)
    return parser


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or action.default is False or action.default == ()
        return action.help if silent else super()._get_help_string(action)


def add_options(parser: argparse.ArgumentParser, options: type[Any], *, leave_out: Collection[str] = ()) -> None:
    """Add a flag for each field of a class of options (:mod:`visp.training.options`)."""
    from visp.training.options import described, vars_for_hints

    types = get_type_hints(options, vars_for_hints(options))
    for field in described(options):
        flag = field.metadata["flag"]
        if flag is None or field.name in leave_out:
            continue
        silent = field.default is None or field.default is False or field.default == ()
        default = "" if silent else f" (default: {field.default})"
        parser.add_argument(
            flag or f"--{field.name.replace('_', '-')}",
            dest=field.name,
            default=argparse.SUPPRESS,  # the library decides
            help=(field.metadata["help"] + default).replace("%", "%%"),
            **_parsing(field.name, types[field.name], field.default, field.metadata["least"]),
        )


def given_options(options: argparse.Namespace, of: type[Any]) -> dict[str, Any]:
    """Return the options of a class that were given."""
    import dataclasses

    names = {field.name for field in dataclasses.fields(of)}
    return {name: value for name, value in vars(options).items() if name in names}


def _parsing(name: str, kind: Any, default: object, least: float | None) -> dict[str, Any]:
    """Return how argparse reads a value of a type."""
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if get_origin(kind) is tuple:
        return {"nargs": "+", "metavar": "NAME", "type": str}
    kinds = set(get_args(kind)) or {kind}
    if bool in kinds:
        return {"action": "store_true" if default is False else argparse.BooleanOptionalAction}
    if float in kinds:
        return {"type": float, "metavar": "X"}
    if int in kinds:
        return {"type": natural if least == 0 else int, "metavar": "N"}
    return {"metavar": "FILE" if name in ("weights", "pretrained") else name.upper()}


def add_data(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add the options that say which videos."""
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help=help_text)
    parser.add_argument("--stride", type=natural, default=1, metavar="K", help="take every K-th sampled frame")
    parser.add_argument(
        "--with",
        dest="with_",
        nargs="+",
        default=(),
        metavar="KEY[=KIND]",
        help="arrays that a summarizer of your own reads beside the features: change_points, text, audio=frames",
    )
    add_isolate(parser)


def add_isolate(parser: argparse.ArgumentParser) -> None:
    """Add the option for files that are not trusted."""
    parser.add_argument(
        "--isolate",
        action="store_true",
        help="for h5 files that you do not trust: read them wholly in a child process first, with bounds on time and "
        "memory, because a damaged file can crash or hang the HDF5 library",
    )


def add_summarizer(parser: argparse.ArgumentParser, *, device: bool = True) -> None:
    """Add the options that say which summarizer, and where it computes."""
    parser.add_argument(
        "--summarizer",
        metavar="NAME",
        help=f"csta, googlenet, transformer, {FACTORY_HELP}; that of the run where weights are a run's, else csta",
    )
    parser.add_argument("--width", type=int, metavar="N", help="width of a built-in summarizer, its own if not given")
    if device:
        parser.add_argument("--device", default="cpu", help="torch device, such as cpu or cuda")


def add_folder(parser: argparse.ArgumentParser, command: str) -> None:
    """Add the folder of a run."""
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"folder of the run; runs/{command}-<time> if not given"
    )
    parser.set_defaults(goes_on_with="--out {} --resume")


def add_folds(parser: argparse.ArgumentParser) -> None:
    """Add the number of folds to draw."""
    parser.add_argument(
        "--folds",
        type=_folds,
        default=5,
        metavar="K",
        help="folds to draw where there is no split file; leave-one-out for one of each video",
    )


def _folds(text: str) -> int | str:
    """Parse a number of folds, or ``leave-one-out``."""
    return text if text == "leave-one-out" else int(text)


def natural(text: str) -> int:
    """Parse a whole number of at least 0."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text}")
    return number


def check_folder(options: argparse.Namespace) -> None:
    """Refuse a folder for the run that an earlier run is in, before the work."""
    log = None if options.out is None or getattr(options, "resume", False) else options.out / "metrics.jsonl"
    if log is not None and log.exists() and log.stat().st_size:
        raise FileExistsError(
            f"{options.out} is not empty; resume the run in it, or choose another folder: --resume, or another --out"
        )


def default_folder(command: str) -> Path:
    """Return ``runs/<command>-<time>``."""
    return Path("runs") / f"{command}-{time.strftime('%Y%m%d-%H%M%S')}"


def open_videos(options: argparse.Namespace, *, index: str | None = None, say: bool = True) -> VideoDataset:
    """Open the files of ``--data`` and say what is in them; with an index only their shapes are checked."""
    from visp.data import VideoDataset, check_isolated

    if options.isolate:
        check_isolated(options.data)
    validate: Literal["full", "shapes"] = "full" if index is None else "shapes"
    dataset = VideoDataset(options.data, stride=options.stride, validate=validate, index=index, with_=options.with_)
    if say:
        print(
            f"{len(dataset)} videos, {sum(dataset.lengths)} frames ({min(dataset.lengths)} to {max(dataset.lengths)} "
            f"per video), features of dimension {dataset.feature_dim}"
        )
    return dataset


def name_summarizer(options: argparse.Namespace, weights: str | None) -> None:
    """Name the summarizer where it is not: that of the run whose folder ``weights`` is, or CSTA."""
    from visp.recorded import read_run

    if options.summarizer is None and weights is not None and Path(weights).is_dir():
        recorded = read_run(weights)
        if recorded.summarizer is None:
            raise ValueError(f"{weights}: the run does not say which summarizer it trained: give --summarizer")
        options.summarizer = recorded.summarizer
        options.width = options.width or recorded.arguments.get("width")
    options.summarizer = options.summarizer or "csta"


def named(options: argparse.Namespace) -> dict[str, Any]:
    """Return which summarizer a run trains, to record beside it; see :func:`visp.recorded.read_run`."""
    return {"summarizer": options.summarizer, **({} if options.width is None else {"width": options.width})}


def where_weights_are(folder: Path) -> str:
    """Say where a run left its weights."""
    more = folder / "weights.safetensors"
    return f"the summarizer's weights: {folder / 'weights.pt'}" + (f", and as {more.name}" if more.exists() else "")


def new_summarizer(options: argparse.Namespace, feature_dim: int) -> nn.Module:
    """Make the summarizer of ``--summarizer``, untrained, on ``--device``."""
    from visp.factory import make_summarizer

    return make_summarizer(options.summarizer, feature_dim, width=options.width).to(getattr(options, "device", "cpu"))


def check_device(options: argparse.Namespace) -> None:
    """Refuse a ``--device`` that cannot be used."""
    import torch

    device = getattr(options, "device", "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {device} cannot be used: {error}") from error


def check_resume(options: argparse.Namespace) -> None:
    """Refuse ``--resume`` without the folder of the run."""
    if getattr(options, "resume", False) and options.out is None:
        raise ValueError("--resume needs --out, the folder of the run to resume")


def given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options as they were given, to record beside a run."""
    return {
        name: value
        for name, value in vars(options).items()
        if name not in ("command", "out", "resume", "run", "goes_on_with")
    }


def read_scores(path: str) -> dict[str, list[float]]:
    """Read a JSON object of scores by video."""
    from visp.utils.files import parse_json, read_text, shown

    try:
        scores = parse_json(read_text(path, limit=_LARGEST_SCORES))
    except ValueError as error:
        raise ValueError(f"{shown(path)} is not JSON of scores: {error}") from error
    if not isinstance(scores, dict):
        raise ValueError(f"{shown(path)}: expected an object of scores by video, got a {type(scores).__name__}")
    for name, values in scores.items():
        if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
            raise ValueError(f"{shown(path)}: expected a list of numbers for {name[:40]!r}, got {reprlib.repr(values)}")
    return scores
