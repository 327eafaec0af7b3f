"""Ask whether a pretraining run taught its summarizer anything, without labels.

python examples/controls.py                      the embedded corpus, half a minute
python examples/controls.py --data my_videos.h5  your own features
"""

import argparse
from pathlib import Path

import visp
from visp.data import InMemoryDataset, VideoDataset
from visp.data.synthetic import make_corpus
from visp.studies.controls import controls

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", nargs="+", help="h5 files of features")
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--out", default="controls.md", help="where to save the table")
options = parser.parse_args()

videos = VideoDataset(options.data) if options.data else InMemoryDataset(make_corpus(16))
# The run is repeated with another seed, with InfoNCE off, and with a summarizer that does not learn.
found = controls(
    lambda: visp.summarizers.Transformer(videos.feature_dim, width=64),
    lambda: visp.encoders.AttentionPoolEncoder(videos.feature_dim),
    videos,
    epochs=options.epochs,
    batch_size=8,
)
print(found.table())
Path(options.out).write_text(found.table() + "\n", encoding="utf-8")
