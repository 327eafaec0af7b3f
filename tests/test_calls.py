from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.builders import LinearSummarizer
from tests.summarizer_shapes import D, PGLSUMShaped
from visp.adapters import adapt_encoder
from visp.calls import embed_with, run_encoder, run_summarizer
from visp.contracts import EncodesVideo, Summarizer, VideoEncoder

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


def test_a_checked_module_compiles_in_one_graph() -> None:
    class Checked(LinearSummarizer):
        def forward(self, frames: Tensor) -> Tensor:
            return run_summarizer(super().forward, frames)

    module = Checked()
    frames = torch.randn(T, 4)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(frames), module(frames))


class Encodes(nn.Module):
    def forward(self, frames: Tensor) -> Tensor:
        return frames[:, 0]

    def encode(self, frames: Tensor) -> Tensor:
        return frames.mean(dim=0)
