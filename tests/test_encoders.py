from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

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
