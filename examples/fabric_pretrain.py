"""Pretrain with Lightning Fabric (pip install lightning-fabric), in one process or several.

python examples/fabric_pretrain.py
python examples/fabric_pretrain.py --devices 2
"""

import argparse

import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader

import visp
from visp.data import InMemoryDataset, VideoDataset, collate_videos
from visp.data.synthetic import make_corpus

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", nargs="+", help="h5 files of features")
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--accelerator", default="cpu")
parser.add_argument("--devices", type=int, default=1, help="number of processes; they should divide the videos")
parser.add_argument("--out", default="fabric.pt", help="where to save the summarizer's weights")
options = parser.parse_args()

fabric = Fabric(accelerator=options.accelerator, devices=options.devices)
fabric.launch()
torch.manual_seed(0)
videos = VideoDataset(options.data) if options.data else InMemoryDataset(make_corpus(16))
batch_size = 8 // fabric.world_size
loader = DataLoader(videos, batch_size=batch_size, shuffle=True, drop_last=True, collate_fn=collate_videos)
summarizer = torch.nn.Sequential(torch.nn.Linear(videos.feature_dim, 64), torch.nn.GELU(), torch.nn.Linear(64, 1))
pretrainer = visp.ViSPPretrainer(
    visp.adapt_summarizer(summarizer), visp.encoders.AttentionPoolEncoder(videos.feature_dim), seed=0
)
module, optimizer = fabric.setup(pretrainer, torch.optim.Adam(pretrainer.parameters(), lr=1e-3))
batches = fabric.setup_dataloaders(loader)
for epoch in range(1, options.epochs + 1):
    for batch in batches:
        out = module(batch)
        fabric.backward(out.loss)
        fabric.clip_gradients(module, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
    if fabric.is_global_zero:
        print(f"epoch {epoch}: loss {out.loss:.3f}, keeps {out.keep_ratio:.0%}")
fabric.save(options.out, summarizer.state_dict())
