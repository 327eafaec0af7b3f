"""Call a summarizer or an encoder on one video, check what comes back, and explain what failed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from visp.contracts import EncodesVideo, VideoEncoder, check_embedding, check_logits, class_name, dtype_name
from visp.side_inputs import Video, frames_of


def score(summarizer: Callable[..., Any], video: Tensor | Video) -> Any:
    """Call a summarizer on the frames of a video, and on its side inputs where it carries some.

    Raises:
        TypeError: If it takes no side inputs, and there are some.
    """
    if isinstance(video, Tensor):
        return summarizer(video)
    function = summarizer.forward if isinstance(summarizer, nn.Module) else summarizer
    try:
        inspect.signature(function).bind(video.frames, video.side)
    except TypeError:
        raise TypeError(
            f"{class_name(summarizer)} takes no side inputs, and the video carries {', '.join(video.side)}: give it a "
            "forward(frames, side), or wrap it: visp.adapt_summarizer(module, inputs=lambda frames, side: ...)"
        ) from None
    return summarizer(video.frames, video.side)


def run_summarizer(summarizer: Callable[..., Any], video: Tensor | Video) -> Tensor:
    """Return the logits (T,) of the frames (T, ...) of a video, checked; its side inputs are given beside them.

    Raises:
        TypeError, ValueError: As in `check_logits`, or the summarizer wrote into the frames.
        RuntimeError: Those of the summarizer; with the widths in the message where d is not what its first layer takes.
    """
    frames: Tensor = frames_of(video)
    return check_logits(_run(summarizer, lambda _: score(summarizer, video), frames), frames, summarizer)


def run_encoder(encoder: VideoEncoder | EncodesVideo, frames: Tensor) -> Tensor:
    """Return the embedding (e,) of the frames (T, ...), checked; by ``encode`` if the encoder `EncodesVideo`.

    Raises:
        TypeError, ValueError: As in `check_embedding`, or the encoder wrote into the frames.
        RuntimeError: Those of the encoder; with the widths in the message where d is not what its first layer takes.
    """
    return check_embedding(_run(encoder, embed_with(encoder), frames), encoder, frames)


def embed_with(encoder: VideoEncoder | EncodesVideo) -> Callable[[Tensor], Tensor]:
    """Return what embeds a video with this encoder: its ``encode`` if it `EncodesVideo`, else the encoder."""
    if isinstance(encoder, EncodesVideo):
        return encoder.encode
    return encoder


def _run(owner: object, function: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    version = _version(frames)
    try:
        value = function(frames)
    except ValueError as error:
        if len(frames) > 1 or "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            f"{class_name(owner)} failed on a video of one frame, of which BatchNorm takes no statistics in training: "
            "leave such videos out"
        ) from error
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError) as error:
        own = next(owner.parameters(), frames).dtype if isinstance(owner, nn.Module) else frames.dtype
        if own != frames.dtype and own.is_floating_point:
            raise RuntimeError(
                f"{class_name(owner)} has parameters of {dtype_name(own)} and was given frames of "
                f"{dtype_name(frames.dtype)}; convert either: {error}"
            ) from error
        taken = _first_width(owner)
        if taken is None or taken[1] == frames.shape[-1]:
            raise
        layer, width = taken
        shape = tuple(frames.shape)
        raise RuntimeError(
            f"{class_name(owner)} failed on frames {shape}{', which are not (T, d)' if frames.ndim > 2 else ''} with "
            f"d = {shape[-1]}, and its layer {layer} takes {width}: {error}"
        ) from error
    if _version(frames) != version:
        raise ValueError(
            f"{class_name(owner)} writes into the frames that it is given, which others see after it; wrap it, so that "
            "it is given a copy: visp.adapt_summarizer(module), visp.adapt_encoder(module, ...)"
        )
    return value


def _version(frames: Tensor) -> int:
    """Return how often the frames were written to; 0 where torch does not count it."""
    return 0 if torch.compiler.is_compiling() or frames.is_inference() else frames._version


def _first_width(owner: object) -> tuple[str, int] | None:
    """Return the name of the first layer with an input width, and that width."""
    widths = {nn.Linear: "in_features", nn.RNNBase: "input_size", nn.MultiheadAttention: "embed_dim"}
    for name, layer in owner.named_modules() if isinstance(owner, nn.Module) else ():
        for kind, attribute in widths.items():
            if isinstance(layer, kind):
                return f"{name!r} ({type(layer).__name__})", getattr(layer, attribute)
    return None
