from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.builders import LinearSummarizer, MeanEncoder, make_videos
from tests.summarizer_shapes import A2SummShaped, D, H, PGLSUMShaped, video_and_text
from visp.adapters import adapt_encoder
from visp.contracts import (
    EncodesVideo,
    Summarizer,
    VideoEncoder,
    check_batch_size,
    check_embedding,
    check_embedding_lengths,
    check_finite_logits,
    check_frames,
    check_logits,
    check_module,
    check_objective,
    embed_with,
    look_like_probabilities,
    run_encoder,
    run_summarizer,
)
from visp.data import VideoRecord
from visp.pretrainer import ViSPPretrainer

T = 7


def test_encode_is_used_where_there_is_one() -> None:
    encoder = Encodes()
    plain = adapt_encoder(PGLSUMShaped(), hidden_from="norm")
    assert isinstance(encoder, EncodesVideo)
    assert not isinstance(plain, EncodesVideo)
    assert isinstance(plain, VideoEncoder)
    assert isinstance(encoder, Summarizer)
    assert not isinstance("csta", Summarizer)
    frames = torch.randn(T, D)
    torch.testing.assert_close(embed_with(encoder)(frames), frames.mean(dim=0))
    assert embed_with(plain) is plain


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


@pytest.mark.parametrize("layer", [nn.Linear(4, 3), nn.LSTM(4, 3), nn.MultiheadAttention(4, 2)])
def test_a_wrong_feature_dimension_is_named_with_the_first_layer(layer: nn.Module) -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = layer

        def forward(self, frames: Tensor) -> Tensor:
            value = layer(frames, frames, frames) if isinstance(layer, nn.MultiheadAttention) else layer(frames)
            return (value if isinstance(layer, nn.Linear) else value[0]).mean(dim=0)  # type: ignore[no-any-return]

    kind = type(layer).__name__
    assert run_encoder(Encoder(), torch.randn(T, 4)).ndim == 1
    with pytest.raises(
        RuntimeError, match=rf"Encoder failed .* \(7, 6\) with d = 6, and its layer 'embed' \({kind}\) takes 4"
    ):
        run_encoder(Encoder(), torch.randn(T, D))
    with pytest.raises(RuntimeError, match=r"\(7, 3, 6\), which are not \(T, d\) with d = 6"):
        run_encoder(Encoder(), torch.randn(T, 3, D))


def test_errors_that_are_not_about_the_width_stay_as_they_are() -> None:
    class Fails(LinearSummarizer):
        def forward(self, frames: Tensor) -> Tensor:
            raise RuntimeError("of its own")

    with pytest.raises(RuntimeError, match=r"^of its own$"):
        run_summarizer(Fails(), torch.randn(T, 4))


def test_an_embedding_per_frame_of_frames_with_more_axes_names_them() -> None:
    with pytest.raises(ValueError, match=r"Mean returned .* for frames \(7, 3, 6\), which are not \(T, d\); .*\(e,\)"):
        run_encoder(Mean(), torch.randn(T, 3, D))


def test_a_module_that_writes_into_the_frames_is_refused() -> None:
    class Writes(Mean):
        def forward(self, frames: Tensor) -> Tensor:
            return super().forward(frames[None].mul_(2)[0])

    with pytest.raises(ValueError, match=r"Writes writes into the frames .*visp\.adapt_encoder"):
        run_encoder(Writes(), torch.randn(T, D))
    with torch.inference_mode():
        assert run_encoder(Mean(), torch.randn(T, D)).shape == (D,)


class Mean(nn.Module):
    def forward(self, frames: Tensor) -> Tensor:
        return frames.mean(dim=0)


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


def test_a_checked_module_compiles_in_one_graph() -> None:
    class Checked(LinearSummarizer):
        def forward(self, frames: Tensor) -> Tensor:
            return run_summarizer(super().forward, frames)

    module = Checked()
    frames = torch.randn(T, 4)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(frames), module(frames))


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


class Encodes(nn.Module):
    def forward(self, frames: Tensor) -> Tensor:
        return frames[:, 0]

    def encode(self, frames: Tensor) -> Tensor:
        return frames.mean(dim=0)
