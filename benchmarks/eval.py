"""How fast and how large: change points and knapsack beside plain implementations; see docs/.

python benchmarks/eval.py                                   everything, about seven minutes of one core
python benchmarks/eval.py --only kts-1000 kts-20000         some of it
python benchmarks/eval.py --json eval.json                  and the figures as JSON

Set OMP_NUM_THREADS=1 to measure one core. Features are float32 of norm 1 and d = 1024, shots of 5 to 60 frames with
noise unless said otherwise. Memory is the most that Python and numpy hold during a call of its own, beyond the input.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from visp.eval.knapsack import knapsack
from visp.eval.kts import kts
from visp.eval.segmentation import FeatureScatter, least_for_each_number

Array = npt.NDArray[Any]
Figures = dict[str, Any]

DIM = 1024
REPEATS = 3
"""The best of so many runs where one takes less than ten seconds."""


def make_features(kind: str, n_frames: int, seed: int = 0) -> Array:
    """(n_frames, DIM) float32 of norm 1."""
    rng = np.random.default_rng(seed)
    features = np.empty((n_frames, DIM), np.float32)
    begin = 0
    while begin < n_frames:
        length, spread = {
            "shots": (int(rng.integers(5, 61)), 0.5),
            "long": (int(rng.integers(3000, 5001)), 0.5),
            "noise": (1, 0.0),
            "static": (n_frames, 0.0),
        }[kind]
        shot = features[begin : begin + length]
        shot[:] = rng.standard_normal(DIM)
        if spread:
            shot += spread * rng.standard_normal(shot.shape)
        shot /= np.linalg.norm(shot, axis=1, keepdims=True)
        begin += length
    return features


def literal_kts(kernel: Array) -> list[int]:
    """Fill the whole table of the published algorithm, one row operation a cell (m, t)."""
    n_frames = len(kernel)
    sums = np.zeros((n_frames + 1, n_frames + 1))
    sums[1:, 1:] = kernel.cumsum(axis=0).cumsum(axis=1)
    own, trace = np.diagonal(sums), np.append(0, np.cumsum(np.diagonal(kernel)))
    end, start = np.indices(sums.shape, sparse=True)
    length = np.maximum(end - start, 1)
    scatter = trace[:, None] - trace - (own[:, None] + own - sums - sums.T) / length  # row t, column s
    table = np.full((n_frames, n_frames + 1), np.inf)
    back = np.zeros((n_frames, n_frames + 1), np.int32)
    table[0, 1:] = scatter[1:, 0]
    for m in range(1, n_frames):
        for t in range(m + 1, n_frames + 1):
            costs = table[m - 1, m:t] + scatter[t, m:t]
            best = costs.argmin()
            table[m, t], back[m, t] = costs[best], m + best
    m_of = np.arange(n_frames)
    penalty = m_of / 2 * (np.log(n_frames / np.maximum(m_of, 1)) + 1)
    bounds = [n_frames]
    for m in range(int(np.argmin(table[:, n_frames] + penalty)), 0, -1):
        bounds.append(int(back[m, bounds[-1]]))
    return bounds[:0:-1]


def literal_knapsack(values: list[float], weights: list[int], capacity: int) -> list[int]:
    """Fill the whole table in pure Python, with one byte a cell for the way back."""
    best = [0.0] * (capacity + 1)
    taken = []
    for value, weight in zip(values, weights, strict=True):
        take = bytearray(capacity + 1)
        row = best[:]
        for room in range(weight, capacity + 1):
            with_item = best[room - weight] + value
            if with_item > best[room]:
                row[room] = with_item
                take[room] = 1
        best = row
        taken.append(take)
    room, chosen = capacity, []
    for item in range(len(values) - 1, -1, -1):
        if taken[item][room]:
            chosen.append(item)
            room -= weights[item]
    return chosen[::-1]


def measure(call: Callable[[], Any]) -> tuple[Any, Figures]:
    """Call, and return the result, the seconds and the MB held at most."""
    tracemalloc.start()
    result = call()
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    seconds: list[float] = []
    while not seconds or (len(seconds) < REPEATS and seconds[0] < 10):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return result, {"seconds": min(seconds), "megabytes": memory / 1e6}


def measure_kts(kind: str, n_frames: int, beside: str = "") -> Figures:
    """Measure :func:`visp.eval.kts`, beside the literal one or the dynamic programme over all m."""
    features = make_features(kind, n_frames)
    kts(features[:100])
    result, figures = measure(lambda: kts(features))
    figures.update(change_points=result.num_change_points, features_megabytes=features.nbytes / 1e6)
    if beside == "literal":
        wide = features.astype(np.float64)
        kernel = wide @ wide.T
        started = time.perf_counter()
        change_points = literal_kts(kernel)
        figures["plain_seconds"] = time.perf_counter() - started
        figures["equal"] = change_points == result.change_points.tolist()
    elif beside == "dynamic programme":
        number = np.arange(1, n_frames)
        penalty = np.append(0, number / 2 * (np.log(n_frames / number) + 1))
        most = int(np.flatnonzero(penalty <= result.cost * n_frames)[-1])  # beyond it C(m) alone costs more
        started = time.perf_counter()
        scatters, change_points_of = least_for_each_number(FeatureScatter(features, 1, n_frames), most)
        best = int(np.argmin(scatters + penalty[: most + 1]))
        figures["table_seconds"] = time.perf_counter() - started
        figures["equal"] = change_points_of(best).tolist() == result.change_points.tolist()
    return figures


def measure_knapsack(n_shots: int, capacity: int) -> Figures:
    """Measure :func:`visp.eval.knapsack`, beside a pure-Python one."""
    rng = np.random.default_rng(0)
    weights = rng.integers(100, 901, size=n_shots)
    values = rng.random(n_shots) * weights
    knapsack(values[:10], weights[:10], 1000)
    chosen, figures = measure(lambda: knapsack(values, weights, capacity))
    started = time.perf_counter()
    literal = literal_knapsack(values.tolist(), weights.tolist(), capacity)
    figures["plain_seconds"] = time.perf_counter() - started
    figures["equal"] = literal == chosen.tolist()
    return figures


class Part(NamedTuple):
    """One row of the table."""

    what: str
    measure: Callable[..., Figures]
    options: tuple[Any, ...]


PARTS = {
    "kts-1000": Part("KTS, N = 1,000", measure_kts, ("shots", 1000, "literal")),
    "kts-3000": Part("KTS, N = 3,000", measure_kts, ("shots", 3000, "literal")),
    "kts-5000": Part("KTS, N = 5,000", measure_kts, ("shots", 5000, "dynamic programme")),
    "kts-20000": Part("KTS, N = 20,000", measure_kts, ("shots", 20_000)),
    "kts-long": Part("KTS, N = 20,000, shots of 3,000 to 5,000", measure_kts, ("long", 20_000)),
    "kts-noise": Part("KTS, N = 20,000, noise", measure_kts, ("noise", 20_000)),
    "kts-static": Part("KTS, N = 20,000, static", measure_kts, ("static", 20_000)),
    "kts-108000": Part("KTS, N = 108,000", measure_kts, ("shots", 108_000)),
    "knapsack": Part("knapsack, 2,000 shots, capacity 150,000", measure_knapsack, (2000, 150_000)),
}


def table(results: dict[str, Figures]) -> str:
    """Put the figures into a Markdown table."""
    lines = [
        "| what | seconds | MB beyond the input | change points | plain, seconds | times as fast | same answer as |",
        "|---" * 7 + "|",
    ]
    for name, figures in results.items():
        plain = figures.get("plain_seconds")
        other = "the whole table" if "table_seconds" in figures else "the plain one"
        cells = [
            PARTS[name].what,
            f"{figures['seconds']:.3f}" if figures["seconds"] < 1 else f"{figures['seconds']:.1f}",
            f"{figures['megabytes']:.0f}",
            str(figures.get("change_points", "")),
            f"{plain:.1f}" if plain else "",
            f"{plain / figures['seconds']:.0f}" if plain else "",
            "" if "equal" not in figures else other if figures["equal"] else f"NOT {other}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure the parts one after the other, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    results: dict[str, Figures] = {}
    for name in options.only:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results[name] = pool.apply(PARTS[name].measure, PARTS[name].options)
        print(name, json.dumps(results[name]), flush=True)
        if options.json:
            partial = options.json.with_name(f".{options.json.name}.{os.getpid()}")
            partial.write_text(json.dumps(results, indent=2) + "\n")
            partial.replace(options.json)
    print("\n" + table(results))


if __name__ == "__main__":
    main()
