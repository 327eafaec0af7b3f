"""How well the top-scored frames identify their video: a measure of scores that needs no annotation.

Eq. 1 asks for a small summary that tells much about its video. InfoNCE during training cannot show that a
summarizer found one, because the encoder learns to recognise videos from any frames. Here the scores are fixed,
a fresh encoder learns to recognise the videos from the top-scored frames of equal share, seen through noise, and
what it reaches on fresh noise is the measure: the bound of Eq. 2 for these scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visp.contrastive import info_nce
from visp.encoders import AttentionPoolEncoder
from visp.passes import embed_pieces
from visp.pseudo_summary import top_share
from visp.utils.noise import seeded


@dataclass(frozen=True)
class Identification:
    """How well summaries identified their videos, averaged over draws of noise.

    Attributes:
        info_nce: Eq. 3 in nats; lower is better, log N is chance.
        accuracy: Share of summaries whose own video was the most similar, in [0, 1]; 1 / N is chance.
    """

    info_nce: float
    accuracy: float


def identify(
    videos: Sequence[Tensor],
    scores: Sequence[Tensor],
    *,
    share: float = 0.3,
    noise: float = 3.0,
    steps: int = 100,
    draws: int = 20,
    lr: float = 5e-4,
    seed: int = 0,
) -> Identification:
    """Train a fresh encoder on the top-scored frames of every video and judge it on fresh noise.

    Args:
        videos: N videos of (T_i, d) features.
        scores: One (T_i,) tensor of scores or logits per video; only their order counts.
        share: Share of the frames in a summary, in (0, 1].
        noise: Standard deviation of the noise on every feature of a summary, relative to the video's root mean square.
        steps: Training steps of the encoder; each shows every video once.
        draws: Draws of noise to average the result over.
        lr: Learning rate of Adam.
        seed: Seed of the encoder's weights and of the noise; compare scores under the same seeds.

    Returns:
        What the encoder reached.

    Raises:
        ValueError: If the share is not in (0, 1].
    """
    kept = [top_share(score, share).bool() for score in scores]
    scales = [noise * video.square().mean().sqrt() for video in videos]
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed):
        encoder = AttentionPoolEncoder(videos[0].shape[-1], scale=10.0)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=lr)

    def embed() -> tuple[Tensor, Tensor]:
        seen = [
            video[frames] + scale * torch.randn(video[frames].shape, generator=generator)
            for video, frames, scale in zip(videos, kept, scales, strict=True)
        ]
        whole = [[[(0, len(piece))] for piece in pieces] for pieces in (seen, videos)]
        summaries, originals = embed_pieces(encoder, seen, whole[0]), embed_pieces(encoder, videos, whole[1])
        return torch.cat(summaries), torch.cat(originals)

    for _ in range(steps):
        loss = info_nce(*embed())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    losses, hits = [], []
    with torch.no_grad():
        for _ in range(draws):
            summaries, originals = embed()
            losses.append(info_nce(summaries, originals))
            hits.append((summaries @ originals.T).argmax(dim=1) == torch.arange(len(videos)))
    return Identification(float(torch.stack(losses).mean()), float(torch.stack(hits).float().mean()))
