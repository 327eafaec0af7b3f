"""A summarizer that a study can name and that trains in no time."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor, nn


class Linear(nn.Module):
    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(feature_dim, 1)

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.score(frames).squeeze(-1)
        return logits


def fails(feature_dim: int) -> nn.Module:
    """Fail, in a folder where a file tells how often."""
    with Path("failures.txt").open("a") as file:
        file.write(f"{os.environ.get('RANK', 'alone')}\n")
    raise RuntimeError("this summarizer cannot be made")


def dies(feature_dim: int) -> nn.Module:
    """End the process, as the system does when memory runs out."""
    os._exit(1)
