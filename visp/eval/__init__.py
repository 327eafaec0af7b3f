"""Evaluation on plain arrays: numpy and scipy only, no torch."""

from visp.eval.evaluation import baselines, evaluate
from visp.eval.knapsack import knapsack
from visp.eval.kts import KTSResult, kts, kts_from_kernel
from visp.eval.metrics import RankCorrelation, f_score, human_consistency, rank_correlation
from visp.eval.results import Evaluation, VideoEvaluation
from visp.eval.shots import check_shots, shots_from_breaks, shots_from_change_points, shots_to_breaks
from visp.eval.summary import ChosenShots, Summary, choose_shots, make_summary, shot_scores, upsample_scores

__all__ = [
    "ChosenShots",
    "Evaluation",
    "KTSResult",
    "RankCorrelation",
    "Summary",
    "VideoEvaluation",
    "baselines",
    "check_shots",
    "choose_shots",
    "evaluate",
    "f_score",
    "human_consistency",
    "knapsack",
    "kts",
    "kts_from_kernel",
    "make_summary",
    "rank_correlation",
    "shot_scores",
    "shots_from_breaks",
    "shots_from_change_points",
    "shots_to_breaks",
    "upsample_scores",
]
