"""Evaluation on plain arrays: numpy and scipy only, no torch."""

from visp.eval.metrics import RankCorrelation, rank_correlation

__all__ = ["RankCorrelation", "rank_correlation"]
