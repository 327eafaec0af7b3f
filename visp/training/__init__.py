"""The training loops, and what is done with a trained summarizer."""

from visp.training.checkpoint import CheckpointError, load_weights
from visp.training.evaluate import Evaluator
from visp.training.finetune import FinetuneResult, finetune
from visp.training.predict import predict
from visp.training.pretrain import PretrainResult, pretrain
from visp.training.watch import CollapseWarning

__all__ = [
    "CheckpointError",
    "CollapseWarning",
    "Evaluator",
    "FinetuneResult",
    "PretrainResult",
    "finetune",
    "load_weights",
    "predict",
    "pretrain",
]
