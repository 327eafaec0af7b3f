from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import visp
from visp.data import InMemoryDataset, VideoRecord
from visp.data.synthetic import make_corpus
from visp.encoders import AttentionPoolEncoder
from visp.summarizers import CSTA, GoogleNet
from visp.training.standardize import FoldsInputs, StandardizedVideos, standardization
from visp.weights import load_state

OFFSET = 3.0


def crowded(num_videos: int = 8) -> InMemoryDataset:
    """Videos whose features are nearly one vector."""
    records = make_corpus(num_videos, feature_dim=16, num_shots=3, shot_length=(5, 6))
    return InMemoryDataset([VideoRecord(r.name, r.features * 0.1 + OFFSET) for r in records])


class Folding(nn.Module):
    """A linear summarizer that can take a change of its inputs into its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(16, 1)

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.score(frames).squeeze(-1)
        return logits

    @torch.no_grad()
    def fold_inputs(self, mean: Tensor, scale: Tensor) -> None:
        self.score.bias.sub_(self.score.weight @ mean / scale)
        self.score.weight.div_(scale)


def run(summarizer: nn.Module, videos: InMemoryDataset, **options: Any) -> visp.ViSPPretrainer:
    torch.manual_seed(0)
    pretrainer = visp.ViSPPretrainer(summarizer, AttentionPoolEncoder(16), seed=0)
    given = {"epochs": 2, "batch_size": 8, "progress": False, "standardize": True, **options}
    visp.pretrain(pretrainer, videos, **given)
    return pretrainer


def test_standardized_frames_have_mean_0_and_spread_1() -> None:
    videos = crowded()
    change = standardization(videos)
    frames = torch.cat([StandardizedVideos(videos, change)[index] for index in range(len(videos))])
    assert torch.allclose(frames.mean(dim=0), torch.zeros(16), atol=1e-4)
    assert float(frames.square().mean()) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("model", [CSTA, GoogleNet])
@pytest.mark.parametrize("training", [False, True])
def test_folded_weights_take_the_features_as_they_are(model: type[CSTA] | type[GoogleNet], training: bool) -> None:
    torch.manual_seed(0)
    summarizer = model(16, width=64).double().train(training)
    for module in summarizer.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    assert isinstance(summarizer, FoldsInputs)
    videos = crowded(2)
    mean, scale = (value.double() for value in standardization(videos))
    frames = videos[0].double()
    with torch.no_grad():
        expected = summarizer((frames - mean) / scale)
        summarizer.fold_inputs(mean, scale)
        assert torch.allclose(summarizer(frames), expected, atol=1e-9)


def test_after_pretraining_the_summarizer_takes_the_features_as_they_are() -> None:
    videos = crowded()
    torch.manual_seed(0)
    folding, plain = Folding(), Folding()
    plain.load_state_dict(folding.state_dict())
    change = standardization(videos)
    run(folding, videos)
    records = [VideoRecord(f"video_{i}", StandardizedVideos(videos, change)[i].numpy()) for i in range(8)]
    run(plain, InMemoryDataset(records), standardize=False)
    with torch.no_grad():
        for index in range(8):
            expected = plain(torch.from_numpy(records[index].features))
            assert torch.allclose(folding(videos[index]), expected, atol=1e-3)


def test_the_weights_file_is_folded_and_the_checkpoint_is_not(tmp_path: Path) -> None:
    summarizer, videos = Folding(), crowded()
    run(summarizer, videos, out_dir=tmp_path / "run")
    weights = load_state(tmp_path / "run" / "weights.pt")
    assert torch.equal(weights["score.weight"], summarizer.score.weight)
    state = load_state(tmp_path / "run" / "checkpoint.pt")
    scale = standardization(videos).scale
    assert torch.allclose(state["module"]["summarizer.score.weight"] / scale, weights["score.weight"])


def test_resume_folds_once(tmp_path: Path) -> None:
    videos = crowded()
    torch.manual_seed(0)
    whole, parts = Folding(), Folding()
    parts.load_state_dict(whole.state_dict())
    run(whole, videos, epochs=4, out_dir=tmp_path / "whole")
    run(parts, videos, epochs=2, out_dir=tmp_path / "parts")
    again = Folding()
    run(again, videos, epochs=4, out_dir=tmp_path / "parts", resume=True)
    assert torch.equal(again.score.weight, whole.score.weight)
    assert torch.equal(again.score.bias, whole.score.bias)


def test_an_interrupted_summarizer_is_folded_too() -> None:
    class Stops(Folding):
        calls = 0

        def forward(self, frames: Tensor) -> Tensor:
            Stops.calls += 1
            if Stops.calls > 20:
                raise KeyboardInterrupt
            return super().forward(frames)

    videos, summarizer = crowded(), Stops()
    with pytest.raises(KeyboardInterrupt):
        run(summarizer, videos, epochs=20, lr=0.0)
    Stops.calls = 0
    logits = summarizer(videos[0])
    assert float(logits.detach().abs().max()) < 10


def test_an_adapted_summarizer_is_folded_through_its_own_module() -> None:
    class Probabilities(Folding):
        def forward(self, frames: Tensor) -> Tensor:
            return torch.sigmoid(super().forward(frames))

    videos, module = crowded(), Probabilities()
    before = module.score.weight.clone()
    run(visp.adapt_summarizer(module, probabilities=True), videos, lr=0.0)
    assert torch.allclose(module.score.weight, before / standardization(videos).scale)


def test_a_summarizer_that_cannot_fold_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Linear cannot take .* `fold_inputs\(mean, scale\)`"):
        run(visp.adapt_summarizer(nn.Linear(16, 1)), crowded())


def test_frames_that_are_all_the_same_are_refused() -> None:
    videos = InMemoryDataset([VideoRecord(f"video_{i}", torch.ones(5, 16).numpy()) for i in range(8)])
    with pytest.raises(ValueError, match="all frames are the same"):
        run(Folding(), videos)
