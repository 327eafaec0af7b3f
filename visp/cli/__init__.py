"""The command line: ``visp demo | pretrain | finetune | evaluate | crossval | features | summarize | ...``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from visp._version import __version__
from visp.cli import convert, demo, evaluation, export, highlights, info, pretrain, study, summarize, video
from visp.cli.options import CommandParser

_GROUPS = (convert, demo, pretrain, evaluation, highlights, video, summarize, study, export, info)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    It is 0, 1 if some videos were left out, 2 for bad input, or 130 when interrupted.
    """
    options = make_parser().parse_args(arguments)
    warnings.showwarning = _show_warning
    try:
        return int(options.run(options) or 0)
    except KeyboardInterrupt:
        how = getattr(options, "goes_on_with", None)
        hint = "" if how is None or options.out is None else f"; resume with {how.format(options.out)}"
        print(f"visp {options.command}: interrupted{hint}", file=sys.stderr)
        return 130
    except (OSError, ValueError, TypeError, FloatingPointError, ImportError) as error:
        message = str(error)
        if isinstance(error, FileNotFoundError) and error.filename is not None:  # the system's own words
            message = f"{error.filename}: no such file"
        if hasattr(options, "overwrite"):  # the library names its parameter
            message = message.replace("pass overwrite=True", "give --overwrite")
        print(f"visp {options.command}: {message}", file=sys.stderr)
        return 2


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; ``run`` of what it parses carries the command out."""
    parser = argparse.ArgumentParser(prog="visp", description="Pretrain any video summarizer on unlabelled videos.")
    parser.add_argument("--version", action="version", version=f"visp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=CommandParser)
    for group in _GROUPS:
        group.add_commands(commands)
    return parser


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"visp: warning: {message}", file=sys.stderr)
