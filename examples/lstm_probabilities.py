"""Pretrain an LSTM that returns probabilities and wants a batch axis, as DSN and dppLSTM do.

python examples/lstm_probabilities.py                      the embedded corpus, half a minute
python examples/lstm_probabilities.py --data my_videos.h5  your own features
"""

import argparse

import torch
from torch import Tensor, nn

import visp
from visp.data import InMemoryDataset, VideoDataset
from visp.data.synthetic import make_corpus


class RecurrentSummarizer(nn.Module):
    """Scores frames by a bidirectional LSTM; its sigmoid is a function, not a layer."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(feature_dim, 32, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(64, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (1, T, d) to probabilities (1, T, 1)."""
        return torch.sigmoid(self.fc(self.lstm(features)[0]))


def batch_of_one(frames: Tensor) -> Tensor:
    return frames.unsqueeze(0)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", nargs="+", help="h5 files of features")
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--out", default="lstm.pt", help="where to save the summarizer's weights")
options = parser.parse_args()

torch.manual_seed(0)
videos = VideoDataset(options.data) if options.data else InMemoryDataset(make_corpus(16))
summarizer = RecurrentSummarizer(videos.feature_dim)
# probabilities=True inverts the sigmoid; logits_from="fc" would take what goes into it, which is exact.
adapted = visp.adapt_summarizer(summarizer, inputs=batch_of_one, probabilities=True)
pretrainer = visp.ViSPPretrainer(adapted, visp.encoders.AttentionPoolEncoder(videos.feature_dim), seed=0)
result = visp.pretrain(pretrainer, videos, epochs=options.epochs, batch_size=8)
print(f"{result.steps} steps; the first video: {summarizer(batch_of_one(videos[0])).flatten()[:5].tolist()}")
torch.save(summarizer.state_dict(), options.out)
