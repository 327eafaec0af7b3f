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
        return self._after_conv1(self.conv1.conv(images.contiguous(memory_format=torch.channels_last)))

    def of_gray(self, rows: Tensor, top: Tensor) -> Tensor:
        """Map one image whose channels differ in the top row alone; equal to :meth:`forward` of that image.

        Args:
            rows: (H - 1, W) values of the rows below the top, the same in all channels; W even.
            top: (3, W) values of the top row, by channel.

        Returns:
            (1, width, H', W'), as :meth:`forward`.
        """
        return self._after_conv1(_convolve_gray(rows, top, self.conv1.conv.weight))

    def _after_conv1(self, x: Tensor) -> Tensor:
        y: Tensor = self.maxpool1(self.conv1.activate(x))
        y = self.maxpool2(self.conv3(self.conv2(y)))
        y = self.maxpool3(self.inception3b(self.inception3a(y)))
        y = self.inception4c(self.inception4b(self.inception4a(y)))
        y = self.maxpool4(self.inception4e(self.inception4d(y)))
        y = self.inception5b(self.inception5a(y))
        assert isinstance(y, Tensor)
        return y


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
        return self.activate(self.conv(x))

    def activate(self, x: Tensor) -> Tensor:
        """Normalise and rectify what the convolution gave."""
        return F.relu(self.bn(x), inplace=True)


def _convolve_gray(rows: Tensor, top: Tensor, weight: Tensor) -> Tensor:
    """Convolve as ``weight`` (C, 3, 7, 7) does, stride 2 and padding 3, an image of equal channels below its top row.

    Equal channels see the sum of their kernels. The top row is convolved apart, channel by channel: it meets the
    kernel's row 3 in the first row of the output and row 1 in the second.
    """
    num_channels, width = len(weight), rows.shape[1]
    windows = F.pad(rows, (3, 3, 4, 3)).unfold(0, 7, 2)  # (H', W + 6, 7), with a row of zeros for the top
    windows = windows.reshape(1, -1, width // 2 + 3, 14)  # two columns by seven rows, for a kernel of stride 1
    kernel = F.pad(weight.sum(dim=1), (0, 1)).reshape(num_channels, 7, 4, 2)
    kernel = kernel.permute(0, 3, 1, 2).reshape(num_channels, 14, 1, 4)
    out = F.conv2d(windows.permute(0, 3, 1, 2), kernel)  # (1, C, H', W / 2)
    ends = F.conv1d(top, torch.cat([weight[:, :, 3], weight[:, :, 1]]), stride=2, padding=3)
    out[0, :, :2] += ends.reshape(2, num_channels, -1).transpose(0, 1)
    return out
