"""Pretrain with Hugging Face Accelerate (pip install accelerate), in one process or several.

python examples/accelerate_pretrain.py
torchrun --nproc-per-node=2 examples/accelerate_pretrain.py         or with `accelerate launch`
"""

import argparse

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

import visp
from visp.data import InMemoryDataset, VideoDataset, collate_videos
from visp.data.synthetic import make_corpus

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", nargs="+", help="h5 files of features")
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--out", default="accelerate.pt", help="where to save the summarizer's weights")
options = parser.parse_args()

accelerator = Accelerator(cpu=not torch.cuda.is_available())
torch.manual_seed(0)
videos = VideoDataset(options.data) if options.data else InMemoryDataset(make_corpus(16))
# drop_last: Accelerate would else fill the last batch up with videos that it already has, as negatives of themselves.
batch_size = 8 // accelerator.num_processes
loader = DataLoader(videos, batch_size=batch_size, shuffle=True, drop_last=True, collate_fn=collate_videos)
summarizer = torch.nn.Sequential(torch.nn.Linear(videos.feature_dim, 64), torch.nn.GELU(), torch.nn.Linear(64, 1))
pretrainer = visp.ViSPPretrainer(
    visp.adapt_summarizer(summarizer), visp.encoders.AttentionPoolEncoder(videos.feature_dim), seed=0
)
optimizer = torch.optim.Adam(pretrainer.parameters(), lr=1e-3)
pretrainer, optimizer, loader = accelerator.prepare(pretrainer, optimizer, loader)
for epoch in range(1, options.epochs + 1):
    for batch in loader:
        out = pretrainer(batch)
        accelerator.backward(out.loss)
        accelerator.clip_grad_norm_(pretrainer.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    accelerator.print(f"epoch {epoch}: loss {out.loss:.3f}, keeps {out.keep_ratio:.0%}")
accelerator.save(summarizer.state_dict(), options.out)
