"""A small video encoder for those who have none; it is thrown away after pretraining."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AttentionPoolEncoder(nn.Module):
    """Embeds a video by a learned query that attends to its frames: one transformer layer, for the query alone.

    The features are divided by their root mean square over the video, so unit-norm features train as well as
    others. No layer before the attention normalises a single frame: that would undo the gate of Eq. 8.
    The embedding has a fixed length, so the paper's inner product is bounded and InfoNCE goes on teaching the
    summarizer where longer embeddings would drive it to zero (docs/training.md).

    Args:
        feature_dim: d, dimension of a frame's features.
        embedding_dim: e, dimension of the embedding; a multiple of ``num_heads``.
        num_heads: Number of attention heads.
        scale: Inner product of two equal embeddings, the largest there can be; > 0.

    Raises:
        ValueError: If ``embedding_dim`` is not a multiple of ``num_heads`` or ``scale`` is not positive.
    """

    def __init__(
        self, feature_dim: int = 1024, *, embedding_dim: int = 128, num_heads: int = 4, scale: float = 5.0
    ) -> None:
        super().__init__()
        if embedding_dim % num_heads or not scale > 0:
            raise ValueError(
                "expected an embedding_dim that is a multiple of num_heads and a positive scale, got "
                f"embedding_dim={embedding_dim}, num_heads={num_heads} and scale={scale}"
            )
        self.scale = scale
        self.frame_embedding = nn.Linear(feature_dim, embedding_dim)
        self.query = nn.Parameter(torch.randn(1, embedding_dim) * 0.02)
        self.attention = nn.MultiheadAttention(embedding_dim, num_heads)
        self.norm1 = nn.LayerNorm(embedding_dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(embedding_dim, 2 * embedding_dim),
            nn.GELU(),
            nn.Linear(2 * embedding_dim, embedding_dim),
        )
        self.norm2 = nn.LayerNorm(embedding_dim)

    def forward(self, frames: Tensor) -> Tensor:
        """Embed one video.

        Args:
            frames: (T, d) features, T >= 1.

        Returns:
            (e,) embedding of norm sqrt(scale).
        """
        frames = frames / (frames.square().mean() + 1e-12).sqrt()  # finite gradient for an empty summary
        tokens = self.frame_embedding(frames)  # (T, e)
        attended, _ = self.attention(self.query, tokens, tokens, need_weights=False)  # (1, e)
        hidden = self.norm1(self.query + attended)
        hidden = self.norm2(hidden + self.feed_forward(hidden))
        return F.normalize(hidden[0], dim=0) * math.sqrt(self.scale)
