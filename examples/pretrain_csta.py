"""Pretrain CSTA on unlabelled videos, in a loop of your own.

python examples/pretrain_csta.py                      the embedded corpus, a narrow CSTA, half a minute
python examples/pretrain_csta.py --data my_videos.h5  your own features, the published size
"""

import argparse

import torch
from torch.utils.data import DataLoader

import visp
from visp.data import InMemoryDataset, VideoDataset, collate_videos
from visp.data.synthetic import make_corpus

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", nargs="+", help="h5 files of features")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--out", default="csta.pt", help="where to save the summarizer's weights")
options = parser.parse_args()

torch.manual_seed(0)
videos = VideoDataset(options.data) if options.data else InMemoryDataset(make_corpus(16))
summarizer = visp.summarizers.CSTA(videos.feature_dim, width=1024 if options.data else 128)
pretrainer = visp.ViSPPretrainer(summarizer, visp.encoders.AttentionPoolEncoder(videos.feature_dim))
optimizer = torch.optim.Adam(pretrainer.parameters(), lr=1e-3)
loader = DataLoader(videos, batch_size=min(8, len(videos)), shuffle=True, drop_last=True, collate_fn=collate_videos)

for epoch in range(options.epochs):
    for batch in loader:  # a list of (T_i, d) tensors
        out = pretrainer(batch)
        optimizer.zero_grad()
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(pretrainer.parameters(), 1.0)
        optimizer.step()
    print(f"epoch {epoch + 1}: InfoNCE {out.info_nce:.3f}, keeps {out.keep_ratio:.0%} of the frames")

torch.save(summarizer.state_dict(), options.out)
