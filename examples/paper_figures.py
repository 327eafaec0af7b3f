"""Draw the kinds of figures of the paper on the embedded corpus: needs ``pip install "visp[plot]"``.

python examples/paper_figures.py --out figures
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

import visp
from visp.data import InMemoryDataset, make_splits
from visp.data.synthetic import make_corpus
from visp.plots import plot_distribution, plot_grid, plot_metrics, plot_saliency, plot_sweep
from visp.studies.cross_validation import cross_validate
from visp.studies.significance import compare

RECORDS = make_corpus(8, feature_dim=16, num_shots=6, shot_length=(3, 5))
VIDEOS = InMemoryDataset(RECORDS)
EVALUATOR = visp.Evaluator(VIDEOS, benchmark="summe", protocol="scores")


def make_summarizer() -> nn.Module:
    """Make a small summarizer."""
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0))


def pretrained(epochs: int, out: Path | None = None, size: float = 0.3, temperature: float = 0.5) -> nn.Module:
    """Pretrain a summarizer on the corpus."""
    torch.manual_seed(0)
    summarizer, encoder = make_summarizer(), visp.encoders.AttentionPoolEncoder(feature_dim=16)
    sampler = visp.ConcreteSampler(temperature)
    pretrainer = visp.ViSPPretrainer(summarizer, encoder, size=size, sampler=sampler, seed=0)
    visp.pretrain(pretrainer, VIDEOS, epochs=epochs, batch_size=8, out_dir=out, progress=False)
    return summarizer


def main() -> None:
    """Train what the figures show, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30, help="epochs of each run")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder of figures and runs; must be new")
    options = parser.parse_args()

    summarizer = pretrained(options.epochs, options.out / "run")
    figure = Figure(figsize=(10, 6), layout="constrained")
    (saliency, curve, sweep), (grid, rounds, _) = figure.subplots(2, 3)
    figure.delaxes(_)

    record = RECORDS[0]
    scores = {"users": record.gtscore, "ViSP": visp.predict(summarizer, record.features)}
    plot_saliency({name: np.asarray(values) for name, values in scores.items()}, saliency)
    for key in ("mi_lower_bound", "mi_ceiling"):
        plot_metrics(options.out / "run" / "metrics.jsonl", curve, key=key)
    curve.set_ylabel("nats")

    sizes, temperatures = (0.2, 0.3), (0.3, 0.6)
    taus = np.array(
        [[EVALUATOR(pretrained(options.epochs, size=s, temperature=t)).tau for s in sizes] for t in temperatures]
    )
    plot_sweep(sizes, taus[0], sweep, xlabel="share of frames to keep", label=f"temperature {temperatures[0]}")
    plot_sweep(sizes, taus[1], sweep, xlabel="share of frames to keep", label=f"temperature {temperatures[1]}")
    plot_grid(taus, grid, x=sizes, y=temperatures, xlabel="share of frames to keep", ylabel="temperature")

    splits = make_splits(VIDEOS.names, folds=2)
    start = {key: value.clone() for key, value in summarizer.state_dict().items()}
    found = [
        cross_validate(
            make_summarizer,
            VIDEOS,
            splits,
            evaluator=EVALUATOR,
            rounds=3,
            pretrained=weights,
            epochs=options.epochs,
            progress=False,
        )
        for weights in (None, start)
    ]
    by_name = {"scratch": found[0].per_round(), "ViSP": found[1].per_round()}
    plot_distribution(by_name, rounds, p_value=compare(found[0], found[1]).p_value)
    figure.savefig(options.out / "figures.png", dpi=150)
    print(f"drawn: {options.out / 'figures.png'}")


if __name__ == "__main__":
    main()
