"""Modules as folders of ``config.json`` and ``model.safetensors``, for visp and for huggingface_hub."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import visp
from visp.inputs import Standardization, carried, carry
from visp.pretrained import Pretrained
from visp.weights import CheckpointError

pytest.importorskip("safetensors")
FRAMES = torch.randn(20, 12, generator=torch.Generator().manual_seed(0))


class Own(Pretrained, nn.Module):
    def __init__(self, feature_dim: int, *, hidden: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(feature_dim, hidden), nn.Dropout(0.5), nn.Linear(hidden, 1))

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.layers(frames).squeeze(-1)
        return logits


MODULES = [
    Own(12, hidden=3),
    visp.summarizers.Transformer(12, width=8, num_layers=1),
    visp.summarizers.CSTA(12, width=64),
    visp.summarizers.GoogleNet(12, width=64),
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_what_is_saved_scores_as_before_and_says_where_it_comes_from(tmp_path: Path, module: Any) -> None:
    module.save_pretrained(tmp_path / "folder", features={"extractor": "efficientnet-lite0"})
    again = type(module).from_pretrained(tmp_path / "folder")
    assert not again.training
    torch.testing.assert_close(again(FRAMES), module.eval()(FRAMES))
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    assert config["feature_dim"] == 12
    assert config["visp"]["features"] == {"extractor": "efficientnet-lite0"}
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["config.json", "model.safetensors"]


def test_huggingface_hub_reads_the_folder_and_writes_one_that_is_read(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")

    class Shared(hub.PyTorchModelHubMixin, Own):  # type: ignore[misc, name-defined]
        pass

    module = Own(12, hidden=3).eval()
    module.save_pretrained(tmp_path / "ours")
    theirs = Shared.from_pretrained(str(tmp_path / "ours"))
    torch.testing.assert_close(theirs(FRAMES), module(FRAMES))
    hub.PyTorchModelHubMixin.save_pretrained(Shared(12, hidden=3), tmp_path / "theirs")
    assert Own.from_pretrained(tmp_path / "theirs")(FRAMES).shape == (20,)


def test_a_standardization_that_is_carried_travels_too(tmp_path: Path) -> None:
    module = Own(12).eval()
    carry(module, Standardization(FRAMES.mean(0), torch.tensor(2.0)))
    module.save_pretrained(tmp_path)
    again = Own.from_pretrained(tmp_path)
    assert carried(again) is not None
    torch.testing.assert_close(again(FRAMES), module(FRAMES))
    carry(module, None)
    module.save_pretrained(tmp_path)
    assert carried(Own.from_pretrained(tmp_path)) is None


def test_copies_remember_what_they_were_given(tmp_path: Path) -> None:
    for module in (copy.deepcopy(MODULES[0]), pickle.loads(pickle.dumps(MODULES[0]))):
        module.save_pretrained(tmp_path)
        assert Own.from_pretrained(tmp_path).layers[0].out_features == 3


def test_what_is_no_such_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected a local folder; huggingface_hub\.snapshot_download"):
        Own.from_pretrained("someone/model")
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        Own.from_pretrained(tmp_path)
    Own(12).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="expected"):
        Own.from_pretrained(tmp_path, hidden=5)
