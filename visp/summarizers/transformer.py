"""A light summarizer: every frame attends to the whole video, without positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visp.pretrained import Pretrained
from visp.summarizers.layers import ExactLinear, check_frames, fold_into


class Transformer(Pretrained, nn.Module):
    """Pre-norm transformer over the frames of a video; 0.4 million parameters at d = 1024. Ours, not the paper's.

    It has no positions: the order of the frames does not matter, and a video may have any length.

    Args:
        feature_dim: d, dimension of a frame's features.
        width: Dimension of everything after the first layer, a multiple of ``num_heads``.
        num_layers: Number of layers of attention and feed-forward network.
        num_heads: Number of attention heads of each layer.

    Raises:
        ValueError: If an option is out of its range.
    """

    factory_name: ClassVar[str] = "transformer"

    def __init__(self, feature_dim: int = 1024, *, width: int = 128, num_layers: int = 2, num_heads: int = 4) -> None:
        super().__init__()
        if min(feature_dim, width, num_layers, num_heads) < 1 or width % num_heads:
            raise ValueError(
                "expected positive sizes and a width that is a multiple of num_heads, got "
                f"feature_dim={feature_dim}, width={width}, num_layers={num_layers} and num_heads={num_heads}"
            )
        self.feature_dim = feature_dim
        self.embedding = ExactLinear(feature_dim, width)
        self.layers = nn.ModuleList(TransformerLayer(width, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        self.score = ExactLinear(width, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Score the frames of one video.

        Args:
            frames: (T, d) features, T >= 1.

        Returns:
            (T,) logits, real numbers before the sigmoid.

        Raises:
            ValueError: If the shape is not (T, feature_dim) or T is 0.
        """
        return self.forward_batch(frames, [frames.shape[0]])

    def forward_batch(self, frames: Tensor, lengths: Sequence[int]) -> Tensor:
        """Score the frames of several videos, one after the other in one tensor; equal to one call per video.

        Args:
            frames: (L, d) features of all videos.
            lengths: Number of frames T >= 1 of each video; they add up to L.

        Returns:
            (L,) logits.

        Raises:
            ValueError: If the frames are not (L, feature_dim), or the lengths do not fit them.
        """
        check_frames(self, frames, lengths)
        x = self.embedding(frames)  # (L, width)
        for layer in self.layers:
            x = layer(x, lengths)
        logits: Tensor = self.score(self.norm(x)).squeeze(-1)
        return logits

    def fold_inputs(self, mean: Tensor, scale: Tensor) -> None:
        """Change the weights so that frames x give what ``(x - mean) / scale`` gave before.

        Args:
            mean: (d,) what is subtracted from every frame.
            scale: () what it is then divided by.
        """
        fold_into(self.embedding, mean, scale)


class TransformerLayer(nn.Module):
    """Attention of each frame to the frames of its video, then a feed-forward network, each added to its input."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """Map (L, width) to (L, width); videos of these lengths do not see each other."""
        projected = self.queries_keys_values(self.norm1(x))  # (L, 3 width)
        attended = [self._attend(video) for video in torch.split(projected, list(lengths))]
        x = x + self.mix(torch.cat(attended))
        output: Tensor = x + self.feed_forward(self.norm2(x))
        return output

    def _attend(self, video: Tensor) -> Tensor:
        """Map the queries, keys and values (T, 3 width) of one video to what its frames attend to, (T, width)."""
        heads = video.view(video.shape[0], 3, 1, self.num_heads, -1).permute(1, 2, 3, 0, 4)  # (3, 1, heads, T, c)
        return F.scaled_dot_product_attention(*heads)[0].transpose(0, 1).flatten(1)
