"""The 0/1 knapsack that picks the shots of a summary, exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def knapsack(values: npt.ArrayLike, weights: npt.ArrayLike, capacity: int) -> npt.NDArray[np.intp]:
    """Choose the items of greatest total value whose total weight is within the capacity.

    The row-by-row dynamic programme of the field: item i is taken at weight w where that makes the total strictly
    greater than without it, so among equally good choices the earlier items win and items of value 0 are never taken.
    Values are float64 throughout and never rounded. Takes S * capacity / 8 bytes.

    Args:
        values: (S,) values, at least 0, such as the shots' scores.
        weights: (S,) whole numbers, at least 1, such as the shots' lengths in frames.
        capacity: Greatest total weight, a whole number, at least 0. Items heavier than this are never taken.

    Returns:
        The indices of the chosen items, ascending.

    Raises:
        ValueError: If a value is negative or not finite, a weight is below 1 or not whole, the lengths differ, or the
            capacity is negative or not whole.
    """
    value, weight = np.asarray(values, dtype=np.float64), np.asarray(weights)
    if value.ndim != 1 or value.shape != weight.shape:
        raise ValueError(f"expected values (S,) and weights (S,) of the same S, got {value.shape} and {weight.shape}")
    if not (good := np.isfinite(value) & (value >= 0)).all():
        raise ValueError(f"values must be finite and at least 0, got {value[~good][0]}")
    if not (good := np.isfinite(weight) & (weight >= 1) & (weight == np.floor(weight))).all():
        raise ValueError(f"weights must be whole numbers of at least 1, got {weight[~good][0]}")
    if not (capacity >= 0 and capacity % 1 == 0):
        raise ValueError(f"the capacity must be a whole number of at least 0, got {capacity}")

    room = int(min(capacity, weight.sum()))
    fitting = np.flatnonzero(weight <= room)
    best = np.zeros(room + 1)  # best[w]: greatest value within weight w of the items so far
    candidate = np.empty_like(best)
    taken = np.empty((len(fitting), -(-(room + 1) // 8)), dtype=np.uint8)
    heavy = weight[fitting].astype(np.intp)
    for row, w in enumerate(heavy):
        with_item = np.add(best[: room + 1 - w], value[fitting[row]], out=candidate[w:])
        candidate[:w] = 0
        taken[row] = np.packbits(candidate > best)
        np.maximum(with_item, best[w:], out=best[w:])

    chosen = []
    for row in range(len(fitting) - 1, -1, -1):
        if taken[row, room >> 3] >> (7 - (room & 7)) & 1:
            chosen.append(fitting[row])
            room -= heavy[row]
    return np.array(chosen[::-1], dtype=np.intp)
