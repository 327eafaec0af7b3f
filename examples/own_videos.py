"""From a folder of videos to a summary with sound: features, pretraining on them, and the best shots of one.

python examples/own_videos.py                three short clips that it makes itself, half a minute
python examples/own_videos.py --data videos  your own folder, which it learns from; it summarizes the first

It needs the extra features, and no labels, no network and no GPU.
"""

import argparse
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

import visp
from visp.video import features_of, make_extractor, summarize_video

SECONDS, FPS, RATE = 5, 10, 48_000  # of a shot; of a clip's frames; of its sound


def make_clip(path: Path, shots: int, seed: int) -> None:
    """Write a clip whose shots differ in colour, movement and the tone that is heard."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:120, 0:160]
    with av.open(str(path), "w") as file:
        picture = file.add_stream("libx264", rate=FPS)
        picture.width, picture.height, picture.pix_fmt = 160, 120, "yuv420p"
        sound = file.add_stream("aac", rate=RATE, layout="mono")
        waves = []
        for _ in range(shots):
            colour, waveform, speed = rng.uniform(40, 215, 3), rng.uniform(0.02, 0.4, 2), rng.uniform(0, 1.5)
            for index in range(SECONDS * FPS):
                stripes = 40 * np.sin(waveform[0] * rows + waveform[1] * columns + speed * index)
                image = (stripes[..., None] + colour).clip(0, 255).astype(np.uint8)
                file.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            waves.append(0.2 * np.sin(2 * np.pi * rng.uniform(200, 800) * np.arange(SECONDS * RATE) / RATE))
        file.mux(picture.encode(None))
        heard = av.AudioFrame.from_ndarray(np.concatenate(waves)[None].astype(np.float32), format="fltp", layout="mono")
        heard.sample_rate, heard.pts, heard.time_base = RATE, 0, Fraction(1, RATE)
        file.mux(sound.encode(heard))
        file.mux(sound.encode(None))


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", help="folder of videos")
parser.add_argument("--epochs", type=int, default=60)
parser.add_argument("--out", default="own_videos", help="folder of all that is made")
options = parser.parse_args()

out = Path(options.out)
folder = Path(options.data or out / "clips")
if options.data is None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(3):
        make_clip(folder / f"clip_{number + 1}.mp4", shots=4, seed=number)

extractor = make_extractor()  # a small ImageNet network whose weights come with the extra
corpus = features_of([folder], out, extractor)  # made once: what is there of unchanged videos is used again
videos = visp.data.VideoDataset(corpus)

torch.manual_seed(0)
summarizer = visp.summarizers.Transformer(videos.feature_dim)
encoder = visp.encoders.AttentionPoolEncoder(videos.feature_dim)
pretrainer = visp.ViSPPretrainer(
    summarizer,
    encoder,
    contrast="both" if len(videos) >= 8 else "windows",  # a few videos are too easily told apart to learn from
    seed=0,
)
visp.pretrain(pretrainer, videos, epochs=options.epochs, batch_size=8)
torch.save(summarizer.state_dict(), out / "weights.pt")

first = folder / str(videos.record(0).video_name)
summary = summarize_video(
    first, out / "summary.mp4", summarizer=summarizer, extractor=extractor, budget=0.3, overwrite=True
)
print(f"{first}: {summary.summary_duration:.1f} of {summary.duration:.1f} seconds in {summary.out}")
for start, end in summary.shot_times[summary.selected]:
    print(f"  {start:.1f} to {end:.1f} s")
