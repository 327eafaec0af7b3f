"""Pretrain parts in a dictionary, which a function strings together instead of a ``forward``.

python examples/module_dict.py                      the embedded corpus, a few seconds
python examples/module_dict.py --data my_videos.h5  your own features
"""

import argparse

import torch
from torch import Tensor, nn

import visp
from visp.data import InMemoryDataset, VideoDataset
from visp.data.synthetic import make_corpus


def scores_of(parts: nn.Module, frames: Tensor) -> Tensor:
    """Return logits (T,) of frames (T, d), as a training script might."""
    assert isinstance(parts, nn.ModuleDict)
    hidden = parts["embed"](frames).relu()
    logits: Tensor = parts["score"](hidden + parts["context"](hidden.mean(dim=0, keepdim=True)))
    return logits.squeeze(-1)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", nargs="+", help="h5 files of features")
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--out", default="module_dict.pt", help="where to save the weights of the parts")
options = parser.parse_args()

torch.manual_seed(0)
videos = VideoDataset(options.data) if options.data else InMemoryDataset(make_corpus(16))
parts = nn.ModuleDict(
    {"embed": nn.Linear(videos.feature_dim, 64), "context": nn.Linear(64, 64), "score": nn.Linear(64, 1)}
)
adapted = visp.adapt_summarizer(parts, call=scores_of)
pretrainer = visp.ViSPPretrainer(adapted, visp.encoders.AttentionPoolEncoder(videos.feature_dim), seed=0)
result = visp.pretrain(pretrainer, videos, epochs=options.epochs, batch_size=8)
print(f"{result.steps} steps; the parts keep their keys: {', '.join(parts.state_dict())}")
torch.save(parts.state_dict(), options.out)
