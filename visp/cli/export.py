"""``visp export``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from visp.cli.options import Commands, add_command, add_summarizer, name_summarizer

if TYPE_CHECKING:
    from torch import Tensor


def add_commands(commands: Commands) -> None:
    """Add ``visp export``."""
    add_command(
        commands,
        "export",
        _export,
        "write a summarizer as a graph for programs without visp: .pt2 or .onnx",
        _arguments,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("weights", metavar="WEIGHTS", help="the folder of a run, or a file of weights")
    add("-o", "--out", type=Path, required=True, metavar="FILE", help="the file to write, .pt2 or .onnx")
    add_summarizer(parser, device=False)
    add("--feature-dim", type=int, metavar="D", help="dimension of a frame's features, where --summarizer is a factory")
    add("--overwrite", action="store_true", help="replace an existing file")


def _export(options: argparse.Namespace) -> None:
    from visp.export import export_summarizer
    from visp.factory import make_summarizer
    from visp.weights import load_weights, read_weights

    name_summarizer(options, options.weights)
    feature_dim = options.feature_dim or _feature_dim(read_weights(options.weights))
    if feature_dim is None:
        raise ValueError(
            f"{options.weights} does not show which features {options.summarizer} takes: give --feature-dim"
        )
    summarizer = make_summarizer(options.summarizer, feature_dim, width=options.width)
    load_weights(summarizer, options.weights)
    made = export_summarizer(summarizer, options.out, feature_dim=feature_dim, overwrite=options.overwrite)
    print(
        f"{made.path}: frames (T, {feature_dim}) to logits (T,), T >= {made.fewest_frames}; the logits differ from the "
        f"summarizer's by at most {made.difference:.1g}"
    )


def _feature_dim(weights: Mapping[str, Tensor]) -> int | None:
    """Return d of the first layer of a built-in summarizer."""
    for name in ("key_embedding.weight", "embedding.weight"):
        if name in weights:
            return weights[name].shape[1]
    return None
