"""What users hand over by mistake: right, or refused in one line that names it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import visp
from tests.builders import make_videos
from visp.encoders import AttentionPoolEncoder

WIDTH = 8
VIDEOS = make_videos(trailing=(WIDTH,))


def pretrainer(*first: nn.Module, dtype: torch.dtype = torch.float32) -> visp.ViSPPretrainer:
    summarizer = visp.adapt_summarizer(nn.Sequential(*first, nn.Linear(WIDTH, 4), nn.ReLU(), nn.Linear(4, 1)))
    return visp.ViSPPretrainer(summarizer, AttentionPoolEncoder(WIDTH, embedding_dim=8, num_heads=2), seed=0).to(dtype)


def converted(dtype: torch.dtype) -> list[Tensor]:
    return [video.to(dtype) for video in VIDEOS]


def run(objective: visp.ViSPPretrainer, dataset: Any) -> visp.training.PretrainResult:
    return visp.pretrain(objective, dataset, epochs=2, progress=False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_frames_of_another_type_are_converted_to_that_of_the_parameters(dtype: torch.dtype) -> None:
    given, plain = pretrainer(), pretrainer()
    plain.load_state_dict(given.state_dict())
    run(given, converted(dtype))
    run(plain, [video.to(dtype).float() for video in VIDEOS])
    torch.testing.assert_close(given.state_dict(), plain.state_dict(), rtol=1e-3, atol=1e-4)


def test_parameters_of_64_bits_are_trained_on_frames_of_32() -> None:
    objective = pretrainer(dtype=torch.float64)
    assert run(objective, VIDEOS).steps == 2
    assert {parameter.dtype for parameter in objective.parameters()} == {torch.float64}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_parameters_of_16_bits_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"weight is of 16 bits.* give precision='bf16' or 'fp16'"):
        run(pretrainer(dtype=dtype), converted(dtype))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ((video for video in VIDEOS), "expected a dataset with a length, .* got a generator"),
        (
            [video.numpy() for video in VIDEOS],
            r"expected items that are frames \(T, d\), .* got ndarray",
        ),
    ],
    ids=["generator", "arrays"],
)
def test_what_is_no_dataset_is_refused(dataset: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        run(pretrainer(), dataset)


def test_an_empty_dataset_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 1, got 0"):
        run(pretrainer(), [])


def test_arrays_are_refused_without_standardization_too() -> None:
    with pytest.raises(TypeError, match="got ndarray"):
        visp.pretrain(pretrainer(), [video.numpy() for video in VIDEOS], standardize=False, progress=False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_in_a_loop_of_ones_own_frames_of_another_type_are_named(dtype: torch.dtype) -> None:
    with pytest.raises(RuntimeError, match=f"has parameters of float32 and was given frames of {str(dtype)[6:]}"):
        pretrainer()(converted(dtype))


def test_a_video_of_one_frame_into_batch_norm_is_named() -> None:
    with pytest.raises(ValueError, match="a video of one frame, of which BatchNorm takes no statistics in training"):
        pretrainer(nn.BatchNorm1d(WIDTH))([VIDEOS[0][:1], *VIDEOS[1:]])
