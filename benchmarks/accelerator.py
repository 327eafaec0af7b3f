"""Pretraining and five-fold fine-tuning of CSTA at the paper's scale, on one GPU: time and peak memory.

python benchmarks/accelerator.py --device cuda            75 videos, 200 epochs in batches of 32, then five folds
python benchmarks/accelerator.py --device cpu --quick     the same path in a minute, to see that it runs

The paper took about 30 minutes and 30 GB to pretrain, and 2 hours and 3 GB to fine-tune. Videos are made up, with T of
100 to 500 sampled frames as in SumMe and TVSum; only their sizes matter here.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import torch

import visp
from visp.data import InMemoryDataset, make_splits
from visp.data.synthetic import make_corpus
from visp.training.options import Precision


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precisions", nargs="+", default=["float32", "bf16"], choices=["float32", "bf16", "fp16"])
    parser.add_argument("--quick", action="store_true", help="10 short videos, one epoch, width 128")
    options = parser.parse_args()
    quick = options.quick
    shots = {"num_shots": 4, "shot_length": (4, 6)} if quick else {"num_shots": 40, "shot_length": (3, 12)}
    records = make_corpus(10 if quick else 75, feature_dim=64 if quick else 1024, **shots)  # type: ignore[arg-type]
    videos = InMemoryDataset(records)
    choices = {record.name: record.user_summary for record in records if record.user_summary is not None}

    def make_summarizer() -> torch.nn.Module:
        return visp.summarizers.CSTA(videos.feature_dim, width=128 if quick else 1024).to(options.device)

    print(f"{len(videos)} videos of {min(videos.lengths)} to {max(videos.lengths)} frames on {_name(options.device)}\n")
    print("| what | precision | seconds | peak memory, GiB |\n|---|---|---|---|")
    for precision in options.precisions:
        for checkpointed in (False, True):
            encoder = visp.encoders.AttentionPoolEncoder(videos.feature_dim)
            pretrainer = visp.ViSPPretrainer(
                make_summarizer(), encoder, contrast="videos", recompute=checkpointed, seed=0
            )
            pretrainer.to(options.device)

            def run(pretrainer: visp.ViSPPretrainer = pretrainer, precision: Precision = precision) -> None:
                visp.pretrain(
                    pretrainer,
                    videos,
                    epochs=1 if quick else 200,
                    batch_size=10 if quick else 32,
                    precision=precision,
                    standardize=True,
                )

            what = "pretraining, recomputed" if checkpointed else "pretraining"
            _measure(what, precision, run, options.device)

        def folds(precision: Precision = precision) -> None:
            visp.cross_validate(
                make_summarizer,
                videos,
                make_splits(videos.names, folds=5),
                evaluator=visp.Evaluator(videos, user_scores=choices),
                epochs=1 if quick else 100,
                precision=precision,
            )

        _measure("five folds of fine-tuning", precision, folds, options.device)


def _measure(what: str, precision: str, run: Callable[[], None], device: str) -> None:
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    run()
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else _resident() / 2**20
    print(f"| {what} | {precision} | {seconds:.0f} | {peak:.1f} |", flush=True)


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if torch.device(device).type == "cuda" else device


if __name__ == "__main__":
    main()
