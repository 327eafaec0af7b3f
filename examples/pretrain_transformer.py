"""Pretrain the light built-in Transformer, and compare its scores with the users' before and after.

python examples/pretrain_transformer.py                      the embedded corpus, half a minute
python examples/pretrain_transformer.py --data my_videos.h5  your own features; labels, if any, only judge
"""

import argparse

import torch

import visp
from visp.data import InMemoryDataset, VideoDataset
from visp.data.synthetic import make_corpus

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", nargs="+", help="h5 files of features")
parser.add_argument("--epochs", type=int, default=60)
parser.add_argument("--out", default="runs/transformer", help="folder of the run")
options = parser.parse_args()

torch.manual_seed(0)
videos = VideoDataset(options.data) if options.data else InMemoryDataset(make_corpus(16))
summarizer = visp.summarizers.Transformer(videos.feature_dim)
# The embedded corpus has labels, which pretraining does not see; "scores" compares frame by frame, so chance is 0.
evaluator = None if options.data else visp.Evaluator(videos, benchmark="summe", protocol="scores")
if evaluator is not None:
    print(f"untrained: tau {evaluator(summarizer).tau:.2f}")

pretrainer = visp.ViSPPretrainer(summarizer, visp.encoders.AttentionPoolEncoder(videos.feature_dim), seed=0)
visp.pretrain(pretrainer, videos, epochs=options.epochs, batch_size=8, standardize=True, out_dir=options.out)
if evaluator is not None:
    print(f"pretrained without labels: tau {evaluator(summarizer).tau:.2f}")
print(f"the weights: {options.out}/weights.pt")
