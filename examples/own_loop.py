"""Pretrain in a training loop of one's own: one forward pass is the loss of one batch.

python examples/own_loop.py                      the embedded corpus, a few seconds
python examples/own_loop.py --data my_videos.h5  your own features
"""

import argparse

import torch
from torch.utils.data import DataLoader

import visp
from visp.data import InMemoryDataset, VideoDataset, collate_videos
from visp.data.synthetic import make_corpus

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", nargs="+", help="h5 files of features")
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--out", default="own_loop.pt", help="where to save the summarizer's weights")
options = parser.parse_args()

torch.manual_seed(0)
videos = VideoDataset(options.data) if options.data else InMemoryDataset(make_corpus(16))
loader = DataLoader(videos, batch_size=8, shuffle=True, drop_last=True, collate_fn=collate_videos)
summarizer = torch.nn.Sequential(torch.nn.Linear(videos.feature_dim, 64), torch.nn.GELU(), torch.nn.Linear(64, 1))
pretrainer = visp.ViSPPretrainer(
    visp.adapt_summarizer(summarizer), visp.encoders.AttentionPoolEncoder(videos.feature_dim), seed=0
)
optimizer = torch.optim.Adam(pretrainer.parameters(), lr=1e-3)
for epoch in range(1, options.epochs + 1):
    for batch in loader:  # a list of (T_i, d) tensors
        out = pretrainer(batch)
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(pretrainer.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    print(f"epoch {epoch}: loss {out.loss:.3f}, keeps {out.keep_ratio:.0%}")
torch.save(summarizer.state_dict(), options.out)  # its own keys
