"""How well the top-scored frames identify their video: a measure of scores that needs no annotation.

Eq. 1 asks for a small summary that tells much about its video. InfoNCE during training cannot show that a
summarizer found one, because the encoder learns to recognise videos from any frames. Here a fresh encoder is
trained on random summaries only, and then judges the top-scored frames of equal share, on fresh noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visp.contrastive import info_nce
from visp.encoders import AttentionPoolEncoder
from visp.pseudo_summary import top_share


@dataclass(frozen=True)
class Identification:
    """How well summaries identified their videos, averaged over draws of noise.

    Attributes:
        info_nce: Eq. 3 in nats, without gradient; lower is better, log N is chance.
        accuracy: Share of summaries whose own video was the most similar, in [0, 1]; 1 / N is chance.
    """

    info_nce: float
    accuracy: float


class Judge:
    """A fresh encoder trained to recognise videos from random summaries, frames with noise added.

    Args:
        videos: N videos of (T_i, d) features.
        share: Share of the frames in a summary, in (0, 1].
        noise: Standard deviation of the noise on every feature, relative to the video's root mean square.
        steps: Training steps; each shows every video once.
        lr: Learning rate of Adam.
        seed: Seed of the encoder's weights and of all noise.
    """

    def __init__(
        self,
        videos: Sequence[Tensor],
        *,
        share: float = 0.3,
        noise: float = 1.0,
        steps: int = 100,
        lr: float = 5e-4,
        seed: int = 0,
    ) -> None:
        self.videos = videos
        self.share = share
        self.noise = noise
        self.seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = AttentionPoolEncoder(videos[0].shape[1], scale=10.0)
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(self.encoder.parameters(), lr=lr)
        for _ in range(steps):
            random_summaries = [top_share(torch.rand(len(v), generator=generator), share) for v in videos]
            loss, _ = self._identify(random_summaries, generator)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    @torch.no_grad()
    def __call__(self, scores: Sequence[Tensor], draws: int = 20) -> Identification:
        """Judge frame scores.

        Args:
            scores: One (T_i,) tensor of scores or logits a video; only their order counts.
            draws: Draws of noise to average over; the same draws for every call.

        Returns:
            How well the ``share`` of top-scored frames identified the videos.
        """
        generator = torch.Generator().manual_seed(self.seed + 1)
        summaries = [top_share(score, self.share) for score in scores]
        results = torch.stack([torch.stack(self._identify(summaries, generator)) for _ in range(draws)])
        loss, accuracy = results.mean(dim=0).tolist()
        return Identification(info_nce=loss, accuracy=accuracy)

    def _identify(self, summaries: Sequence[Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        embedded = torch.stack(
            [
                self.encoder(self._noisy(video, generator)[summary.bool()])
                for video, summary in zip(self.videos, summaries, strict=True)
            ]
        )
        originals = torch.stack([self.encoder(video) for video in self.videos])
        best = (embedded.detach() @ originals.detach().T).argmax(dim=1)
        accuracy = (best == torch.arange(len(best))).float().mean()
        return info_nce(embedded, originals), accuracy

    def _noisy(self, video: Tensor, generator: torch.Generator) -> Tensor:
        scale = self.noise * video.square().mean().sqrt()
        return video + scale * torch.randn(video.shape, generator=generator)
