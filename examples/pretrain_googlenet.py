"""Pretrain the GoogleNet baseline with visp's loop: progress bar, checkpoints, resume.

python examples/pretrain_googlenet.py                      the embedded corpus, a narrow model, half a minute
python examples/pretrain_googlenet.py --data my_videos.h5  your own features, the published size
"""

import argparse

import torch

import visp
from visp.data import InMemoryDataset, VideoDataset
from visp.data.synthetic import make_corpus

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", nargs="+", help="h5 files of features")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--out", default="runs/googlenet", help="folder of the run")
parser.add_argument("--resume", action="store_true", help="resume the run in --out")
options = parser.parse_args()

torch.manual_seed(0)
videos = VideoDataset(options.data) if options.data else InMemoryDataset(make_corpus(16))
summarizer = visp.summarizers.GoogleNet(videos.feature_dim, width=1024 if options.data else 128)
encoder = visp.encoders.AttentionPoolEncoder(videos.feature_dim)
pretrainer = visp.ViSPPretrainer(summarizer, encoder, hard_negatives=True, seed=0)

result = visp.pretrain(
    pretrainer, videos, epochs=options.epochs, batch_size=8, out_dir=options.out, resume=options.resume
)
print(f"{result.steps} steps; the weights, in the summarizer's own keys: {options.out}/weights.pt")
