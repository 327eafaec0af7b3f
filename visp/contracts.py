"""What a summarizer, a video encoder and an objective are, and the checks that refuse what does not keep to it.

Letters: T frames of one video, d feature dimension, N videos in a batch, e embedding dimension.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Protocol, runtime_checkable

SUMMARIZER_TEMPLATE = """\
class MySummarizer(torch.nn.Module):
    def __init__(self, feature_dim=1024):
        super().__init__()
        self.score = torch.nn.Linear(feature_dim, 1)

    def forward(self, frames):  # (T, d)
        return self.score(frames).squeeze(-1)  # logits (T,), before any sigmoid
"""

ENOUGH_VIDEOS = 8
"""Below this many videos in a batch the bound on mutual information, at most log N, teaches little."""


class ProbabilityWarning(UserWarning):
    """A summarizer's logits look like probabilities: a sigmoid may have been applied to them already."""


@runtime_checkable
class Summarizer(Protocol):
    """Scores the frames of one video: ``frames (T, d) -> logits (T,)``, real numbers before any sigmoid.

    Of videos that carry side inputs (:class:`visp.data.Video`), it is called with a second argument, the mapping of
    their names to tensors.
    """

    def __call__(self, frames: Tensor) -> Tensor:
        """Return the logits (T,) of the frames (T, d)."""
        ...


@runtime_checkable
class VideoEncoder(Protocol):
    """Describes one video by one vector: ``frames (T, d) -> embedding (e,)``."""

    def __call__(self, frames: Tensor) -> Tensor:
        """Return the embedding (e,) of the frames (T, d)."""
        ...


@runtime_checkable
class EncodesVideo(Protocol):
    """A module that has, beside its ``forward``, a method ``encode``: ``frames (T, d) -> embedding (e,)``."""

    def encode(self, frames: Tensor) -> Tensor:
        """Return the embedding (e,) of the frames (T, d)."""
        ...


@runtime_checkable
class ScoresBatch(Protocol):
    """A `Summarizer` that can also score several videos in one pass, as it scores each alone."""

    def forward_batch(self, frames: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return the logits (L,) of videos whose frames (L, d) follow each other, ``lengths`` frames each."""
        ...


@runtime_checkable
class EncodesBatch(Protocol):
    """A `VideoEncoder` that can also embed several videos in one pass, as it embeds each alone."""

    def encode_batch(self, frames: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return the embeddings (N, e) of N videos whose frames (L, d) follow each other, ``lengths`` frames each."""
        ...


class ObjectiveOutput(Protocol):
    """What one forward pass of an `Objective` gives: a named tuple of scalar tensors."""

    @property
    def loss(self) -> Tensor:
        """The scalar to minimise."""
        ...

    def _asdict(self) -> dict[str, Any]:
        """Return every scalar by its name, the loss included, for logs."""
        ...


class Objective(Protocol):
    """What pretraining minimises: a ``torch.nn.Module`` whose forward pass is the loss of one batch.

    Everything that needs a gradient happens inside ``forward``. `check_objective` tells whether an object is one.
    """

    @property
    def summarizer(self) -> nn.Module:
        """The `Summarizer` that is trained."""
        ...

    def __call__(self, videos: Sequence[Tensor]) -> ObjectiveOutput:
        """Compute the loss of a batch of videos, each (T_i, ...) frames."""
        ...

    def describe(self) -> dict[str, str]:
        """Return the options as text, for logs and to compare runs."""
        ...


def check_module(role: str, module: object) -> None:
    """Refuse what is no module.

    Args:
        role: What the module is for, such as ``"summarizer"``.
        module: What was given.

    Raises:
        TypeError: If it is not a ``torch.nn.Module`` instance.
    """
    if not isinstance(module, nn.Module):
        got = f"the class {module.__name__}" if isinstance(module, type) else type(module).__name__
        looks = f". A summarizer looks like this:\n\n{SUMMARIZER_TEMPLATE}" if role == "summarizer" else ""
        raise TypeError(f"the {role} must be a torch.nn.Module instance, got {got}{looks}")


def check_objective(objective: object) -> None:
    """Refuse what is no `Objective`.

    Raises:
        TypeError: If it is not a module with a ``summarizer`` that is a module, or has no method ``describe``.
    """
    check_module("objective", objective)
    needs = {
        "an attribute `summarizer`, a torch.nn.Module": isinstance(getattr(objective, "summarizer", None), nn.Module),
        "a method `describe() -> dict[str, str]`": callable(getattr(objective, "describe", None)),
    }
    missing = [need for need, met in needs.items() if not met]
    if missing:
        raise TypeError(f"{class_name(objective)} is no objective: it lacks {' and '.join(missing)}")


def check_frames(videos: Sequence[Tensor]) -> None:
    """Refuse a batch whose videos are not frames of one shape.

    Args:
        videos: What should be videos, each (T_i, ...) frames.

    Raises:
        ValueError: If they are no list, tuple or tensor of videos, a video is not a floating-point tensor (T, ...)
            with T >= 1, its frames have another shape than those of video 0, or it lies on the CPU and holds values
            that are not finite. The message names the video.
    """
    if not isinstance(videos, Sequence | Tensor):
        raise ValueError(f"expected a list of videos, each frames (T, d), got a {class_name(videos)}")
    for index, frames in enumerate(videos):
        if not isinstance(frames, Tensor) or frames.ndim < 2 or not frames.is_floating_point():
            came = f"{frames.dtype} {tuple(frames.shape)}" if isinstance(frames, Tensor) else type(frames).__name__
            raise ValueError(f"video {index} of the batch: expected floating-point frames (T, d), got {came}")
        if len(frames) == 0:
            raise ValueError(f"video {index} of the batch has no frames")
        if frames.shape[1:] != videos[0].shape[1:]:
            raise ValueError(
                f"video {index} of the batch has frames of shape {tuple(frames.shape[1:])}, "
                f"video 0 of shape {tuple(videos[0].shape[1:])}"
            )
        if frames.device.type == "cpu" and not _all_finite(frames):
            raise ValueError(f"video {index} of the batch holds values that are not finite (NaN or infinity)")


def _all_finite(frames: Tensor) -> bool:
    """Return whether all values are finite, in one pass where they are."""
    return bool(torch.isfinite(frames.sum()) or torch.isfinite(frames).all())


def check_batch_size(num_videos: int, *, least: int = 2, warn: bool = True, stacklevel: int = 1) -> None:
    """Refuse a batch that has nothing to compare, and warn of one with little.

    Args:
        num_videos: N, the number of videos in the batch of all processes.
        least: Least number of videos.
        warn: Whether to warn; of several processes, one should.
        stacklevel: Whose line the warning names: 1 for the caller, 2 for the caller's caller, and so on.

    Raises:
        ValueError: If there are fewer than ``least``.
    """
    if num_videos < least:
        raise ValueError(
            f"a batch must hold at least {least} videos, got {num_videos}: InfoNCE compares videos with each other, "
            "and marginalization takes its donor frames from another video"
        )
    if warn and num_videos < ENOUGH_VIDEOS:
        warnings.warn(
            f"a batch of {num_videos} videos: the bound on mutual information is at most log N, and below "
            f"{ENOUGH_VIDEOS} videos it is too loose to teach much (Section 4.3 of the ViSP paper)",
            stacklevel=stacklevel + 1,
        )


def check_logits(logits: object, frames: Tensor, owner: object) -> Tensor:
    """Return the logits if they are those of a `Summarizer`: a floating-point tensor (T,).

    Args:
        logits: what the summarizer returned.
        frames: the frames (T, ...) that it was given.
        owner: the summarizer, for its class name.

    Raises:
        TypeError: not a tensor, or not floating point.
        ValueError: not of shape (T,).
    """
    length = frames.shape[0]
    if isinstance(logits, Tensor) and logits.shape == (length,) and logits.is_floating_point():
        return logits
    hint = (
        "If the summarizer returns something else, wrap it: visp.adapt_summarizer(module, output=..., "
        "logits_from=..., probabilities=...)"
    )
    returned = f"{class_name(owner)} returned {describe_value(logits, length)}{_more_axes(frames)}"
    said = f"{returned}; expected logits (T,) with T = {length}. {hint}"
    if not isinstance(logits, Tensor):
        raise TypeError(said)
    if logits.shape != (length,):
        raise ValueError(said)
    raise TypeError(f"{said}; logits are real numbers")


def check_finite_logits(logits: Tensor, index: int, owner: object) -> Tensor:
    """Return the logits (T,) if they are all finite; on a GPU this waits for them.

    Args:
        logits: what the summarizer returned.
        index: the video's index in the batch.
        owner: the summarizer, for its class name.

    Raises:
        FloatingPointError: If one is NaN or infinite; the message names the video and its first such frame.
    """
    finite = torch.isfinite(logits.detach())
    if not finite.all():
        frame = int((~finite).int().argmax())
        raise FloatingPointError(
            f"{class_name(owner)} returned logits that are not finite (NaN or infinity) for video {index} of the "
            f"batch: {int((~finite).sum())} of {logits.numel()}, the first at frame {frame}"
        )
    return logits


def check_logits_have_gradient(logits: Tensor, summarizer: nn.Module) -> None:
    """Refuse logits that are cut off from the parameters of a summarizer in training.

    Args:
        logits: What the summarizer returned.
        summarizer: The summarizer; one without trainable parameters, or in evaluation mode, may do as it likes.

    Raises:
        ValueError: If gradients are enabled and the logits carry none.
    """
    if logits.requires_grad or not (summarizer.training and torch.is_grad_enabled()):
        return
    if any(parameter.requires_grad for parameter in summarizer.parameters()):
        raise ValueError(
            f"{class_name(summarizer)} returned logits without a gradient although it has "
            "trainable parameters: is there a no_grad, detach, numpy or argmax in its forward?"
        )


def look_like_probabilities(logits: Sequence[Tensor]) -> bool:
    """Return whether all logits lie in [0, 1] without being all 0, as they do where a sigmoid was applied already.

    Over the first steps of a run, trust a True; one batch may have such logits by chance.

    Args:
        logits: Logits (T_i,) of some videos; at least one.
    """
    values = torch.cat([video.detach().flatten() for video in logits])
    return bool((values >= 0).all() and (values <= 1).all() and (values > 0).any())


def warn_of_probabilities(logits: Sequence[Tensor], owner: object) -> None:
    """Warn of logits (T_i,) that look like probabilities; on a GPU this waits for them."""
    if look_like_probabilities(logits):
        warnings.warn(
            f"all logits of {class_name(owner)} lie in [0, 1]: has a sigmoid been applied already? Wrap the module "
            "with visp.adapt_summarizer(module, probabilities=True), or name the layer before it with logits_from=",
            ProbabilityWarning,
            stacklevel=3,
        )


def check_embedding(embedding: object, owner: object, frames: Tensor | None = None) -> Tensor:
    """Return the embedding if it is that of a `VideoEncoder`: a floating-point vector (e,), e >= 1.

    Args:
        embedding: what the encoder returned.
        owner: the encoder, for its class name.
        frames: the frames that it was given, for the message.

    Raises:
        TypeError: not a tensor, or not floating point.
        ValueError: not of shape (e,).
    """
    hint = (
        "Give the encoder a method encode(frames (T, d)) -> (e,), or make one of a hidden layer: "
        "visp.adapt_encoder(module, hidden_from=..., pool='mean')"
    )
    return check_vector(embedding, class_name(owner), hint, "" if frames is None else _more_axes(frames))


def check_embedding_lengths(lengths: Sequence[int], embeddings: Sequence[Tensor], owner: object) -> None:
    """Refuse an encoder whose embeddings (e,) differ in length: they follow the frames, as logits do.

    Args:
        lengths: Number of frames T of each video of the batch.
        embeddings: One vector per video.
        owner: the encoder, for its class name.

    Raises:
        ValueError: If two embeddings differ in length.
    """
    for length, embedding in zip(lengths, embeddings, strict=True):
        if len(embedding) != len(embeddings[0]):
            raise ValueError(
                f"{class_name(owner)} returned {len(embeddings[0])} numbers for a video of {lengths[0]} frames and "
                f"{len(embedding)} for one of {length}: these look like logits, not an embedding. Expected one "
                "vector (e,) per video; give the encoder an `encode` method, or wrap it with "
                "visp.adapt_encoder(module, hidden_from=...)"
            )


def check_vector(value: object, source: str, hint: str, given: str = "") -> Tensor:
    """Return the value if it is a floating-point vector (e,), e >= 1; else raise as `check_embedding` does."""
    if isinstance(value, Tensor) and value.ndim == 1 and value.numel() > 0 and value.is_floating_point():
        return value
    said = f"{source} returned {describe_value(value)}{given}; expected an embedding, one vector (e,). {hint}"
    if not isinstance(value, Tensor):
        raise TypeError(said)
    if value.ndim != 1 or value.numel() == 0:
        raise ValueError(said)
    raise TypeError(f"{said}; embeddings are real numbers")


def fits_frames(value: object, length: int) -> bool:
    """Return whether the value is a tensor (T,) with T = ``length``, but for axes of size 1."""
    return isinstance(value, Tensor) and value.numel() == length and value.ndim - value.shape.count(1) <= 1


def describe_value(value: object, length: int | None = None) -> str:
    """Name the type and shape of a value and of its elements, and the elements that fit (T,), T = ``length``."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}, {dtype_name(value.dtype)}"
    if isinstance(value, Mapping):
        elements = list(value.items())
    elif isinstance(value, tuple | list):
        elements = list(enumerate(value))
    else:
        return f"a value of type {type(value).__name__}"
    lines = []
    for key, element in elements:
        shape = f" {tuple(element.shape)}" if isinstance(element, Tensor) else ""
        fits = " which fits (T,)" if length is not None and fits_frames(element, length) else ""
        lines.append(f"[{key!r}] {type(element).__name__}{shape}{fits}")
    return f"a {type(value).__name__} of {', '.join(lines) or 'nothing'}"


def class_name(owner: object) -> str:
    """Return the name of the object's class, or the text itself if it is one."""
    return owner if isinstance(owner, str) else type(owner).__name__


def dtype_name(dtype: torch.dtype) -> str:
    """Return the type's name without ``torch.``."""
    return str(dtype).removeprefix("torch.")


def _more_axes(frames: Tensor) -> str:
    return f" for frames {tuple(frames.shape)}, which are not (T, d)" if frames.ndim > 2 else ""
