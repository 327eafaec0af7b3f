"""One pass of a module over a batch: all videos at once where the module can, video by video otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from visp.calls import run_encoder, run_summarizer
from visp.contracts import (
    EncodesBatch,
    ScoresBatch,
    check_embedding_lengths,
    check_finite_logits,
    check_logits_have_gradient,
)
from visp.contrastive import Span, at_least_float32
from visp.side_inputs import Video
from visp.utils.recompute import recomputed

_Output = TypeVar("_Output")


def score_videos(summarizer: nn.Module, videos: Sequence[Tensor | Video], *, recompute: bool = False) -> list[Tensor]:
    """Score the frames of every video, Eq. 7.

    Args:
        summarizer: Maps frames (T, ...) to logits (T,), or scores batches (:class:`visp.contracts.ScoresBatch`).
        videos: (T_i, ...) frames, or videos that carry side inputs.
        recompute: Drop the activations of each video and compute them again in backward.

    Returns:
        (T_i,) logits, in float32 at least.

    Raises:
        ValueError: If the summarizer does not return one logit per frame, or cuts the gradient.
        TypeError: If it returns something other than floating-point tensors.
        FloatingPointError: If logits on the CPU are not finite.
    """
    plain = [video for video in videos if isinstance(video, Tensor)]
    if isinstance(summarizer, ScoresBatch) and not recompute and len(plain) == len(videos):
        lengths = [len(frames) for frames in plain]
        logits = list(torch.split(summarizer.forward_batch(torch.cat(plain), lengths), lengths))
    else:
        logits = [_run(summarizer, partial(run_summarizer, summarizer), recompute, video) for video in videos]
    for index, alpha in enumerate(logits):
        if alpha.device.type == "cpu":  # on a GPU this would wait; a run sees its loss there
            check_finite_logits(alpha, index, summarizer)
    check_logits_have_gradient(logits[0], summarizer)
    return [at_least_float32(alpha) for alpha in logits]


def embed_pieces(
    encoder: nn.Module, videos: Sequence[Tensor], spans: Sequence[Sequence[Span]], *, recompute: bool = False
) -> list[Tensor]:
    """Embed the pieces of every video.

    Args:
        encoder: Maps frames (T, ...) to an embedding (e,), or encodes batches (:class:`visp.contracts.EncodesBatch`).
        videos: (T_i, ...) frames.
        spans: The pieces of each video.
        recompute: Drop the activations of each video and compute them again in backward.

    Returns:
        (K_i, e) embeddings, in float32 at least.

    Raises:
        ValueError: If the encoder does not return one vector per piece, those of a video of one size.
        TypeError: If it returns something other than floating-point tensors.
    """

    def embed(videos: Sequence[Tensor], spans: Sequence[Sequence[Span]]) -> Tensor:  # (M, e)
        pieces = [frames[first:end] for frames, cuts in zip(videos, spans, strict=True) for first, end in cuts]
        lengths = [len(piece) for piece in pieces]
        if isinstance(encoder, EncodesBatch):
            return encoder.encode_batch(torch.cat(pieces), lengths)
        embeddings = [run_encoder(encoder, piece) for piece in pieces]
        check_embedding_lengths(lengths, embeddings, encoder)
        return torch.stack(embeddings)

    if isinstance(encoder, EncodesBatch) and not recompute:
        embeddings = embed(videos, spans)
        return list(torch.split(at_least_float32(embeddings), [len(cuts) for cuts in spans]))
    return [
        at_least_float32(_run(encoder, embed, recompute, [frames], [cuts]))
        for frames, cuts in zip(videos, spans, strict=True)
    ]


def _run(module: nn.Module, function: Callable[..., _Output], recompute: bool, *args: object) -> _Output:
    return recomputed(module, function, *args) if recompute else function(*args)
