"""Small summarizers that read more of a video than its frames, and videos for them.

Their signatures are those that papers and tables describe: a video with a text (as A2Summ takes it), frames pooled over
shots, and two streams of different widths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import visp
from visp.data import InMemoryDataset, VideoRecord
from visp.data.side import With
from visp.data.synthetic import make_corpus

D, TEXT, AUDIO, H = 12, 6, 5, 8


class TextShaped(nn.Module):
    """Takes keywords, lets frames attend to the sentences, and returns a tuple, the video's logits first."""

    def __init__(self) -> None:
        super().__init__()
        self.see, self.read = nn.Linear(D, H), nn.Linear(TEXT, H)
        self.fc_video_cls, self.fc_text_cls = nn.Linear(H, 1), nn.Linear(H, 1)

    def forward(
        self, *, video: Tensor, text: Tensor, mask_video: Tensor, mask_text: Tensor
    ) -> tuple[Tensor, Tensor]:  # (1, T, d), (1, L, e), (1, T), (1, L)
        seen, read = self.see(video) * mask_video[..., None], self.read(text)
        weights = (seen @ read.mT).masked_fill(~mask_text[:, None].bool(), -torch.inf).softmax(dim=-1)
        return self.fc_video_cls((seen + weights @ read).tanh()).squeeze(-1), self.fc_text_cls(read).squeeze(-1)


class ShotPooling(nn.Module):
    """Scores the mean frame of every shot (S, 2); each frame has the score of its shot, and 0 outside of all."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(D, H), nn.Tanh(), nn.Linear(H, 1))

    def forward(self, frames: Tensor, shots: Tensor) -> Tensor:
        rows = torch.arange(len(frames), device=frames.device)
        inside = ((rows >= shots[:, :1]) & (rows <= shots[:, 1:])).to(frames.dtype)  # (S, T)
        scores: Tensor = self.score(inside @ frames / inside.sum(dim=1, keepdim=True))  # (S, 1)
        return (inside.T @ scores).squeeze(-1)


class TwoStream(nn.Module):
    """Takes two streams (1, T, d), (1, T, e) and returns probabilities (1, T)."""

    def __init__(self) -> None:
        super().__init__()
        self.see, self.hear, self.last = nn.Linear(D, H), nn.Linear(AUDIO, H), nn.Linear(H, 1)

    def forward(self, picture: Tensor, sound: Tensor) -> Tensor:
        scores: Tensor = self.last((self.see(picture) * self.hear(sound).sigmoid()).tanh())
        return scores.squeeze(-1).sigmoid()


class Reader(nn.Module):
    """Takes frames and side inputs as visp gives them: first frames of shots, and sound."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.see, self.hear = nn.Linear(feature_dim, 1), nn.Linear(AUDIO, 1)

    def forward(self, frames: Tensor, side: Mapping[str, Tensor]) -> Tensor:
        first = torch.zeros_like(frames[:, 0]).index_fill(0, side["change_points"][:, 0], 1.0)
        logits: Tensor = self.see(frames).squeeze(-1) + self.hear(side["audio"]).squeeze(-1) + first
        return logits


def video_and_text(frames: Tensor, side: Mapping[str, Tensor]) -> dict[str, Tensor]:
    text = side["text"]
    return {
        "video": frames[None],
        "text": text[None],
        "mask_video": frames.new_ones(1, len(frames)),
        "mask_text": text.new_ones(1, len(text)),
    }


def frames_and_shots(frames: Tensor, side: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    return frames, side["change_points"]


def two_streams(module: nn.Module, frames: Tensor, side: Mapping[str, Tensor]) -> Any:
    return module(frames[None], side["audio"][None])


def first(value: tuple[Any, ...]) -> Any:
    return value[0]


class Sided(NamedTuple):
    """One of them: its class, how it is wrapped, and what it reads."""

    module: Callable[[], nn.Module]
    options: Mapping[str, Any]
    with_: With

    def make(self, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return visp.adapt_summarizer(self.module(), **self.options)


SIDED = {
    "text": Sided(TextShaped, {"inputs": video_and_text, "output": first}, ("text",)),
    "shots": Sided(ShotPooling, {"inputs": frames_and_shots}, ("change_points",)),
    "streams": Sided(TwoStream, {"call": two_streams, "logits_from": "last"}, {"audio": "frames"}),
}


def sided_records(num_videos: int = 8, seed: int = 0) -> list[VideoRecord]:
    """Videos with shots, sentences (L, e) and sound (T, a)."""
    rng = np.random.default_rng(seed)
    records = make_corpus(num_videos, feature_dim=D, num_shots=8, shot_length=(2, 5))
    return [
        replace(
            record,
            side={
                "text": rng.standard_normal((rng.integers(1, 4), TEXT), dtype=np.float32),
                "audio": rng.standard_normal((len(record.features), AUDIO), dtype=np.float32),
            },
        )
        for record in records
    ]


def sided_videos(sided: Sided, num_videos: int = 8, seed: int = 0) -> InMemoryDataset:
    return InMemoryDataset(sided_records(num_videos, seed), with_=sided.with_)
