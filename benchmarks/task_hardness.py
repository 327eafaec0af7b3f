"""What keeps the contrastive task hard enough to teach, on real features; see docs/training.md.

python benchmarks/task_hardness.py --data videos.h5                       every variant, three seeds
python benchmarks/task_hardness.py --data videos.h5 --variants defaults hard_negatives

A CSTA of width 256 on every 4th frame, standardized; then fresh encoders judge how well the 30 % top-scored frames
identify their video (visp.studies.identification).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from training_matrix import NOISES, REAL_STRIDE, TARGET, judged, spread

import visp
from visp.data import VideoDataset
from visp.encoders import AttentionPoolEncoder
from visp.prediction import predict
from visp.summarizers import CSTA
from visp.training import pretrain
from visp.training.standardize import StandardizedVideos, standardization

WIDTH, STEPS, WINDOW = 256, 80, 27

VARIANTS: dict[str, dict[str, Any]] = {
    "untrained": {"steps": 0},
    "defaults": {},
    "as_they_are": {"standardize": False},
    "hard_negatives": {"hard_negatives": True},
    "straight_through": {"gradient_flow": "straight_through"},
    "marginalization": {"gradient_flow": "marginalization"},
    "cosine": {"similarity": "cosine"},
    "size_0.15": {"size": 0.15},
    "scale_20": {"scale": 20.0},
    "noise_1": {"noise": 1.0},
    "windows": {"windows": True},
}


class Noisy(torch.nn.Module):
    """An encoder that sees its frames through noise, relative to the root mean square of the video."""

    def __init__(self, encoder: torch.nn.Module, noise: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.noise = noise

    def forward(self, frames: Tensor) -> Tensor:
        """Embed frames (T, d)."""
        scale = self.noise * frames.detach().square().mean().sqrt()
        embedding: Tensor = self.encoder(frames + scale * torch.randn_like(frames))
        return embedding


def run(
    videos: Sequence[Tensor],
    seed: int,
    *,
    steps: int = STEPS,
    standardize: bool = True,
    scale: float = 5.0,
    noise: float = 0.0,
    windows: bool = False,
    **options: Any,
) -> tuple[list[float], list[Tensor]]:
    """Pretrain a CSTA; return the InfoNCE of the last 5 steps as a share of log N, if any, and the videos' scores."""
    torch.manual_seed(seed)
    source = StandardizedVideos(videos, standardization(videos)) if standardize else videos
    frames = [source[index] for index in range(len(source))]
    summarizer = CSTA(videos[0].shape[1], width=WIDTH)
    encoder: torch.nn.Module = AttentionPoolEncoder(videos[0].shape[1], scale=scale)
    pretrainer = visp.ViSPPretrainer(
        summarizer,
        Noisy(encoder, noise) if noise else encoder,
        seed=seed,
        **{"contrast": "videos", "size": TARGET, **options},
    )
    items, batch_size = (_windows(frames), 2 * len(frames)) if windows else (frames, len(frames))
    an_epoch = math.ceil(len(items) / batch_size)
    losses: list[float] = []
    pretrainer.register_forward_hook(lambda module, args, output: losses.append(float(output.info_nce)))
    if steps:
        epochs = math.ceil(steps / an_epoch)
        pretrain(pretrainer, items, epochs=epochs, batch_size=batch_size, seed=seed, progress=False)
    reached = [float(np.mean(losses[-5:])) / math.log(len(items) / an_epoch)] if losses else []
    return reached, [torch.from_numpy(predict(summarizer, video)) for video in frames]


def _windows(videos: Sequence[Tensor]) -> list[Tensor]:
    """Cut videos into windows of equal length; a shorter rest is left out."""
    return [video[start : start + WINDOW] for video in videos for start in range(0, len(video) - WINDOW + 1, WINDOW)]


def main() -> None:
    """Print a Markdown table, a row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True, help="h5 files of features")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dataset = VideoDataset(options.data, stride=REAL_STRIDE)
    videos = [dataset[index] for index in range(len(dataset))]
    print("| variant | InfoNCE over log N | " + " | ".join(f"identified, noise {noise}" for noise in NOISES) + " |")
    print("|---" * (2 + len(NOISES)) + "|", flush=True)
    for variant in options.variants:
        runs = [run(videos, seed, **VARIANTS[variant]) for seed in range(options.seeds)]
        cells = [[value for reached, _ in runs for value in reached]]
        cells += [[judged(videos, scores, noise) for _, scores in runs] for noise in NOISES]
        print(f"| {variant} | " + " | ".join(map(spread, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
