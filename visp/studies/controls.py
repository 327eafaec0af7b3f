"""Whether a pretraining run taught its summarizer anything: controls that need no label and cannot be fooled.

A low InfoNCE shows only that an encoder recognises videos, which it does from almost any frames. So the run is repeated
with another seed, with InfoNCE switched off (the size constraint alone moves the scores too), and with a summarizer
that does not learn; and the scores are compared with each other and with simple properties of the frames.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from visp.data import VideoSource
from visp.eval.agreement import agreement, spread_within_video
from visp.eval.metrics import mean_defined
from visp.pretrainer import ViSPPretrainer
from visp.side_inputs import Video, frames_of_batch
from visp.studies.cues import cues
from visp.studies.fixed_scores import FrozenScores
from visp.studies.identification import identify
from visp.training import pretrain
from visp.training.movement import FLAT, SAME_ORDER, scores
from visp.training.standardize import StandardizedVideos, standardization
from visp.utils.noise import seeded

Logits = Sequence[npt.NDArray[np.floating]]

REPEATED_ORDER = 0.2
"""By how much more two seeds must agree after training than before, or the order is called the seed's."""


@dataclass(frozen=True)
class Control:
    """One row of the table.

    Attributes:
        name: What is measured.
        learnt: For the run, mean over its seeds; nan where it does not apply.
        size_only: With InfoNCE off, likewise.
        untrained: For the weights before training, likewise.
        meaning: What it says, in a sentence.
    """

    name: str
    learnt: float
    size_only: float
    untrained: float
    meaning: str


@dataclass(frozen=True)
class Controls:
    """What the controls found.

    Attributes:
        rows: The measures.
        verdict: Whether the summarizer learnt anything, in words.
        learnt: Whether it did.
    """

    rows: tuple[Control, ...]
    verdict: str
    learnt: bool

    def table(self) -> str:
        """Return a Markdown table with a sentence per row, and the verdict below."""
        lines = ["| measure | the run | size constraint only | untrained | what it says |", "|---|---|---|---|---|"]
        for row in self.rows:
            values = (row.learnt, row.size_only, row.untrained)
            shown = " | ".join("" if np.isnan(value) else f"{value:.3f}" for value in values)
            lines.append(f"| {row.name} | {shown} | {row.meaning} |")
        return "\n".join([*lines, "", self.verdict])

    def to_json(self) -> dict[str, Any]:
        """Return what ``json.dumps`` takes; what does not apply is None."""
        rows = [
            {key: None if isinstance(value, float) and np.isnan(value) else value for key, value in asdict(row).items()}
            for row in self.rows
        ]
        return {"verdict": self.verdict, "learnt": self.learnt, "rows": rows}


@dataclass(frozen=True)
class Runs:
    """What the runs left behind; logits (T_i,) per video.

    Attributes:
        untrained: Logits before training, by seed.
        learnt: Logits after training, by seed.
        size_only: Logits of the first seed with InfoNCE off.
        info_nce: InfoNCE of the first seed at the end, in nats, mean over the last tenth of the steps.
        info_nce_frozen: The same with a summarizer that does not learn.
        finished: Logits of a longer run of the same kind that is finished, if there is one.
    """

    untrained: Sequence[Logits]
    learnt: Sequence[Logits]
    size_only: Logits
    info_nce: float
    info_nce_frozen: float
    finished: Logits | None = None


def controls(
    make_summarizer: Callable[[], nn.Module],
    make_encoder: Callable[[], nn.Module],
    videos: VideoSource,
    *,
    objective: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0, 1),
    standardize: bool = True,
    share: float = 0.3,
    device: str | torch.device = "cpu",
    finished: nn.Module | None = None,
    identification_steps: int = 100,
    **training: Any,
) -> Controls:
    """Run a pretraining with its controls, and say whether the summarizer learns anything. No label is read.

    It trains once per seed, once with InfoNCE off and once with a summarizer that does not learn.

    Args:
        make_summarizer: Makes an untrained summarizer; called under each seed.
        make_encoder: Makes an encoder, likewise.
        videos: The videos.
        objective: Options of :class:`visp.ViSPPretrainer`.
        seeds: Seeds of the runs, at least two.
        standardize: Train and judge on features of mean 0 and spread 1 over all videos.
        share: Share of the frames, for the frozen summarizer and the measure of identification.
        device: Where to train.
        finished: A summarizer that a longer run of the same kind has trained, for features as they are.
        identification_steps: Training steps of the encoder that measures identification; 0 leaves the measure out.
        **training: Options of :func:`visp.pretrain`.

    Returns:
        The table.

    Raises:
        ValueError: If there are fewer than two seeds; and as :func:`visp.pretrain`.
    """
    if len(seeds) < 2:
        raise ValueError(f"the controls compare seeds: expected at least 2, got {len(seeds)}")
    change = standardization(videos) if standardize else None
    dataset = videos if change is None else StandardizedVideos(videos, change)
    given = [dataset[index] for index in range(len(videos))]

    def run(seed: int, frozen: bool = False, **changed: Any) -> tuple[Logits, Logits, float]:
        """Train, and return the logits before and after, and InfoNCE at the end."""
        with seeded(seed):
            summarizer, encoder = make_summarizer(), make_encoder()
        before = _logits(summarizer, given)
        trained = FrozenScores(summarizer, share) if frozen else summarizer
        pretrainer = ViSPPretrainer(trained, encoder, **{**(objective or {}), **changed, "seed": seed}).to(device)
        with tempfile.TemporaryDirectory() as folder:
            options = {
                **training,
                "seed": seed,
                "standardize": False,
                "controls": False,
                "out_dir": Path(folder) / "run",
            }
            pretrain(pretrainer, dataset, **options)
            steps = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
        last = [step["info_nce"] for step in steps[-max(1, len(steps) // 10) :]]
        return before, _logits(summarizer.to("cpu"), given), float(np.mean(last))

    by_seed = [run(seed) for seed in seeds]
    _, size_only, _ = run(seeds[0], contrast="none")
    _, _, frozen = run(seeds[0], frozen=True)
    before, after, info_nce = zip(*by_seed, strict=True)
    of_finished = None if finished is None else _logits(finished, [videos[index] for index in range(len(videos))])
    runs = Runs(before, after, size_only, info_nce[0], frozen, of_finished)
    return judge(
        [video.numpy() for video in frames_of_batch(given)],
        runs,
        share=share,
        identification_steps=identification_steps,
    )


def judge(
    videos: Sequence[npt.NDArray[np.floating]], runs: Runs, *, share: float = 0.3, identification_steps: int = 100
) -> Controls:
    """Compare the logits of runs that are done with each other and with simple properties of the frames.

    Args:
        videos: (T_i, d) features as they were in training.
        runs: The runs.
        share: Share of the frames for the measure of identification.
        identification_steps: As in :func:`controls`.

    Returns:
        The table and its verdict.
    """
    first, nothing = runs.learnt[0], float("nan")
    spread = _mean([spread_within_video(logits) for logits in runs.learnt])
    seeds_agree = _mean([agreement(one, other) for one, other in combinations(runs.learnt, 2)])
    with_size_only = agreement(first, runs.size_only)
    untrained_agree = _mean([agreement(one, other) for one, other in combinations(runs.untrained, 2)])
    kept = _mean([agreement(after, before) for before, after in zip(runs.untrained, runs.learnt, strict=True)])
    rows = [
        Control(
            "spread of the logits within a video",
            spread,
            spread_within_video(runs.size_only),
            _mean([spread_within_video(logits) for logits in runs.untrained]),
            f"below {FLAT:g} the scores hardly tell the frames of a video apart",
        ),
        Control(
            "agreement between seeds",
            seeds_agree,
            nothing,
            untrained_agree,
            "Kendall's tau of two seeds' scores: 1 if the data decide the order, 0 if the seed does",
        ),
        Control(
            "agreement with the size constraint alone",
            with_size_only,
            1.0,
            agreement(runs.untrained[0], runs.size_only),
            "near 1, InfoNCE changed nothing in the order",
        ),
        Control(
            "agreement with the untrained order",
            kept,
            agreement(runs.size_only, runs.untrained[0]),
            1.0,
            "near 1, training left the order as the first weights made it",
        ),
        Control(
            "InfoNCE at the end, nats",
            runs.info_nce,
            nothing,
            runs.info_nce_frozen,
            "beside a frozen summarizer: what it is not lower by, the encoder learnt alone",
        ),
    ]
    if runs.finished is not None:
        meaning = "Kendall's tau of the repeated run's scores with its own: how far this table speaks of it"
        same = agreement(first, runs.finished)
        rows.append(Control("agreement with the finished run", same, nothing, nothing, meaning))
    if identification_steps:
        rows.append(_identification_row(videos, runs, share, identification_steps))
    strongest, strongest_tau = "", 0.0
    for name, values in cues(videos).items():
        found = _mean([agreement(logits, values) for logits in runs.learnt])
        meaning = "Kendall's tau of the scores with it: which simple rule the scores follow"
        untrained = _mean([agreement(logits, values) for logits in runs.untrained])
        rows.append(Control(name, found, agreement(runs.size_only, values), untrained, meaning))
        if abs(found) > abs(strongest_tau):
            strongest, strongest_tau = name, found
    learnt, verdict = _verdict(spread, seeds_agree, untrained_agree, with_size_only, kept)
    if learnt and strongest:
        verdict += f" Of the simple rules they follow most the {strongest} (tau {strongest_tau:+.2f})."
    return Controls(tuple(rows), verdict, learnt)


def _verdict(
    spread: float, seeds_agree: float, untrained_agree: float, with_size_only: float, kept: float
) -> tuple[bool, str]:
    if not spread >= FLAT:
        return False, f"The summarizer learnt nothing: within a video its logits spread by {spread:.3f} only."
    if with_size_only >= SAME_ORDER:
        return False, (
            f"The summarizer learnt nothing from InfoNCE: its order agrees at {with_size_only:.2f} with that of the "
            "size constraint alone."
        )
    if kept >= SAME_ORDER:
        return False, f"The summarizer learnt nothing: its order agrees at {kept:.2f} with that before training."
    if not seeds_agree - np.nan_to_num(untrained_agree) >= REPEATED_ORDER:
        return False, (
            f"The summarizer learnt an order, but each seed another one (they agree at {seeds_agree:.2f}, "
            f"before training at {untrained_agree:.2f}): the seed decides it, not the videos."
        )
    return True, (
        f"The summarizer learnt something: its seeds agree at {seeds_agree:.2f}, and its order is neither that of "
        f"the size constraint ({with_size_only:.2f}) nor that before training ({kept:.2f}). Whether it is what people "
        "mark, only labels show."
    )


def _identification_row(videos: Sequence[npt.NDArray[np.floating]], runs: Runs, share: float, steps: int) -> Control:
    frames = [torch.from_numpy(video) for video in videos]

    def reached(logits: Logits) -> float:
        return identify(frames, [torch.from_numpy(values) for values in logits], share=share, steps=steps).info_nce

    return Control(
        "identification, nats",
        reached(runs.learnt[0]),
        reached(runs.size_only),
        reached(runs.untrained[0]),
        "how well a fresh encoder recognises videos from the top-scored frames alone; lower is better",
    )


def _logits(summarizer: nn.Module, videos: Sequence[torch.Tensor | Video]) -> Logits:
    return [values.numpy() for values in scores(summarizer, videos)]


def _mean(values: Sequence[float]) -> float:
    return mean_defined(values)
