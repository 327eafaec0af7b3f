"""Embedded corpora: videos whose informative frames are known, for demos, tests and studies.

A video is a sequence of shots. Some show a scene that occurs once, the moments; the others return to one of a few
filler scenes. The moments are what a summary should keep; each user prefers some of them. The right answer is known
without being given to the summarizer. Whose the fillers are decides what an objective can learn (docs/training.md):

- fillers that all videos share do not tell videos apart, so a contrast between videos finds the moments;
- fillers that belong to one video identify it better than any moment does, as scenes of real videos do; what is
  rare within the video is then found only by comparing parts of one video.
"""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from visp.data.h5 import write_h5
from visp.data.record import VideoRecord

FRAMES_PER_PICK = 15
"""Every 15th frame is sampled, as in the field's files."""

_BRIEF_MOMENTS: dict[str, Any] = {
    "num_shots": 14,
    "particular_share": 5 / 14,
    "num_fillers": 3,
    "shot_length": (5, 9),
    "moment_length": (2, 4),
}
CORPORA: dict[str, dict[str, Any]] = {
    "shared fillers": {},
    "own fillers": {"fillers": "own", **_BRIEF_MOMENTS},
    "mixed fillers": {"fillers": "both", **_BRIEF_MOMENTS},
    "identified frames": {"fillers": "own", "identity": 2.0, **_BRIEF_MOMENTS},
}
"""Options of :func:`make_corpus` for corpora that tell objectives apart, by name."""


def make_corpus(
    num_videos: int = 40,
    *,
    feature_dim: int = 64,
    num_shots: int = 12,
    shot_length: tuple[int, int] = (4, 8),
    particular_share: float = 0.4,
    num_fillers: int = 6,
    num_users: int = 5,
    taste: float = 0.6,
    noise: float = 0.5,
    fillers: Literal["shared", "own", "both"] = "shared",
    moment_length: tuple[int, int] | None = None,
    identity: float = 0.0,
    seed: int = 0,
) -> list[VideoRecord]:
    """Make the corpus in memory.

    Args:
        num_videos: Number of videos, named ``video_1``, ``video_2``, ...
        feature_dim: d. Scenes are random directions of length 1 in d dimensions.
        num_shots: S, shots per video.
        shot_length: Shortest and longest shot, in sampled frames.
        particular_share: Share of a video's shots that are moments, in (0, 1).
        num_fillers: Number of filler scenes, of all videos together or of each.
        num_users: U, users per video.
        taste: Share of a video's moments that each user keeps, in (0, 1]; at least one.
        noise: Length of the noise of a frame, relative to a scene's length.
        fillers: Whose the filler scenes are: ``"shared"`` by all videos, each video's ``"own"``, or ``"both"`` kinds
            in every video, ``num_fillers`` of each.
        moment_length: Shortest and longest moment, in sampled frames; by default those of ``shot_length``.
        identity: Length of a direction of its own that is added to every frame of a video, relative to a scene's
            length: with more than 0, any frame tells which video it is from, as real features do.
        seed: Same seed, same corpus.

    Returns:
        One record per video with ``features`` (T, d), ``picks``, ``n_frames``, ``gtscore``, ``user_summary``,
        ``change_points``, ``n_frame_per_seg`` and ``n_steps``.

    Raises:
        ValueError: If a size is not positive or a share is out of its range.
    """
    sizes = {
        "num_videos": num_videos,
        "feature_dim": feature_dim,
        "num_fillers": num_fillers,
        "num_users": num_users,
        "shot_length": shot_length[0],
        "moment_length": (moment_length or shot_length)[0],
    }
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size!r}")
    for name, length in (("shot_length", shot_length), ("moment_length", moment_length or shot_length)):
        if length[1] < length[0]:
            raise ValueError(f"{name} must be (shortest, longest), got {length!r}")
    if fillers not in ("shared", "own", "both"):
        raise ValueError(f"fillers must be 'shared', 'own' or 'both', got {fillers!r}")
    if num_shots < 2 or not 0 < particular_share < 1 or not 0 < taste <= 1 or min(noise, identity) < 0:
        raise ValueError(
            "expected num_shots >= 2, particular_share in (0, 1), taste in (0, 1], noise >= 0 and identity >= 0, got "
            f"num_shots={num_shots}, particular_share={particular_share}, taste={taste}, noise={noise}, "
            f"identity={identity}"
        )
    rng = np.random.default_rng(seed)
    shared = _scenes(rng, num_fillers, feature_dim)
    num_particular = min(num_shots - 1, max(1, round(particular_share * num_shots)))
    num_kept = max(1, round(taste * num_particular))
    records = []
    for number in range(1, num_videos + 1):
        is_particular = rng.permutation(np.arange(num_shots) < num_particular)
        moments = _scenes(rng, num_shots, feature_dim)
        own = _scenes(rng, num_fillers, feature_dim) if fillers != "shared" else shared[:0]
        returning = np.concatenate([own, shared[: 0 if fillers == "own" else num_fillers]])
        scenes = np.where(is_particular[:, None], moments, returning[rng.integers(len(returning), size=num_shots)])
        lengths = rng.integers(shot_length[0], shot_length[1], size=num_shots, endpoint=True)
        if moment_length is not None:
            brief = rng.integers(moment_length[0], moment_length[1], size=num_shots, endpoint=True)
            lengths = np.where(is_particular, brief, lengths)
        frames = np.repeat(scenes, lengths, axis=0)
        if identity:
            frames = frames + identity * _scenes(rng, 1, feature_dim)
        frames = frames + noise * rng.standard_normal(frames.shape) / np.sqrt(feature_dim)
        kept = np.zeros((num_users, num_shots), dtype=np.uint8)
        for user in range(num_users):
            kept[user, rng.choice(np.flatnonzero(is_particular), size=num_kept, replace=False)] = 1
        steps = int(lengths.sum())
        ends = np.cumsum(lengths) * FRAMES_PER_PICK
        records.append(
            VideoRecord(
                name=f"video_{number}",
                features=frames.astype(np.float32),
                picks=np.arange(steps) * FRAMES_PER_PICK,
                n_frames=steps * FRAMES_PER_PICK,
                gtscore=np.repeat(kept.mean(axis=0), lengths).astype(np.float32),
                user_summary=np.repeat(kept, lengths * FRAMES_PER_PICK, axis=1),
                change_points=np.stack([ends - lengths * FRAMES_PER_PICK, ends - 1], axis=1),
                n_frame_per_seg=lengths * FRAMES_PER_PICK,
                n_steps=steps,
                provenance={"extractor": "visp.data.synthetic", "seed": str(seed)},
            )
        )
    return records


def write_corpus(path: str | os.PathLike[str], *, overwrite: bool = False, **options: object) -> None:
    """Write a corpus as an h5 file of the field's schema.

    Args:
        path: The file to write.
        overwrite: Replaces an existing file.
        **options: As for :func:`make_corpus`.

    Raises:
        FileExistsError: The file exists and ``overwrite`` is false.
        FileNotFoundError: The folder does not exist.
        ValueError: As of :func:`make_corpus`.
    """
    write_h5(path, make_corpus(**options), overwrite=overwrite)  # type: ignore[arg-type]


def _scenes(rng: np.random.Generator, number: int, feature_dim: int) -> npt.NDArray[np.float64]:
    directions = rng.standard_normal((number, feature_dim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions
