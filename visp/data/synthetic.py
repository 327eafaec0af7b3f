"""The embedded corpora: videos whose informative frames are known, for demos, tests and studies.

A video is a sequence of shots, each of one scene. In :func:`make_corpus` some shots show a scene of that video alone,
the others one of a few filler scenes that many videos share: only the particular shots tell the videos apart. In
:func:`make_moments_corpus` the fillers are long and return within their video, and brief moments occur once. Either
way it is known which shots a summary should keep, without this being given to the summarizer; each user prefers some.
"""

from __future__ import annotations

import os
from typing import Literal

import numpy as np
import numpy.typing as npt

from visp.data.h5 import write_h5
from visp.data.record import VideoRecord

FRAMES_PER_PICK = 15
"""Every 15th frame is sampled, as in the field's files."""

MOMENT_KINDS = ("own", "both", "offset")
"""What fills the videos of :func:`make_moments_corpus`."""


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
        num_shots: S, shots per video.
        shot_length: Shortest and longest shot, in sampled frames.
        particular_share: Share of a video's shots that show scenes of that video alone, in (0, 1).
        num_fillers: Number of filler scenes, shared by all videos.
        num_users: U, users per video.
        taste: Share of a video's particular shots that each user keeps, in (0, 1]; at least one.
        noise: Length of the noise of a frame, relative to a scene's length.
        seed: Same seed, same corpus.

    Returns:
        One record per video with ``features`` (T, d), ``picks``, ``n_frames``, ``gtscore``, ``user_summary``,
        ``change_points``, ``n_frame_per_seg`` and ``n_steps``.

    Raises:
        ValueError: If a size is not positive or a share is out of its range.
    """
    _check_sizes(
        num_videos=num_videos,
        feature_dim=feature_dim,
        num_fillers=num_fillers,
        num_users=num_users,
    )
    _check_lengths(shot_length=shot_length)
    if num_shots < 2 or not 0 < particular_share < 1 or not 0 < taste <= 1 or noise < 0:
        raise ValueError(
            "expected num_shots >= 2, particular_share in (0, 1), taste in (0, 1] and noise >= 0, got "
            f"num_shots={num_shots}, particular_share={particular_share}, taste={taste}, noise={noise}"
        )
    rng = np.random.default_rng(seed)
    fillers = _scenes(rng, num_fillers, feature_dim)
    num_particular = min(num_shots - 1, max(1, round(particular_share * num_shots)))
    records = []
    for number in range(1, num_videos + 1):
        is_particular = rng.permutation(np.arange(num_shots) < num_particular)
        scenes = np.where(
            is_particular[:, None],
            _scenes(rng, num_shots, feature_dim),
            fillers[rng.integers(num_fillers, size=num_shots)],
        )
        lengths = rng.integers(shot_length[0], shot_length[1], size=num_shots, endpoint=True)
        frames = _with_noise(rng, np.repeat(scenes, lengths, axis=0), noise)
        kept = _kept(rng, is_particular, num_users, taste)
        records.append(_record(number, frames, lengths, kept, {"seed": str(seed)}))
    return records


def make_moments_corpus(
    kind: Literal["own", "both", "offset"] = "own",
    num_videos: int = 40,
    *,
    feature_dim: int = 64,
    num_moments: int = 5,
    moment_length: tuple[int, int] = (2, 4),
    num_own: int = 3,
    num_shared: int = 6,
    filler_length: tuple[int, int] = (6, 12),
    num_users: int = 5,
    taste: float = 0.6,
    noise: float = 0.5,
    offset: float = 1.0,
    seed: int = 0,
) -> list[VideoRecord]:
    """Make a corpus in which brief moments, each shown once, stand between scenes that return.

    It tells apart what a summary is compared with. To recognise a video among *other videos* any scene of its own
    serves, and those that return fill most of it; to recognise a part of a video among its *other parts*, only what
    occurs once does. A moment stands between two fillers, so that there is one filler shot more than there are moments.

    Args:
        kind: ``"own"``: the returning scenes are the video's own. ``"both"``: half of the filler shots, drawn by
            chance, show scenes that all videos share, the others the video's own; then a moment is what neither the
            video nor the corpus shows again. ``"offset"``: as ``"own"``, and every frame of a video has one vector
            added, the video's, so that any frame identifies it from the start, as frames of real videos do.
        num_videos: Number of videos, named ``video_1``, ``video_2``, ...
        feature_dim: d. Scenes are random directions of length 1 in d dimensions.
        num_moments: Moments per video.
        moment_length: Shortest and longest moment, in sampled frames.
        num_own: Returning scenes that a video has for itself.
        num_shared: Returning scenes that all videos share, for ``"both"``.
        filler_length: Shortest and longest filler shot, in sampled frames.
        num_users: U, users per video.
        taste: Share of a video's moments that each user keeps, in (0, 1]; at least one.
        noise: Length of the noise of a frame, relative to a scene's length.
        offset: Length of the vector that a video's frames have in common, for ``"offset"``.
        seed: Same seed, same corpus.

    Returns:
        Records as :func:`make_corpus` makes them.

    Raises:
        ValueError: If a kind is unknown, a size is not positive or a share is out of its range.
    """
    if kind not in MOMENT_KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, MOMENT_KINDS))}, got {kind!r}")
    _check_sizes(
        num_videos=num_videos,
        feature_dim=feature_dim,
        num_moments=num_moments,
        num_own=num_own,
        num_shared=num_shared,
        num_users=num_users,
    )
    _check_lengths(moment_length=moment_length, filler_length=filler_length)
    if not 0 < taste <= 1 or noise < 0 or offset < 0:
        raise ValueError(
            f"expected taste in (0, 1], noise >= 0 and offset >= 0, got taste={taste}, noise={noise}, offset={offset}"
        )
    rng = np.random.default_rng(seed)
    shared = _scenes(rng, num_shared, feature_dim)
    is_moment = np.arange(2 * num_moments + 1) % 2 == 1
    records = []
    for number in range(1, num_videos + 1):
        own = _scenes(rng, num_own, feature_dim)
        # Each own scene returns as often as the others, give or take one, in an order of the video's.
        fillers = own[rng.permutation(np.arange(num_moments + 1) % num_own)]
        if kind == "both":
            is_shared = rng.permutation(np.arange(num_moments + 1) < (num_moments + 1) // 2)
            fillers[is_shared] = shared[rng.integers(num_shared, size=is_shared.sum())]
        scenes = np.empty((len(is_moment), feature_dim))
        scenes[is_moment] = _scenes(rng, num_moments, feature_dim)
        scenes[~is_moment] = fillers
        if kind == "offset":
            scenes += offset * _scenes(rng, 1, feature_dim)
        lengths = np.where(
            is_moment,
            rng.integers(*moment_length, size=len(is_moment), endpoint=True),
            rng.integers(*filler_length, size=len(is_moment), endpoint=True),
        )
        frames = _with_noise(rng, np.repeat(scenes, lengths, axis=0), noise)
        kept = _kept(rng, is_moment, num_users, taste)
        records.append(_record(number, frames, lengths, kept, {"seed": str(seed), "kind": kind}))
    return records


def write_corpus(path: str | os.PathLike[str], *, overwrite: bool = False, **options: object) -> None:
    """Write the corpus as an h5 file of the field's schema; options as for :func:`make_corpus`."""
    write_h5(path, make_corpus(**options), overwrite=overwrite)  # type: ignore[arg-type]


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size!r}")


def _check_lengths(**lengths: tuple[int, int]) -> None:
    for name, (shortest, longest) in lengths.items():
        _check_sizes(**{name: shortest})
        if longest < shortest:
            raise ValueError(f"{name} must be (shortest, longest), got {(shortest, longest)!r}")


def _scenes(rng: np.random.Generator, number: int, feature_dim: int) -> npt.NDArray[np.float64]:
    directions = rng.standard_normal((number, feature_dim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions


def _with_noise(rng: np.random.Generator, frames: npt.NDArray[np.float64], noise: float) -> npt.NDArray[np.float64]:
    noisy: npt.NDArray[np.float64] = frames + noise * rng.standard_normal(frames.shape) / np.sqrt(frames.shape[1])
    return noisy


def _kept(
    rng: np.random.Generator, informative: npt.NDArray[np.bool_], num_users: int, taste: float
) -> npt.NDArray[np.uint8]:
    """(U, S) whether a user keeps a shot; each keeps the same number of the informative ones."""
    num_kept = max(1, round(taste * int(informative.sum())))
    kept = np.zeros((num_users, len(informative)), dtype=np.uint8)
    for user in range(num_users):
        kept[user, rng.choice(np.flatnonzero(informative), size=num_kept, replace=False)] = 1
    return kept


def _record(
    number: int,
    frames: npt.NDArray[np.float64],
    lengths: npt.NDArray[np.int64],
    kept: npt.NDArray[np.uint8],
    options: dict[str, str],
) -> VideoRecord:
    steps = int(lengths.sum())
    ends = np.cumsum(lengths) * FRAMES_PER_PICK
    return VideoRecord(
        name=f"video_{number}",
        features=frames.astype(np.float32),
        picks=np.arange(steps) * FRAMES_PER_PICK,
        n_frames=steps * FRAMES_PER_PICK,
        gtscore=np.repeat(kept.mean(axis=0), lengths).astype(np.float32),
        user_summary=np.repeat(kept, lengths * FRAMES_PER_PICK, axis=1),
        change_points=np.stack([ends - lengths * FRAMES_PER_PICK, ends - 1], axis=1),
        n_frame_per_seg=lengths * FRAMES_PER_PICK,
        n_steps=steps,
        provenance={"extractor": "visp.data.synthetic", **options},
    )
