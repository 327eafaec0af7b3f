"""CSTA as video encoder, the paper's setting: CSTA's attention without its classifier."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from visp.summarizers.cnn import CNNAttention
from visp.summarizers.layers import ExactLinear

Pooling = Literal["attention", "mean", "cls"]


class CSTAEncoder(CNNAttention):
    """Embeds a video as CSTA sees it; every parameter serves the embedding, as plain DDP requires.

    ``pooling="cls"`` is the paper's literal reading: the CLS row of the final hidden state, dropout included. Its
    entries are near 1e-4 and it does not train (docs/training.md). ``"attention"`` sums the values under the temporal
    attention, each dimension with its own weights over time, and ``"mean"`` averages the rows of the final hidden
    state; both without dropout, and of the fixed length that :class:`visp.encoders.AttentionPoolEncoder` gives its
    embeddings, so that inner products are bounded.

    Args:
        feature_dim: d, dimension of a frame's features.
        width: Dimension of the embedding and of everything after the key embedding, a multiple of 64.
        pooling: ``"attention"``, ``"mean"`` or ``"cls"``.

    Raises:
        ValueError: If an option is out of its range.
    """

    unused = ("googlenet.fc.", "linear1.", "linear2.")

    def __init__(self, feature_dim: int = 1024, *, width: int = 1024, pooling: Pooling = "attention") -> None:
        super().__init__(feature_dim, width=width)
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling must be one of {', '.join(map(repr, get_args(Pooling)))}, got {pooling!r}")
        self.pooling = pooling
        self.value_embedding = ExactLinear(feature_dim, width)

    def forward(self, frames: Tensor) -> Tensor:
        """Embed one video.

        Args:
            frames: (T, d) features, T >= 1.

        Returns:
            (width,) embedding; of norm sqrt(5) unless the pooling is ``"cls"``.

        Raises:
            ValueError: If the shape is not (T, feature_dim) or T is 0.
        """
        rows, _ = self._prepare(frames)
        attention_map = self._attention_map(rows)
        if self.pooling == "cls":
            return self._mix(rows[:0], attention_map)[0]
        values = self._values(rows, attention_map)
        if self.pooling == "attention":
            pooled = (values * torch.softmax(attention_map, dim=0)).sum(dim=0)
        else:
            attention = torch.softmax(attention_map, dim=0) + torch.softmax(attention_map, dim=1)
            pooled = (values * attention).mean(dim=0)
        return F.normalize(pooled - pooled.mean(), dim=0) * math.sqrt(5)
