from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.builders import LinearSummarizer, MeanEncoder, make_videos
from tests.summarizer_shapes import A2SummShaped, D, H, PGLSUMShaped, video_and_text
from visp.contracts import (
    check_batch_size,
    check_embedding,
    check_embedding_lengths,
    check_finite_logits,
    check_frames,
    check_logits,
    check_module,
    check_objective,
    look_like_probabilities,
)
from visp.data import VideoRecord
from visp.pretrainer import ViSPPretrainer

T = 7


def test_check_logits() -> None:
    frames = torch.randn(T, D)
    logits = torch.randn(T)
    owner = PGLSUMShaped()
    assert check_logits(logits, frames, owner) is logits
    hint = r"visp\.adapt_summarizer"
    with pytest.raises(TypeError, match=rf"PGLSUMShaped returned a tuple of .*\(T,\) with T = 7\. .*{hint}"):
        check_logits(owner(frames), frames, owner)
    with pytest.raises(ValueError, match=rf"shape \(1, 7\).*\(T,\) with T = 7.*{hint}"):
        check_logits(logits[None], frames, owner)
    with pytest.raises(ValueError, match=r"shape \(6,\)"):
        check_logits(logits[1:], frames, owner)
    with pytest.raises(TypeError, match=r"int64.*real numbers"):
        check_logits(logits.long(), frames, owner)


def test_check_embedding() -> None:
    embedding = torch.randn(H)
    assert check_embedding(embedding, "Encoder") is embedding
    module = A2SummShaped()
    returned = module(**video_and_text(torch.randn(T, D)))
    with pytest.raises(TypeError, match=r"A2SummShaped returned a tuple .*\(e,\).*encode.*visp\.adapt_encoder"):
        check_embedding(returned, module)
    for wrong in (embedding[None], embedding[0], embedding[:0]):
        with pytest.raises(ValueError, match=r"one vector \(e,\)"):
            check_embedding(wrong, "Encoder")
    with pytest.raises(TypeError, match=r"bool.*real numbers"):
        check_embedding(embedding > 0, "Encoder")


def test_frames_with_more_axes_are_named_where_logits_do_not_fit() -> None:
    frames = torch.randn(T, 3, D)
    with pytest.raises(ValueError, match=r"shape \(7, 3\), float32 for frames \(7, 3, 6\), which are not \(T, d\)"):
        check_logits(nn.Linear(D, 1)(frames).squeeze(-1), frames, "Linear")


def test_the_first_logit_that_is_not_finite_is_named_by_video_and_frame() -> None:
    logits = torch.tensor([1.0, -2.0, torch.inf, torch.nan])
    assert check_finite_logits(logits[:2], 0, "Mine").tolist() == [1.0, -2.0]
    with pytest.raises(FloatingPointError, match=r"Mine returned .* video 5 .*: 2 of 4, the first at frame 2"):
        check_finite_logits(logits, 5, "Mine")


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([[0.2, 0.9], [1.0]], True),
        ([[0.0, 1.0]], True),
        ([[0.2, 0.9], [-0.01]], False),
        ([[0.2, 1.01]], False),
        ([[0.0, 0.0]], False),  # a last layer that starts at zero
        ([[0.2, float("nan")]], False),
    ],
)
def test_probabilities_are_told_from_logits(logits: list[list[float]], expected: bool) -> None:
    assert look_like_probabilities([torch.tensor(video) for video in logits]) is expected


def test_embeddings_that_follow_the_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Mine returned 3 numbers for a video of 3 frames and 5 for one of 5.*encode"):
        check_embedding_lengths([3, 5], [torch.zeros(3), torch.zeros(5)], "Mine")
    check_embedding_lengths([3, 5], [torch.zeros(4), torch.zeros(4)], "Mine")
    check_embedding_lengths([4, 4], [torch.zeros(4), torch.zeros(4)], "Mine")


def test_a_batch_of_one_video_is_refused_and_a_small_one_warned_about_where_it_is_made() -> None:
    with pytest.raises(ValueError, match="at least 2 videos, got 1: InfoNCE compares videos with each other"):
        check_batch_size(1)
    with pytest.warns(UserWarning, match="a batch of 7 videos: .*log N") as caught:
        check_batch_size(7)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_batch_size(8)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(3, 4, dtype=torch.long), r"video 2 of the batch: expected .* \(T, d\), got torch.int64 \(3, 4\)"),
        (torch.zeros(4), r"video 2 .* got torch.float32 \(4,\)"),
        ("video", r"video 2 .* got str"),
        (torch.zeros(0, 4), "video 2 of the batch has no frames"),
        (torch.zeros(3, 5), r"video 2 of the batch has frames of shape \(5,\), video 0 of shape \(4,\)"),
        (torch.full((3, 4), torch.inf), "video 2 of the batch holds values that are not finite"),
    ],
)
def test_what_is_no_video_is_refused_by_its_number(wrong: Any, message: str) -> None:
    videos = make_videos()
    check_frames(videos)
    videos[2] = wrong
    with pytest.raises(ValueError, match=message):
        check_frames(videos)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ((frames for frames in make_videos()), "expected a list of videos, .* got a generator"),
        (torch.zeros(5, 4), r"video 0 of the batch: expected floating-point frames \(T, d\), got torch.float32 \(4,\)"),
        ([VideoRecord("a", np.zeros((3, 4), dtype=np.float32))], "video 0 of the batch: .* got VideoRecord"),
    ],
)
def test_what_is_no_list_of_frames_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_frames(wrong)
    check_frames(torch.zeros(2, 5, 4))  # type: ignore[arg-type]


def test_what_is_no_module_is_refused_by_its_role() -> None:
    check_module("encoder", MeanEncoder())
    with pytest.raises(TypeError, match=r"the encoder must be a torch.nn.Module instance, got the class MeanEncoder$"):
        check_module("encoder", MeanEncoder)
    with pytest.raises(TypeError, match=r"the summarizer must be .*, got str\. .*\n\nclass MySummarizer"):
        check_module("summarizer", "csta")


def test_an_objective_is_told_what_it_lacks() -> None:
    check_objective(ViSPPretrainer(LinearSummarizer(), MeanEncoder()))
    with pytest.raises(TypeError, match=r"the objective must be a torch\.nn\.Module"):
        check_objective(len)
    with pytest.raises(TypeError, match=r"LinearSummarizer is no objective: it lacks .*`summarizer`.* and .*`describe"):
        check_objective(LinearSummarizer())
