"""GoogLeNet (Inception v1 with batch normalisation, Szegedy et al. 2015) up to its last map.

Names and shapes are torchvision's ``googlenet`` without its classifiers, so that its ImageNet weights load;
like there, the "5x5" branch is a 3x3 convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GoogLeNetTrunk(nn.Module):
    """The convolutional part of GoogLeNet.

    Args:
        width: Channels of the last map, a multiple of 64; 1024 is GoogLeNet, less scales every layer.

    Raises:
        ValueError: If ``width`` is not a positive multiple of 64.
    """

    def __init__(self, width: int = 1024) -> None:
        super().__init__()
        if width <= 0 or width % 64:
            raise ValueError(f"width must be a positive multiple of 64, got {width!r}")

        def inception(*channels: int) -> Inception:
            return Inception(*(channel * width // 1024 for channel in channels))

        first, third = 64 * width // 1024, 192 * width // 1024
        self.conv1 = ConvNormReLU(3, first, kernel_size=7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = ConvNormReLU(first, first, kernel_size=1)
        self.conv3 = ConvNormReLU(first, third, kernel_size=3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception3a = inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = inception(256, 128, 128, 192, 32, 96, 64)
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = inception(528, 256, 160, 320, 32, 128, 128)
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.inception5a = inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = inception(832, 384, 192, 384, 48, 128, 128)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to (B, width, H', W'), each side about 32 times shorter."""
        x = images.contiguous(memory_format=torch.channels_last)
        x = self.maxpool1(self.conv1(x))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        x = self.inception4c(self.inception4b(self.inception4a(x)))
        x = self.maxpool4(self.inception4e(self.inception4d(x)))
        x = self.inception5b(self.inception5a(x))
        assert isinstance(x, Tensor)
        return x


class Inception(nn.Module):
    """Four branches side by side, their channels concatenated."""

    def __init__(self, inputs: int, ch1: int, ch3_in: int, ch3: int, ch5_in: int, ch5: int, pool: int) -> None:
        super().__init__()
        self.branch1 = ConvNormReLU(inputs, ch1, kernel_size=1)
        self.branch2 = nn.Sequential(
            ConvNormReLU(inputs, ch3_in, kernel_size=1), ConvNormReLU(ch3_in, ch3, kernel_size=3, padding=1)
        )
        self.branch3 = nn.Sequential(
            ConvNormReLU(inputs, ch5_in, kernel_size=1), ConvNormReLU(ch5_in, ch5, kernel_size=3, padding=1)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), ConvNormReLU(inputs, pool, kernel_size=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W)."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class ConvNormReLU(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, *, kernel_size: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        return F.relu(self.bn(self.conv(x)), inplace=True)
