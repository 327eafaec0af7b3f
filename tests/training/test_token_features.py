"""Tokens of each frame, (T, L, d), are features: read, standardized, gated, embedded and scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import visp
from visp.data import H5SchemaError, InMemoryDataset, Split, VideoDataset, VideoRecord, validate_h5, write_h5
from visp.data.synthetic import make_corpus
from visp.encoders import AttentionPoolEncoder
from visp.studies.controls import controls
from visp.summarizers import CSTA, GoogleNet, Transformer
from visp.training.standardize import standardization

TOKENS, D = 3, 6


class TokenSummarizer(nn.Module):
    """Scores a frame by attention over its tokens, (T, L, d) to (T,)."""

    def __init__(self, flat: bool = False) -> None:
        super().__init__()
        self.flat = flat
        self.see = nn.Linear(TOKENS * D if flat else D, 8)
        self.weigh, self.score = nn.Linear(8, 1), nn.Linear(8, 1)

    def forward(self, frames: Tensor) -> Tensor:
        seen = self.see(frames.flatten(1)[:, None] if self.flat else frames).tanh()
        logits: Tensor = self.score((seen * self.weigh(seen).softmax(dim=1)).sum(dim=1)).squeeze(-1)
        return logits


def records(num_videos: int = 8) -> list[VideoRecord]:
    corpus = make_corpus(num_videos, feature_dim=TOKENS * D, num_shots=8, shot_length=(2, 5))
    return [replace(each, features=5 + each.features.reshape(-1, TOKENS, D)) for each in corpus]


def tokens(*lengths: int) -> list[Tensor]:
    noise = torch.Generator().manual_seed(0)
    return [torch.randn(length, TOKENS, D, generator=noise) for length in lengths]


@pytest.mark.parametrize("flat", [False, True])
def test_a_run_reads_standardizes_resumes_and_scores_tokens(flat: bool, tmp_path: Path) -> None:
    write_h5(tmp_path / "tokens.h5", records())
    assert validate_h5(tmp_path / "tokens.h5").feature_shape == (TOKENS, D)
    weights = []
    for videos, name in ((VideoDataset(tmp_path / "tokens.h5"), "file"), (InMemoryDataset(records()), "records")):
        assert (videos.feature_dim, tuple(videos[0].shape[1:])) == (D, (TOKENS, D))
        for epochs in (1, 2) if name == "file" else (2,):
            torch.manual_seed(0)
            pretrainer = visp.ViSPPretrainer(TokenSummarizer(flat), AttentionPoolEncoder(D, embedding_dim=8), seed=0)
            result = visp.pretrain(
                pretrainer,
                videos,
                epochs=epochs,
                batch_size=8,
                standardize=True,
                progress=False,
                out_dir=tmp_path / name,
                resume=epochs == 2,
            )
        # A linear layer on tokens takes the change; one on all tokens of a frame does not.
        assert result.standardized == ("carried" if flat else "folded")
        weights.append(pretrainer.summarizer.state_dict())
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())
    whole = visp.predict(pretrainer.summarizer, videos[0])
    assert whole.shape == (len(videos[0]),)
    np.testing.assert_allclose(visp.predict(pretrainer.summarizer, videos[0], segment_length=5), whole, atol=1e-6)
    split = Split(train=videos.names[:4], test=videos.names[4:])
    evaluator = visp.Evaluator(videos, benchmark="summe")
    found = visp.finetune(
        pretrainer.summarizer, videos, split, epochs=1, segment_length=9, evaluator=evaluator, progress=False
    )
    assert found.test is not None


def test_tokens_are_standardized_by_dimension() -> None:
    videos = tokens(4, 7)
    change, flat = standardization(videos), standardization([video.flatten(0, 1) for video in videos])
    assert torch.equal(change.mean, flat.mean)
    assert torch.equal(change.scale, flat.scale)
    assert change.mean.shape == (D,)


def test_the_attention_encoder_attends_to_every_token() -> None:
    encoder = AttentionPoolEncoder(D, embedding_dim=8)
    videos = tokens(4, 7)
    together = encoder.encode_batch(torch.cat(videos), [4, 7])
    for video, embedding in zip(videos, together, strict=True):
        assert torch.allclose(encoder(video), embedding, atol=1e-6)
        assert torch.allclose(encoder(video.flatten(0, 1)), embedding, atol=1e-6)


@pytest.mark.parametrize("flow", ["gating", "marginalization", "straight_through"])
def test_the_gate_of_a_frame_reaches_its_summarizer_through_all_its_tokens(flow: Any) -> None:
    pretrainer = visp.ViSPPretrainer(
        TokenSummarizer(), AttentionPoolEncoder(D, embedding_dim=8), gradient_flow=flow, hard_negatives=True, seed=0
    )
    pretrainer(tokens(*range(3, 11))).loss.backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in pretrainer.summarizer.parameters())


@pytest.mark.filterwarnings("ignore")
def test_the_controls_measure_tokens() -> None:
    found = controls(
        TokenSummarizer,
        lambda: AttentionPoolEncoder(D, embedding_dim=8),
        InMemoryDataset(records()),
        identification_steps=2,
        epochs=1,
        batch_size=8,
        progress=False,
    )
    assert "identification" in found.table()


@pytest.mark.parametrize("make", [CSTA, GoogleNet, Transformer])
def test_a_built_in_summarizer_of_frames_names_what_it_was_given(make: type[nn.Module]) -> None:
    pretrainer = visp.ViSPPretrainer(make(D), AttentionPoolEncoder(D, embedding_dim=8), seed=0)
    expected = rf"{make.__name__}\(feature_dim={D}\) expected frames \(T, {D}\) with T >= 1, got \(\d+, {TOKENS}, {D}\)"
    with pytest.raises(ValueError, match=expected):
        pretrainer(tokens(*range(3, 11)))


def test_videos_of_other_token_counts_are_refused(tmp_path: Path) -> None:
    one, *_ = records()
    other = replace(one, name="video_9", features=one.features[:, :2])
    with pytest.raises(ValueError, match="video_1 has L = 3, d = 6, video_9 has L = 2, d = 6"):
        InMemoryDataset([one, other])
    with h5py.File(tmp_path / "mixed.h5", "w") as file:
        file["a/features"], file["b/features"] = one.features, other.features
    for validate in ("full", "shapes"):
        with pytest.raises(H5SchemaError, match="L = 2, d = 6"):
            VideoDataset(tmp_path / "mixed.h5", validate=validate)
