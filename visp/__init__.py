"""visp: pretrain any video summarizer on unlabelled videos.

The public names are loaded on first use, so that ``import visp.eval`` needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from visp._version import __version__

if TYPE_CHECKING:
    from visp import data, encoders, eval, summarizers, video  # noqa: A004
    from visp.adapters import adapt_encoder, adapt_summarizer
    from visp.contracts import EncodesVideo, ProbabilityWarning, Summarizer, VideoEncoder
    from visp.contrastive import Cosine, InnerProduct, Videos, Windows, info_nce
    from visp.evaluator import Evaluator
    from visp.gradient_flow import Gating, GradientFlow, Marginalization, StraightThrough
    from visp.prediction import predict
    from visp.pretrainer import ViSPOutput, ViSPPretrainer
    from visp.pseudo_summary import PseudoSummaryOutput, PseudoSummaryPretrainer, top_share
    from visp.regularizers import FixedSize, TargetSize, binary_penalty, size_penalty
    from visp.samplers import ConcreteSampler, GumbelSoftmaxSampler, Sampler, SigmoidSampler
    from visp.studies.cross_validation import cross_validate
    from visp.studies.results import CrossValidation, results_table
    from visp.studies.significance import Comparison, compare
    from visp.training import CollapseWarning, FinetuneResult, PretrainResult, finetune, pretrain
    from visp.video.run import LoadedRun, load
    from visp.weights import CheckpointError, load_weights

_HOMES = {
    "visp.adapters": ("adapt_encoder", "adapt_summarizer"),
    "visp.contracts": ("EncodesVideo", "ProbabilityWarning", "Summarizer", "VideoEncoder"),
    "visp.contrastive": ("Cosine", "InnerProduct", "Videos", "Windows", "info_nce"),
    "visp.gradient_flow": ("Gating", "GradientFlow", "Marginalization", "StraightThrough"),
    "visp.pretrainer": ("ViSPOutput", "ViSPPretrainer"),
    "visp.pseudo_summary": ("PseudoSummaryOutput", "PseudoSummaryPretrainer", "top_share"),
    "visp.regularizers": ("FixedSize", "TargetSize", "binary_penalty", "size_penalty"),
    "visp.samplers": ("ConcreteSampler", "GumbelSoftmaxSampler", "Sampler", "SigmoidSampler"),
    "visp.studies.cross_validation": ("cross_validate",),
    "visp.studies.results": ("CrossValidation", "results_table"),
    "visp.studies.significance": ("Comparison", "compare"),
    "visp.evaluator": ("Evaluator",),
    "visp.prediction": ("predict",),
    "visp.training": ("CollapseWarning", "FinetuneResult", "PretrainResult", "finetune", "pretrain"),
    "visp.video.run": ("LoadedRun", "load"),
    "visp.weights": ("CheckpointError", "load_weights"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_SUBMODULES = ("data", "encoders", "eval", "summarizers", "video")

__all__ = [
    "CheckpointError",
    "CollapseWarning",
    "Comparison",
    "ConcreteSampler",
    "Cosine",
    "CrossValidation",
    "EncodesVideo",
    "Evaluator",
    "FinetuneResult",
    "FixedSize",
    "Gating",
    "GradientFlow",
    "GumbelSoftmaxSampler",
    "InnerProduct",
    "LoadedRun",
    "Marginalization",
    "PretrainResult",
    "ProbabilityWarning",
    "PseudoSummaryOutput",
    "PseudoSummaryPretrainer",
    "Sampler",
    "SigmoidSampler",
    "StraightThrough",
    "Summarizer",
    "TargetSize",
    "ViSPOutput",
    "ViSPPretrainer",
    "VideoEncoder",
    "Videos",
    "Windows",
    "__version__",
    "adapt_encoder",
    "adapt_summarizer",
    "binary_penalty",
    "compare",
    "cross_validate",
    "data",
    "encoders",
    "eval",
    "finetune",
    "info_nce",
    "load",
    "load_weights",
    "predict",
    "pretrain",
    "results_table",
    "size_penalty",
    "summarizers",
    "top_share",
    "video",
]


def __getattr__(name: str) -> object:
    if name in _SUBMODULES:
        return importlib.import_module(f"visp.{name}")
    if name in _HOME_OF:
        value = getattr(importlib.import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'visp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
