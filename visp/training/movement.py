"""How far pretraining has moved a summarizer's scores: two controls that cost little, at the end of every run.

InfoNCE alone does not tell, for an encoder recognises a video from almost any of its frames.
:mod:`visp.studies.controls` repeats whole runs and says more.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from visp.calls import score
from visp.contracts import Objective
from visp.eval.agreement import agreement, spread_within_video
from visp.pretrainer import ViSPPretrainer
from visp.side_inputs import Video, placed
from visp.training.collapse import CollapseWarning
from visp.training.options import PretrainOptions
from visp.training.run_state import RunState
from visp.training.step import train_step
from visp.utils.modes import evaluation_mode
from visp.utils.noise import seeded
from visp.utils.progress import Bar

FLAT = 0.05
"""Logits that spread by less within a video rank frames by differences that selection does not see."""
SAME_ORDER = 0.7
"""Kendall's tau above which two orders of the frames are called the same."""
FEWEST_STEPS = 20
"""A shorter run is not judged."""
MOST_VIDEOS = 16
"""Videos that the scores are compared on, and that the size constraint alone is run on."""

Reference = Mapping[str, list[Tensor]]
"""Logits (T_i,) of the watched videos, ``"untrained"`` and under the ``"size only"``."""


@dataclass(frozen=True)
class Movement:
    """What the run did to the scores of some of its videos.

    Attributes:
        spread: Standard deviation of the logits within a video.
        untrained_order: Kendall's tau of the scores with those before the run.
        size_only_order: Kendall's tau of the scores with those that the size constraint alone gives in a fifth of the
            steps, at most 100.
        untrained_order_size_only: Kendall's tau of the latter with the scores before the run.
    """

    spread: float
    untrained_order: float
    size_only_order: float
    untrained_order_size_only: float

    def __str__(self) -> str:
        return (
            f"its logits spread by {self.spread:.2f} within a video; Kendall's tau of its scores is "
            f"{self.untrained_order:.2f} with those before training and {self.size_only_order:.2f} with those that the "
            "size constraint alone gives"
        )

    @property
    def nothing_learnt(self) -> str | None:
        """Say why the run seems to have taught the summarizer nothing; None if it seems to have."""
        if not self.spread >= FLAT:
            return f"within a video its logits spread by {self.spread:.3f} only"
        if self.untrained_order >= SAME_ORDER:
            return f"it ranks frames as it did before training (Kendall's tau {self.untrained_order:.2f})"
        if self.size_only_order >= SAME_ORDER:
            return f"it ranks frames as the size constraint alone makes it (Kendall's tau {self.size_only_order:.2f})"
        if self.untrained_order >= self.untrained_order_size_only:
            return (
                f"its ranking moved no further from the one before training (Kendall's tau {self.untrained_order:.2f}) "
                f"than a fifth of the steps of the size constraint alone move it ({self.untrained_order_size_only:.2f})"
            )
        return None


def watched(objective: object, items: Any, num_steps: int, options: PretrainOptions) -> list[Tensor | Video]:
    """Return the videos (T_i, ...) to compare scores on, at equal distances; none where there is nothing to judge."""
    if not isinstance(objective, ViSPPretrainer) or not objective.contrasts:
        return []
    trained = any(each.requires_grad for each in objective.summarizer.parameters())
    if not options.controls or not trained or num_steps < FEWEST_STEPS:
        return []
    return [items[index] for index in range(0, len(items), -(-len(items) // min(MOST_VIDEOS, options.batch_size)))]


def reference(
    objective: Objective, videos: Sequence[Tensor | Video], options: PretrainOptions, num_steps: int
) -> Reference:
    """Score the videos with a summarizer as it is, and after some steps of the size constraint alone.

    The summarizer ends with the parameters and buffers that it had, and without gradients.
    """
    assert isinstance(objective, ViSPPretrainer)
    summarizer = objective.summarizer
    before = scores(summarizer, videos)
    kept = [(value, value.detach().clone()) for value in (*summarizer.parameters(), *summarizer.buffers())]
    alone = ViSPPretrainer(
        summarizer,
        nn.Identity(),
        contrast="none",
        sampler=objective.sampler,
        size=copy.deepcopy(objective.size),
        binary_weight=objective.binary_weight,
        reduction=objective.reduction,
        recompute=objective.recompute,
        seed=objective.noise.seed,
        gather=False,
    )
    options = replace(options, warmup_steps=0, schedule="constant", ema_decay=None)
    state = RunState("pretrain", alone, options)
    names = [f"{index}" for index in range(len(videos))]

    def loss_of(batch: list[Any]) -> tuple[Tensor, Mapping[str, Tensor]]:
        return alone(batch).loss, {}

    try:
        with seeded(options.seed, state.device):
            steps = range(min(max(num_steps // 5, FEWEST_STEPS), 100))
            hidden = not options.progress
            for _ in Bar(iterable=steps, desc="size only", leave=False, disable=hidden, dynamic_ncols=True):
                train_step(state, loss_of, list(videos), names, options, num_steps)
        return {"untrained": before, "size only": scores(summarizer, videos)}
    finally:
        alone.zero_grad()
        with torch.no_grad():
            for value, start in kept:
                value.copy_(start)


def scores(summarizer: nn.Module, videos: Iterable[Tensor | Video]) -> list[Tensor]:
    """Return the logits (T_i,) of the videos in evaluation mode, in float32 and on the CPU."""
    like = next(summarizer.parameters(), torch.empty(0))
    with evaluation_mode(summarizer), torch.no_grad():
        # A module may return a parameter itself, which training then moves.
        return [score(summarizer, placed(video, like)).detach().float().cpu().clone() for video in videos]


def judge(summarizer: nn.Module, videos: Sequence[Tensor | Video], before: Reference) -> Movement:
    """Compare the scores of the videos with the reference, and warn where the run seems to have taught nothing."""
    after = [video.numpy() for video in scores(summarizer, videos)]
    untrained, size_only = ([video.numpy() for video in before[name]] for name in ("untrained", "size only"))
    movement = Movement(
        spread_within_video(after),
        agreement(after, untrained),
        agreement(after, size_only),
        agreement(size_only, untrained),
    )
    if movement.nothing_learnt is not None:
        warnings.warn(
            f"the run seems to have taught the summarizer nothing: {movement.nothing_learnt}. See the section on what "
            "to do when it does not learn in docs/training.md, and `visp study controls`",
            CollapseWarning,
            stacklevel=2,
        )
    return movement
