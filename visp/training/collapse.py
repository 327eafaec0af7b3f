"""Notices a pretraining run that has stopped teaching the summarizer, and says what to change."""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Mapping


class CollapseWarning(UserWarning):
    """A run that has collapsed, or whose contrastive task has become too easy to teach."""


class CollapseWatch:
    """Looks at the last steps of a run and warns once of each way to collapse.

    Args:
        window: Number of steps over which a sign must hold.
    """

    def __init__(self, window: int = 20) -> None:
        self.window = window
        self._recent: deque[Mapping[str, float]] = deque(maxlen=window)
        self._warned: set[str] = set()

    def update(self, metrics: Mapping[str, float]) -> None:
        """Take the metrics of one step: those of :class:`visp.ViSPOutput`, and ``step``."""
        self._recent.append(metrics)
        if len(self._recent) < self.window:
            return
        step, keep = int(metrics["step"]), metrics["keep_ratio"]
        if self._always("keep_ratio", below=0.01):
            self._warn(
                "drops all",
                f"step {step}: the summarizer keeps {keep:.1%} of the frames and no longer learns; "
                "raise the size target, lower the fixed size weight or the learning rate",
            )
        if self._always("keep_ratio", above=0.99):
            self._warn(
                "keeps all",
                f"step {step}: the summarizer keeps {keep:.1%} of the frames and no longer learns; "
                "set a size target, raise the fixed size weight or lower the learning rate",
            )
        if self._always("saturated_share", above=0.9):
            self._warn(
                "saturated",
                f"step {step}: {metrics['saturated_share']:.0%} of the logits are saturated, which leaves the "
                "summarizer hardly a gradient; lower the learning rate or the binary_weight",
            )
        bounds, ceiling = [m["mi_lower_bound"] for m in self._recent], metrics["mi_ceiling"]
        if ceiling > 0 and max(bounds) < 0.05 and max(bounds) - min(bounds) < 0.1:
            self._warn(
                "flat",
                f"step {step}: InfoNCE stays at log N = {ceiling:.2f}, the encoder tells nothing "
                "apart; its embeddings may be tiny, equal or mostly dropout noise: use another encoder "
                "(visp.encoders.AttentionPoolEncoder), a cosine similarity, or another learning rate",
            )
        if ceiling > 0 and max(m["info_nce"] / m["mi_ceiling"] for m in self._recent) < 0.02:
            self._warn(
                "too easy",
                f"step {step}: the bound on mutual information has reached log N, so the loss hardly tells the "
                "summarizer anything any more; use more videos, larger batches, hard_negatives, a smaller size target "
                "or an encoder with bounded similarities",
            )

    def _always(self, key: str, *, above: float = math.inf, below: float = -math.inf) -> bool:
        return all(m[key] > above or m[key] < below for m in self._recent)

    def _warn(self, sign: str, message: str) -> None:
        if sign not in self._warned:
            self._warned.add(sign)
            warnings.warn(message, CollapseWarning, stacklevel=4)
