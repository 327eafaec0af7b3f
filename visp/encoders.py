"""A small video encoder for those who have none; it is thrown away after pretraining."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
            frames: (T, d) features, T >= 1, or tokens of each frame (T, M, d).

        Returns:
            (e,) embedding of norm sqrt(scale).
        """
        return self.encode_batch(frames, [len(frames)])[0]

    def encode_batch(self, frames: Tensor, lengths: Sequence[int]) -> Tensor:
        """Embed several videos, or windows, whose frames follow each other; equal to one call for each.

        Args:
            frames: (L, d) features of all videos. Tokens of frames, (L, M, d), are attended to as frames are; the gate
                of a frame has gated all of them.
            lengths: Number of frames T >= 1 of each; they add up to L.

        Returns:
            (N, e) embeddings of norm sqrt(scale).

        Raises:
            ValueError: If the lengths do not add up to L.
        """
        if sum(lengths) != len(frames):
            raise ValueError(f"expected lengths that add up to {len(frames)} frames, got {sum(lengths)}")
        if frames.ndim > 2:
            tokens = math.prod(frames.shape[1:-1])
            frames, lengths = frames.flatten(0, -2), [tokens * length for length in lengths]
        attended = self._attend(frames, lengths)  # (N, e)
        hidden = self.norm1(self.query + attended)
        hidden = self.norm2(hidden + self.feed_forward(hidden))
        return F.normalize(hidden, dim=1) * math.sqrt(self.scale)

    def _attend(self, frames: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return what the query attends to in each video, (N, e): ``self.attention`` over ``self.frame_embedding``.

        With a single query no frame needs to be projected: the weights of a head are linear in the frame, and the
        frames can be summed before they become tokens and values.
        """
        counts = torch.tensor(list(lengths), device=frames.device)
        video = torch.repeat_interleave(counts, output_size=len(frames))  # (L,), which video a frame is of
        squares = torch.linalg.vector_norm(frames, dim=1).square()
        mean_square = squares.new_zeros(len(counts)).index_add(0, video, squares) / (counts * frames.shape[1])
        norm = (mean_square + 1e-12).rsqrt()[:, None]  # (N, 1), finite gradient for an empty summary
        query_weight, key_weight, value_weight = self.attention.in_proj_weight.chunk(3)
        query_bias, _, value_bias = self.attention.in_proj_bias.chunk(3)  # a bias of the keys changes no weight
        heads = (self.attention.num_heads, -1)
        query = F.linear(self.query[0], query_weight, query_bias).view(*heads, 1) / math.sqrt(self.attention.head_dim)
        on_tokens = (query * key_weight.view(*heads, key_weight.shape[1])).sum(dim=1)  # (heads, e)
        on_frames = on_tokens @ self.frame_embedding.weight  # (heads, d)
        logits = F.linear(frames, on_frames) * norm[video]  # (L, heads)
        weights = _softmax_of_videos(logits, video, len(counts))
        pairs = zip(torch.split(weights, list(lengths)), torch.split(frames, list(lengths)), strict=True)
        pooled = torch.stack([weight.T @ of_video for weight, of_video in pairs]) * norm[..., None]  # (N, heads, d)
        tokens = self.frame_embedding(pooled)  # (N, heads, e)
        values = torch.einsum("nhe,hce->nhc", tokens, value_weight.view(*heads, value_weight.shape[1]))
        attended: Tensor = self.attention.out_proj(values.flatten(1) + value_bias)
        return attended


def _softmax_of_videos(logits: Tensor, video: Tensor, number: int) -> Tensor:
    """Return the softmax (L, heads) over the frames of each video."""
    largest = logits.detach().new_full((number, logits.shape[1]), -torch.inf)
    largest = largest.scatter_reduce(0, video[:, None].expand_as(logits), logits.detach(), "amax")
    exponentials = (logits - largest[video]).exp()
    totals = exponentials.new_zeros(number, logits.shape[1]).index_add(0, video, exponentials)
    return exponentials / totals[video]
