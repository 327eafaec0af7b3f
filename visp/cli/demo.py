"""``visp demo``."""

from __future__ import annotations

import argparse
from pathlib import Path

from visp.cli.options import Commands, add_command, default_folder, natural


def add_commands(commands: Commands) -> None:
    """Add ``visp demo``."""
    parser = add_command(
        commands, "demo", _demo, "watch a summarizer learn which frames matter, without labels, on the embedded corpora"
    )
    parser.add_argument("--out", type=Path, help="folder of the run (runs/demo-<time> if not given)")
    parser.add_argument("--seed", type=natural, default=0, help="seed of the corpora, the weights and the noise")
    parser.add_argument("--seeds", type=int, default=1, metavar="K", help="number of seeds, for the spread")


def _demo(options: argparse.Namespace) -> None:
    import torch

    from visp.cli.demonstration import run_demo

    torch.set_num_threads(1)  # more bring a network this small nothing, and beside other work slow it a hundredfold
    run_demo(options.out or default_folder("demo"), seed=options.seed, num_seeds=options.seeds)
