"""A slow, literal reading of the published CSTA and of its plain GoogleNet variant: one video as an image, NCHW.

Written from a description of the published computation, for comparison only. It does what the published code
does at its default options, with its limits: 14 <= T <= 4999, and the final sigmoid inside ``forward``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TABLE_LENGTH = 5000

INCEPTIONS = {  # name: inputs, 1x1, 3x3 in, 3x3, "5x5" in, "5x5", pool
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    layer = nn.Module()
    layer.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    layer.bn = nn.BatchNorm2d(outputs, eps=0.001)
    return layer


def _apply(layer: nn.Module, x: Tensor) -> Tensor:
    conv, bn = layer.get_submodule("conv"), layer.get_submodule("bn")
    return torch.relu(bn(conv(x)))


class ReferenceInception(nn.Module):
    def __init__(self, inputs: int, ones: int, three_in: int, three: int, five_in: int, five: int, pool: int) -> None:
        super().__init__()
        self.branch1 = _conv_bn(inputs, ones, 1)
        self.branch2 = nn.ModuleList([_conv_bn(inputs, three_in, 1), _conv_bn(three_in, three, 3)])
        self.branch3 = nn.ModuleList([_conv_bn(inputs, five_in, 1), _conv_bn(five_in, five, 3)])
        self.branch4 = nn.ModuleList([nn.Identity(), _conv_bn(inputs, pool, 1)])

    def forward(self, x: Tensor) -> Tensor:
        first = _apply(self.branch1, x)
        second = _apply(self.branch2[1], _apply(self.branch2[0], x))
        third = _apply(self.branch3[1], _apply(self.branch3[0], x))
        pooled = F.max_pool2d(x, kernel_size=3, stride=1, padding=1, ceil_mode=True)
        fourth = _apply(self.branch4[1], pooled)
        return torch.cat([first, second, third, fourth], dim=1)


class ReferenceGoogLeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _conv_bn(3, 64, 7, stride=2)
        self.conv2 = _conv_bn(64, 64, 1)
        self.conv3 = _conv_bn(64, 192, 3)
        for name, channels in INCEPTIONS.items():
            self.add_module(f"inception{name}", ReferenceInception(*channels))
        self.fc = nn.Linear(1024, 1000)  # never used, and still in every published checkpoint

    def forward(self, x: Tensor) -> Tensor:
        x = _apply(self.conv1, x)
        x = F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)
        x = _apply(self.conv2, x)
        x = _apply(self.conv3, x)
        x = F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)
        for name in INCEPTIONS:
            if name == "4a":
                x = F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)
            if name == "5a":
                x = F.max_pool2d(x, kernel_size=2, stride=2, ceil_mode=True)
            x = self.get_submodule(f"inception{name}")(x)
        return x


class ReferencePositions(nn.Module):
    pe: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        rates = torch.tensor([math.exp(-math.log(10000.0) * column / width) for column in range(0, width, 2)])
        angles = torch.arange(TABLE_LENGTH).float()[:, None] * rates[None, :]
        table = torch.empty(TABLE_LENGTH, width)
        table[:, 0::2] = torch.sin(angles)
        table[:, 1::2] = torch.cos(angles)
        self.register_buffer("pe", table)


class ReferenceCSTA(nn.Module):
    """Frames (T, d) to scores (T,); ``hidden`` is the map before the classifier, (T + 1, 1024)."""

    def __init__(self, feature_dim: int = 1024, *, value_embedding: bool = True) -> None:
        super().__init__()
        self.CLS = nn.Parameter(torch.zeros(1, 3, 1, feature_dim))
        self.googlenet = ReferenceGoogLeNet()
        self.Positional_encoding_op = ReferencePositions(1024)
        self.linear1 = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Dropout(0.5), nn.LayerNorm(1024, eps=1e-6))
        self.linear2 = nn.Sequential(nn.Linear(1024, 1), nn.Sigmoid())
        self.key_embedding = nn.Linear(feature_dim, 1024)
        self.value_embedding = nn.Linear(feature_dim, 1024) if value_embedding else None
        self.layernorm1 = nn.BatchNorm2d(1)
        self.temporal_dropout = nn.Dropout(0.6)
        self.spatial_dropout = nn.Dropout(0.6)

    def hidden(self, frames: Tensor) -> Tensor:
        length = len(frames)
        x = torch.stack([frames, frames, frames])[None]  # (1, 3, T, d)
        x = torch.cat([self.CLS, x], dim=2)  # (1, 3, T + 1, d)
        key = self.key_embedding(x)  # (1, 3, T + 1, 1024)
        cnn = self.googlenet(key)  # (1, 1024, H', W')
        cnn = F.adaptive_avg_pool2d(cnn, (length + 1, 1))  # (1, 1024, T + 1, 1)
        cnn = cnn.permute(0, 3, 2, 1)  # (1, 1, T + 1, 1024)
        cnn = self.layernorm1(cnn + key[:, :1])
        attention_map = cnn[0, 0] + self.Positional_encoding_op.pe[: length + 1]  # (T + 1, 1024)
        temporal = self.temporal_dropout(attention_map.softmax(dim=0))
        spatial = self.spatial_dropout(attention_map.softmax(dim=1))
        v = attention_map if self.value_embedding is None else self.value_embedding(x[0, 0])
        mixed: Tensor = v * temporal + v * spatial
        return mixed

    def logits(self, frames: Tensor) -> Tensor:
        mixed = self.hidden(frames)
        pooled = F.adaptive_avg_pool2d(mixed[None, None], (len(frames), mixed.shape[1]))[0, 0]
        logits: Tensor = self.linear2[0](self.linear1(pooled)).squeeze(-1)
        return logits

    def forward(self, frames: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(frames))
