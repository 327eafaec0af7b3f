from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.builders import LinearSummarizer, make_videos, mean, sigmoid
from visp.pseudo_summary import PseudoSummaryPretrainer, top_share

DOUBLE = torch.float64
LENGTHS = (1, 4, 6)


def labels() -> list[Tensor]:
    return [torch.tensor([index % 3 == 0 for index in range(length)]).double() for length in LENGTHS]


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

    output = PseudoSummaryPretrainer(summarizer)(videos, labels())

    assert output.loss.item() == pytest.approx(mean(losses), rel=1e-9)


def test_keep_ratio_is_the_mean_probability_over_frames_then_videos() -> None:
    summarizer = LinearSummarizer()
    videos = make_videos(LENGTHS)

    output = PseudoSummaryPretrainer(summarizer)(videos, labels())

    expected = mean(mean(sigmoid(logit) for logit in summarizer(video).tolist()) for video in videos)
    assert output.keep_ratio.item() == pytest.approx(expected, rel=1e-5)


def test_training_learns_the_labels() -> None:
    pretrainer = PseudoSummaryPretrainer(LinearSummarizer())
    videos = make_videos((20, 30))
    truth = [(video[:, 0] > 0).float() for video in videos]
    optimizer = torch.optim.Adam(pretrainer.parameters(), lr=0.2)
    for _ in range(150):
        optimizer.zero_grad()
        pretrainer(videos, truth).loss.backward()
        optimizer.step()

    right = [
        ((pretrainer.summarizer(v) > 0) == (t == 1)).float().mean().item() for v, t in zip(videos, truth, strict=True)
    ]
    assert min(right) > 0.9


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_labels_may_have_any_type(dtype: torch.dtype) -> None:
    videos, summarizer = make_videos(LENGTHS), LinearSummarizer()

    output = PseudoSummaryPretrainer(summarizer)(videos, [label.to(dtype) for label in labels()])

    assert output.loss.item() == pytest.approx(PseudoSummaryPretrainer(summarizer)(videos, labels()).loss.item())


def test_loss_is_float32_under_bf16_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = PseudoSummaryPretrainer(LinearSummarizer())(make_videos(LENGTHS), labels())

    assert output.loss.dtype == torch.float32


def test_every_parameter_receives_gradient() -> None:
    pretrainer = PseudoSummaryPretrainer(LinearSummarizer())
    pretrainer(make_videos(LENGTHS), labels()).loss.backward()

    assert all(parameter.grad is not None for parameter in pretrainer.parameters())


def test_another_number_of_summaries_than_videos_is_refused() -> None:
    with pytest.raises(ValueError, match="got 3 videos and 2 pseudo-summaries"):
        PseudoSummaryPretrainer(LinearSummarizer())(make_videos(LENGTHS), labels()[:2])


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="got 0 videos"):
        PseudoSummaryPretrainer(LinearSummarizer())([], [])


def test_a_summary_of_another_length_is_refused_by_number() -> None:
    wrong = [*labels()[:2], torch.ones(5)]
    with pytest.raises(ValueError, match=r"pseudo-summary 2: expected shape \(6,\), got \(5,\)"):
        PseudoSummaryPretrainer(LinearSummarizer())(make_videos(LENGTHS), wrong)


@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, math.nan])
def test_a_label_that_is_neither_0_nor_1_is_refused_by_number(value: float) -> None:
    wrong = [labels()[0], torch.full((4,), value), labels()[2]]
    with pytest.raises(ValueError, match="pseudo-summary 1: expected labels 0 and 1 only"):
        PseudoSummaryPretrainer(LinearSummarizer())(make_videos(LENGTHS), wrong)


def test_wrong_logits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected logits \(T,\)"):
        PseudoSummaryPretrainer(nn.Linear(4, 2))(make_videos(LENGTHS), labels())


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
