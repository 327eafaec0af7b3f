from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.builders import normal
from visp.encoders import AttentionPoolEncoder
from visp.gradient_flow import Gating


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def make_encoder() -> AttentionPoolEncoder:
    return AttentionPoolEncoder(6, embedding_dim=8, num_heads=2)


def test_a_frame_that_is_gated_out_does_not_influence_the_embedding() -> None:
    encoder, frames = make_encoder(), normal(5, 6)
    other = frames.clone()
    other[2] = 100 * normal(6, seed=1)
    selection = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])

    embeddings = [encoder(Gating()(video, selection, None)) for video in (frames, other)]

    assert torch.equal(*embeddings)


def test_a_frame_that_is_kept_does_influence_the_embedding() -> None:
    encoder, frames = make_encoder(), normal(5, 6)
    other = frames.clone()
    other[2] = 100 * normal(6, seed=1)

    assert (encoder(frames) - encoder(other)).abs().max() > 1e-3


def test_a_half_gated_frame_counts_less() -> None:
    encoder, frames = make_encoder(), normal(5, 6)
    gates = [torch.tensor([1.0, 1.0, gate, 1.0, 1.0]) for gate in (0.0, 0.5, 1.0)]
    dropped, half, kept = (encoder(Gating()(frames, gate, None)) for gate in gates)

    assert (half - dropped).norm() < (kept - dropped).norm()


def test_a_video_of_zeros_has_a_finite_embedding_and_gradient() -> None:
    encoder = make_encoder()
    frames = torch.zeros(5, 6, requires_grad=True)
    embedding = encoder(frames)
    embedding.sum().backward()

    assert embedding.isfinite().all()
    assert frames.grad is not None
    assert frames.grad.isfinite().all()


def test_a_selection_of_zeros_has_a_finite_gradient() -> None:
    selection = torch.zeros(5, requires_grad=True)
    make_encoder()(Gating()(normal(5, 6), selection, None)).sum().backward()

    assert selection.grad is not None
    assert selection.grad.isfinite().all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_inner_products_are_bounded_by_the_scale(scale: float) -> None:
    encoder = AttentionPoolEncoder(6, embedding_dim=8, num_heads=2, scale=5.0)
    embeddings = torch.stack([encoder(scale * normal(4, 6, seed=seed)) for seed in range(10)])

    assert (embeddings @ embeddings.T).abs().max().item() == pytest.approx(5.0, rel=1e-5)


@pytest.mark.parametrize("factor", [1e-2, 30.0])
def test_the_scale_of_the_features_does_not_matter(factor: float) -> None:
    encoder, frames = make_encoder(), normal(5, 6)

    torch.testing.assert_close(encoder(factor * frames), encoder(frames), atol=2e-3, rtol=0)


@pytest.mark.parametrize("length", [1, 2, 50])
def test_a_video_of_any_length_gives_one_vector(length: int) -> None:
    assert make_encoder()(normal(length, 6)).shape == (8,)


def test_every_parameter_receives_gradient() -> None:
    encoder = make_encoder()
    (encoder(normal(5, 6)) * normal(8)).sum().backward()

    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


def test_the_order_of_frames_does_not_matter() -> None:
    encoder, frames = make_encoder(), normal(5, 6)

    torch.testing.assert_close(encoder(frames.flip(0)), encoder(frames))


@pytest.mark.parametrize("options", [{"scale": 0.0}, {"scale": -1.0}, {"embedding_dim": 30, "num_heads": 4}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="multiple of num_heads and a positive scale"):
        AttentionPoolEncoder(8, **options)  # type: ignore[arg-type]


def by_torchs_attention(encoder: AttentionPoolEncoder, frames: Tensor) -> Tensor:
    """The encoder as its parts say, every frame projected."""
    frames = frames / (frames.square().mean() + 1e-12).sqrt()
    tokens = encoder.frame_embedding(frames)
    attended, _ = encoder.attention(encoder.query, tokens, tokens, need_weights=False)
    hidden = encoder.norm1(encoder.query + attended)
    hidden = encoder.norm2(hidden + encoder.feed_forward(hidden))
    embedding: Tensor = torch.nn.functional.normalize(hidden[0], dim=0) * encoder.scale**0.5
    return embedding


@pytest.mark.parametrize("lengths", [(1,), (300, 1, 2, 7, 150, 31), tuple(range(1, 24))], ids=str)
def test_a_batch_is_embedded_as_torchs_attention_embeds_each_video(lengths: tuple[int, ...]) -> None:
    encoder = AttentionPoolEncoder(12, embedding_dim=16)
    torch.nn.init.normal_(encoder.attention.in_proj_bias)
    torch.nn.init.normal_(encoder.query)
    videos = [normal(length, 12, seed=length).requires_grad_() for length in lengths]

    together = encoder.encode_batch(torch.cat(videos), lengths)
    apart = torch.stack([by_torchs_attention(encoder, video) for video in videos])

    torch.testing.assert_close(together, apart, rtol=1e-6, atol=1e-6)
    weights = normal(*together.shape, seed=1)
    inputs = [*videos, *encoder.parameters()]
    gradients = [torch.autograd.grad((embeddings * weights).sum(), inputs) for embeddings in (together, apart)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_a_batch_has_the_gradient_of_torchs_attention_in_float64() -> None:
    encoder = AttentionPoolEncoder(6, embedding_dim=8).double()
    videos = [normal(length, 6, seed=length, dtype=torch.float64).requires_grad_() for length in (4, 1, 30)]
    weights = normal(3, 8, dtype=torch.float64)

    together = encoder.encode_batch(torch.cat(videos), [4, 1, 30])
    apart = torch.stack([by_torchs_attention(encoder, video) for video in videos])

    inputs = [*videos, *encoder.parameters()]
    gradients = [torch.autograd.grad((embeddings * weights).sum(), inputs) for embeddings in (together, apart)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-11)


def test_an_empty_summary_in_a_batch_has_a_finite_gradient() -> None:
    encoder = make_encoder()
    frames = torch.zeros(9, 6).requires_grad_()
    (gradient,) = torch.autograd.grad(encoder.encode_batch(frames, [4, 5]).sum(), frames)

    assert gradient.isfinite().all()


def test_lengths_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="lengths that add up to 9 frames, got 8"):
        make_encoder().encode_batch(torch.zeros(9, 6), [4, 4])
