"""Built-in summarizers, one file a model."""

from visp.summarizers.csta import CSTA
from visp.summarizers.googlenet import GoogleNet

__all__ = ["CSTA", "GoogleNet"]
