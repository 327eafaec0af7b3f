"""The plain GoogleNet variant of CSTA: the CNN's map is attention and value at once (Son et al., CVPR 2024)."""

from __future__ import annotations

from typing import ClassVar

from visp.summarizers.cnn import CNNSummarizer


class GoogleNet(CNNSummarizer):
    """The GoogleNet baseline of the ViSP paper's Table 2: CSTA without a value embedding.

    Args:
        feature_dim: d, dimension of a frame's features.
        width: Dimension of everything after the key embedding, a multiple of 64; 1024 as published.

    Raises:
        ValueError: If an option is out of its range.
    """

    factory_name: ClassVar[str] = "googlenet"
