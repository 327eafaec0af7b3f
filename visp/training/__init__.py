"""The training runs: pretraining without labels, fine-tuning on them."""

from visp.training.collapse import CollapseWarning
from visp.training.finetune import FinetuneResult, finetune
from visp.training.pretrain import PretrainResult, pretrain

__all__ = ["CollapseWarning", "FinetuneResult", "PretrainResult", "finetune", "pretrain"]
