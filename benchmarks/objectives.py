"""What each contrast teaches, on embedded corpora and on real features with people's choices; see docs/training.md.

python benchmarks/objectives.py --out runs/objectives                            the embedded corpora, five seeds
python benchmarks/objectives.py --out runs/objectives --data A.h5 --labels B.h5  and real features: three seeds
python benchmarks/objectives.py --out runs/objectives --table                    the tables of what is there

Scores are judged by Kendall's tau with the share of people who kept a frame (`gtscore`) of the videos of the same
name in --labels. A run that is there already is not done again, so the script may be stopped and started at will, and
several of it may work on one folder.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

import visp
from visp.data import InMemoryDataset, VideoDataset, VideoSource
from visp.data.synthetic import CORPORA, make_corpus
from visp.encoders import AttentionPoolEncoder
from visp.summarizers import CSTA, GoogleNet, Transformer
from visp.training.standardize import StandardizedVideos, standardization
from visp.utils.files import locked, replacing

EMBEDDED_STEPS, REAL_STEPS, BATCH_SIZE, REAL_STRIDE = 200, 100, 16, 4
CONTRASTS: dict[str, dict[str, Any]] = {
    "size only": {"contrast": "none"},
    "videos": {"contrast": "videos"},
    "windows": {"contrast": "windows"},
    "windows of 4": {"contrast": "windows", "window": 4},
    "windows of 12": {"contrast": "windows", "window": 12},
    "windows of 24": {"contrast": "windows", "window": 24},
    "both": {"contrast": "both"},
    "both, window weight 1": {"contrast": "both", "window_weight": 1.0},
    "both, window weight 0.25": {"contrast": "both", "window_weight": 0.25},
    "both, windows of 4": {"contrast": "both", "window": 4},
    "both, marginalization": {"contrast": "both", "gradient_flow": "marginalization"},
    "both, hard negatives": {"contrast": "both", "hard_negatives": True},
    "both, size 0.15": {"contrast": "both", "size": 0.15},
    "both, size 0.5": {"contrast": "both", "size": 0.5},
    "both, temperature 0.25": {"contrast": "both", "sampler": visp.ConcreteSampler(0.25)},
    "both, temperature 1": {"contrast": "both", "sampler": visp.ConcreteSampler(1.0)},
    "both, crop": {"contrast": "both", "crop": 0.5},
    "both, lr 3e-4": {"contrast": "both", "lr": 3e-4},
    "both, lr 3e-3": {"contrast": "both", "lr": 3e-3},
}
"""Options of the objective, and the learning rate and the crop where they are not the defaults."""


class Cell(NamedTuple):
    """One run."""

    corpus: str
    summarizer: str
    contrast: str
    seed: int
    steps: int

    @property
    def name(self) -> str:
        """Name of the run's file."""
        return "-".join(map(str, self)).replace(" ", "_").replace(",", "")


def make_summarizer(name: str, feature_dim: int) -> nn.Module:
    """Make an untrained summarizer of the benchmark."""
    if name == "mlp":
        return visp.adapt_summarizer(
            nn.Sequential(nn.Linear(feature_dim, 128), nn.ReLU(), nn.Linear(128, 1)), output=lambda value: value
        )
    if name == "transformer":
        return Transformer(feature_dim)
    return {"csta": CSTA, "googlenet": GoogleNet}[name](feature_dim, width=256)


def open_corpus(
    cell: Cell, data: Sequence[str], labels: Sequence[str]
) -> tuple[VideoSource, dict[int, np.ndarray[Any, Any]]]:
    """Return the videos of a run, and the share of people who kept each frame, by index of the video."""
    if cell.corpus in CORPORA:
        videos: VideoSource = InMemoryDataset(make_corpus(40, seed=cell.seed, **CORPORA[cell.corpus]))
        labelled = videos
    else:
        videos, labelled = VideoDataset(data, stride=REAL_STRIDE), VideoDataset(labels, stride=REAL_STRIDE)
    index_of = {name: index for index, name in enumerate(videos.names)}
    shares = {index_of[name]: labelled.record(number).gtscore for number, name in enumerate(labelled.names)}
    return videos, {index: np.asarray(share) for index, share in shares.items()}


def run(cell: Cell, data: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """Do one run and measure it."""
    torch.manual_seed(cell.seed)
    videos, shares = open_corpus(cell, data, labels)
    summarizer = make_summarizer(cell.summarizer, videos.feature_dim)
    standardized = StandardizedVideos(videos, standardization(videos))
    before = scores(summarizer, standardized)
    options = dict(CONTRASTS[cell.contrast])
    run_options = {name: options.pop(name) for name in ("lr", "crop") if name in options}
    pretrainer = visp.ViSPPretrainer(summarizer, AttentionPoolEncoder(videos.feature_dim), seed=cell.seed, **options)
    started = time.monotonic()
    batches = -(-len(videos) // BATCH_SIZE)
    result = visp.pretrain(
        pretrainer,
        standardized,
        epochs=-(-cell.steps // batches),
        batch_size=BATCH_SIZE,
        seed=cell.seed,
        progress=False,
        controls=False,
        **run_options,
    )
    after = scores(summarizer, standardized)
    taus = [agreement(after[index].numpy(), share) for index, share in shares.items()]
    return {
        **cell._asdict(),
        "seconds": time.monotonic() - started,
        **{key: result.metrics[key] for key in ("info_nce", "mi_ceiling", "keep_ratio")},
        "spread": float(np.mean([video.std().item() for video in after])),
        "tau_before": float(np.mean([agreement(before[index].numpy(), share) for index, share in shares.items()])),
        "tau": float(np.mean(taus)),
        "error": float(np.std(taus, ddof=1) / len(taus) ** 0.5),
        "kept_order": float(np.mean([agreement(a.numpy(), b.numpy()) for a, b in zip(after, before, strict=True)])),
        "scores": [video.tolist() for video in after],
    }


def scores(summarizer: nn.Module, videos: StandardizedVideos) -> list[Tensor]:
    """Return the logits of every video."""
    summarizer.eval()
    with torch.no_grad():
        found = [summarizer(videos[index]) for index in range(len(videos))]
    summarizer.train()
    return found


def agreement(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> float:
    """Return Kendall's tau, 0 where one side is constant."""
    return float(np.nan_to_num(kendalltau(left, right).statistic))


Groups = Mapping[tuple[str, str, int], Mapping[str, Sequence[Mapping[str, Any]]]]
"""The runs of a corpus, summarizer and number of steps, by contrast."""


def tables(out: Path) -> str:
    """Put what is there into Markdown tables: an overview, then every contrast, mean and spread over seeds."""
    groups: dict[tuple[str, str, int], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(out.glob("*.json")):
        result = json.loads(path.read_text())
        groups[result["corpus"], result["summarizer"], result["steps"]][result["contrast"]].append(result)
    lines = [overview(groups)]
    for (corpus, summarizer, steps), rows in groups.items():
        lines += [f"\n{corpus}, {summarizer}, {steps} steps\n", "| contrast | tau by seed | mean ± spread | error "]
        lines[-1] += (
            "over videos | seeds agree | untrained order kept | InfoNCE (log N) | keep ratio | spread of logits |"
        )
        lines.append("|---" * 9 + "|")
        before = [result["tau_before"] for result in next(iter(rows.values()))]
        lines.append(f"| untrained | {listed(before)} | {spread(before)} | | | | | | |")
        lines += [row(name, rows[name]) for name in CONTRASTS if name in rows]
    return "\n".join(lines)


def overview(groups: Groups) -> str:
    """Put tau, mean and spread over seeds, of all runs into one table."""
    names = [name for name in CONTRASTS if any(name in rows for rows in groups.values())]
    lines = ["| corpus | summarizer | steps | seeds | untrained | " + " | ".join(names) + " |"]
    lines.append("|---" * (5 + len(names)) + "|")
    for (corpus, summarizer, steps), rows in groups.items():
        most = max(rows.values(), key=len)
        cells = [corpus, summarizer, str(steps), str(len(most)), spread([result["tau_before"] for result in most])]
        cells += [spread([result["tau"] for result in rows[name]]) if name in rows else "" for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def row(name: str, results: Sequence[Mapping[str, Any]]) -> str:
    """Format one contrast's runs."""
    taus = [result["tau"] for result in results]
    same_videos = results[0]["corpus"] not in CORPORA  # every seed makes its own embedded corpus
    pairs = itertools.combinations([result["scores"] for result in results], 2) if same_videos else []
    agree = [np.mean([agreement(np.array(a), np.array(b)) for a, b in zip(*pair, strict=True)]) for pair in pairs]
    cells = [
        name,
        listed(taus),
        spread(taus),
        f"{np.mean([r['error'] for r in results]):.3f}",
        f"{np.mean(agree):.2f}" if agree else "",
        f"{np.mean([r['kept_order'] for r in results]):.2f}",
        f"{np.mean([r['info_nce'] for r in results]):.2f} ({np.mean([r['mi_ceiling'] for r in results]):.2f})",
        f"{np.mean([r['keep_ratio'] for r in results]):.2f}",
        f"{np.mean([r['spread'] for r in results]):.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def listed(values: Sequence[float]) -> str:
    """Format the figure of every seed."""
    return ", ".join(f"{value:+.3f}" for value in values)


def spread(values: Sequence[float]) -> str:
    """Format mean and standard deviation over seeds."""
    return f"{np.mean(values):+.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}"


def main() -> None:
    """Run what is not there yet, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/objectives"))
    parser.add_argument("--data", nargs="+", help="h5 files of real features")
    parser.add_argument("--labels", nargs="+", help="h5 files with gtscore for some of their videos")
    parser.add_argument("--corpora", nargs="+", default=[*CORPORA, "real"])
    parser.add_argument("--summarizers", nargs="+", default=["mlp", "transformer"])
    parser.add_argument("--contrasts", nargs="+", default=["size only", "videos", "windows", "both"])
    parser.add_argument("--seeds", type=int, help="5 on embedded corpora and 3 on real features if not given")
    parser.add_argument("--steps", type=int, help="200 on embedded corpora and 100 on real features if not given")
    parser.add_argument("--table", action="store_true", help="only print the tables")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    corpora = [corpus for corpus in options.corpora if corpus in CORPORA or options.data]
    every = itertools.product(range(options.seeds or 5), corpora, options.summarizers, options.contrasts)
    for seed, corpus, summarizer, contrast in [] if options.table else every:
        if corpus == "real" and seed >= (options.seeds or 3):
            continue
        steps = options.steps or (REAL_STEPS if corpus == "real" else EMBEDDED_STEPS)
        cell = Cell(corpus, summarizer, contrast, seed, steps)
        path = options.out / f"{cell.name}.json"
        with contextlib.suppress(BlockingIOError), locked(path):  # another process is at it
            if path.exists():
                continue
            result = run(cell, options.data or [], options.labels or [])
            with replacing(path) as file:
                file.write(json.dumps(result).encode())
            shown = {name: value for name, value in result.items() if name != "scores"}
            print(json.dumps(shown), flush=True)
    print(tables(options.out))


if __name__ == "__main__":
    main()
