"""Does pretraining help when labels are few, and does fine-tuning keep it? See docs/evaluation.md.

python benchmarks/few_labels.py --out runs/few-labels
python benchmarks/few_labels.py --out runs/few-labels --corpora "shared fillers" --labelled 10 --rounds 3

On embedded corpora, with the light Transformer: from scratch, from scratch with the standardization of the features
folded in, and from pretraining with each contrast; fine-tuned as published, and with a recipe that keeps what was
learnt. Each round pretrains weights of its own on all videos, without labels. What is done is not done again, so the
script may be stopped and started at will.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import visp
from visp.data import InMemoryDataset, Split, make_splits
from visp.data.synthetic import CORPORA, make_corpus
from visp.encoders import AttentionPoolEncoder
from visp.studies.cross_validation import cross_validate
from visp.studies.results import CrossValidation, results_table
from visp.studies.significance import compare
from visp.summarizers import Transformer
from visp.training.standardize import standardization
from visp.utils.noise import seeded
from visp.weights import own_state_dict, save_state

CORPUS_SEED = 100
CONTRASTS = {"size only": "none", "videos": "videos", "windows": "windows", "both": "both"}
RECIPES: dict[str, dict[str, Any]] = {
    "published": {},
    "keeping": {"pretrained_lr": 1e-4, "pull": 0.1, "schedule": "cosine", "warmup_steps": 10},
}


def starting_weights(name: str, videos: InMemoryDataset, seed: int, steps: int, weight: float, folder: Path) -> Path:
    """Return the weights that a round starts from, made if they are not there."""
    path = folder / name.replace(" ", "-") / f"round-{seed}" / "weights.pt"
    if path.exists():
        return path
    with seeded(seed):
        summarizer, encoder = Transformer(videos.feature_dim), AttentionPoolEncoder(videos.feature_dim)
    if name in CONTRASTS:
        contrast: Any = CONTRASTS[name]
        objective = visp.ViSPPretrainer(summarizer, encoder, contrast=contrast, window_weight=weight, seed=seed)
        epochs = -(-steps // -(-len(videos) // 20))
        visp.pretrain(
            objective, videos, epochs=epochs, batch_size=20, seed=seed, out_dir=path.parent, resume=True, controls=False
        )
        return path
    if name == "standardized scratch":
        change = standardization(videos)
        summarizer.fold_inputs(change.mean, change.scale)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_state(own_state_dict(summarizer), path)
    return path


def study(
    corpus: str, labelled: int, out: Path, rounds: int, epochs: int, steps: int, weight: float
) -> Mapping[str, CrossValidation]:
    """Cross-validate from every start, with every recipe."""
    records = make_corpus(40, seed=CORPUS_SEED, **CORPORA[corpus])
    videos = InMemoryDataset(records)
    choices = {record.name: record.user_summary for record in records if record.user_summary is not None}
    folds = make_splits(videos.names, folds=3, seed=0)
    splits = [Split(train=fold.train[:labelled], test=fold.test) for fold in folds]
    common: dict[str, Any] = {"evaluator": visp.Evaluator(videos, user_scores=choices), "rounds": rounds}
    found = {}
    for start in ("scratch", "standardized scratch", *CONTRASTS):
        weights = [starting_weights(start, videos, seed, steps, weight, out / "starts") for seed in range(rounds)]

        def run(name: str, weights: list[Path] = weights, **options: Any) -> None:
            found[name] = cross_validate(
                lambda: Transformer(videos.feature_dim), videos, splits, pretrained=weights, progress=False,
                out_dir=out / f"{labelled}-labels" / name.replace(", ", "-").replace(" ", "-"), **common, **options,
            )  # fmt: skip

        if start in CONTRASTS:
            run(f"{start}, no labels", epochs=1, lr=0.0)
        for recipe, options in RECIPES.items():
            if start in CONTRASTS or recipe == "published":
                run(f"{start}, {recipe}", epochs=epochs, **options)
    return found


def main() -> None:
    """Do what is not done, and print the tables and the tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/few-labels"))
    parser.add_argument("--corpora", nargs="+", choices=CORPORA, default=["own fillers", "shared fillers"])
    parser.add_argument("--labelled", nargs="+", type=int, default=[5, 10, 20], help="labelled videos per fold")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=25, help="epochs of fine-tuning")
    parser.add_argument("--pretraining-steps", type=int, default=200)
    parser.add_argument("--window-weight", type=float, default=0.5, help="of the windows under both")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for corpus, labelled in itertools.product(options.corpora, options.labelled):
        folder = options.out / corpus.replace(" ", "-")
        steps, weight = options.pretraining_steps, options.window_weight
        found = study(corpus, labelled, folder, options.rounds, options.epochs, steps, weight)
        print(f"\n## {corpus}, {labelled} labelled videos per fold\n\n{results_table(found)}\n")
        for name in found:
            if name.endswith("keeping"):
                other = found["standardized scratch, published"]
                print(f"tau, standardized scratch against {name}: {compare(other, found[name], 'tau')}")


if __name__ == "__main__":
    main()
