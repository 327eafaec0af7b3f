"""Extractors by name: which one is meant, where its weights come from, and how a factory is called."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("av")

from visp.video import GoogLeNetPool5, extractors, make_extractor
from visp.video.extractors import Extractor, fetched_weights
from visp.weights import CheckpointError


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """GoogLeNet's weights as torchvision publishes them, at an address that can be reached."""
    torch.manual_seed(3)
    state = {**GoogLeNetPool5().googlenet.state_dict(), "fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "weights.pth")
    digits = hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()[:8]
    path = (tmp_path / "weights.pth").rename(tmp_path / f"googlenet-{digits}.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(extractors, "IMAGENET_URL", path.as_uri())
    return path


@pytest.mark.parametrize("name", [None, "googlenet"])
def test_imagenet_weights_of_googlenet_are_fetched_once(published: Path, tmp_path: Path, name: str | None) -> None:
    fetched = make_extractor(name, "imagenet")
    assert fetched.provenance == make_extractor("googlenet", published).provenance
    assert (tmp_path / "torch" / "hub" / "checkpoints" / published.name).read_bytes() == published.read_bytes()
    published.unlink()
    assert make_extractor(name, "imagenet").provenance == fetched.provenance


def test_what_was_fetched_is_refused_if_its_hash_is_another(published: Path, tmp_path: Path) -> None:
    damaged = published.rename(published.with_name("googlenet-0badf00d.pth"))
    with pytest.raises(CheckpointError, match=r"googlenet-0badf00d\.pth: invalid hash value"):
        fetched_weights(damaged.as_uri())
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    assert list(folder.iterdir()) == []
    (folder / "googlenet-0badf00d.pth").write_bytes(damaged.read_bytes())
    with pytest.raises(CheckpointError, match=r"googlenet-0badf00d\.pth is damaged: its SHA-256 .* remove it"):
        fetched_weights(damaged.as_uri())


def test_weights_that_cannot_be_fetched_say_where_to_put_them(published: Path) -> None:
    published.unlink()
    with pytest.raises(OSError, match=r"googlenet-.*\.pth cannot be fetched .*; fetch it elsewhere and put it at "):
        make_extractor("googlenet", "imagenet")


def with_argument(feature_dim: int) -> nn.Module:
    return nn.Linear(1, feature_dim)


def with_default(pool: int = 8) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(pool), nn.Flatten())


def test_a_factory_is_called_without_arguments_and_the_error_says_so() -> None:
    assert make_extractor(f"{__name__}:with_default").feature_dim == 192
    with pytest.raises(
        TypeError, match=r"with_argument is called as with_argument\(\): missing a required argument: 'feature_dim'"
    ):
        make_extractor(f"{__name__}:with_argument")


def test_imagenet_weights_are_those_of_the_built_in_extractors() -> None:
    with pytest.raises(ValueError, match="'imagenet' are those of efficientnet-lite0 and googlenet"):
        make_extractor(f"{__name__}:with_default", "imagenet")


def test_uint8_frames_are_normalised_with_the_extractors_own_values() -> None:
    extractor = Extractor(
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0)
    )
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    torch.testing.assert_close(torch.from_numpy(extractor(images)), torch.tensor([[-1.0, -0.2, 0.5]]))
