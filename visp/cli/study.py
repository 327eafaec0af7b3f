"""``visp study``: what runs show about themselves."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visp.cli.options import Commands, add_command, add_isolate
from visp.cli.studies import add_commands as add_variants

if TYPE_CHECKING:
    from torch import nn

_TRAINING = (
    "batch_size",
    "lr",
    "weight_decay",
    "clip_grad_norm",
    "warmup_steps",
    "precision",
    "schedule",
    "ema_decay",
    "crop",
)


def add_commands(commands: Commands) -> None:
    """Add ``visp study`` and its studies."""
    parser = commands.add_parser("study", help="studies of runs", description="Studies of runs.")
    studies = parser.add_subparsers(dest="study", required=True, metavar="STUDY")
    controls = add_command(
        studies, "controls", _controls, "say, without labels, whether a pretraining run taught its summarizer anything"
    )
    add = controls.add_argument
    add("run_folder", type=Path, metavar="RUN", help="folder of a run of visp pretrain")
    add(
        "--share-of-epochs",
        type=float,
        default=0.2,
        metavar="X",
        help="length of each of the four runs that are repeated, as a share of the run's epochs, in (0, 1]",
    )
    add(
        "--identification-steps",
        type=int,
        default=20,
        metavar="N",
        help="training steps of the encoder that measures identification; 0 leaves the measure out",
    )
    add("--json", type=Path, metavar="FILE", help="write the table there too")
    add("--overwrite", action="store_true", help="replace an existing file of --json")
    add_isolate(controls)
    add_variants(studies)


def _controls(options: argparse.Namespace) -> None:
    import torch

    from visp.data import VideoDataset, check_isolated
    from visp.factory import make_encoder, make_summarizer
    from visp.registry import PLAIN_OPTIONS, objective_options
    from visp.studies.controls import controls
    from visp.training.run_folder import write_json
    from visp.utils.files import check_outputs
    from visp.weights import load_weights

    if not 0 < options.share_of_epochs <= 1:
        raise ValueError(f"--share-of-epochs must be in (0, 1], got {options.share_of_epochs:g}")
    config = _read_config(options.run_folder)
    given = config["command_line"]
    own = [options.run_folder / name for name in ("config.json", "metrics.jsonl", "checkpoint.pt", "weights.pt")]
    inputs = [*given["data"], *own, *(given[name] for name in ("weights",) if given.get(name) is not None)]
    check_outputs(options.json, inputs=inputs, overwrite=options.overwrite)
    if options.isolate:
        check_isolated(given["data"])
    videos = VideoDataset(given["data"], stride=given.get("stride", 1), with_=given.get("with_", ()))
    seed = int(config.get("seed", 0))

    def new_summarizer() -> nn.Module:
        summarizer = make_summarizer(given["summarizer"], videos.feature_dim, width=given.get("width"))
        if given.get("weights") is not None:
            load_weights(summarizer, given["weights"])
        return summarizer

    with torch.random.fork_rng(devices=[]):
        finished = new_summarizer()
    load_weights(finished, options.run_folder / "weights.pt")
    found = controls(
        new_summarizer,
        lambda: make_encoder(given["encoder"], videos.feature_dim),
        videos,
        objective=objective_options({name: given[name] for name in PLAIN_OPTIONS if given.get(name) is not None}),
        seeds=(seed, seed + 1),
        standardize=config.get("standardized") != "no",
        device=given.get("device", "cpu"),
        finished=finished,
        identification_steps=options.identification_steps,
        epochs=max(1, round(options.share_of_epochs * int(config["epochs"]))),
        **{name: config[name] for name in _TRAINING if name in config},
    )
    print(found.table())
    if options.json is not None:
        write_json(options.json, found.to_json())


def _read_config(folder: Path) -> dict[str, Any]:
    from visp.utils.files import parse_json, read_text, shown

    path = folder / "config.json"
    try:
        config = parse_json(read_text(path))
    except ValueError as error:
        raise ValueError(f"{shown(path)} is not JSON: {error}") from error
    given = config.get("command_line") if isinstance(config, dict) else None
    given = given if isinstance(given, dict) else {}
    wanted = {"data": list, "summarizer": str, "encoder": str}
    missing = [name for name, kind in wanted.items() if not isinstance(given.get(name), kind)]
    if not missing and not (given["data"] and all(isinstance(file, str) for file in given["data"])):
        missing = ["data"]
    if missing or not isinstance(config.get("epochs"), int):
        raise ValueError(
            f"{shown(path)} is not of a run of `visp pretrain`: it does not say {', '.join(missing) or 'epochs'}; "
            "for other runs, call visp.studies.controls.controls"
        )
    if given.get("objective", "visp") != "visp":
        raise ValueError(
            f"{shown(path)} is of a run of --objective {given['objective']}, and the controls are of visp's"
        )
    return dict(config)
