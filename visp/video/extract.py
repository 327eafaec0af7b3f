"""Features of one video: decoded once, streamed through an image model in batches."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from visp.eval.kts import kts
from visp.eval.shots import shots_from_change_points
from visp.utils.progress import Bar
from visp.video.decode import SAMPLING_TOLERANCE, VideoError, VideoReader, require_av, sampled, shown
from visp.video.extractors import Extractor, Preprocess

CPU_BATCH, BATCH = 4, 32
"""Frames that go through the model together if nothing is said, on a CPU, whose cache holds few maps, and elsewhere."""


@dataclass(frozen=True)
class Batch:
    """Frames of a video: their indices, and for each way to prepare them one tensor (B, ...)."""

    picks: list[int]
    images: tuple[Tensor, ...]


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
        streams: (T, d2) float32 each, of further extractors by name.
    """

    features: npt.NDArray[np.float32]
    picks: npt.NDArray[np.int64]
    frame_times: npt.NDArray[np.float64]
    damaged: int
    seconds: dict[str, float]
    streams: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

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
        """Return only the rows that a sampling rate of ``fps`` frames a second takes of these."""
        intervals = np.floor(self.frame_times[self.picks] * fps + SAMPLING_TOLERANCE)
        rows = np.flatnonzero(np.diff(intervals, prepend=-1) > 0)
        streams = {name: stream[rows] for name, stream in self.streams.items()}
        return replace(self, features=self.features[rows], picks=self.picks[rows], streams=streams)


def extract_features(
    path: str | os.PathLike[str],
    extractor: Extractor | nn.Module,
    *,
    fps: float | None = 2.0,
    batch_size: int | None = None,
    progress: bool = False,
) -> VideoFeatures:
    """Extract the features of one video.

    The video is decoded once; beside the features, memory holds one batch of frames whatever the video's length.

    Args:
        path: The video.
        extractor: The image model: an :class:`Extractor`, or a module that maps images (B, 3, 224, 224), normalised
            as for ImageNet, to features (B, d).
        fps: Sampled frames a second of video; None takes every frame.
        batch_size: Frames that go through the model together; None for 4 on a CPU and 32 elsewhere.
        progress: Shows a bar.

    Returns:
        The features, with the frames that they belong to.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If PyAV is not installed.
        VideoError: If the file cannot be read as a video, or is cut short.
        ValueError: If an option is out of its range, or the model does not return one finite vector per frame.
    """
    extract = extractor if isinstance(extractor, Extractor) else Extractor(extractor)
    frames_at_once = checked_batch_size(batch_size, extract)
    rows: list[npt.NDArray[np.float32]] = []
    picks: list[int] = []
    network = 0.0
    with Bar(unit="frame", desc=shown(Path(path).name), disable=not progress, dynamic_ncols=True, leave=False) as bar:
        for item in read_batches(path, [extract.preprocess], fps=fps, batch_size=frames_at_once):
            if isinstance(item, Ending):
                return collected({"features": rows}, picks, item, network)
            started = time.perf_counter()
            rows.append(extract(item.images[0]))
            network += time.perf_counter() - started
            picks += item.picks
            bar.update(len(item.picks))
    raise AssertionError("a video without an end")


def read_batches(
    path: str | os.PathLike[str],
    preprocesses: Sequence[Preprocess],
    *,
    fps: float | None = 2.0,
    batch_size: int = BATCH,
    threads: int = 0,
) -> Iterator[Batch | Ending]:
    """Decode a video into batches of prepared frames of one shape, and its ending.

    Args:
        path: The video.
        preprocesses: Each maps a frame (H, W, 3) uint8 to a tensor.
        fps: Sampled frames a second of video; None takes every frame.
        batch_size: Largest number of frames in a batch; there are fewer where the prepared frames' shape changes.
        threads: Threads of the decoder; 0 lets it choose.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If PyAV is not installed.
        VideoError: If the file cannot be read as a video, or is cut short, or a frame cannot be prepared.
        ValueError: If an option is out of its range.
    """
    check_fps(fps)
    require_av()
    try:
        yield from _batches(path, preprocesses, fps, batch_size, threads)
    except (VideoError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # of any kind: what a damaged file makes of a decoder, or a frame of the preparation
        raise VideoError(reason(path, error)) from error


def _batches(
    path: str | os.PathLike[str], preprocesses: Sequence[Preprocess], fps: float | None, batch_size: int, threads: int
) -> Iterator[Batch | Ending]:
    times: list[float] = []
    picks: list[int] = []
    images: list[list[Tensor]] = []  # of each frame, one for each way to prepare it
    decoding, resumed = 0.0, time.perf_counter()
    with VideoReader(path, threads=threads) as reader:
        for frame in sampled(reader, fps, times):
            prepared = [preprocess(frame.image) for preprocess in preprocesses]
            # Pictures may change in size.
            if images and (len(images) == batch_size or _shapes(prepared) != _shapes(images[0])):
                batch = _batch(picks, images)
                decoding += time.perf_counter() - resumed
                yield batch
                resumed = time.perf_counter()
                picks, images = [], []
            picks.append(frame.index)
            images.append(prepared)
        last = _batch(picks, images) if picks else None
        end, damaged = reader.end, reader.damaged
    decoding += time.perf_counter() - resumed
    if last is not None:
        yield last
    yield Ending(np.array([*times, end]) - times[0], damaged, decoding)


def _batch(picks: list[int], images: list[list[Tensor]]) -> Batch:
    return Batch(picks, tuple(torch.stack(alike) for alike in zip(*images, strict=True)))


def _shapes(images: list[Tensor]) -> list[torch.Size]:
    return [image.shape for image in images]


def reason(path: str | os.PathLike[str], error: Exception) -> str:
    """Say in one line which file an error of any kind belongs to."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return f"{shown(path)}: {text if text.isprintable() else repr(text)}"


def check_fps(fps: float | None) -> None:
    """Refuse a sampling rate that is not positive."""
    if fps is not None and not (0 < fps < math.inf):
        raise ValueError(f"fps must be a positive number of frames a second, got {fps!r}")


def checked_batch_size(batch_size: int | None, extractor: Extractor) -> int:
    """Return the number of frames that go through a model together.

    Raises:
        ValueError: If it is not positive.
    """
    if batch_size is None:
        return CPU_BATCH if extractor.device.type == "cpu" else BATCH
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return batch_size


def collected(
    rows: Mapping[str, list[npt.NDArray[np.float32]]], picks: list[int], ending: Ending, network: float
) -> VideoFeatures:
    """Put the batches of a video together: those of its ``"features"``, and of every stream."""
    arrays = {name: np.concatenate(batches) for name, batches in rows.items()}
    return VideoFeatures(
        arrays.pop("features"),
        np.array(picks, dtype=np.int64),
        ending.frame_times,
        ending.damaged,
        {"decoding": ending.decoding, "network": network},
        arrays,
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
