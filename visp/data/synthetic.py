"""The embedded corpus: videos whose informative frames are known, for demos, tests and studies.

A video is a sequence of shots. Some shots show a scene of that video alone, the others one of a few filler
scenes that many videos share. Only the particular shots tell the videos apart, so they are what a summary
should keep; each user prefers some of them. The right answer is known without being given to the summarizer.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from visp.data.h5 import write_h5
from visp.data.record import VideoRecord

FRAMES_PER_PICK = 15
"""Every 15th frame is sampled, as in the field's files."""


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
    seed: int = 0,
) -> list[VideoRecord]:
    """Make the corpus in memory.

    Args:
        num_videos: Number of videos, named ``video_1``, ``video_2``, ...
        feature_dim: d. Scenes are random directions of length 1 in d dimensions.
        num_shots: S, shots a video.
        shot_length: Shortest and longest shot, in sampled frames.
        particular_share: Share of a video's shots that show scenes of that video alone, in (0, 1).
        num_fillers: Number of filler scenes, shared by all videos.
        num_users: U, users a video.
        taste: Share of a video's particular shots that each user keeps, in (0, 1]; at least one.
        noise: Length of the noise of a frame, relative to a scene's length.
        seed: Same seed, same corpus.

    Returns:
        One record a video with ``features`` (T, d), ``picks``, ``n_frames``, ``gtscore``, ``user_summary``,
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
    }
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size!r}")
    if shot_length[1] < shot_length[0]:
        raise ValueError(f"shot_length must be (shortest, longest), got {shot_length!r}")
    if num_shots < 2 or not 0 < particular_share < 1 or not 0 < taste <= 1 or noise < 0:
        raise ValueError(
            "expected num_shots >= 2, particular_share in (0, 1), taste in (0, 1] and noise >= 0, got "
            f"num_shots={num_shots}, particular_share={particular_share}, taste={taste}, noise={noise}"
        )
    rng = np.random.default_rng(seed)
    fillers = _scenes(rng, num_fillers, feature_dim)
    num_particular = min(num_shots - 1, max(1, round(particular_share * num_shots)))
    num_kept = max(1, round(taste * num_particular))
    records = []
    for number in range(1, num_videos + 1):
        is_particular = rng.permutation(np.arange(num_shots) < num_particular)
        scenes = np.where(
            is_particular[:, None],
            _scenes(rng, num_shots, feature_dim),
            fillers[rng.integers(num_fillers, size=num_shots)],
        )
        lengths = rng.integers(shot_length[0], shot_length[1], size=num_shots, endpoint=True)
        frames = np.repeat(scenes, lengths, axis=0)
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
    """Write the corpus as an h5 file of the field's schema; options as for :func:`make_corpus`."""
    write_h5(path, make_corpus(**options), overwrite=overwrite)  # type: ignore[arg-type]


def _scenes(rng: np.random.Generator, number: int, feature_dim: int) -> npt.NDArray[np.float64]:
    directions = rng.standard_normal((number, feature_dim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions
