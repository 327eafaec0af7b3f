"""Pretrain without labels, fine-tune on few of them, and compare with training from scratch.

python examples/finetune_and_compare.py                  the embedded corpus, half a minute
python examples/finetune_and_compare.py --data summe.h5  your own annotated file
"""

import argparse

import torch
from torch import nn

import visp
from visp.data import InMemoryDataset, VideoDataset, make_splits
from visp.data.synthetic import make_corpus

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", nargs="+", help="h5 files of features and labels")
parser.add_argument("--epochs", type=int, default=40, help="epochs of pretraining; a quarter of it for fine-tuning")
parser.add_argument("--rounds", type=int, default=2, help="cross-validations, each with its own seed")
parser.add_argument("--out", default="pretrained.pt", help="where to save the pretrained weights")
options = parser.parse_args()

videos = VideoDataset(options.data) if options.data else InMemoryDataset(make_corpus(16))
evaluator = visp.Evaluator(videos, benchmark="summe", protocol="scores")


def make_summarizer() -> nn.Module:
    return nn.Sequential(nn.Linear(videos.feature_dim, 64), nn.GELU(), nn.Linear(64, 1), nn.Flatten(0))


torch.manual_seed(0)
summarizer = make_summarizer()
pretrainer = visp.ViSPPretrainer(summarizer, visp.encoders.AttentionPoolEncoder(videos.feature_dim), seed=0)
visp.pretrain(pretrainer, videos, epochs=options.epochs, batch_size=8)
torch.save(summarizer.state_dict(), options.out)

found = {
    name: visp.cross_validate(
        make_summarizer,
        videos,
        make_splits(videos.names, folds=4),
        evaluator=evaluator,
        rounds=options.rounds,
        epochs=max(1, options.epochs // 4),
        pretrained=weights,
        progress=False,
    )
    for name, weights in {"from scratch": None, "pretrained": options.out}.items()
}
print(visp.studies.results.results_table(found))
print(visp.compare(found["from scratch"], found["pretrained"]))  # over rounds, and paired over videos
