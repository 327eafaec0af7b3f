"""CSTA: CNN-based spatiotemporal attention for video summarization (Son et al., CVPR 2024)."""

from __future__ import annotations

from typing import ClassVar

from visp.summarizers.cnn import CNNSummarizer
from visp.summarizers.layers import ExactLinear


class CSTA(CNNSummarizer):
    """CSTA (Son et al., CVPR 2024), which the ViSP paper pretrains; 8.8 million parameters at the published width.

    Equal to the published ``GoogleNet_Attention`` model at its default options.

    Args:
        feature_dim: d, dimension of a frame's features.
        width: Dimension of everything after the key embedding, a multiple of 64; 1024 as published.

    Raises:
        ValueError: If an option is out of its range.
    """

    factory_name: ClassVar[str] = "csta"

    def __init__(self, feature_dim: int = 1024, *, width: int = 1024) -> None:
        super().__init__(feature_dim, width=width)
        self.value_embedding = ExactLinear(feature_dim, width)
