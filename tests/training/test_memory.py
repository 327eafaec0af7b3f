"""When ``visp pretrain`` recomputes activations by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import visp
from tests.builders import LinearSummarizer, MeanEncoder, normal
from visp.summarizers import CSTA, CSTAEncoder, GoogleNet
from visp.training import memory
from visp.training.memory import KIB_PER_FRAME, memory_of, should_recompute

GIB = 2**30
CPU = torch.device("cpu")


@pytest.fixture
def laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 16 GiB."""
    monkeypatch.setattr(memory, "memory_of", lambda device: 16 * GIB)


def pretrainer(summarizer: nn.Module, encoder: nn.Module, **options: Any) -> visp.ViSPPretrainer:
    return visp.ViSPPretrainer(summarizer, encoder, seed=0, **options)


def csta(width: int = 1024) -> CSTA:
    with torch.device("meta"):
        return CSTA(8, width=width)


def csta_encoder(width: int = 1024) -> CSTAEncoder:
    with torch.device("meta"):
        return CSTAEncoder(8, width=width)


@pytest.mark.usefixtures("laptop")
@pytest.mark.parametrize(
    ("lengths", "batch_size", "precision", "expected"),
    [
        ([300] * 32, 32, "float32", True),  # the paper's batch: 25 GiB
        ([300] * 32, 32, "bf16", True),
        ([300] * 32, 8, "float32", False),  # 6.2 GiB
        ([300] * 4, 32, "float32", False),  # no more videos than that
        ([2900] + [30] * 31, 4, "float32", False),  # 7.9 GiB
        ([3000, 300] + [30] * 30, 4, "float32", True),  # the longest count
        ([3000, 300] + [30] * 30, 4, "bf16", False),
    ],
)
def test_a_large_batch_of_csta_is_recomputed(
    lengths: list[int], batch_size: int, precision: Any, expected: bool
) -> None:
    both = pretrainer(csta(), csta_encoder())
    assert should_recompute(both, lengths, batch_size, precision, CPU) is expected


@pytest.mark.usefixtures("laptop")
@pytest.mark.parametrize(
    ("summarizer", "encoder", "hard_negatives", "most_frames"),
    [
        (csta(), csta_encoder(), False, 3039),
        (csta(), csta_encoder(), True, 2279),
        (csta(), MeanEncoder(), False, 9118),
        (LinearSummarizer(), csta_encoder(), False, 4559),
        (csta(256), csta_encoder(256), False, 12157),
    ],
    ids=["CSTA twice", "with hard negatives", "as summarizer", "as encoder", "narrow"],
)
def test_what_fits_follows_what_runs(
    summarizer: nn.Module, encoder: nn.Module, hard_negatives: bool, most_frames: int
) -> None:
    made = pretrainer(summarizer, encoder, hard_negatives=hard_negatives)
    assert not should_recompute(made, [most_frames], 32, "float32", CPU)
    assert should_recompute(made, [most_frames + 1], 32, "float32", CPU)


@pytest.mark.usefixtures("laptop")
def test_modules_of_a_users_own_are_not_recomputed_unasked() -> None:
    assert not should_recompute(pretrainer(LinearSummarizer(), MeanEncoder()), [10**9], 32, "float32", CPU)


@pytest.mark.parametrize("model", [CSTA, GoogleNet])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_built_in_model_keeps_about_what_is_reckoned(model: type[CSTA | GoogleNet], precision: Any) -> None:
    length = 120
    summarizer = model(64)
    own = {parameter.untyped_storage().data_ptr() for parameter in summarizer.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    frames = normal(length, 64)
    with (
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        logits = summarizer(frames)
    kib = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 1024 / length
    assert logits.requires_grad
    assert kib == pytest.approx(KIB_PER_FRAME[precision], rel=0.25)


def test_this_machine_has_a_memory() -> None:
    assert 2**28 < memory_of(CPU) < 2**50


def test_a_container_and_processes_beside_this_one_leave_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CGROUP_LIMIT", limit)
    unlimited = memory_of(CPU)
    limit.write_text("max\n")
    assert memory_of(CPU) == unlimited
    limit.write_text(f"{2**24}\n")
    assert memory_of(CPU) == 2**24
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory_of(CPU) == 2**22
