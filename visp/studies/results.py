"""What a cross-validation found: metrics by round and by video, read back from its folder, side by side in a table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visp.eval.metrics import METRICS, Metric, mean_defined
from visp.eval.results import BASELINES, Baseline, standard_error
from visp.utils.files import parse_json, read_text


@dataclass(frozen=True)
class Fold:
    """One fine-tuned model on the test videos of its fold.

    Attributes:
        round: From 0.
        fold: From 0.
        seed: Seed of the weights, the order and dropout.
        epoch: Epoch of the chosen weights.
        evaluation: How they score the fold's test videos, as plain values: :meth:`visp.eval.Evaluation.to_json`.
    """

    round: int
    fold: int
    seed: int
    epoch: int
    evaluation: Mapping[str, Any]

    def mean(self, metric: Metric) -> float:
        """Return the mean of a metric over the test videos; nan where it is undefined for all."""
        return _number(self.evaluation["mean"][metric])

    def baseline(self, of: Baseline, metric: Metric) -> float:
        """Return what a baseline reaches on the test videos; nan where it is undefined."""
        found = self.evaluation["baselines"].get(of)
        return float("nan") if found is None else _number(found["mean"][metric])


@dataclass(frozen=True)
class CrossValidation:
    """All folds of all rounds.

    Attributes:
        folds: In order of round, then fold.
        protocol: Name of the protocol and of the benchmark whose rules hold, such as ``"csta, tvsum"``.
        select: How each fold's epoch was chosen; ``"test"`` has seen the test videos.
        out_dir: The folder of the run, or None.
    """

    folds: tuple[Fold, ...]
    protocol: str
    select: str
    out_dir: Path | None

    def per_round(self, metric: Metric = "tau") -> list[float]:
        """Return the metric of each round, its mean over folds."""
        rounds = sorted({fold.round for fold in self.folds})
        return [float(np.mean([fold.mean(metric) for fold in self.folds if fold.round == number])) for number in rounds]

    def per_video(self, metric: Metric = "tau") -> dict[str, float]:
        """Return the metric of each test video, its mean over the rounds and folds in which it is defined."""
        found: dict[str, list[float]] = {}
        for fold in self.folds:
            for row in fold.evaluation["videos"]:
                found.setdefault(row["video"], []).append(_number(row[metric]))
        return {video: mean_defined(values) for video, values in found.items()}

    def mean(self, metric: Metric = "tau") -> float:
        """Return the mean over rounds."""
        return float(np.mean(self.per_round(metric)))

    def spread(self, metric: Metric = "tau") -> float:
        """Return the standard deviation over rounds (n - 1); nan for a single round."""
        rounds = self.per_round(metric)
        return float(np.std(rounds, ddof=1)) if len(rounds) > 1 else float("nan")

    def standard_error(self, metric: Metric = "tau") -> float:
        """Return the standard error over test videos of their means over rounds; nan for fewer than two.

        It says how far other videos of the same kind would move the mean, which more rounds do not show.
        """
        return standard_error(list(self.per_video(metric).values()))

    def best_round(self, metric: Metric = "tau") -> float:
        """Return the metric of the best round, as publications report it."""
        return max(self.per_round(metric))

    def baseline(self, of: Baseline, metric: Metric = "tau") -> float:
        """Return what constant scores, random scores or the users reach on the same folds; nan where undefined."""
        return mean_defined([fold.baseline(of, metric) for fold in self.folds])

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values: means, rounds, baselines, folds, videos."""
        return {
            "protocol": self.protocol,
            "select": self.select,
            **{
                metric: {
                    "mean": _plain(self.mean(metric)),
                    "std": _plain(self.spread(metric)),
                    "standard_error": _plain(self.standard_error(metric)),
                    "best_round": _plain(self.best_round(metric)),
                    "rounds": [_plain(value) for value in self.per_round(metric)],
                    "baselines": {of: _plain(self.baseline(of, metric)) for of in BASELINES},
                }
                for metric in METRICS
            },
            "folds": [asdict(fold) for fold in self.folds],
        }


def read_results(out_dir: str | os.PathLike[str]) -> CrossValidation:
    """Read the results of a finished :func:`visp.cross_validate` back from its folder.

    Raises:
        FileNotFoundError: If the folder holds no ``results.json``.
        ValueError: If that is not one of a cross-validation; the message names the part that is not.
    """
    folder = Path(out_dir)
    path = folder / "results.json"
    found = _read_json(path, "the results of a cross-validation")
    try:
        _check(found, {"protocol": str, "select": str, "folds": list}, "the file")
        folds = tuple(_fold(fold, f"folds[{index}]") for index, fold in enumerate(found["folds"]))
        if not folds:
            raise ValueError("folds is empty")
    except ValueError as error:
        raise ValueError(f"{path} does not hold the results of a cross-validation: {error}") from error
    return CrossValidation(folds, found["protocol"], found["select"], folder)


def read_fold(path: Path) -> Fold:
    """Read ``fold.json`` of a finished fold.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not one; the message names the part that is not.
    """
    found = _read_json(path, "a fold of a cross-validation")
    try:
        return _fold(found, "the file")
    except ValueError as error:
        raise ValueError(f"{path} does not hold a fold of a cross-validation: {error}") from error


def results_table(results: Mapping[str, CrossValidation]) -> str:
    """Put several results side by side in a Markdown table, with the rows of chance and of people below.

    Args:
        results: By name, in the order of the rows.

    Returns:
        The table: mean and standard deviation over rounds, standard error over videos in brackets, and the best round.
        Every row names its protocol and how the epochs were selected.
    """
    lines = [
        "| model | protocol | epoch chosen by | rounds | tau | rho | F-score | best round: tau | rho | F-score |",
        "|---" * 10 + "|",
    ]
    beside: dict[str, None] = {}
    for name, result in results.items():
        select = "**test videos**" if result.select == "test" else result.select
        rounds = len(result.per_round())
        means = [
            f"{_shown('', result.mean(metric)) or 'undefined'}{_shown(' ± ', result.spread(metric))}"
            f"{_shown(' [', result.standard_error(metric), ']')}"
            for metric in METRICS
        ]
        best = [_shown("", result.best_round(metric)) or "undefined" for metric in METRICS]
        lines.append("| " + " | ".join([name, result.protocol, select, str(rounds), *means, *best]) + " |")
        for of, label in BASELINES.items():
            reached = [_shown("", result.baseline(of, metric)) or "undefined" for metric in METRICS]
            if set(reached) != {"undefined"}:
                beside["| " + " | ".join([label, result.protocol, "", "", *reached, "", "", ""]) + " |"] = None
    explained = "±: standard deviation over rounds; [ ]: standard error over videos."
    return "\n".join([*lines, *beside, "", explained])


def _read_json(path: Path, what: str) -> Any:
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path} does not hold {what}: it is not JSON ({error})") from error


def _fold(found: Any, where: str) -> Fold:
    kinds = {"round": int, "fold": int, "seed": int, "epoch": int, "evaluation": dict}
    _check(found, kinds, where)
    evaluation = found["evaluation"]
    _check(evaluation, {"mean": dict, "videos": list, "baselines": dict}, f"{where}, evaluation")
    rows = {"mean": evaluation["mean"]}
    for index, row in enumerate(evaluation["videos"]):
        _check(row, {"video": str}, f"{where}, evaluation, videos[{index}]")
        rows[f"videos[{index}]"] = row
    for name, baseline in evaluation["baselines"].items():
        _check(baseline, {"mean": dict}, f"{where}, evaluation, baselines, {name}")
        rows[f"baselines, {name}, mean"] = baseline["mean"]
    for place, row in rows.items():
        for metric in METRICS:
            value = row.get(metric, "nothing")
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ValueError(f"{where}, evaluation, {place}: expected {metric} as a number or null, got {value!r}")
    return Fold(**{name: found[name] for name in kinds})


def _check(found: Any, kinds: Mapping[str, type], where: str) -> None:
    """Refuse what is not an object with the keys of the kinds."""
    if not isinstance(found, dict):
        raise ValueError(f"{where}: expected an object, got {type(found).__name__}")
    for name, kind in kinds.items():
        if name not in found:
            raise ValueError(f"{where}: {name!r} is missing")
        if not isinstance(found[name], kind) or isinstance(found[name], bool):
            raise ValueError(f"{where}: expected {name!r} as {kind.__name__}, got {type(found[name]).__name__}")


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value


def _shown(before: str, value: float, after: str = "") -> str:
    return "" if np.isnan(value) else f"{before}{value:.3f}{after}"
