"""What users hand over by mistake: right, or refused in one line that names it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

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


class BadGradient(nn.Module):
    """An objective whose loss is finite and whose gradient is not."""

    class Output(NamedTuple):
        loss: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.summarizer = nn.Linear(WIDTH, 1)

    def forward(self, videos: Sequence[Tensor]) -> BadGradient.Output:
        return self.Output((self.summarizer.weight * 0).sum().sqrt())

    def describe(self) -> dict[str, str]:
        return {}


def test_under_fp16_a_run_whose_steps_are_all_skipped_says_so_and_ends() -> None:
    objective = BadGradient()
    before = objective.summarizer.weight.detach().clone()
    with (
        pytest.warns(UserWarning, match="step 10: fp16 has skipped the last 10 steps"),
        pytest.raises(FloatingPointError, match="the gradients of the last 30 steps, to step 30, were not finite"),
    ):
        visp.pretrain(objective, VIDEOS, epochs=60, precision="fp16", standardize=False, progress=False)
    assert torch.equal(objective.summarizer.weight, before)


class Spoiling(nn.Module):
    """A summarizer whose running statistics become infinite while loss and gradient are finite."""

    running_var: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(WIDTH, 1)
        self.register_buffer("running_var", torch.ones(()))

    def forward(self, frames: Tensor) -> Tensor:
        self.running_var.fill_(torch.inf)
        logits: Tensor = self.score(frames).squeeze(-1)
        return logits


def test_running_statistics_that_are_not_finite_end_the_run() -> None:
    objective = visp.ViSPPretrainer(Spoiling(), AttentionPoolEncoder(WIDTH, embedding_dim=8, num_heads=2), seed=0)
    with pytest.raises(FloatingPointError, match="running_var is not finite after step 1"):
        visp.pretrain(objective, VIDEOS, epochs=2, standardize=False, progress=False)


def test_a_line_of_the_log_that_was_cut_is_written_again_at_resume(tmp_path: Path) -> None:
    options: dict[str, Any] = {"progress": False, "out_dir": tmp_path / "run"}
    visp.pretrain(pretrainer(), VIDEOS, epochs=3, **options)
    log = tmp_path / "run" / "metrics.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    visp.pretrain(pretrainer(), VIDEOS, epochs=5, resume=True, **options)
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps[-2:] == [4, 5]
    assert steps == sorted(set(steps))
