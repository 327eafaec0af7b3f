"""What a summary of a video is: its shots, which were chosen, and how that came about."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visp.utils.files import replacing


@dataclass(frozen=True)
class VideoSummary:
    """A video's summary and how it came about. Times are in seconds after the video's first frame.

    Attributes:
        video: The video.
        out: The summary video.
        duration: Length of the video.
        budget: Length that the summary may have.
        n_frames: Number of decoded frames.
        picks: (T,) index of each sampled frame among the decoded ones.
        times: (T,) when each sampled frame is shown.
        scores: (T,) its score in [0, 1].
        shots: (S, 2) first and last frame of each shot, inclusive.
        shot_times: (S, 2) when each shot begins and ends.
        shot_scores: (S,) mean score of each shot's frames.
        selected: Indices of the chosen shots, ascending.
        key_frames: The best sampled frame of each chosen shot.
        pictures: (H, W, 3) uint8 images of the key frames, by frame.
        notes: What the user should know, in sentences: shots that were split, damage, silence.
        settings: How it was made, by name: sampling, extractor, summarizer, budget and the like.
        seconds: Time spent by stage.
    """

    video: Path
    out: Path
    duration: float
    budget: float
    n_frames: int
    picks: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float32]
    shots: npt.NDArray[np.int64]
    shot_times: npt.NDArray[np.float64]
    shot_scores: npt.NDArray[np.float64]
    selected: npt.NDArray[np.intp]
    key_frames: npt.NDArray[np.int64]
    pictures: dict[int, npt.NDArray[np.uint8]]
    notes: list[str]
    settings: dict[str, str]
    seconds: dict[str, float]

    @property
    def summary_duration(self) -> float:
        """Length of the summary in seconds."""
        return float(np.diff(self.shot_times[self.selected]).sum())

    @property
    def places(self) -> npt.NDArray[np.float64]:
        """(n, 2) when each chosen shot begins and ends in the summary video, in seconds."""
        lengths = np.diff(self.shot_times[self.selected]).ravel()
        ends = np.cumsum(lengths)
        return np.stack([ends - lengths, ends], axis=1)

    def to_json(self) -> dict[str, Any]:
        """Return the shots with their times, and how they were made, as plain values."""
        chosen = set(self.selected.tolist())
        shots = zip(self.shots.tolist(), self.shot_times.round(6).tolist(), self.shot_scores.tolist(), strict=True)
        return {
            "video": os.fsencode(self.video.name).decode("utf-8", "replace"),
            "duration": round(self.duration, 6),
            "n_frames": self.n_frames,
            "budget": round(self.budget, 6),
            "summary_duration": round(self.summary_duration, 6),
            "shots": [
                {"first_frame": a, "last_frame": b, "start": start, "end": end, "score": score, "chosen": i in chosen}
                for i, ((a, b), (start, end), score) in enumerate(shots)
            ],
            "notes": self.notes,
            "settings": self.settings,
            "seconds": {stage: round(spent, 3) for stage, spent in self.seconds.items()},
        }


def write_json(summary: VideoSummary, path: str | os.PathLike[str]) -> None:
    """Write :meth:`VideoSummary.to_json` to a file, in place of an older one there."""
    with replacing(Path(path)) as file:
        file.write((json.dumps(summary.to_json(), indent=2) + "\n").encode())
