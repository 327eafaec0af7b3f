"""The ViSP objective (Section 3 of the paper): learn what to keep by recognising a video from its summary."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from visp.contracts import (
    check_batch_size,
    check_embedding_lengths,
    check_frames,
    check_module,
    warn_of_probabilities,
)
from visp.contrastive import Contrast, Similarity, Span, losses_of_pieces, recognition
from visp.gradient_flow import GradientFlow
from visp.output import ViSPOutput, explain
from visp.passes import embed_pieces, score_videos
from visp.registry import GRADIENT_FLOWS, SAMPLERS, SIMILARITIES, choose, choose_contrasts, choose_size, describe
from visp.regularizers import Reduction, SizeRule, binary_penalty
from visp.samplers import Sampler
from visp.side_inputs import Video, frames_of_batch
from visp.utils.distributed import UnionBatch, join, num_processes
from visp.utils.noise import Noise, Purpose, bernoulli

PROBABILITIES_STEP = 30
"""At this step, from 0, logits that all lie in [0, 1] are warned of."""


class ViSPPretrainer(nn.Module):
    """Pretrains a summarizer on unlabelled videos: one forward pass is the loss of one batch.

    Where ``torch.distributed`` runs several processes, each brings videos of its own and all compute the loss of the
    union batch; the average of their gradients, as DDP takes it, is that loss's gradient.

    Args:
        summarizer: Maps frames (T, ...) to logits (T,); see :func:`visp.adapt_summarizer` for models that do not.
        encoder: Maps frames (T, ...) to one vector (e,), through its ``encode`` method if it has one
            (:class:`visp.contracts.EncodesVideo`), else through ``forward``. Thrown away after pretraining.
        contrast: What a summary is compared with: ``"videos"`` of the batch (the paper, Eq. 3), ``"windows"`` of its
            own video, ``"both"`` (the sum of the two losses, that of the windows with the weight ``window_weight``,
            which agreed best with what people mark, docs/training.md), ``"none"`` (penalties only, a control), a
            :class:`visp.contrastive.Contrast`, or a tuple of them whose losses are added.
        window: Frames in a window of a contrast given by name; see :class:`visp.contrastive.Windows`.
        window_weight: Weight of the loss between windows under ``"both"``, at least 0; that between videos has 1.
        sampler: ``"concrete"`` (Eq. 6), ``"gumbel_softmax"``, ``"sigmoid"``, or a :class:`visp.samplers.Sampler`.
        gradient_flow: ``"gating"`` (Eq. 8), ``"marginalization"`` (Eq. 9), ``"straight_through"``, or a
            :class:`visp.gradient_flow.GradientFlow`.
        hard_negatives: Add a random summary of every video, or window, to the denominator of Eq. 3. It keeps as large
            a share of the frames as the summary itself.
        size: Share of the frames to keep, in (0, 1) (:class:`visp.regularizers.TargetSize`), or a
            :class:`visp.regularizers.FixedSize` with the beta_size of Eq. 10.
        binary_weight: beta_binary of Eq. 10, at least 0.
        similarity: ``"inner"`` (Eq. 3), ``"cosine"``, or a :class:`visp.contrastive.Similarity`.
        reduction: ``"mean"`` over what is compared and over frames, or the paper's ``"sum"`` of both, to which
            Table 1's ranges refer. A size target is a mean in any case.
        recompute: Keep the activations of one video at a time and compute them again in backward: memory no longer
            grows with the batch, for about a third more time.
        seed: Seed of all noise (selections, gates, donors), at least 0; by default drawn from torch's global
            generator. Of several processes, the first one's counts.
        gather: Whether several processes compute the loss of their union batch. With False each computes that
            of its own batch, for instance to evaluate in one process alone.

    Attributes:
        noise: The source of all noise: the seed, and the number of forward passes in training mode.

    Raises:
        ValueError: If an option is unknown or out of its range.
        TypeError: If the summarizer or the encoder is not a module, or a part is not an object of its kind.
    """

    def __init__(
        self,
        summarizer: nn.Module,
        encoder: nn.Module,
        *,
        contrast: Literal["videos", "windows", "both", "none"] | Contrast | tuple[Contrast, ...] = "both",
        window: int | None = None,
        window_weight: float = 0.5,
        sampler: Literal["concrete", "gumbel_softmax", "sigmoid"] | Sampler = "concrete",
        gradient_flow: Literal["gating", "marginalization", "straight_through"] | GradientFlow = "gating",
        hard_negatives: bool = False,
        size: float | SizeRule = 0.3,
        binary_weight: float = 0.0,
        similarity: Literal["inner", "cosine"] | Similarity = "inner",
        reduction: Reduction = "mean",
        recompute: bool = False,
        seed: int | None = None,
        gather: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= binary_weight < math.inf:
            raise ValueError(f"binary_weight must be at least 0, and finite, got {binary_weight!r}")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
        check_module("summarizer", summarizer)
        check_module("encoder", encoder)
        self.summarizer = summarizer
        self.encoder = encoder
        self.contrasts = choose_contrasts(contrast, window, window_weight)
        self.sampler = choose("sampler", sampler, SAMPLERS, Sampler)
        self.gradient_flow = choose("gradient_flow", gradient_flow, GRADIENT_FLOWS, GradientFlow)
        self.hard_negatives = hard_negatives
        self.size = choose_size(size, with_donors=self.gradient_flow.needs_donors)
        self.binary_weight = binary_weight
        self.similarity = choose("similarity", similarity, SIMILARITIES, Similarity)
        self.reduction: Reduction = reduction
        self.recompute = recompute
        self.noise = Noise(seed)
        self.gather = gather

    @property
    def min_videos(self) -> int:
        """Least number of videos in a batch: 1 unless a video needs another one, to be compared with or for frames."""
        alone = not self.contrasts or any(contrast.within_video for contrast in self.contrasts)
        return 1 if alone and not self.gradient_flow.needs_donors else 2

    def forward(self, videos: Sequence[Tensor | Video]) -> ViSPOutput:
        """Compute the loss of one batch, Eq. 10; in training mode the noise and a size target's multiplier step too.

        Args:
            videos: N videos, each (T_i, ...) frames of any length with the same trailing axes, alone or with side
                inputs, which only the summarizer is given. Of several processes each brings at least one, and the
                batch is the union, lower ranks first.

        Returns:
            The loss and what explains it.

        Raises:
            ValueError: If the batch or the shape of what a module returns does not fit; the message names which.
            TypeError: If a module does not return real numbers, or a video carries side inputs that it does not take.
        """
        frames = frames_of_batch(videos)
        batch = self._union(frames)  # the videos of all processes
        numbers = range(batch.first, batch.first + len(frames))
        donors = self._donors(frames, batch)
        logits = score_videos(self.summarizer, videos, recompute=self.recompute)  # (T_i,), Eq. 7
        selections = [  # (T_i,), Eq. 6
            self.sampler(alpha, self.noise.generator(Purpose.SELECTION, i))
            for i, alpha in zip(numbers, logits, strict=True)
        ]
        gates = [
            self.gradient_flow.gate(selection, self.noise.generator(Purpose.GATE, i))
            for i, selection in zip(numbers, selections, strict=True)
        ]
        summaries = list(map(self.gradient_flow, frames, gates, donors))  # (T_i, ...), Eq. 8 or 9
        recognised = []
        for position, contrast in enumerate(self.contrasts):
            spans = [contrast.spans(len(video)) for video in frames]
            parts = [summaries, frames]
            if self.hard_negatives:
                parts.append(self._random_summaries(position, spans, frames, selections, donors, numbers))
            embeddings = [embed_pieces(self.encoder, part, spans, recompute=self.recompute) for part in parts]
            losses = self._losses(contrast, embeddings, batch)  # (K_i,), Eq. 3
            recognised.append(recognition(losses, contrast.within_video, self.reduction))
        logits, selections = batch.gather([logits, selections])
        size_weight = self.size.weight.clone()
        binary = binary_penalty(selections, self.reduction)
        loss = self.size(selections, logits, self.reduction) + self.binary_weight * binary
        for contrast, found in zip(self.contrasts, recognised, strict=True):
            loss = loss + getattr(contrast, "weight", 1.0) * found.loss  # Eq. 10
        if self.training:
            if self.noise.step == PROBABILITIES_STEP:
                warn_of_probabilities(logits, self.summarizer)
            self.noise.step += 1
        return explain(
            loss, recognised, logits, selections, binary=binary, size_weight=size_weight, reduction=self.reduction
        )

    def describe(self) -> dict[str, str]:
        """Return the options of the objective as text, for logs and to compare runs."""
        parts = ("encoder", "sampler", "gradient_flow", "similarity", "size")
        plain = ("hard_negatives", "binary_weight", "reduction")
        return {
            "contrast": " + ".join(map(describe, self.contrasts)) or "none",
            **{name: describe(getattr(self, name)) for name in parts},
            **{name: str(getattr(self, name)) for name in plain},
        }

    def _union(self, videos: Sequence[Tensor]) -> UnionBatch:
        """Check the batch, and find this process's place in the union of all processes' batches."""
        if self.gather and num_processes() > 1:
            device = next((parameter.device for parameter in self.parameters()), torch.device("cpu"))
            batch, (self.noise.seed, self.noise.step) = join(
                videos, check_frames, (self.noise.seed, self.noise.step), device
            )
        else:
            check_frames(videos)
            batch = UnionBatch(0, [[len(frames) for frames in videos]])
        if self.min_videos > 1 or not all(contrast.within_video for contrast in self.contrasts):
            check_batch_size(batch.num_videos, least=self.min_videos, warn=batch.rank == 0, stacklevel=4)
        return batch

    def _donors(self, videos: Sequence[Tensor], batch: UnionBatch) -> Sequence[Tensor | None]:
        """Fetch another video of the union batch for each video, if the gradient flow needs one."""
        if not self.gradient_flow.needs_donors:
            return [None] * len(videos)
        number = batch.num_videos
        offsets = torch.randint(1, number, (number,), generator=self.noise.generator(Purpose.DONORS)).tolist()
        return batch.fetch(videos, [(index + offset) % number for index, offset in enumerate(offsets)])

    def _random_summaries(
        self,
        contrast: int,
        spans: Sequence[Sequence[Span]],
        videos: Sequence[Tensor],
        selections: Sequence[Tensor],
        donors: Sequence[Tensor | None],
        numbers: Sequence[int],
    ) -> list[Tensor]:
        """Make summaries X_r (T_i, ...) whose pieces keep as many frames as those of the selections, at random."""
        summaries = []
        for i, cuts, frames, selection, donor in zip(numbers, spans, videos, selections, donors, strict=True):
            kept = selection.detach()
            share = torch.cat([kept[first:end].mean().expand(end - first) for first, end in cuts])
            mask = bernoulli(share, self.noise.generator(Purpose.RANDOM_SELECTION, i, contrast))
            gate = self.gradient_flow.gate(mask, self.noise.generator(Purpose.RANDOM_GATE, i, contrast))
            summaries.append(self.gradient_flow(frames, gate, donor))
        return summaries

    def _losses(
        self, contrast: Contrast, embeddings: Sequence[Sequence[Tensor]], batch: UnionBatch
    ) -> Sequence[Tensor]:
        """Return the losses (K_i,) of every video of the union batch; windows of a video never leave their process."""
        if contrast.within_video:
            return batch.gather([losses_of_pieces(embeddings, True, self.similarity)])[0]
        lengths = [length for process in batch.lengths for length in process]
        gathered = batch.gather_rows(embeddings, [len(contrast.spans(length)) for length in lengths])
        check_embedding_lengths(lengths, [rows[0] for rows in gathered[0]], self.encoder)
        return losses_of_pieces(gathered, False, self.similarity)
