"""The plain GoogleNet variant of CSTA: the CNN's map is attention and value at once (Son et al., CVPR 2024)."""

from __future__ import annotations

from torch import Tensor

from visp.summarizers.cnn import CNNSummarizer


class GoogleNet(CNNSummarizer):
    """The GoogleNet baseline of the ViSP paper's Table 2: CSTA without a value embedding.

    Args:
        feature_dim: d, dimension of a frame's features.
        width: Dimension of everything after the key embedding, a multiple of 64; 1024 as published.
        classifier: ``False`` makes an encoder only (:meth:`encode`), without the classifier's parameters.
        pooling: What :meth:`encode` returns: ``"attention"``, ``"mean"``, or the literal ``"cls"``.

    Raises:
        ValueError: If an option is out of its range.
    """

    def _values(self, rows: Tensor, attention_map: Tensor) -> Tensor:
        return attention_map
