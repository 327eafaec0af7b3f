"""Errors of the objective, its parts, the adapters, the models, and what is done with them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import visp
from tests.builders import LinearSummarizer, MeanEncoder, make_videos, normal
from tests.raises.case import Case
from visp.data import Video
from visp.weights import CheckpointError


def pretrainer(**options: Any) -> visp.ViSPPretrainer:
    return visp.ViSPPretrainer(LinearSummarizer(), MeanEncoder(), **options)


def of_temperature(name: str) -> list[Case]:
    return [
        Case(name, ValueError, "temperature must be positive and finite, got 0", lambda this, _: this(0)),
        Case(name, ValueError, "temperature must be positive and finite, got inf", lambda this, _: this(math.inf)),
    ]


def not_callable(name: str, argument: str, **others: Any) -> Case:
    module = nn.Sequential(nn.Linear(4, 2))
    return Case(name, TypeError, argument, lambda this, _: this(module, **others, **{argument: 3}))


def of_shape(name: str, make: Callable[[], nn.Module], shape: tuple[int, int]) -> Case:
    """A model of d = 4 is given frames of another shape."""
    came = rf"\(T, 4\).*\({shape[0]}, {shape[1]}\)"
    return Case(name, ValueError, came, lambda this, _: this(make(), torch.ones(shape)))


class Answers(nn.Module):
    """Returns what it was made with, whatever the frames."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, frames: Tensor) -> Any:
        return self.answer


class WritesIntoItsInput(LinearSummarizer):
    def forward(self, frames: Tensor) -> Tensor:
        return super().forward(frames.mul_(2))


class LooksAtValues(LinearSummarizer):
    def forward(self, frames: Tensor) -> Tensor:
        return super().forward(frames if bool(frames.sum() > 0) else -frames)


class Noisy(LinearSummarizer):
    def forward(self, frames: Tensor) -> Tensor:
        return super().forward(frames + torch.randn_like(frames))


class LengthBound(LinearSummarizer):
    """Knows the number of frames as a plain number, which a trace for every length cannot have."""

    def forward(self, frames: Tensor) -> Tensor:
        return super().forward(frames) / float(len(frames))


def saved(folder: Path, module: nn.Module) -> Path:
    torch.save(module.state_dict(), folder / "weights.pt")
    return folder / "weights.pt"


def with_older_torch(this: Any, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(torch.export.Dim, "AUTO")
        this(LinearSummarizer(), folder / "graph.pt2", feature_dim=4)


def without_onnx(this: Any, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        this(LinearSummarizer(), folder / "graph.onnx", feature_dim=4)


def run_of(folder: Path, module: nn.Module | None, **config: Any) -> Path:
    """The folder of a run of a module that code made."""
    (folder / "config.json").write_text(json.dumps(config))
    if module is not None:
        saved(folder, module)
    return folder


NO_FEATURES = torch.zeros(2, 3, dtype=torch.int64)
TEXT = Video(normal(3, 4), {"text": normal(2)})

PRETRAINER = [
    Case("visp.ViSPPretrainer", ValueError, "contrast .*'frames'", lambda _, __: pretrainer(contrast="frames")),
    Case("visp.ViSPPretrainer", ValueError, "sampler .*'coin'", lambda _, __: pretrainer(sampler="coin")),
    Case("visp.ViSPPretrainer", ValueError, "gradient_flow", lambda _, __: pretrainer(gradient_flow="none")),
    Case("visp.ViSPPretrainer", ValueError, "similarity", lambda _, __: pretrainer(similarity="distance")),
    Case("visp.ViSPPretrainer", ValueError, "reduction must be .* 'max'", lambda _, __: pretrainer(reduction="max")),
    Case("visp.ViSPPretrainer", ValueError, "binary_weight must", lambda _, __: pretrainer(binary_weight=-1)),
    Case("visp.ViSPPretrainer", ValueError, "share of frames .* 1.5", lambda _, __: pretrainer(size=1.5)),
    Case("visp.ViSPPretrainer", ValueError, "at least 1 frame, got 0", lambda _, __: pretrainer(window=0)),
    Case("visp.ViSPPretrainer", ValueError, "seed .*-1", lambda _, __: pretrainer(seed=-1)),
    Case("visp.ViSPPretrainer", TypeError, "the summarizer must be", lambda this, _: this(nn.Linear, MeanEncoder())),
    Case("visp.ViSPPretrainer", TypeError, "the encoder must be", lambda this, _: this(LinearSummarizer(), len)),
    Case("visp.ViSPPretrainer", TypeError, "sampler", lambda _, __: pretrainer(sampler=3)),
    Case("visp.ViSPPretrainer.forward", ValueError, "at least 2 videos, got 1",
         lambda this, _: this(pretrainer(contrast="videos"), make_videos((3,)))),
    Case("visp.ViSPPretrainer.forward", ValueError, "video 1 of the batch holds values that are not finite",
         lambda this, _: this(pretrainer(), [normal(3, 4), torch.full((2, 4), torch.nan)])),
    Case("visp.ViSPPretrainer.forward", ValueError, r"Answers returned a tensor of shape \(2,\)",
         lambda this, _: this(visp.ViSPPretrainer(Answers(normal(2)), MeanEncoder()), make_videos())),
    Case("visp.ViSPPretrainer.forward", TypeError, "Answers returned .*expected an embedding",
         lambda this, _: this(visp.ViSPPretrainer(LinearSummarizer(), Answers("vector")), make_videos())),
    Case("visp.PseudoSummaryPretrainer", TypeError, "the summarizer must be", lambda this, _: this(nn.Linear)),
    Case("visp.PseudoSummaryPretrainer.forward", ValueError, "at least 1 video",
         lambda this, _: this(visp.PseudoSummaryPretrainer(LinearSummarizer()), [])),
    Case("visp.PseudoSummaryPretrainer.forward", ValueError, r"pseudo-summary 0: expected shape \(3,\), got \(2,\)",
         lambda this, _: this(visp.PseudoSummaryPretrainer(LinearSummarizer()), [(normal(3, 4), torch.ones(2))])),
    Case("visp.PseudoSummaryPretrainer.forward", ValueError, "pseudo-summary 0: expected labels 0 and 1",
         lambda this, _: this(visp.PseudoSummaryPretrainer(LinearSummarizer()), [(normal(3, 4), torch.ones(3) / 2)])),
    Case("visp.PseudoSummaryPretrainer.forward", TypeError, "video 0 of the batch: expected frames",
         lambda this, _: this(visp.PseudoSummaryPretrainer(LinearSummarizer()), [normal(3, 4)])),
]  # fmt: skip

ADAPTERS = [
    Case("visp.adapt_summarizer", TypeError, "the summarizer must be a torch.nn.Module", lambda this, _: this(len)),
    *[not_callable("visp.adapt_summarizer", name) for name in ("inputs", "call", "output")],
    Case("visp.adapt_summarizer", ValueError, "inputs.*call",
         lambda this, _: this(nn.Linear(4, 1), inputs=lambda frames: frames, call=len)),
    Case("visp.adapt_summarizer", ValueError, "'head'", lambda this, _: this(nn.Linear(4, 1), logits_from="head")),
    Case("visp.adapt_encoder", TypeError, "the encoder must be", lambda this, _: this(len, hidden_from="0")),
    *[not_callable("visp.adapt_encoder", name, hidden_from="0") for name in ("inputs", "call")],
    Case("visp.adapt_encoder", ValueError, "'body'", lambda this, _: this(nn.Linear(4, 1), hidden_from="body")),
    Case("visp.adapt_encoder", ValueError, "pool must be .* 'max'",
         lambda this, _: this(nn.Sequential(nn.Linear(4, 2)), hidden_from="0", pool="max")),
    Case("visp.adapt_encoder", ValueError, "the encoder is given frames alone",
         lambda this, _: this(nn.Sequential(nn.Linear(4, 2)), hidden_from="0", inputs=lambda frames, side: frames)),
    Case("visp.attach_head", TypeError, "the summarizer must be", lambda this, _: this(len, "0")),
    Case("visp.attach_head", TypeError, "head must be a torch.nn.Module",
         lambda this, _: this(nn.Sequential(nn.Linear(4, 2)), "0", head=len)),
    *[not_callable("visp.attach_head", name, hidden_from="0") for name in ("inputs", "call", "output")],
    Case("visp.attach_head", ValueError, "inputs.*call",
         lambda this, _: this(nn.Sequential(nn.Linear(4, 2)), "0", inputs=lambda frames: frames, call=len)),
    Case("visp.attach_head", ValueError, "'body'", lambda this, _: this(nn.Linear(4, 1), "body")),
    Case("visp.attach_head", ValueError, "head=", lambda this, _: this(nn.Sequential(nn.ReLU()), "0")),
]  # fmt: skip

PARTS = [
    *of_temperature("visp.ConcreteSampler"),
    *of_temperature("visp.GumbelSoftmaxSampler"),
    *of_temperature("visp.SigmoidSampler"),
    Case("visp.Marginalization", ValueError, "needs donor frames",
         lambda this, _: this()(normal(3, 4), torch.ones(3), None)),
    Case("visp.FixedSize", ValueError, "weight of the size penalty .* -1", lambda this, _: this(-1)),
    Case("visp.FixedSize", ValueError, "weight of the size penalty .* inf", lambda this, _: this(float("inf"))),
    Case("visp.contrastive.Cosine", ValueError, "cosine's temperature .* 0", lambda this, _: this(0)),
    Case("visp.contrastive.Windows", ValueError, "a window must have at least 1 frame, got 0",
         lambda this, _: this(0)),
    Case("visp.contrastive.info_nce", ValueError, "summaries and originals of one shape",
         lambda this, _: this(normal(3, 4), normal(2, 4))),
    Case("visp.contrastive.info_nce", ValueError, "random summaries of shape",
         lambda this, _: this(normal(3, 4), normal(3, 4), normal(2, 4))),
    Case("visp.summarizers.CSTA", ValueError, "feature_dim must be at least 1", lambda this, _: this(0)),
    Case("visp.summarizers.CSTA", ValueError, "width must be a positive multiple of 64",
         lambda this, _: this(8, width=63)),
    Case("visp.summarizers.GoogleNet", ValueError, "feature_dim must be at least 1", lambda this, _: this(0)),
    Case("visp.summarizers.GoogleNet", ValueError, "width must be a positive multiple of 64",
         lambda this, _: this(8, width=63)),
    Case("visp.summarizers.Transformer", ValueError, "multiple of num_heads",
         lambda this, _: this(8, width=6, num_heads=4)),
    Case("visp.summarizers.Transformer", ValueError, "positive sizes", lambda this, _: this(8, num_layers=0)),
    *[of_shape("visp.summarizers.Transformer.forward", lambda: visp.summarizers.Transformer(4, width=4), shape)
      for shape in ((3, 5), (0, 4))],
    Case("visp.summarizers.Transformer.forward_batch", ValueError, r"\(T, 4\)",
         lambda this, _: this(visp.summarizers.Transformer(4, width=4), normal(3, 5), [3])),
    Case("visp.summarizers.Transformer.forward_batch", ValueError, "add up to T, got T=3",
         lambda this, _: this(visp.summarizers.Transformer(4, width=4), normal(3, 4), [2])),
    Case("visp.summarizers.CSTAEncoder", ValueError, "pooling must be one of .* 'max'",
         lambda this, _: this(8, width=64, pooling="max")),
    Case("visp.summarizers.CSTAEncoder", ValueError, "width must be", lambda this, _: this(8, width=63)),
    *[of_shape("visp.summarizers.CSTAEncoder.forward", lambda: visp.summarizers.CSTAEncoder(4, width=64), shape)
      for shape in ((3, 5), (0, 4))],
    Case("visp.encoders.AttentionPoolEncoder", ValueError, "multiple of num_heads.*embedding_dim=6",
         lambda this, _: this(8, embedding_dim=6)),
    Case("visp.encoders.AttentionPoolEncoder", ValueError, "positive scale.*scale=0",
         lambda this, _: this(8, scale=0)),
    Case("visp.encoders.AttentionPoolEncoder.encode_batch", ValueError, "add up to 3 frames, got 2",
         lambda this, _: this(visp.encoders.AttentionPoolEncoder(4), normal(3, 4), [2])),
]  # fmt: skip

USE = [
    Case("visp.predict", ValueError, r"features \(T, d\)", lambda this, _: this(LinearSummarizer(), normal(4))),
    Case("visp.predict", ValueError, "floating-point features", lambda this, _: this(LinearSummarizer(), NO_FEATURES)),
    Case("visp.predict", ValueError, "features hold values that are not finite",
         lambda this, _: this(LinearSummarizer(), torch.full((2, 4), torch.inf))),
    Case("visp.predict", ValueError, "segment_length >= 1",
         lambda this, _: this(LinearSummarizer(), normal(3, 4), 0)),
    Case("visp.predict", ValueError, "overlap=1 needs segment_length",
         lambda this, _: this(LinearSummarizer(), normal(3, 4), overlap=1)),
    Case("visp.predict", ValueError, r"Answers returned a tensor of shape \(2,\)",
         lambda this, _: this(Answers(normal(2)), normal(3, 4))),
    Case("visp.predict", ValueError, "logits of frames 0 to 1 are not all finite",
         lambda this, _: this(Answers(torch.full((2,), torch.nan)), normal(2, 4))),
    Case("visp.predict", ValueError, "WritesIntoItsInput writes into the frames",
         lambda this, _: this(WritesIntoItsInput(), normal(3, 4))),
    Case("visp.predict", TypeError, "Answers returned a list", lambda this, _: this(Answers([1.0]), normal(1, 4))),
    Case("visp.predict", TypeError, "real numbers", lambda this, _: this(Answers(torch.ones(3).long()), normal(3, 4))),
    Case("visp.predict", TypeError, "LinearSummarizer takes no side inputs.*text",
         lambda this, _: this(LinearSummarizer(), TEXT)),
    Case("visp.load_weights", FileNotFoundError, r"gone\.pt",
         lambda this, folder: this(LinearSummarizer(), folder / "gone.pt")),
    Case("visp.load_weights", CheckpointError, "not a file of weights",
         lambda this, folder: (folder / "w.pt").write_text("text") and this(LinearSummarizer(), folder / "w.pt")),
    Case("visp.load_weights", CheckpointError, "score",
         lambda this, folder: this(LinearSummarizer(), saved(folder, MeanEncoder()))),
    Case("visp.load_weights", CheckpointError, r"not the folder of a finished run",
         lambda this, folder: this(LinearSummarizer(), folder)),
]  # fmt: skip

LOAD = [
    Case("visp.load", ValueError, "no config.json here says", lambda this, folder: this(folder)),
    Case("visp.load", CheckpointError, "not the folder of a finished run", lambda this, folder: this(
        run_of(folder, None), summarizer=LinearSummarizer(), extractor=nn.Flatten())),
    Case("visp.load", CheckpointError, "does not fit the summarizer", lambda this, folder: this(
        run_of(folder, LinearSummarizer()), summarizer=MeanEncoder(), extractor=nn.Flatten())),
    Case("visp.load", ValueError, "does not say how its features were made: give extractor",
         lambda this, folder: this(run_of(folder, LinearSummarizer()))),
    Case("visp.load", ValueError, "features of another extractor sha256", lambda this, folder: this(
        run_of(folder, LinearSummarizer(), features={"extractor_sha256": "0"}), extractor=nn.Flatten())),
]  # fmt: skip

EXPORT = [
    Case("visp.export_summarizer", ValueError, r"graph\.txt: expected a name that ends in \.pt2 or \.onnx",
         lambda this, folder: this(LinearSummarizer(), folder / "graph.txt", feature_dim=4)),
    Case("visp.export_summarizer", ValueError, "LinearSummarizer does not say its feature_dim",
         lambda this, folder: this(LinearSummarizer(), folder / "graph.pt2")),
    Case("visp.export_summarizer", ValueError, "the adapter .* give torch.export.export the LinearSummarizer",
         lambda this, folder: this(visp.adapt_summarizer(LinearSummarizer()), folder / "graph.pt2", feature_dim=4)),
    Case("visp.export_summarizer", ValueError, "LooksAtValues cannot be traced",
         lambda this, folder: this(LooksAtValues(), folder / "graph.pt2", feature_dim=4)),
    Case("visp.export_summarizer", ValueError, "LengthBound can be traced for 203 frames only",
         lambda this, folder: this(LengthBound(), folder / "graph.pt2", feature_dim=4)),
    Case("visp.export_summarizer", ValueError, "the export's logits of .* frames differ",
         lambda this, folder: this(Noisy(), folder / "graph.pt2", feature_dim=4)),
    Case("visp.export_summarizer", ImportError, "needs torch 2.6 or newer", with_older_torch),
    Case("visp.export_summarizer", ImportError, r'onnx.*pip install "visp\[export\]"', without_onnx),
    Case("visp.export_summarizer", FileExistsError, r"graph\.pt2", lambda this, folder: (
        (folder / "graph.pt2").write_text("mine") and this(LinearSummarizer(), folder / "graph.pt2", feature_dim=4))),
]  # fmt: skip

CASES = [*PRETRAINER, *ADAPTERS, *PARTS, *USE, *LOAD, *EXPORT]
