"""Does pretraining help when labels are few? Five folds, several rounds, two ways; see docs/evaluation.md.

python benchmarks/few_labels.py --out runs/few-labels

On the embedded corpus, with a light summarizer, from scratch and from ViSP. Each round pretrains its own weights on all
videos, without labels. A fold that is done is not done again, so the script may be stopped and started at will.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from visp.data import InMemoryDataset, Split, make_splits
from visp.data.synthetic import make_corpus
from visp.encoders import AttentionPoolEncoder
from visp.eval.metrics import METRICS
from visp.evaluator import Evaluator
from visp.pretrainer import ViSPPretrainer
from visp.studies.cross_validation import cross_validate
from visp.studies.results import results_table
from visp.studies.significance import compare
from visp.training import pretrain

CORPUS_SEED = 100


class LightSummarizer(nn.Module):
    """Two layers a frame, beside the video's mean frame: (T, d) to logits (T,)."""

    def __init__(self, feature_dim: int = 64, width: int = 128) -> None:
        super().__init__()
        self.frame = nn.Linear(2 * feature_dim, width)
        self.score = nn.Sequential(nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 1))

    def forward(self, frames: Tensor) -> Tensor:
        """Return the logits (T,) of frames (T, d)."""
        context = frames.mean(dim=0, keepdim=True).expand_as(frames)
        logits: Tensor = self.score(self.frame(torch.cat([frames, context], dim=1))).squeeze(-1)
        return logits


def main() -> None:
    """Pretrain, cross-validate both ways, and print the table and the test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/few-labels"))
    parser.add_argument("--videos", type=int, default=40, help="size of the corpus")
    parser.add_argument("--labelled", type=int, default=4, help="labelled videos a fold, of those it trains on")
    parser.add_argument("--noise", type=float, default=1.0, help="noise of a frame, relative to a scene's length")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=100, help="epochs of fine-tuning")
    parser.add_argument("--pretrain-epochs", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    records = make_corpus(options.videos, noise=options.noise, seed=CORPUS_SEED)
    videos = InMemoryDataset(records)
    choices = {record.name: record.user_summary for record in records if record.user_summary is not None}
    evaluator = Evaluator(videos, user_scores=choices)
    folds = make_splits(videos.names, folds=5, seed=0)
    splits = [Split(train=fold.train[: options.labelled], test=fold.test) for fold in folds]

    weights = []
    for number in range(options.rounds):
        folder = options.out / "pretrained" / f"round-{number}"
        weights.append(folder / "weights.pt")
        if not weights[-1].exists():
            torch.manual_seed(number)
            summarizer = LightSummarizer(videos.feature_dim)
            pretrainer = ViSPPretrainer(
                summarizer, AttentionPoolEncoder(videos.feature_dim), contrast="videos", seed=number
            )
            pretrain(
                pretrainer,
                videos,
                epochs=options.pretrain_epochs,
                batch_size=20,
                seed=number,
                out_dir=folder,
                resume=True,
            )
    common = {"evaluator": evaluator, "rounds": options.rounds}
    untrained = cross_validate(
        lambda: LightSummarizer(videos.feature_dim), videos, splits, epochs=1, lr=0.0, progress=False,
        pretrained=weights, **common,
    )  # fmt: skip
    scratch = cross_validate(
        lambda: LightSummarizer(videos.feature_dim), videos, splits, epochs=options.epochs,
        out_dir=options.out / "scratch", **common,
    )  # fmt: skip
    pretrained = cross_validate(
        lambda: LightSummarizer(videos.feature_dim), videos, splits, epochs=options.epochs,
        out_dir=options.out / "fine-tuned", pretrained=weights, **common,
    )  # fmt: skip
    print(f"{len(videos)} videos, {options.labelled} labelled a fold, noise {options.noise}\n")
    print(results_table({"scratch": scratch, "ViSP, no labels": untrained, "ViSP + fine-tuned": pretrained}))
    for metric in METRICS:
        print(f"\n{metric}, scratch against ViSP + fine-tuned: {compare(scratch, pretrained, metric)}")


if __name__ == "__main__":
    main()
