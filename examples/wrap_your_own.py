"""Pretrain a summarizer that visp has never seen, unchanged.

This one takes an extra argument, wants a leading batch axis and returns a tuple of probabilities and attention.

python examples/wrap_your_own.py                      the embedded corpus, a few seconds
python examples/wrap_your_own.py --data my_videos.h5  your own features
"""

import argparse

import torch
from torch import Tensor, nn

import visp
from visp.data import InMemoryDataset, VideoDataset
from visp.data.synthetic import make_corpus


class MySummarizer(nn.Module):
    """A self-attention summarizer, as one might find it in a paper's repository."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.embed = nn.Linear(feature_dim, 64)
        self.attend = nn.MultiheadAttention(64, 4, batch_first=True)
        self.norm = nn.LayerNorm(64)
        self.score = nn.Linear(64, 1)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (1, T, d) and lengths (1,) to probabilities (1, T) and attention (1, T, T)."""
        hidden = self.embed(features[:, : int(lengths.max())])
        attended, attention = self.attend(hidden, hidden, hidden)
        return torch.sigmoid(self.score(self.norm(hidden + attended)).squeeze(-1)), attention


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", nargs="+", help="h5 files of features")
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--out", default="my_summarizer.pt", help="where to save the summarizer's weights")
options = parser.parse_args()

torch.manual_seed(0)
videos = VideoDataset(options.data) if options.data else InMemoryDataset(make_corpus(16))
summarizer = MySummarizer(videos.feature_dim)
adapted = visp.adapt_summarizer(
    summarizer,
    inputs=lambda frames: (frames.unsqueeze(0), torch.tensor([len(frames)])),
    logits_from="score",  # the layer before the sigmoid; without such a layer: probabilities=True
)
encoder = visp.encoders.AttentionPoolEncoder(videos.feature_dim)
visp.pretrain(visp.ViSPPretrainer(adapted, encoder, seed=0), videos, epochs=options.epochs, batch_size=8)

summarizer.eval()
with torch.no_grad():
    probabilities, _ = summarizer(videos[0].unsqueeze(0), torch.tensor([videos.lengths[0]]))
print("frames of the first video, best first:", probabilities[0].argsort(descending=True)[:10].tolist())
torch.save(summarizer.state_dict(), options.out)  # its own keys, as if visp had never been there
