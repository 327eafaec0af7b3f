from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from tests.builders import gradients, make_videos, normal
from visp.summarizers import Transformer


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def make_transformer() -> Transformer:
    return Transformer(6, width=16, num_layers=2, num_heads=4)


def literal_logits(model: Transformer, frames: Tensor) -> Tensor:
    """Score one video by the textbook's attention, softmax(Q K^T / sqrt(c)) V for each head."""
    x = model.embedding(frames)
    for layer in model.layers:
        projected = layer.queries_keys_values(layer.norm1(x))  # type: ignore[operator]
        queries, keys, values = (part.chunk(4, dim=1) for part in projected.chunk(3, dim=1))
        heads = [torch.softmax(q @ k.T / 2, dim=1) @ v for q, k, v in zip(queries, keys, values, strict=True)]
        x = x + layer.mix(torch.cat(heads, dim=1))  # type: ignore[operator]
        x = x + layer.feed_forward(layer.norm2(x))  # type: ignore[operator]
    logits: Tensor = model.score(model.norm(x)).squeeze(1)
    return logits


@pytest.mark.parametrize("length", [1, 2, 37])
def test_logits_are_those_of_textbook_attention(length: int) -> None:
    model, frames = make_transformer().double(), normal(length, 6, dtype=torch.float64)

    torch.testing.assert_close(model(frames), literal_logits(model, frames))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_packed_videos_have_the_logits_and_gradients_of_one_call_per_video(dtype: torch.dtype) -> None:
    model = make_transformer().to(dtype)
    videos = make_videos([1, 300, 2, 40, 1, 7], (6,), dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12

    def outcome(batched: bool) -> tuple[Tensor, Tensor | None, dict[str, Tensor | None]]:
        model.zero_grad()
        frames = torch.cat(videos).requires_grad_()
        lengths = [len(video) for video in videos]
        if batched:
            logits = model.forward_batch(frames, lengths)
        else:
            logits = torch.cat([model(video) for video in torch.split(frames, lengths)])
        torch.autograd.backward((logits * normal(len(logits), seed=1, dtype=dtype)).mean())
        return logits.detach(), frames.grad, gradients(model)

    torch.testing.assert_close(outcome(batched=True), outcome(batched=False), rtol=0, atol=tolerance)


def test_the_order_of_frames_does_not_matter() -> None:
    model, frames = make_transformer(), normal(20, 6)

    torch.testing.assert_close(model(frames.flip(0)), model(frames).flip(0))


def test_a_frames_logit_depends_on_the_other_frames() -> None:
    model, frames = make_transformer(), normal(20, 6)

    assert (model(frames)[:10] - model(frames[:10])).abs().max() > 1e-3


def test_folded_weights_take_frames_as_they_are() -> None:
    model = make_transformer().double()
    frames, mean, scale = (normal(*shape, seed=1, dtype=torch.float64) for shape in ((9, 6), (6,), ()))
    expected = model((frames - mean) / scale)
    model.fold_inputs(mean, scale)

    torch.testing.assert_close(model(frames), expected)


def test_every_parameter_learns() -> None:
    model = make_transformer()
    torch.autograd.backward((model(normal(20, 6)) * normal(20, seed=1)).sum())

    assert [name for name, gradient in gradients(model).items() if gradient is None or not gradient.any()] == []


def test_a_summarizer_of_default_width_is_light() -> None:
    assert sum(parameter.numel() for parameter in Transformer().parameters()) < 500_000


def test_bf16_autocast_keeps_the_ranking() -> None:
    model, frames = Transformer(64), nn.functional.normalize(normal(120, 64), dim=1) * 8
    with torch.no_grad():
        full = model(frames)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(frames)

    assert half.dtype == torch.float32
    assert stats.kendalltau(full.numpy(), half.numpy()).statistic > 0.98


@pytest.mark.parametrize("shape", [(20, 7), (6,), (1, 20, 6), (0, 6)], ids=str)
def test_frames_of_another_shape_are_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected frames \(T, 6\) with T >= 1, got \(") as caught:
        make_transformer()(torch.ones(shape))

    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("lengths", [[4, 5], [10, 0], [], [12, -2]], ids=str)
def test_lengths_that_do_not_fit_the_frames_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"lengths >= 1 add up to T, got T=10 and \["):
        make_transformer().forward_batch(normal(10, 6), lengths)


@pytest.mark.parametrize("options", [{"width": 30}, {"width": 0}, {"num_layers": 0}, {"feature_dim": 0}])
def test_options_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected positive sizes and a width that is a multiple of num_heads"):
        Transformer(**options)
