"""The training loops."""

from visp.training.checkpoint import CheckpointError
from visp.training.pretrain import PretrainResult, pretrain
from visp.training.watch import CollapseWarning

__all__ = ["CheckpointError", "CollapseWarning", "PretrainResult", "pretrain"]
