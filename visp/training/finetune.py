"""Fine-tuning on labels: the mean squared error of Eq. 11 between predicted and annotated importance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visp.calls import score
from visp.data import VideoSource
from visp.data.splits import Split
from visp.eval import Evaluation
from visp.inputs import carried
from visp.side_inputs import frames_of
from visp.training.batches import Batches
from visp.training.devices import move
from visp.training.loop import Run, Weights, execute
from visp.training.options import FinetuneLoss, FinetuneOptions, Metric, takes
from visp.training.run_folder import content_hash, digest, run_folder, write_json
from visp.training.run_state import RunState
from visp.training.segments import labelled_segments
from visp.weights import load_weights, own_module, own_state_dict, state_hash


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
    select: str
    test: Evaluation | None
    out_dir: Path | None


@takes(FinetuneOptions)
def finetune(summarizer: nn.Module, dataset: VideoSource, split: Split, options: FinetuneOptions) -> FinetuneResult:
    """Fine-tune a summarizer on the annotated videos of a split, in place.

    The loss is Eq. 11: the mean squared error between the sigmoid of the logits and ``gtscore``, over frames, then
    over the videos of a batch. The defaults are CSTA's published training: Adam, one video per step, 100 epochs.

    The folder then holds ``config.json``, ``metrics.jsonl`` (one object per step; the last of an epoch also has the
    metrics that ``select`` compares), ``checkpoint.pt``, ``weights.pt`` (the summarizer's own state dict) and, with an
    evaluator, ``evaluation.json``. A run that was killed resumes with ``resume=True``, as in :func:`visp.pretrain`.

    Args:
        summarizer: Maps frames (T, d), and side inputs where the dataset gives them, to logits (T,); see
            :func:`visp.adapt_summarizer`.
        dataset: The videos, with ``gtscore`` (T,) in [0, 1] for those of ``split.train``.
        split: Names of the videos to train on, to validate on and to test on.
        options: As keyword arguments.

    Returns:
        Number of steps, the chosen epoch, the evaluation on the test videos and the folder.

    Raises:
        ValueError: If an option is out of its range, the split names a video that is not there, a training video has
            no ``gtscore`` in [0, 1], the videos that ``select`` needs are missing, a video to be evaluated cannot be
            under the evaluator's protocol, or the summarizer does not return (T,).
        FileExistsError: If ``out_dir`` is not empty and ``resume`` is false.
        BlockingIOError: If another run is writing ``out_dir``.
        CheckpointError: As in :func:`visp.pretrain`.
        FloatingPointError: As in :func:`visp.pretrain`.
    """
    judged = {"last": (), "validation": split.validation, "test": split.test}[options.select]
    if options.select != "last" and not judged:
        raise ValueError(f"select={options.select!r} needs videos in split.{options.select}, and there are none")
    if options.evaluator is not None:
        options.evaluator.check([*judged, *split.test])
    items = labelled_segments(dataset, split.train, options.segment_length)
    folder = run_folder(options)
    if options.weights is not None:
        load_weights(summarizer, options.weights)
        options = options if options.pretrained_lr is None else replace(options, lr=options.pretrained_lr)
    move(summarizer, options.device)
    with _frozen(summarizer, options.freeze):
        state = RunState("finetune", summarizer, options)
        state.extra = {"best": None, "start": [p.detach().clone() for p in state.parameters] if options.pull else None}
        batches = Batches(items, items.names, options, pin_memory=state.device.type == "cuda")
        best = _Best(state, options, judged, batches.per_epoch)
        run = Run(
            state,
            batches,
            _Loss(state, options),
            options,
            folder,
            fingerprint={
                "num_items": len(items),
                "items": digest([items.names, items.lengths]),
                "content": None if folder is None else content_hash(dataset),
                "select": options.select,
                "metric": options.metric,
                "judged": digest(list(judged)),
                "evaluation": None if options.evaluator is None else options.evaluator.describe(),
                "weights": None if options.weights is None else state_hash(own_state_dict(summarizer)),
                **{name: getattr(options, name) for name in ("loss", "pull", "patience")},
                "freeze": list(options.freeze),
            },
            recorded={
                "split": {"train": split.train, "validation": split.validation, "test": split.test},
                "features": getattr(dataset, "provenance", {}),
            },
            review=best.review,
            shown=best.shown,
            finish=best.finish,
            wholes=[own_module(summarizer)],
            ended=best.ended,
        )
        execute(run)
    test = options.evaluator(summarizer, split.test) if options.evaluator is not None and split.test else None
    if folder is not None and test is not None:
        found = {"select": options.select, "epoch": best.epoch, **test.to_json()}
        write_json(folder.path / "evaluation.json", found)
    return FinetuneResult(state.step, best.epoch, options.select, test, None if folder is None else folder.path)


class _Loss:
    """The loss of a batch of (frames, gtscore)."""

    def __init__(self, state: RunState, options: FinetuneOptions) -> None:
        self.state = state
        self.options = options

    def __call__(self, batch: list[Any]) -> tuple[Tensor, Mapping[str, Tensor]]:
        losses = []
        for video, gtscore in batch:
            frames, logits = frames_of(video), score(self.state.module, video)
            if logits.shape != gtscore.shape:
                raise ValueError(
                    f"the summarizer returned shape {tuple(logits.shape)} for frames {tuple(frames.shape)}, expected "
                    f"({len(frames)},); see visp.adapt_summarizer"
                )
            losses.append(_of_video(logits.float(), gtscore, self.options.loss))
        loss = torch.stack(losses).mean()
        if not self.options.pull:
            return loss, {"loss": loss}
        pairs = zip(self.state.parameters, self.state.extra["start"], strict=True)
        distance = torch.stack([(now - start.to(now)).square().sum() for now, start in pairs]).sum()
        return loss + self.options.pull * distance, {"loss": loss, "distance": distance}


def _of_video(logits: Tensor, gtscore: Tensor, loss: FinetuneLoss) -> Tensor:
    if loss == "mse":
        return F.mse_loss(torch.sigmoid(logits), gtscore)  # Eq. 11
    above = gtscore[:, None] > gtscore[None, :]  # (T, T), frame i is more important than frame j
    lead = logits[:, None] - logits[None, :]
    return (F.softplus(-lead) * above).sum() / above.sum().clamp(min=1)


class _Best:
    """Which epoch's weights a run keeps."""

    def __init__(self, state: RunState, options: FinetuneOptions, judged: Sequence[str], per_epoch: int) -> None:
        self.state = state
        self.options = options
        self.judged = judged
        self.per_epoch = per_epoch

    @property
    def epoch(self) -> int:
        """Epoch of the weights to keep, from 1."""
        return int(self.state.extra["best"]["epoch"]) if self.judged else self.state.step // self.per_epoch

    def review(self, metrics: dict[str, float]) -> dict[str, float]:
        """At the end of an epoch, judge its weights."""
        if not self.judged or metrics["step"] % self.per_epoch:
            return metrics
        with self.state.averaged():
            found = self.options.evaluator(self.state.module, self.judged)
            figures = {"tau": found.tau, "rho": found.rho, "f_score": found.f_score}
            best = self.state.extra["best"]
            if best is None or _better(figures, best["figures"], self.options.metric):
                weights = {name: value.clone() for name, value in self.state.module.state_dict().items()}
                best = {"epoch": int(metrics["epoch"]), "figures": figures, "weights": weights}
                self.state.extra = {**self.state.extra, "best": best}
        return {**metrics, **figures}

    def ended(self) -> bool:
        """Return whether the last epochs brought no better one."""
        best, patience = self.state.extra["best"], self.options.patience
        return (
            best is not None and patience is not None and self.state.step // self.per_epoch - best["epoch"] >= patience
        )

    def shown(self, metrics: Mapping[str, float]) -> dict[str, str]:
        """Return what the progress bar shows."""
        best = self.state.extra["best"]
        chosen = {} if best is None else {"best epoch": str(best["epoch"]), "tau": f"{best['figures']['tau']:.3f}"}
        return {"loss": f"{metrics['loss']:.4f}", **chosen}

    def finish(self) -> Weights:
        """Give the module the weights to keep."""
        if self.state.extra["best"] is not None:
            self.state.module.load_state_dict(self.state.extra["best"]["weights"])
        return own_state_dict(self.state.module), carried(self.state.module)


@contextmanager
def _frozen(summarizer: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Keep submodules as they are in the block: no gradient, and evaluation mode."""
    own = own_module(summarizer)
    known = dict(own.named_modules())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"freeze: {type(own).__name__} has no submodule {', '.join(map(repr, unknown))}; it has "
            f"{', '.join(name for name in known if name)}"
        )
    modes = [(module, module.training) for module in own.modules()]
    parameters = [(each, each.requires_grad) for name in names for each in known[name].parameters()]
    for each, _ in parameters:
        each.requires_grad_(False)
    if not own.training:
        own.train()
    for name in names:
        known[name].eval()
    try:
        yield
    finally:
        for each, before in parameters:
            each.requires_grad_(before)
        for module, was_training in modes:
            module.training = was_training


def _better(new: Mapping[str, float], old: Mapping[str, float], metric: Metric) -> bool:
    names = ("tau", "rho") if metric == "tau_and_rho" else (metric,)
    return all(_ordered(new[name]) > _ordered(old[name]) for name in names)


def _ordered(value: float) -> float:
    return -math.inf if math.isnan(value) else value
