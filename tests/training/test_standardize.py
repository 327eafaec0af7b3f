from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import visp
from visp.data import InMemoryDataset, VideoRecord
from visp.data.synthetic import make_corpus
from visp.encoders import AttentionPoolEncoder
from visp.inputs import carried
from visp.summarizers import CSTA, GoogleNet
from visp.training.fold import FoldsInputs, find_fold
from visp.training.standardize import StandardizedVideos, standardization
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


def test_frames_that_are_all_the_same_are_refused() -> None:
    videos = InMemoryDataset([VideoRecord(f"video_{i}", torch.ones(5, 16).numpy()) for i in range(8)])
    with pytest.raises(ValueError, match="all frames are the same"):
        run(Folding(), videos)
    assert run(Folding(), videos, standardize="auto") is not None


# --- found by looking ---------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self, kind: Any = nn.LSTM, *, bidirectional: bool = True) -> None:
        super().__init__()
        self.recurrent = kind(16, 4, bidirectional=bidirectional)
        self.score = nn.Linear(8 if bidirectional else 4, 1)

    def forward(self, frames: Tensor) -> Tensor:
        hidden, _ = self.recurrent(frames)
        logits: Tensor = self.score(hidden).squeeze(-1)
        return logits


class Attention(nn.Module):
    """Attention over the frames; of queries alone where a memory of its own is attended to."""

    def __init__(self, *, memory: bool = False, residual: bool = False) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(16, 2)
        self.memory = nn.Parameter(torch.randn(5, 16)) if memory else None
        self.score = nn.Linear(16, 1)
        self.residual = residual

    def forward(self, frames: Tensor) -> Tensor:
        other = frames if self.memory is None else self.memory
        hidden, _ = self.attend(frames, key=other, value=other)
        logits: Tensor = self.score(hidden + frames if self.residual else hidden).squeeze(-1)
        return logits


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(16, 4, 1), nn.Conv1d(4, 1, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.second(torch.relu(self.first(frames.T.unsqueeze(0)))).reshape(-1)
        return logits


def mlp(*first: nn.Module, bias: bool = True) -> nn.Module:
    return nn.Sequential(*first, nn.Linear(16, 8, bias=bias), nn.ReLU(), nn.Linear(8, 1), nn.Flatten(0))


FOLDABLE: dict[str, Any] = {
    "a hidden layer": mlp,
    "dropout first": lambda: mlp(nn.Dropout(0.3)),
    "adapted": lambda: visp.adapt_summarizer(mlp(), inputs=lambda frames: (frames.unsqueeze(0),)),
    "LSTM": Recurrent,
    "GRU": lambda: Recurrent(nn.GRU, bidirectional=False),
    "attention": Attention,
    "queries": lambda: Attention(memory=True),
    "1 x 1 convolution": Convolution,
}
UNFOLDABLE: dict[str, Any] = {
    "no bias": lambda: mlp(bias=False),
    "LayerNorm first": lambda: mlp(nn.LayerNorm(16)),
    "a residual": lambda: Attention(residual=True),
    "Transformer": lambda: nn.Sequential(nn.TransformerEncoderLayer(16, 2, 8), nn.Linear(16, 1), nn.Flatten(0)),
    "parametrized": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(16, 1)), nn.Flatten(0)),
}


@pytest.mark.parametrize("name", FOLDABLE)
def test_linear_layers_that_frames_enter_are_found_and_folded(name: str) -> None:
    torch.manual_seed(0)
    summarizer, videos = FOLDABLE[name](), crowded(3)
    change = standardization(videos)
    before = {key: value.clone() for key, value in summarizer.state_dict().items()}
    fold = find_fold(summarizer, change, [videos[0], videos[1]])
    assert fold is not None
    assert all(torch.equal(value, before[key]) for key, value in summarizer.state_dict().items())
    assert all(not module._forward_pre_hooks for module in summarizer.modules())
    summarizer.eval()
    with torch.no_grad():
        expected = summarizer(change(videos[2]))
        fold(summarizer, change)
        torch.testing.assert_close(summarizer(videos[2]), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", UNFOLDABLE)
def test_what_cannot_be_folded_exactly_is_carried_and_kept_beside_the_weights(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    summarizer, videos = UNFOLDABLE[name](), crowded()
    result = visp.pretrain(
        visp.ViSPPretrainer(summarizer, AttentionPoolEncoder(16), seed=0),
        videos,
        epochs=2,
        progress=False,
        out_dir=tmp_path / "run",
    )
    assert result.standardized == "carried"
    trained = visp.predict(summarizer, videos[0])
    mean, scale = torch.load(tmp_path / "run" / "weights.standardization.pt", weights_only=True).values()
    plain = UNFOLDABLE[name]()
    plain.load_state_dict(torch.load(tmp_path / "run" / "weights.pt", weights_only=True))
    by_hand = visp.predict(plain, (videos[0] - mean) / scale)
    assert trained == pytest.approx(by_hand, abs=1e-5)
    loaded = UNFOLDABLE[name]()
    visp.load_weights(loaded, tmp_path / "run" / "weights.pt")
    assert visp.predict(loaded, videos[0]) == pytest.approx(by_hand, abs=1e-5)


def test_a_run_that_starts_from_weights_with_a_standardization_keeps_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    videos, first = crowded(), mlp(bias=False)
    run(first, videos, standardize="auto", out_dir=tmp_path / "first")
    second = mlp(bias=False)
    run(
        second, videos, lr=0.0, standardize="auto", weights=tmp_path / "first" / "weights.pt", out_dir=tmp_path / "next"
    )
    assert visp.predict(second, videos[0]) == pytest.approx(visp.predict(first, videos[0]), abs=1e-6)
    again = mlp(bias=False)
    visp.load_weights(again, tmp_path / "next" / "weights.pt")
    found, expected = carried(again), carried(first)
    assert found is not None
    assert expected is not None
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_features_that_differ_enough_are_left_as_they_are_where_they_cannot_be_folded() -> None:
    videos = InMemoryDataset(make_corpus(8, feature_dim=16, num_shots=3, shot_length=(5, 6)))
    summarizer = mlp(bias=False)
    run(summarizer, videos, standardize="auto")
    assert carried(summarizer) is None


def test_what_starts_from_weights_or_is_frozen_in_part_takes_features_as_they_are() -> None:
    videos, summarizer = crowded(), mlp()
    next(summarizer.parameters()).requires_grad_(False)
    before = next(summarizer.parameters()).clone()
    run(summarizer, videos, standardize="auto")
    assert torch.equal(next(summarizer.parameters()), before)
    start = mlp()
    weights = {name: value.clone() for name, value in start.state_dict().items()}
    run(start, videos, lr=0.0, standardize="auto", weights=weights)
    assert all(torch.equal(value, weights[name]) for name, value in start.state_dict().items())


def test_frames_of_another_dimension_are_refused_by_what_carries_a_standardization() -> None:
    summarizer = mlp(bias=False)
    run(summarizer, crowded(), standardize=True)
    with pytest.raises(ValueError, match=r"standardizes its inputs: expected frames \(T, 16\) .* got \(3, 5\)"):
        summarizer(torch.zeros(3, 5))


# --- real features ------------------------------------------------------------------------------------------

DINO = Path(os.environ.get("VISP_TEST_DATA", "")) / "summe14_dino_vitb16.h5"


def of_real_width(kind: str) -> nn.Module:
    if kind == "one hidden layer":
        return nn.Sequential(nn.Linear(768, 64), nn.ReLU(), nn.Linear(64, 1), nn.Flatten(0))
    summarizer = Recurrent()
    summarizer.recurrent = nn.LSTM(768, 32, bidirectional=True)
    summarizer.score = nn.Linear(64, 1)
    return summarizer


def spread(summarizer: nn.Module, videos: Any) -> float:
    """Mean over videos of the standard deviation of a video's logits."""
    with torch.no_grad():
        return sum(float(summarizer(videos[index]).std()) for index in range(len(videos))) / len(videos)


@pytest.mark.skipif(not DINO.is_file(), reason="VISP_TEST_DATA has no DINO features")
@pytest.mark.parametrize("kind", ["one hidden layer", "bidirectional LSTM"])
def test_a_module_of_a_users_own_learns_from_real_features_by_default(kind: str) -> None:
    videos = visp.data.VideoDataset(DINO, stride=40)
    change = standardization(videos)

    def trained(dataset: Any, **options: Any) -> tuple[nn.Module, float]:
        torch.manual_seed(0)
        summarizer = of_real_width(kind)
        pretrainer = visp.ViSPPretrainer(visp.adapt_summarizer(summarizer), AttentionPoolEncoder(768), seed=0)
        result = visp.pretrain(pretrainer, dataset, epochs=15, progress=False, **options)
        return summarizer, result.metrics["info_nce"]

    by_default, reached = trained(videos)
    by_hand, expected = trained(StandardizedVideos(videos, change), standardize=False)
    as_they_are, _ = trained(videos, standardize=False)
    assert reached == pytest.approx(expected, rel=1e-3)
    assert spread(by_default, videos) == pytest.approx(spread(by_hand, StandardizedVideos(videos, change)), rel=1e-2)
    assert spread(by_default, videos) > 2 * spread(as_they_are, videos)


def test_a_summarizer_that_splits_its_frames_carries_the_standardization() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image, self.text = nn.Linear(48, 8), nn.Linear(16, 8)
            self.score = nn.Linear(8, 1)

        def forward(self, frames: Tensor) -> Tensor:
            hidden = self.image(frames[:, :48]) + self.text(frames[:, 48:])
            return cast("Tensor", self.score(hidden.relu()).squeeze(-1))

    videos = InMemoryDataset(make_corpus(8, num_shots=4, shot_length=(2, 3)))
    objective = visp.ViSPPretrainer(Split(), AttentionPoolEncoder(64))
    result = visp.pretrain(objective, videos, epochs=1, standardize=True, progress=False)
    assert result.standardized == "carried"
