"""Features of one video: decoded once, streamed through an image model in batches."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from visp.eval.kts import kts
from visp.eval.shots import shots_from_change_points
from visp.video.decode import SAMPLING_TOLERANCE, VideoReader, sampled
from visp.video.extractors import Extractor, Preprocess


@dataclass(frozen=True)
class Batch:
    """Prepared frames of a video: their indices, and one tensor (B, ...)."""

    picks: list[int]
    images: Tensor


@dataclass(frozen=True)
class Ending:
    """What is known of a video when it has been decoded to its end.

    Attributes:
        frame_times: (n_frames + 1,) when each decoded frame is shown, in seconds after the first, and the end.
        damaged: Number of damaged packets left out.
        decoding: Seconds spent decoding and preparing frames.
    """

    frame_times: npt.NDArray[np.float64]
    damaged: int
    decoding: float


@dataclass(frozen=True)
class VideoFeatures:
    """The features of one video, n_frames decoded frames and T sampled ones.

    Attributes:
        features: (T, d) float32.
        picks: (T,) index of each row among the decoded frames.
        frame_times: (n_frames + 1,) when each decoded frame is shown, in seconds after the first, and the end.
        damaged: Number of damaged packets left out.
        seconds: Time spent by stage, ``"decoding"`` and ``"network"``.
    """

    features: npt.NDArray[np.float32]
    picks: npt.NDArray[np.int64]
    frame_times: npt.NDArray[np.float64]
    damaged: int
    seconds: dict[str, float]

    @property
    def n_frames(self) -> int:
        """Number of decoded frames."""
        return len(self.frame_times) - 1

    @property
    def duration(self) -> float:
        """Length of the video in seconds."""
        return float(self.frame_times[-1])

    @property
    def frame_rate(self) -> float:
        """Frames a second, on average."""
        return self.n_frames / self.duration

    def at(self, fps: float) -> VideoFeatures:
        """Return only the rows that a sampling rate of ``fps`` takes of these."""
        intervals = np.floor(self.frame_times[self.picks] * fps + SAMPLING_TOLERANCE)
        rows = np.flatnonzero(np.diff(intervals, prepend=-1) > 0)
        return VideoFeatures(self.features[rows], self.picks[rows], self.frame_times, self.damaged, self.seconds)


def extract_features(
    path: str | os.PathLike[str],
    extractor: Extractor | nn.Module,
    *,
    fps: float | None = 2.0,
    batch_size: int = 32,
    progress: bool = False,
) -> VideoFeatures:
    """Extract the features of one video.

    The video is decoded once; beside the features, memory holds one batch of frames whatever the video's length.

    Args:
        path: The video.
        extractor: The image model: an :class:`Extractor`, or a module that maps images (B, 3, 224, 224), normalised
            as for ImageNet, to features (B, d).
        fps: Sampled frames a second of video; None takes every frame.
        batch_size: Frames that go through the model together.
        progress: Shows a bar.

    Returns:
        The features, with the frames that they belong to.

    Raises:
        FileNotFoundError: If there is no such file.
        VideoError: If the file cannot be read as a video, or is cut short.
        ValueError: If an option is out of its range, or the model does not return one finite vector a frame.
    """
    extract = extractor if isinstance(extractor, Extractor) else Extractor(extractor)
    rows: list[npt.NDArray[np.float32]] = []
    picks: list[int] = []
    network = 0.0
    with tqdm(unit="frame", desc=Path(path).name, disable=not progress, dynamic_ncols=True, leave=False) as bar:
        for item in read_batches(path, extract.preprocess, fps=fps, batch_size=batch_size):
            if isinstance(item, Ending):
                return collected(rows, picks, item, network)
            started = time.perf_counter()
            rows.append(extract(item.images))
            network += time.perf_counter() - started
            picks += item.picks
            bar.update(len(item.picks))
    raise AssertionError("a video without an end")


def read_batches(
    path: str | os.PathLike[str],
    preprocess: Preprocess,
    *,
    fps: float | None = 2.0,
    batch_size: int = 32,
    threads: int = 0,
) -> Iterator[Batch | Ending]:
    """Decode a video into batches of prepared frames, and its ending.

    Args:
        path: The video.
        preprocess: Maps a frame (H, W, 3) uint8 to a tensor.
        fps: Sampled frames a second of video; None takes every frame.
        batch_size: Frames a batch.
        threads: Threads of the decoder; 0 lets it choose.

    Raises:
        FileNotFoundError: If there is no such file.
        VideoError: If the file cannot be read as a video, or is cut short.
        ValueError: If an option is out of its range.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    times: list[float] = []
    picks: list[int] = []
    images: list[Tensor] = []
    decoding, resumed = 0.0, time.perf_counter()
    with VideoReader(path, threads=threads) as reader:
        for frame in sampled(reader, fps, times):
            image = preprocess(frame.image)
            if len(picks) == batch_size or (images and image.shape != images[-1].shape):  # pictures may change in size
                batch = Batch(picks, torch.stack(images))
                decoding += time.perf_counter() - resumed
                yield batch
                resumed = time.perf_counter()
                picks, images = [], []
            picks.append(frame.index)
            images.append(image)
        if picks:
            batch = Batch(picks, torch.stack(images))
            decoding += time.perf_counter() - resumed
            yield batch
            resumed = time.perf_counter()
        end, damaged = reader.end, reader.damaged
    decoding += time.perf_counter() - resumed
    frame_times = np.array([*times, end]) - times[0]
    yield Ending(frame_times, damaged, decoding)


def collected(rows: list[npt.NDArray[np.float32]], picks: list[int], ending: Ending, network: float) -> VideoFeatures:
    """Put the batches of a video together."""
    return VideoFeatures(
        np.concatenate(rows),
        np.array(picks, dtype=np.int64),
        ending.frame_times,
        ending.damaged,
        {"decoding": ending.decoding, "network": network},
    )


def find_shots(video: VideoFeatures, *, progress: bool = False) -> npt.NDArray[np.int64]:
    """Cut a video into shots with KTS on its features, each divided by its norm.

    Args:
        video: The features.
        progress: Shows a bar.

    Returns:
        (S, 2) first and last frame of each shot, inclusive; they cover the decoded frames.
    """
    change_points = kts(unit_norm(video.features), progress=progress).change_points
    return shots_from_change_points(change_points, video.n_frames, video.picks)


def unit_norm(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Divide each row (T, d) by its norm; rows of zeros stay as they are."""
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(norms > 0, norms, 1), dtype=np.float32)
