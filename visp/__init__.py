"""visp: pretrain any video summarizer on unlabelled videos.

The public names are loaded on first use, so that ``import visp.eval`` needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from visp._version import __version__

if TYPE_CHECKING:
    from visp import contracts, contrastive, data, encoders, eval, plots, studies, summarizers, training, video  # noqa: A004
    from visp.adapters import adapt_encoder, adapt_summarizer, attach_head
    from visp.contracts import ProbabilityWarning
    from visp.evaluator import Evaluator
    from visp.export import export_summarizer
    from visp.gradient_flow import Gating, Marginalization, StraightThrough
    from visp.output import ViSPOutput
    from visp.prediction import predict
    from visp.pretrainer import ViSPPretrainer
    from visp.pseudo_summary import PseudoSummaryPretrainer
    from visp.regularizers import FixedSize
    from visp.samplers import ConcreteSampler, GumbelSoftmaxSampler, SigmoidSampler
    from visp.studies.cross_validation import cross_validate
    from visp.studies.significance import compare
    from visp.training import CollapseWarning, finetune, pretrain
    from visp.video.run import load
    from visp.weights import CheckpointError, load_weights

_HOMES = {
    "visp.adapters": ("adapt_encoder", "adapt_summarizer", "attach_head"),
    "visp.contracts": ("ProbabilityWarning",),
    "visp.gradient_flow": ("Gating", "Marginalization", "StraightThrough"),
    "visp.output": ("ViSPOutput",),
    "visp.pretrainer": ("ViSPPretrainer",),
    "visp.pseudo_summary": ("PseudoSummaryPretrainer",),
    "visp.regularizers": ("FixedSize",),
    "visp.samplers": ("ConcreteSampler", "GumbelSoftmaxSampler", "SigmoidSampler"),
    "visp.studies.cross_validation": ("cross_validate",),
    "visp.studies.significance": ("compare",),
    "visp.evaluator": ("Evaluator",),
    "visp.export": ("export_summarizer",),
    "visp.prediction": ("predict",),
    "visp.training": ("CollapseWarning", "finetune", "pretrain"),
    "visp.video.run": ("load",),
    "visp.weights": ("CheckpointError", "load_weights"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_SUBMODULES = (
    "contracts",
    "contrastive",
    "data",
    "encoders",
    "eval",
    "plots",
    "studies",
    "summarizers",
    "training",
    "video",
)

__all__ = [
    "CheckpointError",
    "CollapseWarning",
    "ConcreteSampler",
    "Evaluator",
    "FixedSize",
    "Gating",
    "GumbelSoftmaxSampler",
    "Marginalization",
    "ProbabilityWarning",
    "PseudoSummaryPretrainer",
    "SigmoidSampler",
    "StraightThrough",
    "ViSPOutput",
    "ViSPPretrainer",
    "__version__",
    "adapt_encoder",
    "adapt_summarizer",
    "attach_head",
    "compare",
    "contracts",
    "contrastive",
    "cross_validate",
    "data",
    "encoders",
    "eval",
    "export_summarizer",
    "finetune",
    "load",
    "load_weights",
    "plots",
    "predict",
    "pretrain",
    "studies",
    "summarizers",
    "training",
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
