"""Pretrain a summarizer that also reads a sentence about each video, which only the summarizer is given.

python examples/text_side_input.py                                      the embedded corpus with made-up sentences
python examples/text_side_input.py --data mine.h5 --text script         an h5 file with /video_1/script (L, e) and so on
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

import visp
from visp.data import InMemoryDataset, VideoDataset
from visp.data.synthetic import make_corpus

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", nargs="+", help="h5 files with a text beside the features")
parser.add_argument("--text", default="text", help="name of the text's array, (L, e) numbers")
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--out", default="text.pt", help="where to save the summarizer's weights")
options = parser.parse_args()


class TextGuidedSummarizer(nn.Module):
    """Scores each frame by how it matches the text, and by itself."""

    def __init__(self, frame_dim: int, text_dim: int) -> None:
        super().__init__()
        self.embed, self.read, self.score = nn.Linear(frame_dim, 64), nn.Linear(text_dim, 64), nn.Linear(64, 1)

    def forward(self, *, video: Tensor, text: Tensor) -> Tensor:
        """Map frames (T, d) and a text (L, e) to logits (T, 1)."""
        logits: Tensor = self.score((self.embed(video) * (1 + self.read(text).mean(dim=0).tanh())).relu())
        return logits


def video_and_text(frames: Tensor, side: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"video": frames, "text": side[options.text]}


torch.manual_seed(0)
rng = np.random.default_rng(0)
with_text = [replace(each, side={options.text: rng.standard_normal((3, 8))}) for each in make_corpus(16)]
with_ = (options.text,)
videos = VideoDataset(options.data, with_=with_) if options.data else InMemoryDataset(with_text, with_=with_)
summarizer = TextGuidedSummarizer(videos.feature_dim, videos[0].side[options.text].shape[1])
pretrainer = visp.ViSPPretrainer(
    visp.adapt_summarizer(summarizer, inputs=video_and_text),
    visp.encoders.AttentionPoolEncoder(videos.feature_dim),  # never sees the text, which would give the video away
    seed=0,
)
result = visp.pretrain(pretrainer, videos, epochs=options.epochs, batch_size=8)
print(f"{result.steps} steps; the weights: {options.out}")
torch.save(summarizer.state_dict(), options.out)
