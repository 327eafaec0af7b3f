"""A corpus as large as ActivityNet, with small features: how fast it opens, and whether it feeds a step in time.

python benchmarks/corpus.py --folder runs/corpus            28,000 videos in 280 files, about 100 MB
"""

from __future__ import annotations

import argparse
import itertools
import resource
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader

import visp
from visp.data import VideoDataset, collate_videos
from visp.data.sampling import epoch_batches
from visp.factory import make_summarizer

REAL_VIDEOS, REAL_FRAMES, REAL_DIM = 28_000, 6_000_000, 1024


def main() -> None:
    """Write the corpus if it is not there, then print what was measured, and the arithmetic for the real one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the corpus is, or is written to")
    parser.add_argument("--videos", type=int, default=REAL_VIDEOS)
    parser.add_argument("--videos-a-file", type=int, default=100)
    parser.add_argument("--dim", type=int, default=8, help="feature dimension of the written corpus")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50, help="batches to read")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()

    torch.set_num_threads(1)
    if not options.folder.exists():
        write(options.folder, options.videos, options.videos_a_file, options.dim)
    files = sorted(options.folder.glob("*.h5"))
    index = options.folder / "index.json"
    index.unlink(missing_ok=True)
    before = peak_memory()
    for what in ("opened by shape", "opened by index"):
        start = time.perf_counter()
        dataset = VideoDataset(files, validate="shapes", index=index)
        print(f"{what}: {len(dataset)} videos of {len(files)} files in {time.perf_counter() - start:.2f} s")
    megabytes = sum(dataset.lengths) * dataset.feature_dim * 2 / 1e6
    print(f"memory it took: {peak_memory() - before:.0f} MB; the features take {megabytes:.0f} MB")

    for workers in dict.fromkeys((0, options.workers)):
        print(f"a batch of {options.batch_size} with {workers} workers: {fed(dataset, options, workers):.4f} s")
    step = computed(dataset, options.batch_size)
    print(f"a step of CSTA (width 256) on {options.batch_size} of these videos: {step:.2f} s")

    frames_a_video = REAL_FRAMES // REAL_VIDEOS
    batch = options.batch_size * frames_a_video * REAL_DIM * 2 / 1e9
    print(
        f"\nthe real one: {REAL_FRAMES:,} frames x {REAL_DIM} x 2 bytes = {REAL_FRAMES * REAL_DIM * 2 / 1e9:.1f} GB in "
        f"float16; an epoch has {REAL_VIDEOS // options.batch_size} steps, each reads {options.batch_size} x "
        f"{frames_a_video} x {REAL_DIM} x 2 bytes = {batch * 1e3:.0f} MB: {batch / 0.5:.3f} s from a disk at 0.5 GB/s, "
        f"and {widened(options.batch_size, frames_a_video):.3f} s to read from the system's cache and widen to float32"
    )


def widened(num_videos: int, frames: int) -> float:
    """Return the seconds to read so many videos of the real dimension and make float32 tensors of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "real.h5"
        rng = np.random.default_rng(0)
        with h5py.File(path, "w") as file:
            for video in range(num_videos):
                features = rng.standard_normal((frames, REAL_DIM)).astype(np.float16)
                file.create_group(f"video_{video}")["features"] = features
        dataset = VideoDataset(path, validate="shapes")
        start = time.perf_counter()
        for index in range(num_videos):
            dataset[index]
        return time.perf_counter() - start


def write(folder: Path, num_videos: int, videos_a_file: int, dim: int) -> None:
    """Write videos of 100 to 329 frames, in float16."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for first in range(0, num_videos, videos_a_file):
        with h5py.File(unfinished / f"part_{first:06d}.h5", "w") as file:
            for video in range(first, min(num_videos, first + videos_a_file)):
                features = rng.standard_normal((rng.integers(100, 330), dim)).astype(np.float16)
                file.create_group(f"video_{video}")["features"] = features
    unfinished.rename(folder)
    print(f"written in {time.perf_counter() - start:.1f} s")


def fed(dataset: VideoDataset, options: argparse.Namespace, workers: int) -> float:
    """Return the seconds a random batch takes to arrive, the start of the workers left out."""
    batches = epoch_batches(len(dataset), len(dataset) // options.batch_size, torch.Generator().manual_seed(0))
    loader = DataLoader(dataset, batch_sampler=batches, collate_fn=collate_videos, num_workers=workers)
    arriving = iter(loader)
    next(arriving)
    start = time.perf_counter()
    count = sum(1 for _ in itertools.islice(arriving, options.steps))
    return (time.perf_counter() - start) / count


def computed(dataset: VideoDataset, batch_size: int) -> float:
    """Return the seconds of a training step."""
    summarizer = make_summarizer("csta", dataset.feature_dim, width=256)
    encoder = visp.encoders.AttentionPoolEncoder(dataset.feature_dim)
    pretrainer = visp.ViSPPretrainer(summarizer, encoder, contrast="videos", recompute=True, seed=0)
    videos = [dataset[index] for index in range(batch_size)]
    start = time.perf_counter()
    pretrainer(videos).loss.backward()
    return time.perf_counter() - start


def peak_memory() -> float:
    """Return the peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
