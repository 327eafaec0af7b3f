"""``visp convert``: one file of the usual schema from the field's other layouts."""

from __future__ import annotations

import argparse
from pathlib import Path

from visp.cli.options import Commands, add_command


def add_commands(commands: Commands) -> None:
    """Add ``visp convert``."""
    parser = add_command(
        commands, "convert", _convert, "make one h5 file of the field's usual schema from its other layouts"
    )
    add = parser.add_argument
    add(
        "paths",
        nargs="+",
        metavar="PATH",
        help="h5 file or folder of .npy, .npz or .pt files; several are streams of the same videos, joined along d",
    )
    add("-o", "--out", type=Path, required=True, metavar="FILE", help="the h5 file to write")
    add("--features-key", metavar="KEY", help="name of the features, where it is an unusual one")
    add("--truth", metavar="FILE", help="h5 file of labels, where they are apart")
    add("--split", metavar="FILE", help="JSON of train_keys, val_keys and test_keys: read only these videos")
    add("--apart", action="store_true", help="keep streams after the first apart, under the names of their files")
    add(
        "--with", dest="with_", nargs="+", default=(), metavar="KEY", help="arrays of each video to keep as side inputs"
    )
    add("--overwrite", action="store_true", help="replace an existing file")


def _convert(options: argparse.Namespace) -> None:
    from visp.data import read_layout, validate_h5, write_h5
    from visp.utils.files import check_outputs

    check_outputs(options.out, overwrite=options.overwrite)
    records = read_layout(
        options.paths,
        features_key=options.features_key,
        truth=options.truth,
        split=options.split,
        apart=options.apart,
        with_=options.with_,
    )
    source = ", ".join(Path(path).name for path in options.paths)
    write_h5(options.out, records, provenance={"converted_from": source}, overwrite=options.overwrite)
    found = validate_h5(options.out)
    print(f"{options.out}: {len(found.keys)} videos, features of dimension {found.feature_dim}")
