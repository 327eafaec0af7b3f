"""Built-in summarizers, one file per model."""

from visp.summarizers.csta import CSTA
from visp.summarizers.csta_encoder import CSTAEncoder
from visp.summarizers.googlenet import GoogleNet
from visp.summarizers.transformer import Transformer

__all__ = ["CSTA", "CSTAEncoder", "GoogleNet", "Transformer"]
