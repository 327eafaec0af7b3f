"""What type checkers see of visp in a package that depends on it: checked by ``mypy --strict``."""

import torch

import visp


def pretrain(module: torch.nn.Module, videos: list[torch.Tensor]) -> int:
    """Return the number of steps."""
    summarizer = visp.adapt_summarizer(module, inputs=lambda frames: frames[None], probabilities=True)
    encoder = visp.encoders.AttentionPoolEncoder(videos[0].shape[1])
    return visp.pretrain(visp.ViSPPretrainer(summarizer, encoder), videos, epochs=2, out_dir="run").steps
