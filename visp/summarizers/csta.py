"""CSTA: CNN-based spatiotemporal attention for video summarization (Son et al., CVPR 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visp.summarizers.cnn import CNNSummarizer, Pooling
from visp.summarizers.layers import ExactLinear


class CSTA(CNNSummarizer):
    """CSTA, the summarizer that the ViSP paper pretrains; 8.8 million parameters at the published width.

    Equal to the published ``GoogleNet_Attention`` model at its default options.

    Args:
        feature_dim: d, dimension of a frame's features.
        width: Dimension of everything after the key embedding, a multiple of 64; 1024 as published.
        classifier: ``False`` makes an encoder only (:meth:`encode`), without the classifier's parameters.
        pooling: What :meth:`encode` returns: ``"attention"``, ``"mean"``, or the literal ``"cls"``.

    Raises:
        ValueError: If an option is out of its range.
    """

    def __init__(
        self,
        feature_dim: int = 1024,
        *,
        width: int = 1024,
        classifier: bool = True,
        pooling: Pooling = "attention",
    ) -> None:
        super().__init__(feature_dim, width=width, classifier=classifier, pooling=pooling)
        self.value_embedding = ExactLinear(feature_dim, width)

    def _input_layers(self) -> list[nn.Linear]:
        return [*super()._input_layers(), self.value_embedding]

    def _values(self, rows: Tensor, attention_map: Tensor) -> Tensor:
        return torch.cat([self.value_embedding(self.CLS[0, 0]), self.value_embedding(rows)])  # frames need no gradient
