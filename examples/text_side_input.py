"""Pretrain a summarizer that also reads a sentence about each video, joined to its frames along d.

python examples/text_side_input.py                                      the embedded corpus with made-up sentences
python examples/text_side_input.py --data joined.h5 --text-dim 768      `visp convert frames.h5 text.h5 -o joined.h5`
"""

import argparse
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

import visp
from visp.data import InMemoryDataset, VideoDataset
from visp.data.synthetic import make_corpus

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", nargs="+", help="h5 files of features whose last columns are the text's")
parser.add_argument("--text-dim", type=int, default=8, help="number of those columns")
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--out", default="text.pt", help="where to save the summarizer's weights")
options = parser.parse_args()


class TextGuidedSummarizer(nn.Module):
    """Scores each frame by how it matches the sentence, and by itself."""

    def __init__(self, frame_dim: int, text_dim: int) -> None:
        super().__init__()
        self.embed, self.read, self.score = nn.Linear(frame_dim, 64), nn.Linear(text_dim, 64), nn.Linear(64, 1)

    def forward(self, *, video: Tensor, text: Tensor) -> Tensor:
        """Map frames (T, d) and a sentence (1, e) to logits (T, 1)."""
        logits: Tensor = self.score((self.embed(video) * (1 + self.read(text).tanh())).relu())
        return logits


class PictureEncoder(nn.Module):
    """Embeds the frames only: every frame carries the sentence, which would give its video away."""

    def __init__(self, frame_dim: int) -> None:
        super().__init__()
        self.pool = visp.encoders.AttentionPoolEncoder(frame_dim)

    def forward(self, frames: Tensor) -> Tensor:
        """Map (T, d + e) to an embedding."""
        embedding: Tensor = self.pool(frames[:, : -options.text_dim])
        return embedding


def apart(frames: Tensor) -> dict[str, Tensor]:
    return {"video": frames[:, : -options.text_dim], "text": frames[:1, -options.text_dim :]}


torch.manual_seed(0)
rng = np.random.default_rng(0)
joined = []
for record in make_corpus(16):
    sentence = np.tile(rng.standard_normal(options.text_dim, dtype=np.float32), (len(record.features), 1))
    joined.append(replace(record, features=np.concatenate([record.features, sentence], axis=1)))
videos = VideoDataset(options.data) if options.data else InMemoryDataset(joined)
frame_dim = videos.feature_dim - options.text_dim
summarizer = TextGuidedSummarizer(frame_dim, options.text_dim)
pretrainer = visp.ViSPPretrainer(visp.adapt_summarizer(summarizer, inputs=apart), PictureEncoder(frame_dim), seed=0)
# Frames and sentence come from two networks: one scale for both, as standardize=True has it, would not suit either.
result = visp.pretrain(pretrainer, videos, epochs=options.epochs, batch_size=8, standardize=False)
print(f"{result.steps} steps; the weights: {options.out}")
torch.save(summarizer.state_dict(), options.out)
