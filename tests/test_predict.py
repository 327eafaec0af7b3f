from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import visp
from tests.builders import LinearSummarizer
from tests.summarizer_shapes import D, PGLSUMShaped
from visp.data import Video
from visp.prediction import segment_bounds


class Position(nn.Module):
    """Its logit is the frame's place in the pass, which shows how a video was cut."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.dropout(torch.arange(1.0, len(frames) + 1))
        return logits


def sigmoid(values: list[float]) -> list[float]:
    return [1 / (1 + math.exp(-value)) for value in values]


def test_scores_are_the_sigmoid_of_the_logits() -> None:
    summarizer = LinearSummarizer()
    frames = torch.randn(7, 4)
    scores = visp.predict(summarizer, frames)
    assert scores.dtype == np.float32
    assert np.allclose(scores, torch.sigmoid(summarizer(frames)).detach().numpy())


def test_numpy_features_of_another_type_are_taken() -> None:
    summarizer = LinearSummarizer()
    frames = np.random.default_rng(0).standard_normal((5, 4))
    assert np.allclose(visp.predict(summarizer, frames), visp.predict(summarizer, torch.from_numpy(frames).float()))


def test_segments_are_scored_apart_and_joined() -> None:
    scores = visp.predict(Position(), torch.zeros(6, 4), segment_length=3)
    assert np.allclose(scores, sigmoid([1, 2, 3, 1, 2, 3]))


def test_where_segments_overlap_a_score_is_the_mean() -> None:
    scores = visp.predict(Position(), torch.zeros(4, 4), segment_length=3, overlap=2)
    first, second = sigmoid([1, 2, 3]), sigmoid([1, 2, 3])
    assert np.allclose(scores, [first[0], (first[1] + second[0]) / 2, (first[2] + second[1]) / 2, second[2]])


@pytest.mark.parametrize("length", [1, 4, 5, 9, 10, 11])
def test_segments_cover_every_frame_once_and_are_of_like_length(length: int) -> None:
    bounds = segment_bounds(length, 5)
    assert [frame for start, stop in bounds for frame in range(start, stop)] == list(range(length))
    sizes = [stop - start for start, stop in bounds]
    assert max(sizes) <= 5
    assert max(sizes) - min(sizes) <= 1


def test_dropout_is_off_and_every_mode_is_put_back() -> None:
    summarizer = Position()
    summarizer.dropout.eval()
    visp.predict(summarizer, torch.zeros(3, 4))
    assert summarizer.training
    assert not summarizer.dropout.training


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros(4), r"features \(T, d\)"),
        (np.zeros((0, 4)), "T >= 1"),
        (np.zeros((3, 4), dtype=int), "floating-point"),
        (np.full((3, 4), np.nan), "not finite"),
    ],
)
def test_features_that_are_none_are_refused(features: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        visp.predict(LinearSummarizer(), features)


@pytest.mark.parametrize(("segment_length", "overlap"), [(0, 0), (3, 3), (3, -1), (None, 1)])
def test_options_out_of_range_are_refused(segment_length: int | None, overlap: int) -> None:
    with pytest.raises(ValueError, match=r"overlap|segment_length"):
        visp.predict(LinearSummarizer(), torch.zeros(9, 4), segment_length, overlap)


def test_a_summarizer_that_is_not_wrapped_is_refused_as_by_the_pretrainer() -> None:
    expected = r"a tensor of shape \(3, 4\), float32; expected logits \(T,\) with T = 3\..*visp\.adapt_summarizer"
    with pytest.raises(ValueError, match=f"Identity returned {expected}"):
        visp.predict(nn.Identity(), torch.zeros(3, 4))
    with pytest.raises(TypeError, match=r"PGLSUMShaped returned a tuple of \[0\] Tensor \(1, 3\) which fits \(T,\)"):
        visp.predict(PGLSUMShaped(), torch.zeros(3, D))


def test_the_features_stay_as_they_are_where_the_summarizer_writes_into_its_input() -> None:
    features = np.ones((5, D), dtype=np.float32)
    with pytest.raises(ValueError, match=r"InPlaceLogits writes into the frames .*visp\.adapt_summarizer"):
        visp.predict(InPlaceLogits(), features)
    scores = visp.predict(visp.adapt_summarizer(InPlaceLogits()), features, segment_length=3, overlap=1)
    assert np.allclose(scores, sigmoid([0.5 * D] * 5))
    assert (features == 1).all()


def test_a_wrong_feature_dimension_is_named_with_the_layer() -> None:
    with pytest.raises(RuntimeError, match=r"frames \(3, 5\) with d = 5, and its layer 'score' \(Linear\) takes 4"):
        visp.predict(LinearSummarizer(), torch.zeros(3, 5))


class InPlaceLogits(nn.Module):
    def forward(self, frames: Tensor) -> Tensor:
        return frames.mul_(0.5).sum(dim=1)


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="frames 0 to 2 are not all finite"):
        visp.predict(lambda frames: torch.full((len(frames),), torch.nan), torch.zeros(3, 4))


def test_a_module_that_takes_frames_and_side_inputs_needs_no_adapter() -> None:
    class Own(nn.Module):
        def forward(self, frames: Tensor, side: dict[str, Tensor]) -> Tensor:
            logits: Tensor = frames[:, 0] * side["loudness"]
            return logits

    video = Video(torch.tensor([[1.0], [-2.0]]), {"loudness": torch.tensor([3.0, 1.0])}, {"loudness": "frames"})
    assert visp.predict(Own(), video).tolist() == pytest.approx(sigmoid([3, -2]))
