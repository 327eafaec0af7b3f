"""How well the top-scored frames identify their video, before and after pretraining; see docs/training.md.

python benchmarks/identification.py --data videos.h5 --weights runs/full-rate/weights.pt --seed 0

The untrained network is the one that ``visp pretrain --seed`` starts from: on standardized features, as it starts
there, and on the features as they are.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor, nn

from visp.data import VideoDataset
from visp.factory import make_summarizer
from visp.prediction import predict
from visp.studies.identification import identify
from visp.training.standardize import standardization

JUDGES = 3


def main() -> None:
    """Print a Markdown table: InfoNCE and accuracy of fresh encoders, mean and spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="h5 files of features")
    parser.add_argument("--weights", required=True, help="weights.pt of a run")
    parser.add_argument("--summarizer", default="csta")
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="seed of the run")
    parser.add_argument("--share", type=float, default=0.3, help="share of the frames in a summary")
    parser.add_argument("--noise", type=float, default=3.0, help="noise on the frames of a summary")
    options = parser.parse_args()

    dataset = VideoDataset(options.data, stride=options.stride)
    videos = [dataset[index] for index in range(len(dataset))]
    torch.manual_seed(options.seed)
    summarizer = make_summarizer(options.summarizer, dataset.feature_dim)
    change = standardization(dataset)
    standardized = [(video - change.mean) / change.scale for video in videos]
    rows = {
        "random scores": [torch.rand(len(video)) for video in videos],
        "distance from the mean frame": [video.norm(dim=1) for video in standardized],
        "untrained, features as they are": scores(summarizer, videos),
        "untrained, standardized": scores(summarizer, standardized),
    }
    summarizer.load_state_dict(torch.load(options.weights, weights_only=True))
    rows["learnt"] = scores(summarizer, videos)
    print(f"{len(videos)} videos, log N = {np.log(len(videos)):.2f}; {JUDGES} encoders\n")
    print("| scores | InfoNCE | accuracy |\n|---|---|---|")
    for name, logits in rows.items():
        found = [
            identify(videos, logits, share=options.share, noise=options.noise, seed=judge) for judge in range(JUDGES)
        ]
        losses, hits = [result.info_nce for result in found], [result.accuracy for result in found]
        print(
            f"| {name} | {np.mean(losses):.2f} ± {np.std(losses):.2f} | {np.mean(hits):.2f} ± {np.std(hits):.2f} |",
            flush=True,
        )


def scores(summarizer: nn.Module, videos: list[Tensor]) -> list[Tensor]:
    """Return the scores of every video."""
    return [torch.from_numpy(predict(summarizer, video)) for video in videos]


if __name__ == "__main__":
    main()
