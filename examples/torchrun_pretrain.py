"""Pretrain in several processes, each on a part of every batch; the gradient is that of one process on the whole batch.

torchrun --nproc-per-node=2 examples/torchrun_pretrain.py                      the embedded corpus, a few seconds
torchrun --nproc-per-node=2 examples/torchrun_pretrain.py --data my_videos.h5  your own features
python examples/torchrun_pretrain.py                                           the same in one process
"""

import argparse

import torch

import visp
from visp.data import InMemoryDataset, VideoDataset
from visp.data.synthetic import make_corpus
from visp.utils.distributed import is_first, torchrun_processes

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", nargs="+", help="h5 files of features")
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--device", default="cpu", help="cpu, or cuda for one GPU a process")
parser.add_argument("--out", default="runs/torchrun", help="folder of the run")
options = parser.parse_args()

with torchrun_processes(options.device) as device:
    torch.manual_seed(0)
    videos = VideoDataset(options.data) if options.data else InMemoryDataset(make_corpus(16))
    summarizer = torch.nn.Sequential(torch.nn.Linear(videos.feature_dim, 64), torch.nn.GELU(), torch.nn.Linear(64, 1))
    encoder = visp.encoders.AttentionPoolEncoder(videos.feature_dim)
    pretrainer = visp.ViSPPretrainer(visp.adapt_summarizer(summarizer), encoder, seed=0).to(device)
    result = visp.pretrain(pretrainer, videos, epochs=options.epochs, batch_size=8, out_dir=options.out)
    if is_first():
        print(f"{result.steps} steps; the summarizer's weights: {options.out}/weights.pt")
