"""What an installed wheel must do without the checkout: two epochs on the embedded corpus, in the current folder."""

from __future__ import annotations

import sys
from pathlib import Path

import visp
from visp.data.synthetic import make_corpus

if not Path(visp.__file__).is_relative_to(sys.prefix):
    sys.exit(f"visp comes from {visp.__file__}, not from the environment {sys.prefix}")
videos = visp.data.InMemoryDataset(make_corpus(8))
summarizer = visp.summarizers.Transformer(videos.feature_dim)
pretrainer = visp.ViSPPretrainer(summarizer, visp.encoders.AttentionPoolEncoder(videos.feature_dim), seed=0)
visp.pretrain(pretrainer, videos, epochs=2, batch_size=8, out_dir="run", progress=False)
scores = visp.predict(summarizer, videos[0])
written = ", ".join(sorted(path.name for path in Path("run").iterdir()))
print(f"{visp.__version__}: {len(scores)} scores of {videos.names[0]}; {written}")
