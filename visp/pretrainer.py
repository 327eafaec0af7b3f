"""The ViSP objective (Section 3 of the paper): learn what to keep by recognising a video from its summary."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from visp.contracts import check_embedding, check_logits, embed_with
from visp.contrastive import (
    Cosine,
    InnerProduct,
    Similarity,
    at_least_float32,
    info_nce,
    mi_lower_bound,
)
from visp.gradient_flow import Gating, GradientFlow, Marginalization, StraightThrough, bernoulli
from visp.regularizers import Reduction, SizeConstraint, binary_penalty, size_penalty
from visp.samplers import ConcreteSampler, GumbelSoftmaxSampler, Sampler, SigmoidSampler
from visp.utils.distributed import UnionBatch, join, num_processes
from visp.utils.recompute import recomputed

SAMPLERS: Mapping[str, Callable[..., Sampler]] = {
    "concrete": ConcreteSampler,
    "gumbel_softmax": GumbelSoftmaxSampler,
    "sigmoid": SigmoidSampler,
}
GRADIENT_FLOWS: Mapping[str, Callable[..., GradientFlow]] = {
    "gating": Gating,
    "marginalization": Marginalization,
    "straight_through": StraightThrough,
}
SIMILARITIES: Mapping[str, Callable[..., Similarity]] = {"inner": InnerProduct, "cosine": Cosine}

SATURATED_LOGIT = 8.0
"""A logit beyond plus or minus this counts as saturated: the sigmoid's slope is below 0.00034."""

_Part = TypeVar("_Part")
_SAMPLE, _FLOW, _RANDOM_MASK, _RANDOM_FLOW, _DONOR = range(5)


class ViSPOutput(NamedTuple):
    """What one step of :class:`ViSPPretrainer` gives; scalars, all but ``loss`` for reading only."""

    loss: Tensor
    """What to minimise, Eq. 10."""
    info_nce: Tensor
    """L_N of Eq. 3 in nats, mean over the batch whatever ``loss_reduction``."""
    size_penalty: Tensor
    """R_size before its weight."""
    binary_penalty: Tensor
    """R_binary before its weight."""
    mi_lower_bound: Tensor
    """log N - L_N of Eq. 2, in nats."""
    keep_ratio: Tensor
    """Mean of the relaxed selection over frames, then videos, in (0, 1)."""
    size_weight: Tensor
    """The weight of the size penalty: fixed, or the constraint's multiplier at this step."""
    saturated_share: Tensor
    """Share of the batch's logits beyond plus or minus ``SATURATED_LOGIT``, in [0, 1]."""


class ViSPPretrainer(nn.Module):
    """Pretrains a summarizer on unlabelled videos: one forward pass is the loss of one batch.

    Where ``torch.distributed`` runs several processes, each brings videos of its own and all compute the loss of the
    union batch; the average of their gradients, as DDP takes it, is that loss's gradient.

    Args:
        summarizer: Maps frames (T, ...) to logits (T,); see :func:`visp.adapt_summarizer` for models that do not.
        encoder: Maps frames (T, ...) to one vector (e,), through its ``encode`` method if it has one
            (:class:`visp.EncodesVideo`), else through ``forward``. Thrown away after pretraining.
        sampler: ``"concrete"`` (Eq. 6), ``"gumbel_softmax"``, ``"sigmoid"``, or a :class:`visp.samplers.Sampler`.
        gradient_flow: ``"gating"`` (Eq. 8), ``"marginalization"`` (Eq. 9), ``"straight_through"``, or a
            :class:`visp.gradient_flow.GradientFlow`.
        hard_negatives: Add a random summary of every video to the denominator of Eq. 3. It keeps as large a
            share of the frames as the video's own summary.
        size_weight: A fixed beta_size of Eq. 10; it turns the constraint off.
        size_target: Share of frames to keep, in (0, 1), held by a multiplier
            (:class:`visp.regularizers.SizeConstraint`); 0.3 if neither this nor ``size_weight`` is given.
        binary_weight: beta_binary of Eq. 10.
        similarity: ``"inner"`` (Eq. 3), ``"cosine"``, or a :class:`visp.contrastive.Similarity`.
        loss_reduction: ``"mean"`` over the batch, or Eq. 3's ``"sum"``.
        penalty_reduction: ``"mean"`` over frames, or the paper's ``"sum"``, to which Table 1's ranges refer
            (about 300 times the weight of a mean). The constraint always holds the mean.
        checkpoint_videos: Keep the activations of one video at a time and recompute them in backward: memory no
            longer grows with the batch, for about a third more time.
        seed: Seed of all noise (selections, draws, donors), at least 0; by default drawn from torch's global
            generator. Of several processes, the first one's counts.
        gather: Whether several processes compute the loss of their union batch. With False each compares the videos
            of its own batch only, for instance to evaluate in one process alone.

    Attributes:
        seed: As given or drawn; saved with the state.
        step: Number of forward passes in training mode; saved with the state.

    Raises:
        ValueError: If an option is unknown or out of its range, or both ``size_weight`` and ``size_target`` are given.
        TypeError: If the summarizer or the encoder is not a module, or a part is not an object of its kind.
    """

    def __init__(
        self,
        summarizer: nn.Module,
        encoder: nn.Module,
        *,
        sampler: Literal["concrete", "gumbel_softmax", "sigmoid"] | Sampler = "concrete",
        gradient_flow: Literal["gating", "marginalization", "straight_through"] | GradientFlow = "gating",
        hard_negatives: bool = False,
        size_weight: float | None = None,
        size_target: float | None = None,
        binary_weight: float = 0.0,
        similarity: Literal["inner", "cosine"] | Similarity = "inner",
        loss_reduction: Reduction = "mean",
        penalty_reduction: Reduction = "mean",
        checkpoint_videos: bool = False,
        seed: int | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__()
        if size_weight is not None and size_target is not None:
            raise ValueError(
                f"size_weight={size_weight} and size_target={size_target} exclude each other: "
                "a fixed weight turns the constraint off"
            )
        for name, module in (("summarizer", summarizer), ("encoder", encoder)):
            if not isinstance(module, nn.Module):
                raise TypeError(f"the {name} must be a torch.nn.Module, got {type(module).__name__}")
        for name, number in (("size_weight", size_weight), ("binary_weight", binary_weight), ("seed", seed)):
            if number is not None and not number >= 0:
                raise ValueError(f"{name} must be at least 0, got {number!r}")
        self.summarizer = summarizer
        self.encoder = encoder
        self.sampler = _choose("sampler", sampler, SAMPLERS)
        self.gradient_flow = _choose("gradient_flow", gradient_flow, GRADIENT_FLOWS)
        if not isinstance(self.gradient_flow, GradientFlow):
            raise TypeError(
                f"{type(self.gradient_flow).__name__} is no gradient flow: it needs an attribute `needs_donors` and "
                "to be callable as flow(frames, selection, donors, generator)"
            )
        self.similarity = _choose("similarity", similarity, SIMILARITIES)
        self.hard_negatives = hard_negatives
        self.size_weight = size_weight
        self.size_constraint = (
            SizeConstraint(0.3 if size_target is None else size_target) if size_weight is None else None
        )
        self.binary_weight = binary_weight
        self.loss_reduction = _choose_reduction("loss_reduction", loss_reduction)
        self.penalty_reduction = _choose_reduction("penalty_reduction", penalty_reduction)
        self.checkpoint_videos = checkpoint_videos
        self.gather = gather
        self.seed = int(torch.randint(2**62, ())) if seed is None else seed
        self.step = 0
        self._embedding_seen: tuple[int, int] | None = None

    def forward(self, videos: Sequence[Tensor]) -> ViSPOutput:
        """Compute the loss of one batch; in training mode the size constraint's multiplier steps too.

        Args:
            videos: N >= 2 videos, each (T_i, ...) frames of any length with the same trailing axes. Of several
                processes each brings at least one, and the batch is the union, lower ranks first.

        Returns:
            The loss and what explains it.

        Raises:
            ValueError: If the batch or what a module returns does not fit; the message names which.
        """
        batch = self._union_batch(videos)
        all_logits, selections = [], []
        summaries, originals, randoms = [], [], []
        donors = self._donors(videos, batch)
        for number, frames in enumerate(videos):
            index = batch.first + number
            logits = self._logits(frames)  # (T,), Eq. 7
            selection = self.sampler(logits, self._generator(_SAMPLE, index))  # (T,), Eq. 6
            all_logits.append(logits)
            selections.append(selection)
            summaries.append(self._embed_summary(frames, selection, donors[number], _FLOW, index))
            originals.append(self._embed(frames))
            if self.hard_negatives:
                share = selection.detach().mean().expand_as(selection)
                mask = bernoulli(share, self._generator(_RANDOM_MASK, index))
                randoms.append(self._embed_summary(frames, mask, donors[number], _RANDOM_FLOW, index))
        with torch.autocast(videos[0].device.type, enabled=False):
            parts = (all_logits, selections, summaries, originals, *([randoms] if self.hard_negatives else []))
            all_logits, selections, summaries, originals, *more = batch.gather(parts)
            self._check_embeddings(all_logits, originals)
            output = self._objective(all_logits, selections, summaries, originals, *more)
        if self.training:
            self.step += 1
        return output

    def describe(self) -> dict[str, str]:
        """Return the options of the objective as text, for logs and to compare runs."""
        size = f"weight {self.size_weight}" if self.size_constraint is None else f"target {self.size_constraint.target}"
        return {
            "encoder": _describe(self.encoder),
            "sampler": _describe(self.sampler),
            "gradient_flow": _describe(self.gradient_flow),
            "similarity": _describe(self.similarity),
            "hard_negatives": str(self.hard_negatives),
            "size": size,
            "binary_weight": str(self.binary_weight),
            "reductions": f"{self.loss_reduction} loss, {self.penalty_reduction} penalties",
        }

    def get_extra_state(self) -> Tensor:
        """Return what the noise is keyed by, as part of ``state_dict()``."""
        return torch.tensor([self.seed, self.step])

    def set_extra_state(self, state: Tensor) -> None:
        """Continue the noise of a saved state."""
        self.seed, self.step = state.tolist()

    def _objective(
        self,
        logits: list[Tensor],
        selections: list[Tensor],
        summaries: list[Tensor],
        originals: list[Tensor],
        randoms: list[Tensor] | None = None,
    ) -> ViSPOutput:
        num_videos = len(selections)
        contrastive = info_nce(
            torch.stack(summaries),
            torch.stack(originals),
            None if randoms is None else torch.stack(randoms),
            similarity=self.similarity,
            reduction=self.loss_reduction,
        )
        keep_ratio = size_penalty(selections)
        size = size_penalty(selections, self.penalty_reduction)
        binary = binary_penalty(selections, self.penalty_reduction)
        if self.size_constraint is None:
            assert self.size_weight is not None
            size_weight = torch.full_like(keep_ratio.detach(), self.size_weight)
            size_term = self.size_weight * size
        else:
            size_weight = self.size_constraint.multiplier.clone()
            size_term = self.size_constraint(keep_ratio, logits)
        mean = contrastive.detach() / (num_videos if self.loss_reduction == "sum" else 1)
        return ViSPOutput(
            loss=contrastive + self.binary_weight * binary + size_term,  # Eq. 10
            info_nce=mean,
            size_penalty=size.detach(),
            binary_penalty=binary.detach(),
            mi_lower_bound=mi_lower_bound(mean, num_videos),
            keep_ratio=keep_ratio.detach(),
            size_weight=size_weight,
            saturated_share=(torch.cat(logits).detach().abs() > SATURATED_LOGIT).float().mean(),
        )

    def _logits(self, frames: Tensor) -> Tensor:
        logits = self._run(self.summarizer, self.summarizer, frames)
        check_logits(logits, frames, self.summarizer)
        cut_off = self.training and torch.is_grad_enabled() and not logits.requires_grad
        if cut_off and any(parameter.requires_grad for parameter in self.summarizer.parameters()):
            raise ValueError(
                f"{type(self.summarizer).__name__} returned logits without a gradient although it has "
                "trainable parameters: is there a no_grad, detach, numpy or argmax in its forward?"
            )
        return at_least_float32(logits)

    def _embed(self, frames: Tensor) -> Tensor:
        embedding = self._run(self.encoder, embed_with(self.encoder), frames)
        check_embedding(embedding, self.encoder)
        return at_least_float32(embedding)

    def _embed_summary(
        self, frames: Tensor, selection: Tensor, donors: Tensor | None, purpose: int, index: int
    ) -> Tensor:
        """Embed the summary; its frames are made inside, so that recomputation need not keep them."""
        embed = embed_with(self.encoder)
        key = self._key(purpose, index)

        def summarize_and_embed(frames: Tensor, selection: Tensor, donors: Tensor | None) -> Tensor:
            return embed(self.gradient_flow(frames, selection, donors, torch.Generator().manual_seed(key)))

        embedding = self._run(self.encoder, summarize_and_embed, frames, selection, donors)
        check_embedding(embedding, self.encoder)
        return at_least_float32(embedding)

    def _run(self, module: nn.Module, function: Callable[..., Tensor], *args: object) -> Tensor:
        return recomputed(module, function, *args) if self.checkpoint_videos else function(*args)

    def _union_batch(self, videos: Sequence[Tensor]) -> UnionBatch:
        """Check the batch, and find this process's place in the union of all processes' batches."""
        if self.gather and num_processes() > 1:
            device = next((parameter.device for parameter in self.parameters()), torch.device("cpu"))
            batch, (self.seed, self.step) = join(videos, _check_frames, (self.seed, self.step), device)
        else:
            _check_frames(videos)
            batch = UnionBatch(0, [[len(frames) for frames in videos]])
        _check_size(batch)
        return batch

    def _donors(self, videos: Sequence[Tensor], batch: UnionBatch) -> list[Tensor] | list[None]:
        if not self.gradient_flow.needs_donors:
            return [None] * len(videos)
        number = batch.num_videos
        offsets = torch.randint(1, number, (number,), generator=self._generator(_DONOR, 0)).tolist()
        return batch.fetch(videos, [(index + offset) % number for index, offset in enumerate(offsets)])

    def _check_embeddings(self, logits: Sequence[Tensor], embeddings: Sequence[Tensor]) -> None:
        """Refuse an encoder whose output length differs between videos: then it follows the frames."""
        for frames, embedding in zip(logits, embeddings, strict=True):  # one logit a frame
            if self._embedding_seen is None:
                self._embedding_seen = (len(frames), len(embedding))
            first_frames, first_size = self._embedding_seen
            if len(embedding) != first_size:
                raise ValueError(
                    f"{type(self.encoder).__name__} returned {first_size} numbers for a video of {first_frames} "
                    f"frames and {len(embedding)} for one of {len(frames)}: these look like logits, not an "
                    "embedding. Expected one vector (e,) a video; give the encoder an `encode` method, or wrap "
                    "it with visp.adapt_encoder(module, hidden_from=...)"
                )

    def _generator(self, purpose: int, index: int) -> torch.Generator:
        return torch.Generator().manual_seed(self._key(purpose, index))

    def _key(self, purpose: int, index: int) -> int:
        """Noise is keyed by seed, step, video and purpose: a batch's draws do not depend on what ran before."""
        sequence = np.random.SeedSequence((self.seed, self.step, index, purpose))
        return int(sequence.generate_state(1, np.uint64)[0])


def _describe(part: object) -> str:
    plain = {
        name.lstrip("_"): value
        for name, value in getattr(part, "__dict__", {}).items()
        if isinstance(value, int | float | str) and name != "training"
    }
    return f"{type(part).__name__}({', '.join(f'{name}={value}' for name, value in plain.items())})"


def _choose(option: str, choice: str | _Part, choices: Mapping[str, Callable[..., _Part]]) -> _Part:
    if not isinstance(choice, str):
        if isinstance(choice, type) or not callable(choice):
            raise TypeError(
                f"{option} must be one of {', '.join(map(repr, choices))} or a callable object, got {choice!r}"
            )
        return choice
    if choice not in choices:
        raise ValueError(f"{option} must be one of {', '.join(map(repr, choices))} or an object, got {choice!r}")
    return choices[choice]()


def _choose_reduction(option: str, choice: Reduction) -> Reduction:
    if choice not in ("mean", "sum"):
        raise ValueError(f"{option} must be 'mean' or 'sum', got {choice!r}")
    return choice


def _check_size(batch: UnionBatch) -> None:
    if batch.num_videos < 2:
        raise ValueError(
            f"a batch must hold at least 2 videos, got {batch.num_videos}: InfoNCE compares videos with each other, "
            "and marginalization takes its donor frames from another video"
        )
    if batch.num_videos < 8 and batch.rank == 0:
        warnings.warn(
            f"a batch of {batch.num_videos} videos: the bound on mutual information is at most log N, and below 8 "
            "videos it is too loose to teach much (Section 4.3 of the ViSP paper)",
            stacklevel=4,
        )


def _check_frames(videos: Sequence[Tensor]) -> None:
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
        if frames.device.type == "cpu" and not torch.isfinite(frames).all():
            raise ValueError(f"video {index} of the batch holds values that are not finite (NaN or infinity)")
