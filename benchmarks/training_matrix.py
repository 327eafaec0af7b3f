"""Does it train? Every summarizer with every encoder on two corpora, beside a frozen summarizer; see docs/training.md.

python benchmarks/training_matrix.py --out runs/matrix                    the embedded corpus, five seeds
python benchmarks/training_matrix.py --out runs/matrix --data videos.h5   and real features: three seeds
python benchmarks/training_matrix.py --out runs/matrix --table            the table of what is there

Real features come at every 4th frame, and once at full rate. A run that is there already is not done again, so the
script may be stopped and started at will, and several of it may work on one folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from visp.data import InMemoryDataset, VideoDataset, VideoRecord
from visp.data.synthetic import make_corpus
from visp.evaluator import Evaluator
from visp.factory import ENCODERS, SUMMARIZERS, make_encoder, make_summarizer
from visp.prediction import predict
from visp.pretrainer import ViSPPretrainer
from visp.studies.fixed_scores import FrozenScores
from visp.studies.identification import identify
from visp.training import pretrain
from visp.training.standardize import StandardizedVideos, standardization
from visp.utils.files import locked, replacing

EMBEDDED_VIDEOS, EMBEDDED_WIDTH, EMBEDDED_EPOCHS = 20, 256, 60
REAL_STRIDE, REAL_EPOCHS = 4, 40
TARGET = 0.3
JUDGES = 3
NOISES = (3, 1)


class Cell(NamedTuple):
    """One run of the matrix."""

    corpus: str
    summarizer: str
    encoder: str
    seed: int
    frozen: bool

    @property
    def name(self) -> str:
        """Name of the run's files."""
        return "-".join([*self[:3], f"seed{self.seed}", *(["frozen"] if self.frozen else [])])


def cells(real: bool) -> list[Cell]:
    """List the runs, those that tell most first."""
    seeds = {"embedded": 5, "real": 3} if real else {"embedded": 5}
    every = [
        Cell(corpus, summarizer, encoder, seed, frozen)
        for corpus in seeds
        for seed in range(seeds[corpus])
        for encoder in ENCODERS
        for summarizer in SUMMARIZERS
        for frozen in (False, True)
    ]
    if real:
        every += [Cell("full-rate", "csta", "attention", 0, frozen) for frozen in (False, True)]
    return sorted(
        every, key=lambda cell: (cell.frozen, list(ENCODERS).index(cell.encoder), cell.corpus == "real", cell.seed)
    )


def run(cell: Cell, out: Path, data: Sequence[str]) -> dict[str, Any]:
    """Do one run and measure it."""
    torch.manual_seed(cell.seed)
    if cell.corpus == "embedded":
        records = make_corpus(EMBEDDED_VIDEOS, seed=cell.seed)
        videos: InMemoryDataset | VideoDataset = InMemoryDataset(records)
        width, epochs, precision = EMBEDDED_WIDTH, EMBEDDED_EPOCHS, "float32"
    else:
        records = []
        videos = VideoDataset(data, stride=REAL_STRIDE if cell.corpus == "real" else 1)
        width, epochs, precision = 1024, REAL_EPOCHS, "bf16"
    summarizer = make_summarizer(cell.summarizer, videos.feature_dim, width=width)
    encoder = make_encoder(cell.encoder, videos.feature_dim, width=width)
    frames = [videos[index] for index in range(len(videos))]
    standardized = StandardizedVideos(videos, standardization(videos))
    before = scores(summarizer, standardized)
    role: nn.Module = FrozenScores(summarizer, TARGET) if cell.frozen else summarizer
    pretrainer = ViSPPretrainer(role, encoder, contrast="videos", size=TARGET, seed=cell.seed)
    folder = out / "runs" / cell.name
    started = time.monotonic()
    pretrain(
        pretrainer,
        standardized,
        epochs=epochs,
        seed=cell.seed,
        out_dir=folder,
        resume=True,
        precision=precision,  # type: ignore[arg-type]
        checkpoint_seconds=120,
    )
    seconds = time.monotonic() - started
    last = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()[-5:]]
    result: dict[str, Any] = {
        **cell._asdict(),
        "seconds": seconds,
        "log_n": math.log(last[-1]["num_videos"]),
        **{key: float(np.mean([m[key] for m in last])) for key in ("info_nce", "keep_ratio", "saturated_share")},
    }
    if not cell.frozen:
        after = scores(summarizer, standardized)
        for noise in NOISES:
            found = judged(frames, before, noise), judged(frames, after, noise)
            result[f"identified_before_{noise}"], result[f"identified_{noise}"] = found
        if records:
            result["tau_before"], result["tau"] = (zero_shot_tau(logits, records) for logits in (before, after))
    return result


def scores(summarizer: nn.Module, videos: StandardizedVideos) -> list[Tensor]:
    """Return the scores of every video."""
    return [torch.from_numpy(predict(summarizer, videos[index])) for index in range(len(videos))]


def zero_shot_tau(found: Sequence[Tensor], records: Sequence[VideoRecord]) -> float:
    """Return Kendall's tau with the users' choices, protocol ``csta`` in TVSum's form."""
    choices = {record.name: record.user_summary for record in records if record.user_summary is not None}
    evaluator = Evaluator(InMemoryDataset(records), user_scores=choices)
    return evaluator.of_scores({r.name: score.numpy() for r, score in zip(records, found, strict=True)}).tau


def judged(frames: Sequence[Tensor], logits: Sequence[Tensor], noise: float) -> float:
    """Return the InfoNCE of :func:`visp.studies.identification.identify`, mean over judges."""
    found = [identify(frames, logits, share=TARGET, noise=noise, seed=judge) for judge in range(JUDGES)]
    return float(np.mean([result.info_nce for result in found]))


def table(out: Path) -> str:
    """Put what is there into a Markdown table, mean and spread over seeds."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    frozen: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for path in sorted(out.glob("*.json")):
        result = json.loads(path.read_text())
        key = (result["corpus"], result["summarizer"], result["encoder"])
        if result["frozen"]:
            frozen[key].append(result["info_nce"])
        else:
            groups[key].append(result)
    heads = ["corpus", "summarizer", "encoder", "seeds", "InfoNCE (log N)", "frozen InfoNCE", "keep ratio", "saturated"]
    heads += ["tau", *(f"identified, noise {noise}" for noise in NOISES)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for key, results in sorted(groups.items()):
        row = [
            *key,
            str(len(results)),
            f"{spread([r['info_nce'] for r in results])} ({results[0]['log_n']:.2f})",
            spread(frozen[key]),
            *(spread([r[measure] for r in results]) for measure in ("keep_ratio", "saturated_share")),
            change(results, "tau_before", "tau"),
            *(change(results, f"identified_before_{noise}", f"identified_{noise}") for noise in NOISES),
        ]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def change(results: Sequence[dict[str, Any]], before: str, after: str) -> str:
    """Format a measure of the untrained and of the learnt scores."""
    if any(after not in result for result in results):
        return "-"
    return f"{spread([r[before] for r in results])} to {spread([r[after] for r in results])}"


def spread(values: Sequence[float]) -> str:
    """Format mean and standard deviation over seeds."""
    if not values:
        return "-"
    return f"{np.mean(values):.2f}" + (f" ± {np.std(values):.2f}" if len(values) > 1 else "")


def main() -> None:
    """Run what is not there yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/matrix"))
    parser.add_argument("--data", nargs="+", help="h5 files of real features")
    parser.add_argument("--only", default="", help="do only runs whose name contains this")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", action="store_true", help="only print the table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    for cell in [] if options.table else cells(options.data is not None):
        path = options.out / f"{cell.name}.json"
        if options.only not in cell.name or path.exists():
            continue
        with contextlib.suppress(BlockingIOError), locked(path):  # another process is at it
            if path.exists():
                continue
            result = run(cell, options.out, options.data or [])
            with replacing(path) as file:
                file.write(json.dumps(result).encode())
            print(json.dumps(result), flush=True)
    print(table(options.out))


if __name__ == "__main__":
    main()
