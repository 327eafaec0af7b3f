from __future__ import annotations

import math
from typing import Literal

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from tests.builders import mean, normal
from visp.contrastive import (
    Contrast,
    Cosine,
    InnerProduct,
    Similarity,
    Videos,
    Windows,
    at_least_float32,
    info_nce,
    losses_of_pieces,
    recognition,
)

DOUBLE = torch.float64


def embeddings(n: int = 5, e: int = 3, dtype: torch.dtype = DOUBLE) -> tuple[Tensor, Tensor, Tensor]:
    return (
        normal(n, e, seed=1, dtype=dtype),
        normal(n, e, seed=2, dtype=dtype),
        normal(n, e, seed=3, dtype=dtype),
    )


def equation_3(summaries: Tensor, videos: Tensor, randoms: Tensor | None) -> float:
    """Eq. 3 as it is printed: a sum over videos."""

    def inner(a: list[float], b: list[float]) -> float:
        total = 0.0
        for left, right in zip(a, b, strict=True):
            total += left * right
        return total

    s, o = summaries.tolist(), videos.tolist()
    r = None if randoms is None else randoms.tolist()
    loss = 0.0
    for i in range(len(s)):
        denominator = 0.0
        for j in range(len(o)):
            denominator += math.exp(inner(s[i], o[j]))
            if r is not None:
                denominator += math.exp(inner(s[i], r[j]))
        loss -= math.log(math.exp(inner(s[i], o[i])) / denominator)
    return loss


@pytest.mark.parametrize("hard_negatives", [False, True])
def test_sum_is_equation_3(hard_negatives: bool) -> None:
    summaries, videos, randoms = embeddings()
    given = randoms if hard_negatives else None

    loss = info_nce(summaries, videos, given, reduction="sum")

    assert loss.item() == pytest.approx(equation_3(summaries, videos, given), rel=1e-10)


@pytest.mark.parametrize("hard_negatives", [False, True])
def test_mean_is_equation_3_over_the_number_of_videos(hard_negatives: bool) -> None:
    summaries, videos, randoms = embeddings()
    given = randoms if hard_negatives else None

    loss = info_nce(summaries, videos, given)

    assert loss.item() == pytest.approx(equation_3(summaries, videos, given) / 5, rel=1e-10)


def test_the_summary_is_compared_with_the_videos_and_not_the_reverse() -> None:
    summaries, videos, _ = embeddings()

    assert info_nce(summaries, videos).item() != pytest.approx(info_nce(videos, summaries).item())


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_large_similarities_give_a_finite_loss_and_gradient(dtype: torch.dtype) -> None:
    summaries, videos, randoms = (1e4 * value for value in embeddings(dtype=dtype))
    summaries.requires_grad_()

    loss = info_nce(summaries, videos, randoms)
    (gradient,) = torch.autograd.grad(loss, summaries)

    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_equal_candidates_give_log_n() -> None:
    summaries = normal(6, 3, dtype=DOUBLE)

    assert info_nce(summaries, torch.ones(6, 3, dtype=DOUBLE)).item() == pytest.approx(math.log(6))


def test_bf16_autocast_does_not_change_the_loss() -> None:
    summaries, videos, randoms = embeddings(n=8, e=64, dtype=torch.float32)
    outside = info_nce(summaries, videos, randoms)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = info_nce(summaries, videos, randoms)

    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)


def test_bf16_embeddings_are_compared_in_float32() -> None:
    summaries, videos, _ = (value.bfloat16() for value in embeddings(n=8, e=64))

    loss = info_nce(summaries, videos)

    assert torch.equal(loss, info_nce(summaries.float(), videos.float()))


def test_float64_embeddings_give_a_float64_loss() -> None:
    summaries, videos, _ = embeddings()

    assert info_nce(summaries, videos).dtype == DOUBLE


@pytest.mark.parametrize("temperature", [0.1, 2.0])
def test_cosine_is_the_cosine_over_its_temperature(temperature: float) -> None:
    summaries, videos, _ = embeddings()
    expected = torch.zeros(5, 5, dtype=DOUBLE)
    for i, a in enumerate(summaries.tolist()):
        for j, b in enumerate(videos.tolist()):
            inner = sum(x * y for x, y in zip(a, b, strict=True))
            expected[i, j] = inner / math.hypot(*a) / math.hypot(*b) / temperature

    actual = Cosine(temperature)(summaries, videos)

    torch.testing.assert_close(actual, expected)


def test_cosine_does_not_see_the_length_of_embeddings() -> None:
    summaries, videos, _ = embeddings()

    longer = info_nce(10 * summaries, 3 * videos, similarity=Cosine())

    assert longer.item() == pytest.approx(info_nce(summaries, videos, similarity=Cosine()).item())


def test_cosine_of_a_zero_embedding_is_finite() -> None:
    summaries, videos, _ = embeddings()

    assert Cosine()(0 * summaries, videos).isfinite().all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_cosine_refuses_a_temperature_that_is_not_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        Cosine(temperature)


def test_inner_product_is_the_default_similarity() -> None:
    summaries, videos, _ = embeddings()

    assert torch.equal(info_nce(summaries, videos), info_nce(summaries, videos, similarity=InnerProduct()))


def test_the_ceiling_is_log_n_of_what_is_compared() -> None:
    losses = [torch.zeros(count) for count in (1, 3, 8)]

    assert recognition(losses, False, "mean").ceiling == pytest.approx(math.log(12))
    assert recognition(losses, True, "mean").ceiling == pytest.approx(mean([0.0, math.log(3), math.log(8)]))


def test_every_video_counts_alike_in_the_mean_and_every_piece_in_the_sum() -> None:
    losses = [torch.tensor([4.0]), torch.tensor([1.0, 2.0, 6.0])]

    assert recognition(losses, True, "mean").loss.item() == pytest.approx(3.5)
    assert recognition(losses, True, "sum").loss.item() == pytest.approx(13)
    assert recognition(losses, True, "sum").info_nce.item() == pytest.approx(3.5)


def test_hard_negatives_raise_the_loss() -> None:
    summaries, videos, randoms = embeddings()

    assert info_nce(summaries, videos, randoms) > info_nce(summaries, videos)


@given(length=st.integers(1, 50), frames=st.integers(1, 60))
@settings(deadline=None)
def test_windows_cover_a_video_in_order_with_at_least_their_frames(length: int, frames: int) -> None:
    spans = Windows(frames).spans(length)

    assert [frame for first, end in spans for frame in range(first, end)] == list(range(length))
    sizes = [end - first for first, end in spans]
    assert min(sizes) >= min(frames, length)
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == max(1, length // frames)


@pytest.mark.parametrize(("length", "number", "size"), [(1, 1, 1), (3, 1, 3), (4, 2, 2), (100, 10, 10), (900, 30, 30)])
def test_windows_are_as_many_as_their_frames_by_default(length: int, number: int, size: int) -> None:
    spans = Windows().spans(length)

    assert (len(spans), spans[0][1]) == (number, size)


def test_a_whole_video_is_the_piece_of_the_papers_contrast() -> None:
    assert Videos().spans(17) == [(0, 17)]


@pytest.mark.parametrize("contrast", [Videos(), Windows(4)], ids=lambda c: type(c).__name__)
def test_built_in_contrasts_are_contrasts(contrast: Contrast) -> None:
    assert isinstance(contrast, Contrast)


def test_a_window_without_a_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="a window must have at least 1 frame, got 0"):
        Windows(0)


@pytest.mark.parametrize("hard_negatives", [False, True])
@pytest.mark.parametrize("within_video", [False, True])
def test_pieces_are_recognised_among_their_video_or_all(within_video: bool, hard_negatives: bool) -> None:
    counts = [1, 3, 4]
    parts = [list(torch.split(part, counts)) for part in embeddings(n=8)][: 3 if hard_negatives else 2]

    losses = losses_of_pieces(parts, within_video)

    for video, found in enumerate(losses):
        for piece in range(counts[video]):
            summary = parts[0][video][piece].tolist()
            rivals = [rows[video] for rows in parts[1:]] if within_video else [r for rows in parts[1:] for r in rows]
            scores = [sum(a * b for a, b in zip(summary, row, strict=True)) for r in rivals for row in r.tolist()]
            own = sum(a * b for a, b in zip(summary, parts[1][video][piece].tolist(), strict=True))
            expected = math.log(sum(math.exp(score) for score in scores)) - own
            assert found[piece].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("similarity", [InnerProduct(), Cosine(0.5)], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradcheck(similarity: Similarity, reduction: Literal["mean", "sum"]) -> None:
    summaries, videos, randoms = (value.requires_grad_() for value in embeddings(n=3))

    assert torch.autograd.gradcheck(
        lambda s, o, r: info_nce(s, o, r, similarity=similarity, reduction=reduction), (summaries, videos, randoms)
    )


def test_summaries_and_videos_of_different_number_are_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(5, 3\)"):
        info_nce(normal(4, 3), normal(5, 3))


def test_embeddings_without_a_batch_axis_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(N, e\), got \(3,\)"):
        info_nce(normal(3), normal(3))


def test_random_summaries_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"random summaries of shape \(4, 3\), got \(4, 2\)"):
        info_nce(normal(4, 3), normal(4, 3), normal(4, 2))


@pytest.mark.parametrize(
    ("given", "expected"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float32, torch.float32), (DOUBLE, DOUBLE)],
)
def test_only_half_precision_is_widened(given: torch.dtype, expected: torch.dtype) -> None:
    assert at_least_float32(torch.ones(2, dtype=given)).dtype == expected
