"""The command line: ``visp demo | pretrain | finetune | evaluate | crossval``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from visp._version import __version__
from visp.cli import demo, evaluation, pretrain

_GROUPS = (demo, pretrain, evaluation)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 2 for bad input, 130 when interrupted."""
    options = make_parser().parse_args(arguments)
    warnings.showwarning = _show_warning
    try:
        options.run(options)
    except KeyboardInterrupt:
        resumable = getattr(options, "resume", None) is not None and options.out is not None
        hint = f"; go on with --out {options.out} --resume" if resumable else ""
        print(f"visp {options.command}: interrupted{hint}", file=sys.stderr)
        return 130
    except (OSError, ValueError, TypeError, FloatingPointError) as error:
        print(f"visp {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; ``run`` of what it parses carries the command out."""
    parser = argparse.ArgumentParser(prog="visp", description="Pretrain any video summarizer on unlabelled videos.")
    parser.add_argument("--version", action="version", version=f"visp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in _GROUPS:
        group.add_commands(commands)
    return parser


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"visp: warning: {message}", file=sys.stderr)
