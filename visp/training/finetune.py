"""Fine-tuning on labels: the mean squared error of Eq. 11 between predicted and annotated importance."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visp.data import VideoSource
from visp.data.splits import Split
from visp.eval import Evaluation
from visp.evaluator import Evaluator
from visp.prediction import segment_bounds
from visp.training.loop import Loop
from visp.training.run_folder import digest, write_json
from visp.training.settings import Precision, Settings
from visp.weights import own_state_dict

Select = Literal["last", "validation", "test"]
Metric = Literal["tau_and_rho", "tau", "rho", "f_score"]


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning run ends with.

    Attributes:
        steps: Steps of the whole run, those before a resume included.
        epoch: Epoch, from 1, of the weights that the summarizer now has.
        select: How that epoch was chosen: ``"last"``, ``"validation"`` or ``"test"``.
        test: How they score the test videos; None without an evaluator or test videos.
        out_dir: The run's folder, or None.
    """

    steps: int
    epoch: int
    select: Select
    test: Evaluation | None
    out_dir: Path | None


def finetune(
    summarizer: nn.Module,
    dataset: VideoSource,
    split: Split,
    *,
    evaluator: Evaluator | None = None,
    select: Select = "last",
    metric: Metric = "tau_and_rho",
    epochs: int = 100,
    batch_size: int = 1,
    lr: float = 1e-3,
    weight_decay: float = 1e-7,
    clip_grad_norm: float | None = None,
    warmup_steps: int = 0,
    segment_length: int | None = None,
    seed: int = 0,
    out_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    precision: Precision = "float32",
    checkpoint_seconds: float = 60.0,
    num_workers: int = 0,
    progress: bool = True,
    config: Mapping[str, Any] | None = None,
) -> FinetuneResult:
    """Fine-tune a summarizer on the annotated videos of a split, in place.

    The loss is Eq. 11: the mean squared error between the sigmoid of the logits and ``gtscore``, over frames, then
    over the videos of a batch. The defaults are CSTA's published training: Adam, one video a step, 100 epochs.

    The folder then holds ``config.json``, ``metrics.jsonl`` (one object a step; the last of an epoch also has the
    figures that ``select`` looks at), ``checkpoint.pt``, ``weights.pt`` (the summarizer's own state dict) and, with an
    evaluator, ``evaluation.json``. A run that was killed goes on with ``resume=True``, as in :func:`visp.pretrain`.

    Args:
        summarizer: Maps frames (T, d) to logits (T,); see :func:`visp.adapt_summarizer`.
        dataset: The videos, with ``gtscore`` (T,) in [0, 1] for those of ``split.train``.
        split: Names of the videos to train on, to validate on and to test on.
        evaluator: Evaluates on the dataset by one protocol; needed unless ``select`` is ``"last"``.
        select: Whose weights to keep: ``"last"``, those of the last epoch; ``"validation"``, those of the epoch that is
            best on ``split.validation``; ``"test"``, best on ``split.test``, as many publications do. The latter
            has seen the test videos, and results that come from it say so.
        metric: What makes an epoch the best so far: ``"tau_and_rho"`` (both must rise, as CSTA does), ``"tau"``,
            ``"rho"`` or ``"f_score"``. Undefined figures count as worse than any other.
        epochs: Passes over the training videos.
        batch_size: Number of videos, or segments, a step.
        lr: Learning rate of Adam.
        weight_decay: Weight decay of Adam.
        clip_grad_norm: Largest norm of the gradient, or None.
        warmup_steps: Steps over which the learning rate rises linearly to ``lr``.
        segment_length: Cut longer videos into segments of at most that many frames, as the paper does with
            hour-long videos; each is then trained on apart. The evaluator has its own.
        seed: Seed of the order of the videos and of dropout.
        out_dir: Folder of the run, made if need be; by default nothing is written.
        resume: Go on from the folder's checkpoint if there is one.
        precision: ``"float32"``, or autocast to ``"bf16"`` or ``"fp16"``.
        checkpoint_seconds: Least time between two checkpoints; 0 writes one after every step.
        num_workers: Worker processes that read the dataset.
        progress: Show a progress bar.
        config: More to record in ``config.json``.

    Returns:
        Number of steps, the chosen epoch, the evaluation on the test videos and the folder.

    Raises:
        ValueError: If an option is out of its range, the split names a video that is not there, a training video has
            no ``gtscore`` in [0, 1], the videos that ``select`` needs are missing, a video to be evaluated cannot be
            under the evaluator's protocol, or the summarizer does not return (T,).
        FileExistsError: If ``out_dir`` is not empty and ``resume`` is false.
        CheckpointError: As in :func:`visp.pretrain`.
        FloatingPointError: If the loss or its gradient is not finite; weights and checkpoint are those before it.
    """
    if epochs < 1 or batch_size < 1 or warmup_steps < 0:
        raise ValueError(
            "expected epochs >= 1, batch_size >= 1 and warmup_steps >= 0, got "
            f"{epochs}, {batch_size} and {warmup_steps}"
        )
    for option, value, choices in (("select", select, Select), ("metric", metric, Metric)):
        if value not in get_args(choices):
            raise ValueError(f"{option} must be one of {', '.join(map(repr, get_args(choices)))}, got {value!r}")
    if select != "last" and evaluator is None:
        raise ValueError(f"select={select!r} compares epochs on annotated videos and needs an evaluator")
    judged = {"last": (), "validation": split.validation, "test": split.test}[select]
    if select != "last" and not judged:
        raise ValueError(f"select={select!r} needs videos in split.{select}, and there are none")
    if evaluator is not None:
        evaluator.check([*judged, *split.test])
    items = LabelledSegments(dataset, split.train, segment_length)
    settings = Settings(
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        clip_grad_norm=clip_grad_norm,
        warmup_steps=warmup_steps,
        seed=seed,
        precision=precision,
    )
    loop = _FinetuneLoop(summarizer, items, settings, num_workers, evaluator, select, metric, judged)
    folder = None if out_dir is None else Path(out_dir)
    loop.execute(
        epochs,
        folder,
        resume=resume,
        config={"split": {"train": split.train, "validation": split.validation, "test": split.test}, **(config or {})},
        checkpoint_seconds=checkpoint_seconds,
        progress=progress,
    )
    test = evaluator(summarizer, split.test) if evaluator is not None and split.test else None
    if folder is not None and test is not None:
        write_json(folder / "evaluation.json", {"select": select, "epoch": loop.epoch, **test.to_json()})
    return FinetuneResult(loop.step, loop.epoch, select, test, folder)


class LabelledSegments:
    """Frames and importance of the training videos, whole or cut into segments.

    Args:
        dataset: The videos.
        names: Which of them.
        segment_length: Largest number of frames of an item; None for whole videos.

    Attributes:
        names: A name for each item.

    Raises:
        ValueError: If there is no video, one is not in the dataset, or has no ``gtscore`` in [0, 1].
    """

    def __init__(self, dataset: VideoSource, names: Sequence[str], segment_length: int | None) -> None:
        if not names:
            raise ValueError("the split has no training videos")
        index_of = {name: index for index, name in enumerate(dataset.names)}
        self.dataset = dataset
        self.names: list[str] = []
        self._bounds: list[tuple[int, int, int]] = []
        self._gtscores: dict[int, Tensor] = {}
        for name in names:
            if name not in index_of:
                raise ValueError(f"the split's training video {name!r} is not among the {len(index_of)} of the dataset")
            index = index_of[name]
            gtscore = dataset.record(index).gtscore
            if gtscore is None:
                raise ValueError(f"{name} has no gtscore, and fine-tuning needs one a frame")
            if gtscore.min() < 0 or gtscore.max() > 1:
                raise ValueError(f"{name}: expected gtscore in [0, 1], got {gtscore.min():g} to {gtscore.max():g}")
            self._gtscores[index] = torch.from_numpy(np.asarray(gtscore, dtype=np.float32))
            segments = segment_bounds(len(gtscore), segment_length)
            self._bounds += [(index, start, stop) for start, stop in segments]
            self.names += [name] if len(segments) == 1 else [f"{name}[{start}:{stop}]" for start, stop in segments]

    def __len__(self) -> int:
        return len(self._bounds)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        index, start, stop = self._bounds[item]
        return self.dataset[index][start:stop], self._gtscores[index][start:stop]


class _FinetuneLoop(Loop):
    kind = "finetune"

    def __init__(
        self,
        summarizer: nn.Module,
        items: LabelledSegments,
        settings: Settings,
        num_workers: int,
        evaluator: Evaluator | None,
        select: Select,
        metric: Metric,
        judged: Sequence[str],
    ) -> None:
        fingerprint = {
            "num_items": len(items),
            "items": digest(items.names),
            "select": select,
            "metric": metric,
            "judged": digest(list(judged)),
            "evaluation": None if evaluator is None else evaluator.describe(),
        }
        super().__init__(summarizer, items, items.names, settings, fingerprint, num_workers)
        self.evaluator = evaluator
        self.metric = metric
        self.judged = judged
        self.extra: dict[str, Any] = {"best": None}

    @property
    def epoch(self) -> int:
        """Epoch of the weights to keep."""
        return self.extra["best"]["epoch"] if self.judged else self.step // self.num_batches

    def _loss(self, batch: list[Any]) -> tuple[Tensor, dict[str, Tensor]]:
        losses = []
        for frames, gtscore in batch:
            logits = self.module(frames)
            if logits.shape != gtscore.shape:
                raise ValueError(
                    f"the summarizer returned shape {tuple(logits.shape)} for frames {tuple(frames.shape)}, expected "
                    f"({len(frames)},); see visp.adapt_summarizer"
                )
            losses.append(F.mse_loss(torch.sigmoid(logits.float()), gtscore))
        loss = torch.stack(losses).mean()
        return loss, {"loss": loss}

    def _needs_weights(self) -> bool:
        return bool(self.judged) and self.step % self.num_batches == 0

    def _reviewed(self, metrics: dict[str, float]) -> dict[str, float]:
        if not self.judged or metrics["step"] % self.num_batches:
            return metrics
        assert self.evaluator is not None
        found = self.evaluator(self.module, self.judged)
        figures = {"tau": found.tau, "rho": found.rho, "f_score": found.f_score}
        best = self.extra["best"]
        if best is None or _better(figures, best["figures"], self.metric):
            weights = {name: value.clone() for name, value in self.module.state_dict().items()}
            self.extra = {"best": {"epoch": int(metrics["epoch"]), "figures": figures, "weights": weights}}
        return {**metrics, **figures}

    def _postfix(self, metrics: Mapping[str, float]) -> dict[str, str]:
        best = self.extra["best"]
        chosen = {} if best is None else {"best epoch": str(best["epoch"]), "tau": f"{best['figures']['tau']:.3f}"}
        return {"loss": f"{metrics['loss']:.4f}", **chosen}

    def _final_weights(self) -> dict[str, Tensor]:
        return own_state_dict(self.module)

    def _finish(self) -> None:
        if self.extra["best"] is not None:
            self.module.load_state_dict(self.extra["best"]["weights"])


def _better(new: Mapping[str, float], old: Mapping[str, float], metric: Metric) -> bool:
    names = ("tau", "rho") if metric == "tau_and_rho" else (metric,)
    return all(_ordered(new[name]) > _ordered(old[name]) for name in names)


def _ordered(value: float) -> float:
    return -math.inf if math.isnan(value) else value
