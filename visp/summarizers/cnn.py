"""What CSTA, its GoogleNet variant and its encoder share (Son et al., CVPR 2024): attention from a CNN over frames.

A video's features are seen as an image, T rows of d columns; a CNN's map of it, softmaxed over time and over
dimension, weights the frames' values. Names and shapes are those of the published code, so its checkpoints load.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from visp.pretrained import Pretrained
from visp.summarizers.inception import GoogLeNetTrunk
from visp.summarizers.layers import ExactLinear, check_frames, fold_into
from visp.weights import load_into, read_googlenet, read_weights

IMAGENET_URL = "https://download.pytorch.org/models/googlenet-1378be20.pth"
MIN_FRAMES = 14
"""Below this, GoogLeNet's pooled maps would be empty."""


class CNNAttention(nn.Module):
    """Base of :class:`CNNSummarizer` and of ``CSTAEncoder``: from frames to their values and attention.

    Videos of fewer than 14 frames are lengthened by repeating each frame; positions are computed, not read from a
    table, so a video may have any length.

    Args:
        feature_dim: d, dimension of a frame's features.
        width: Dimension of everything after the key embedding, a multiple of 64. 1024 is the published model;
            less makes the whole network narrower.

    Raises:
        ValueError: If an option is out of its range.
    """

    unused: tuple[str, ...] = ("googlenet.fc.",)
    """Beginnings of the names of what a published checkpoint has and this model lacks."""

    def __init__(self, feature_dim: int = 1024, *, width: int = 1024) -> None:
        super().__init__()
        if feature_dim < 1:
            raise ValueError(f"feature_dim must be at least 1, got {feature_dim!r}")
        self.feature_dim = feature_dim
        self.width = width
        self.googlenet = GoogLeNetTrunk(width)
        self.CLS = nn.Parameter(torch.zeros(1, 3, 1, feature_dim))
        self.key_embedding = nn.Linear(feature_dim, width)
        self.layernorm1 = nn.BatchNorm2d(1)
        self.dropout = nn.Dropout(0.6)
        self.value_embedding: ExactLinear | None = None

    def _prepare(self, frames: Tensor) -> tuple[Tensor, int]:
        """Check the frames and lengthen a short video: (T, d) to (T * repeats, d)."""
        check_frames(self, frames, frames.shape[:1])
        frames = frames.to(self.CLS.dtype)
        repeats = -(-MIN_FRAMES // frames.shape[0]) if frames.shape[0] < MIN_FRAMES else 1
        return frames.repeat_interleave(repeats, dim=0) if repeats > 1 else frames, repeats

    def _attention_map(self, rows: Tensor) -> Tensor:
        """CNN map of CLS and frames plus the keys, normalised, with positions: (T, d) to (T + 1, width)."""
        cls_keys = self.key_embedding(self.CLS[0].squeeze(1))  # (3, width)
        keys = self.key_embedding(rows)  # (T, width), the same in all three channels
        features = self.googlenet.of_gray(keys, cls_keys)
        with torch.autocast(rows.device.type, enabled=False):
            first_channel = torch.cat([cls_keys[:1], keys]).to(self.CLS.dtype)
            pooled = stretch(features[0].mean(dim=2).T.to(self.CLS.dtype), rows.shape[0] + 1)
            attention_map: Tensor = self.layernorm1((pooled + first_channel)[None, None])[0, 0]
            return attention_map + positions(attention_map.shape[0], self.width, attention_map)

    def _mix(self, rows: Tensor, attention_map: Tensor) -> Tensor:
        """Return the final hidden state from its first row, the CLS token's, to that of the last of the rows given."""
        attended = attention_map[: rows.shape[0] + 1]
        temporal = self.dropout(torch.softmax(attention_map, dim=0)[: attended.shape[0]])
        spatial = self.dropout(torch.softmax(attended, dim=1))
        mixed: Tensor = self._values(rows, attended) * (temporal + spatial)
        return mixed

    def _values(self, rows: Tensor, attention_map: Tensor) -> Tensor:
        """Return what the attention weights, (T + 1, width): values of CLS and rows (T, d), or the map without them."""
        if self.value_embedding is None:
            return attention_map
        return torch.cat([self.value_embedding(self.CLS[0, 0]), self.value_embedding(rows)])  # frames need no gradient

    @torch.no_grad()
    def fold_inputs(self, mean: Tensor, scale: Tensor) -> None:
        """Change the weights so that frames x give what ``(x - mean) / scale`` gave before.

        Args:
            mean: (d,) what is subtracted from every frame.
            scale: () what it is then divided by.
        """
        self.CLS.copy_(mean + scale * self.CLS)
        for embedding in (self.key_embedding, self.value_embedding):
            if embedding is not None:
                fold_into(embedding, mean, scale)

    def load_published(self, source: str | Path | Mapping[str, Tensor]) -> None:
        """Load a checkpoint of the published code, in place.

        Args:
            source: Path of the checkpoint, or its state dict. The position table must hold the sinusoids that
                visp computes; it and what is in ``unused`` may be absent.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If any other name is missing or unexpected, or a shape differs; the message counts them.
        """
        state = read_weights(source, self)
        table = state.pop("Positional_encoding_op.pe", None)
        if table is not None and not torch.allclose(
            table.float(), positions(len(table), table.shape[-1], table.float()), atol=1e-3
        ):
            raise ValueError("the checkpoint's position table is not the sinusoids of the published code")
        state = {name: value for name, value in state.items() if not name.startswith(self.unused)}
        load_into(self, state, f"these weights do not fit {type(self).__name__}")

    def load_imagenet(self, source: str | Path | Mapping[str, Tensor] | None = None) -> None:
        """Load torchvision's GoogLeNet weights for ImageNet into the CNN, in place.

        Args:
            source: Path of the weights, or their state dict. By default they are downloaded once through
                ``torch.hub``, with their hash checked.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If a name is missing or unexpected (classifiers aside), or a shape differs (``width``
                must be 1024); the message counts them.
        """
        if source is None:
            source = torch.hub.load_state_dict_from_url(IMAGENET_URL, map_location="cpu", check_hash=True)
        state = read_googlenet(source, self.googlenet)
        load_into(self.googlenet, state, f"these weights do not fit {type(self.googlenet).__name__}")


class CNNSummarizer(Pretrained, CNNAttention):
    """Base of the CNN summarizers :class:`CSTA` and :class:`GoogleNet`: a classifier of the attended values.

    A frame's logit is the mean over the repetitions by which a short video is lengthened.

    Args:
        feature_dim: d, dimension of a frame's features.
        width: Dimension of everything after the key embedding, a multiple of 64; 1024 as published.

    Raises:
        ValueError: If an option is out of its range.
    """

    def __init__(self, feature_dim: int = 1024, *, width: int = 1024) -> None:
        super().__init__(feature_dim, width=width)
        hidden, score = ExactLinear(width, width), ExactLinear(width, 1)
        for linear in (hidden, score):
            nn.init.xavier_uniform_(linear.weight, gain=math.sqrt(2))
            nn.init.constant_(linear.bias, 0.1)
        self.linear1 = nn.Sequential(hidden, nn.ReLU(), nn.Dropout(0.5), nn.LayerNorm(width, eps=1e-6))
        self.linear2 = nn.Sequential(score)

    def forward(self, frames: Tensor) -> Tensor:
        """Score the frames of one video.

        Args:
            frames: (T, d) features, T >= 1.

        Returns:
            (T,) logits, real numbers before the sigmoid.

        Raises:
            ValueError: If the shape is not (T, feature_dim) or T is 0.
        """
        rows, repeats = self._prepare(frames)
        mixed = self._mix(rows, self._attention_map(rows))  # (T + 1, width)
        hidden = self.linear1((mixed[:-1] + mixed[1:]) / 2)  # what adaptive pooling of T + 1 rows to T is
        logits: Tensor = self.linear2(hidden).squeeze(-1)
        return logits.reshape(-1, repeats).mean(dim=1)

    def scores(self, frames: Tensor) -> Tensor:
        """Return importance scores (T,) in (0, 1), the sigmoid of the logits, for frames (T, d)."""
        return torch.sigmoid(self(frames))


def stretch(rows: Tensor, length: int) -> Tensor:
    """Average (H, C) adaptively to (length, C), as adaptive average pooling does for ``length`` above or below H."""
    index = torch.arange(length, device=rows.device).unsqueeze(1)
    start, stop = index * rows.shape[0] // length, -(-(index + 1) * rows.shape[0] // length)
    row = torch.arange(rows.shape[0], device=rows.device)
    covered = ((row >= start) & (row < stop)).to(rows.dtype)  # (length, H)
    return covered @ rows / (stop - start)


def positions(length: int, width: int, like: Tensor) -> Tensor:
    """Sinusoidal positions 0 .. length - 1 (Vaswani et al. 2017): (length, width), as ``like`` in dtype and device."""
    rates = torch.exp(torch.arange(0, width, 2, device=like.device) * (-math.log(10000.0) / width))
    angles = torch.arange(length, device=like.device).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width].to(like.dtype)
