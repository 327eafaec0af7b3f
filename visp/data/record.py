"""One video as the field's h5 files hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class VideoRecord:
    """The arrays of one video; everything but ``features`` may be absent.

    T is the number of sampled frames, n_frames the number of frames of the video, U the number of users
    and S the number of shots.

    Attributes:
        name: Group name in the h5 file, such as ``"video_1"``.
        features: (T, d) float, one row per sampled frame; or (T, L, d), L tokens of each.
        picks: (T,) int, the frame index of each row of ``features``.
        n_frames: Number of frames of the video.
        gtscore: (T,) float in [0, 1], the users' mean importance of each sampled frame.
        user_summary: (U, n_frames) of 0 and 1, the frames each user would keep.
        change_points: (S, 2) int, first and last frame of each shot, inclusive.
        n_frame_per_seg: (S,) int, the shots' lengths in frames.
        n_steps: Number of sampled frames, T.
        gtsummary: (T,) of 0 and 1, a summary made from ``gtscore``.
        video_name: The video's title, where the file gives one.
        side: Other arrays of the video by name, as stored: text, masks, other streams.
        provenance: How the features were made: extractor, preprocessing, sampling rate and the like.
    """

    name: str
    features: npt.NDArray[np.floating]
    picks: npt.NDArray[np.integer] | None = None
    n_frames: int | None = None
    gtscore: npt.NDArray[np.floating] | None = None
    user_summary: npt.NDArray[np.number] | None = None
    change_points: npt.NDArray[np.integer] | None = None
    n_frame_per_seg: npt.NDArray[np.integer] | None = None
    n_steps: int | None = None
    gtsummary: npt.NDArray[np.number] | None = None
    video_name: str | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    side: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def every(self, stride: int) -> VideoRecord:
        """Return the video with every ``stride``-th sampled frame; frame counts and ``side`` stay.

        Raises:
            ValueError: ``stride`` is less than 1.
        """
        if stride < 1:
            raise ValueError(f"stride must be at least 1, got {stride}")
        features = self.features[::stride]
        return replace(
            self,
            features=features,
            picks=None if self.picks is None else self.picks[::stride],
            gtscore=None if self.gtscore is None else self.gtscore[::stride],
            gtsummary=None if self.gtsummary is None else self.gtsummary[::stride],
            n_steps=None if self.n_steps is None else len(features),
        )
