"""Pretraining on fixed pseudo-summaries, the baseline that ViSP is compared with ("FSA", Table 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visp.calls import run_summarizer
from visp.contracts import check_module
from visp.contrastive import at_least_float32
from visp.data.source import VideoSource
from visp.side_inputs import Video


class PseudoSummaryOutput(NamedTuple):
    """What one step of :class:`PseudoSummaryPretrainer` gives; scalars."""

    loss: Tensor
    """Binary cross-entropy in nats, mean over frames, then videos."""
    keep_ratio: Tensor
    """Mean probability of keeping a frame, over frames, then videos."""


class PseudoSummaryPretrainer(nn.Module):
    """Trains a summarizer to predict given 0/1 labels of frames, by binary cross-entropy: FSA of the paper's Table 3.

    The labels may come from anywhere: another method's pseudo-summaries, or :func:`top_share` of any score. Give
    :func:`visp.pretrain` a dataset whose items are (frames, labels), such as :class:`PseudoSummaries`.

    Args:
        summarizer: Maps frames (T, ...) to logits (T,).

    Raises:
        TypeError: If the summarizer is not a module.
    """

    def __init__(self, summarizer: nn.Module) -> None:
        super().__init__()
        check_module("summarizer", summarizer)
        self.summarizer = summarizer

    def forward(self, videos: Sequence[tuple[Tensor | Video, Tensor]]) -> PseudoSummaryOutput:
        """Compute the loss of one batch.

        Args:
            videos: (T_i, ...) frames of each video and its pseudo-summary (T_i,), 1 for a frame of the summary, else 0.

        Returns:
            The loss and the mean probability of keeping a frame.

        Raises:
            ValueError: If there is no video, the numbers of frames and labels disagree, or a label is neither 0 nor 1.
            TypeError: If an item is not frames with their pseudo-summary.
        """
        if len(videos) == 0:
            raise ValueError("a batch must hold at least 1 video, got 0")
        losses, kept = [], []
        for index, item in enumerate(videos):
            if not isinstance(item, tuple | list) or len(item) != 2:
                raise TypeError(f"video {index} of the batch: expected frames (T, d) with their pseudo-summary (T,)")
            frames, labels = item
            if labels.shape != (len(frames),):
                raise ValueError(f"pseudo-summary {index}: expected shape ({len(frames)},), got {tuple(labels.shape)}")
            if not ((labels == 0) | (labels == 1)).all():
                raise ValueError(f"pseudo-summary {index}: expected labels 0 and 1 only")
            logits = at_least_float32(run_summarizer(self.summarizer, frames))
            losses.append(F.binary_cross_entropy_with_logits(logits, labels.to(logits)))
            kept.append(torch.sigmoid(logits.detach()).mean())
        return PseudoSummaryOutput(torch.stack(losses).mean(), torch.stack(kept).mean())

    def describe(self) -> dict[str, str]:
        """Return the options of the objective as text, for logs and to compare runs."""
        return {"objective": "pseudo-summaries"}


class PseudoSummaries:
    """Videos with the best-scored frames of each as its pseudo-summary: item i is (frames (T, d), labels (T,)).

    Args:
        videos: The videos, each with ``gtscore`` (T,), from labels or from any other method.
        share: Share of the frames of a video to keep, in (0, 1]; the paper's 15 %.

    Raises:
        ValueError: If a video has no ``gtscore``, or the share is out of its range.
    """

    def __init__(self, videos: VideoSource, share: float = 0.15) -> None:
        self.videos = videos
        self.names, self.lengths = videos.names, videos.lengths
        self.provenance = getattr(videos, "provenance", {})
        self.labels = []
        for index, name in enumerate(videos.names):
            gtscore = videos.record(index).gtscore
            if gtscore is None:
                raise ValueError(f"{name} has no gtscore to make a pseudo-summary of")
            self.labels.append(top_share(torch.as_tensor(gtscore), share))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor | Video, Tensor]:
        return self.videos[index], self.labels[index]


def top_share(scores: Tensor, share: float = 0.15) -> Tensor:
    """Label the best-scored frames 1: a pseudo-summary from any frame score.

    Args:
        scores: (T,) importance scores.
        share: Share of the frames to keep, in (0, 1]; at least one frame is kept.

    Returns:
        (T,) float tensor of 0 and 1.

    Raises:
        ValueError: If the share is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share!r}")
    labels = torch.zeros(len(scores), device=scores.device)
    labels[torch.topk(scores, max(1, round(share * len(scores)))).indices] = 1
    return labels
