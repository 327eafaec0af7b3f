from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import visp
from tests.builders import LinearSummarizer, make_videos, mean, sigmoid
from visp.data import InMemoryDataset
from visp.data.synthetic import make_corpus
from visp.pseudo_summary import PseudoSummaries, PseudoSummaryPretrainer, top_share

DOUBLE = torch.float64
LENGTHS = (1, 4, 6)


def labels() -> list[Tensor]:
    return [torch.tensor([index % 3 == 0 for index in range(length)]).double() for length in LENGTHS]


def paired(videos: list[Tensor], truth: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(videos, truth, strict=True))


def test_loss_is_binary_cross_entropy_meaned_over_frames_then_videos() -> None:
    summarizer = LinearSummarizer().to(DOUBLE)
    videos = make_videos(LENGTHS, dtype=DOUBLE)
    weights, bias = summarizer.score.weight[0].tolist(), summarizer.score.bias.item()
    losses = []
    for video, truth in zip(videos, labels(), strict=True):
        frame_losses = []
        for frame, label in zip(video.tolist(), truth.tolist(), strict=True):
            p = sigmoid(sum(w * x for w, x in zip(weights, frame, strict=True)) + bias)
            frame_losses.append(-label * math.log(p) - (1 - label) * math.log(1 - p))
        losses.append(mean(frame_losses))

    output = PseudoSummaryPretrainer(summarizer)(paired(videos, labels()))

    assert output.loss.item() == pytest.approx(mean(losses), rel=1e-9)


def test_keep_ratio_is_the_mean_probability_over_frames_then_videos() -> None:
    summarizer = LinearSummarizer()
    videos = make_videos(LENGTHS)

    output = PseudoSummaryPretrainer(summarizer)(paired(videos, labels()))

    expected = mean(mean(sigmoid(logit) for logit in summarizer(video).tolist()) for video in videos)
    assert output.keep_ratio.item() == pytest.approx(expected, rel=1e-5)


def test_training_learns_the_labels() -> None:
    pretrainer = PseudoSummaryPretrainer(LinearSummarizer())
    videos = make_videos((20, 30))
    truth = [(video[:, 0] > 0).float() for video in videos]
    optimizer = torch.optim.Adam(pretrainer.parameters(), lr=0.2)
    for _ in range(150):
        optimizer.zero_grad()
        pretrainer(paired(videos, truth)).loss.backward()
        optimizer.step()

    right = [
        ((pretrainer.summarizer(v) > 0) == (t == 1)).float().mean().item() for v, t in zip(videos, truth, strict=True)
    ]
    assert min(right) > 0.9


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_labels_may_have_any_type(dtype: torch.dtype) -> None:
    videos, summarizer = make_videos(LENGTHS), LinearSummarizer()

    output = PseudoSummaryPretrainer(summarizer)(paired(videos, [label.to(dtype) for label in labels()]))

    assert output.loss.item() == pytest.approx(
        PseudoSummaryPretrainer(summarizer)(paired(videos, labels())).loss.item()
    )


def test_loss_is_float32_under_bf16_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = PseudoSummaryPretrainer(LinearSummarizer())(paired(make_videos(LENGTHS), labels()))

    assert output.loss.dtype == torch.float32


def test_every_parameter_receives_gradient() -> None:
    pretrainer = PseudoSummaryPretrainer(LinearSummarizer())
    pretrainer(paired(make_videos(LENGTHS), labels())).loss.backward()

    assert all(parameter.grad is not None for parameter in pretrainer.parameters())


def test_a_video_without_its_pseudo_summary_is_refused_by_number() -> None:
    batch: list[Any] = [*paired(make_videos(LENGTHS), labels())[:2], make_videos(LENGTHS)[2]]
    with pytest.raises(TypeError, match=r"video 2 of the batch: expected frames .* with their pseudo-summary"):
        PseudoSummaryPretrainer(LinearSummarizer())(batch)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 video, got 0"):
        PseudoSummaryPretrainer(LinearSummarizer())([])


def test_a_summary_of_another_length_is_refused_by_number() -> None:
    wrong = [*labels()[:2], torch.ones(5)]
    with pytest.raises(ValueError, match=r"pseudo-summary 2: expected shape \(6,\), got \(5,\)"):
        PseudoSummaryPretrainer(LinearSummarizer())(paired(make_videos(LENGTHS), wrong))


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, math.nan])
def test_a_label_that_is_neither_0_nor_1_is_refused_by_number(value: float) -> None:
    wrong = [labels()[0], torch.full((4,), value), labels()[2]]
    with pytest.raises(ValueError, match="pseudo-summary 1: expected labels 0 and 1 only"):
        PseudoSummaryPretrainer(LinearSummarizer())(paired(make_videos(LENGTHS), wrong))


def test_wrong_logits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected logits \(T,\)"):
        PseudoSummaryPretrainer(nn.Linear(4, 2))(paired(make_videos(LENGTHS), labels()))


@pytest.mark.parametrize(
    ("length", "share", "kept"), [(20, 0.15, 3), (10, 0.5, 5), (3, 0.15, 1), (1, 0.15, 1), (7, 1.0, 7)]
)
def test_top_share_labels_that_share_of_the_frames(length: int, share: float, kept: int) -> None:
    assert top_share(torch.arange(length).float(), share).sum().item() == kept


def test_top_share_labels_the_best_frames() -> None:
    assert top_share(torch.tensor([0.1, 0.9, 0.3, 0.8, 0.2]), 0.4).tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, 15.0])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\]"):
        top_share(torch.ones(4), share)


def test_pretraining_on_pseudo_summaries_learns_them() -> None:
    records = make_corpus(8, feature_dim=32, num_shots=6)
    items = PseudoSummaries(InMemoryDataset(records), share=0.3)
    summarizer = nn.Sequential(nn.Linear(32, 1), nn.Flatten(0))

    result = visp.pretrain(
        PseudoSummaryPretrainer(summarizer), items, epochs=60, batch_size=8, lr=0.05, warmup_steps=0, progress=False
    )

    assert result.metrics["loss"] < 0.4
    for index, record in enumerate(records):
        logits = summarizer(torch.from_numpy(record.features)).detach()
        labels = items[index][1]
        assert logits[labels == 1].mean() > logits[labels == 0].mean()


def test_a_pseudo_summary_needs_scores() -> None:
    record = replace(make_corpus(1)[0], gtscore=None)
    with pytest.raises(ValueError, match="video_1 has no gtscore"):
        PseudoSummaries(InMemoryDataset([record]))
