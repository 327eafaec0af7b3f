from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from visp.eval import segmentation
from visp.eval.kts import KTSResult, kts, kts_from_kernel

Array = npt.NDArray[Any]
KINDS = ("constant", "noise", "drift", "repeated shots", "static shots", "jittered", "two long shots")
CLOSE = 1e-9


def unit(frames: Array) -> Array:
    divided: Array = frames / np.linalg.norm(frames, axis=1, keepdims=True)
    return divided


def make_features(kind: str, n_frames: int, dim: int = 8, seed: int = 0) -> Array:
    """(n_frames, dim) of norm 1."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((n_frames, dim))
    scenes = rng.standard_normal((n_frames, dim))
    lengths = rng.integers(2, 30, size=n_frames)
    scene_of = np.repeat(np.arange(n_frames), lengths)[:n_frames]
    return unit(
        {
            "constant": np.repeat(scenes[:1], n_frames, axis=0),
            "noise": noise,
            "drift": np.cumsum(noise, axis=0),
            "repeated shots": scenes[scene_of % 4] + 0.3 * noise,
            "static shots": scenes[scene_of],
            "jittered": scenes[:1] + 0.2 * noise,
            "two long shots": scenes[np.arange(n_frames) * 2 // n_frames] + 0.3 * noise,
        }[kind]
    )


def penalty(m: int, n_frames: int, vmax: float, desc_rate: float) -> float:
    """C(m)."""
    n2 = n_frames * desc_rate
    return vmax * m / (2 * n2) * (math.log(n2 / m) + 1) if m else 0.0


def segment_scatter(frames: Array) -> float:
    """Sum of the squared distances to the mean."""
    return float(((frames - frames.mean(axis=0)) ** 2).sum())


def total_scatter(features: Array, change_points: Array | tuple[int, ...]) -> float:
    bounds = [0, *change_points, len(features)]
    return sum(segment_scatter(features[s:t]) for s, t in itertools.pairwise(bounds))


def first_best(costs: dict[int, float]) -> tuple[int, float]:
    """First number of change points whose cost is the least, up to rounding."""
    least = min(costs.values())
    return min(m for m, cost in costs.items() if cost <= least + CLOSE), least


def brute_force(
    features: Array, max_change_points: int, vmax: float, desc_rate: float, min_length: int, max_length: int
) -> tuple[int, float]:
    """Try every segmentation."""
    n_frames = len(features)
    costs: dict[int, float] = {}
    for m in range(min(max_change_points, n_frames - 1) + 1):
        for change_points in itertools.combinations(range(1, n_frames), m):
            lengths = np.diff([0, *change_points, n_frames])
            if lengths.min() >= min_length and lengths.max() <= max_length:
                cost = total_scatter(features, change_points) / n_frames + penalty(m, n_frames, vmax, desc_rate)
                costs[m] = min(costs.get(m, math.inf), cost)
    return first_best(costs)


def plain_kts(
    kernel: Array,
    max_change_points: int | None = None,
    vmax: float = 1.0,
    desc_rate: float = 1,
    min_length: int = 1,
    max_length: int | None = None,
) -> tuple[int, float, list[int]]:
    """Fill the whole table: I_m(t) = min over s of I_{m-1}(s) + J(s, t), J(s, t) from the block sums of the kernel."""
    n_frames = len(kernel)
    sums = np.zeros((n_frames + 1, n_frames + 1))
    sums[1:, 1:] = kernel.cumsum(axis=0).cumsum(axis=1)
    trace = np.append(0, np.cumsum(np.diagonal(kernel)))
    start, end = np.indices(sums.shape)
    length = end - start
    own = np.diagonal(sums)
    inner = own[None, :] + own[:, None] - sums - sums.T
    scatter = trace[None, :] - trace[:, None] - inner / np.where(length > 0, length, 1)
    allowed = (length >= min_length) & (length <= (n_frames if max_length is None else max_length))
    scatter = np.where(allowed, scatter, np.inf)
    most = n_frames - 1 if max_change_points is None else min(max_change_points, n_frames - 1)
    table, back = [scatter[0]], [np.zeros(n_frames + 1, int)]
    for _ in range(most):
        total = table[-1][:, None] + scatter
        back.append(total.argmin(axis=0))
        table.append(total.min(axis=0))
    costs = {
        m: row[n_frames] / n_frames + penalty(m, n_frames, vmax, desc_rate)
        for m, row in enumerate(table)
        if row[n_frames] < np.inf
    }
    best, cost = first_best(costs)
    bounds = [n_frames]
    for m in range(best, 0, -1):
        bounds.append(int(back[m][bounds[-1]]))
    return best, cost, bounds[:0:-1]


def check_consistent(result: KTSResult, features: Array, vmax: float = 1.0, desc_rate: float = 1) -> None:
    assert result.num_change_points == len(result.change_points)
    assert result.change_points.dtype == np.int64
    assert result.scatter == pytest.approx(total_scatter(features, result.change_points), abs=CLOSE)
    penalised = result.scatter / len(features) + penalty(result.num_change_points, len(features), vmax, desc_rate)
    assert result.cost == pytest.approx(penalised, abs=CLOSE)


@contextmanager
def blocks_of(frames: int) -> Iterator[None]:
    """Short blocks, so that starts are dropped in short videos too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentation, "SMALLEST_BLOCK", frames)
        patch.setattr(segmentation, "LARGEST_BLOCK", 2 * frames)
        yield


@st.composite
def limited_videos(draw: st.DrawFn) -> tuple[Array, dict[str, Any]]:
    n_frames = draw(st.integers(1, 10))
    dim = draw(st.integers(1, 3))
    value = draw(st.sampled_from([st.integers(-2, 2), st.floats(-1, 1).map(lambda x: round(x, 3))]))
    features = draw(st.lists(st.lists(value, min_size=dim, max_size=dim), min_size=n_frames, max_size=n_frames))
    min_length = draw(st.integers(1, n_frames))
    segments = draw(st.integers(1, n_frames // min_length))
    return np.array(features, dtype=np.float64), {
        "max_change_points": draw(st.integers(segments - 1, n_frames + 1)),
        "vmax": draw(st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.5, 10.0])),
        "desc_rate": draw(st.sampled_from([1, 2.5, 15])),
        "min_length": min_length,
        "max_length": draw(st.integers(-(-n_frames // segments), n_frames + 3)),
    }


BLACK = (
    np.zeros((3, 1)),
    {"max_change_points": 2, "vmax": 0.0, "desc_rate": 1, "min_length": 1, "max_length": 2},
)


@settings(max_examples=300, deadline=None)
@example(BLACK, 1)
@given(limited_videos(), st.integers(1, 4))
def test_limits_and_options_equal_brute_force(video: tuple[Array, dict[str, Any]], block: int) -> None:
    features, options = video
    with blocks_of(block):
        results = kts(features, **options), kts_from_kernel(features @ features.T, **options)
    m, cost = brute_force(features, **options)
    for result in results:
        assert result.num_change_points == m
        assert result.cost == pytest.approx(cost, abs=CLOSE)
        check_consistent(result, features, options["vmax"], options["desc_rate"])
        lengths = np.diff([0, *result.change_points, len(features)])
        assert options["min_length"] <= lengths.min() <= lengths.max() <= options["max_length"]


@pytest.mark.parametrize("vmax", [0.05, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("n_frames", [1, 2, 40, 300])
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_table_has_the_same_optimum(kind: str, n_frames: int, vmax: float) -> None:
    features = make_features(kind, n_frames)
    kernel = features @ features.T
    m, cost, change_points = plain_kts(kernel, vmax=vmax)
    with blocks_of(16):
        results = kts(features, vmax=vmax), kts_from_kernel(kernel, vmax=vmax)
    for result in results:
        assert result.change_points.tolist() == change_points
        assert result.num_change_points == m
        assert result.cost == pytest.approx(cost, abs=CLOSE)
        check_consistent(result, features, vmax)


LIMITS: list[dict[str, Any]] = [
    {"max_change_points": 3},
    {"max_change_points": 20, "vmax": 0.1},
    {"min_length": 2, "vmax": 0.2},
    {"min_length": 7, "vmax": 0.2},
    {"min_length": 70, "vmax": 0.05},
    {"max_length": 11},
    {"max_length": 37, "vmax": 3.0},
    {"min_length": 5, "max_length": 9, "vmax": 0.5},
    {"min_length": 5, "max_length": 40, "max_change_points": 9, "vmax": 0.1},
    {"desc_rate": 15},
    {"desc_rate": 2.5, "vmax": 3.0},
]


@pytest.mark.parametrize("options", LIMITS, ids=str)
@pytest.mark.parametrize("kind", ["noise", "drift", "repeated shots", "jittered"])
def test_limits_equal_the_whole_table(kind: str, options: dict[str, Any]) -> None:
    features = make_features(kind, 230, seed=1)
    m, cost, change_points = plain_kts(features @ features.T, **options)
    with blocks_of(16):
        result = kts(features, **options)
    assert result.change_points.tolist() == change_points
    assert result.num_change_points == m
    assert result.cost == pytest.approx(cost, abs=CLOSE)
    assert kts_from_kernel(features @ features.T, **options).change_points.tolist() == change_points


@pytest.mark.parametrize("seed", range(25))
def test_a_start_is_kept_until_a_better_one_may_be_used(seed: int) -> None:
    features = make_features("jittered", 40, dim=2, seed=seed)
    choices: list[dict[str, Any]] = [{"vmax": 0.03}, {"vmax": 0.003, "max_change_points": 8}]
    for options in choices:
        _, cost, change_points = plain_kts(features @ features.T, min_length=3, **options)
        with blocks_of(1):
            result = kts(features, min_length=3, **options)
        assert result.change_points.tolist() == change_points
        assert result.cost == pytest.approx(cost, abs=CLOSE)


@pytest.mark.parametrize("most", range(13))
def test_an_optimum_off_the_hull_is_found(most: int) -> None:
    features: Array = np.repeat([[0.0], [3.0], [0.0], [4.0], [0.0], [3.0], [1.0]], 6, axis=0)
    m, cost, _ = plain_kts(features @ features.T, max_change_points=most, vmax=0.5)
    result = kts(features, max_change_points=most, vmax=0.5)
    assert result.num_change_points == m
    assert result.cost == pytest.approx(cost, abs=CLOSE)


def test_another_kernel_equals_the_whole_table() -> None:
    features = make_features("repeated shots", 200)
    distance = ((features[:, None] - features[None]) ** 2).sum(axis=2)
    kernel = np.exp(-distance / 2)
    choices: list[dict[str, Any]] = [{"vmax": 0.4}, {"vmax": 0.1, "max_change_points": 4}, {"min_length": 6}]
    for options in choices:
        m, cost, change_points = plain_kts(kernel, **options)
        with blocks_of(16):
            result = kts_from_kernel(kernel, **options)
        assert (result.num_change_points, result.change_points.tolist()) == (m, change_points)
        assert result.cost == pytest.approx(cost, abs=CLOSE)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_narrow_features_are_computed_in_float64(dtype: type) -> None:
    features: Array = make_features("repeated shots", 300, dim=64).astype(dtype)
    narrow, wide = kts(features), kts(features.astype(np.float64))
    assert narrow.change_points.tolist() == wide.change_points.tolist()
    assert narrow.cost == wide.cost
    kernel = kts_from_kernel((features.astype(np.float64) @ features.T.astype(np.float64)).astype(np.float32))
    assert kernel.change_points.tolist() == wide.change_points.tolist()


def test_the_boundaries_of_clear_scenes_are_found() -> None:
    scenes = np.eye(5)
    lengths = [4, 90, 1, 200, 33]
    result = kts(np.repeat(scenes, lengths, axis=0), vmax=0.05)
    assert result.change_points.tolist() == [4, 94, 95, 295]
    assert result.scatter == pytest.approx(0, abs=1e-12)


def test_a_large_offset_changes_nothing() -> None:
    features = make_features("repeated shots", 300)
    moved = kts(features + 1000, vmax=0.5)
    assert moved.change_points.tolist() == kts(features, vmax=0.5).change_points.tolist()


@pytest.mark.parametrize("vmax", [0.0, 1.0])
def test_a_constant_video_has_no_change_points(vmax: float) -> None:
    features: Array = np.full((150, 3), 1 / math.sqrt(3))
    with blocks_of(16):
        result = kts(features, vmax=vmax)
    assert result.num_change_points == 0
    assert result.cost == result.scatter == pytest.approx(0)


def test_without_a_penalty_every_change_is_a_change_point() -> None:
    features: Array = np.array([[0.1], [0.1], [0.7], [0.7], [0.3], [0.1]])
    assert kts(features, vmax=0).change_points.tolist() == [2, 4, 5]


def test_memory_does_not_hold_a_matrix_of_frames_by_frames() -> None:
    features = make_features("repeated shots", 3000).astype(np.float32)
    kts(features[:50])
    tracemalloc.start()
    kts(features)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000 * 3000 / 4


def test_progress_shows_a_bar_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    features = make_features("repeated shots", 100)
    kts(features, max_change_points=2)
    assert capsys.readouterr().err == ""
    kts(features, max_change_points=2, progress=True)
    shown = capsys.readouterr().err
    assert "kts" in shown
    assert "frame" in shown


@pytest.mark.parametrize("norm", [0.5, 3.0])
def test_default_vmax_on_features_of_another_norm_warns(norm: float) -> None:
    features = norm * make_features("repeated shots", 50)
    with pytest.warns(UserWarning, match=f"vmax=1 is meant for features of norm 1, but the median norm is {norm:g}"):
        kts(features)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rounded_unit_norms_and_a_black_frame_do_not_warn(dtype: type) -> None:
    features: Array = make_features("noise", 50, dim=1024).astype(dtype)
    features[7] = 0
    kts(features)


def test_another_vmax_says_that_the_norm_is_known() -> None:
    kts(5 * make_features("repeated shots", 50), vmax=25.0)


BAD_FEATURES = [
    (np.zeros(4), r"expected features \(N, d\) of at least one frame, got \(4,\)"),
    (np.zeros((0, 3)), r"got \(0, 3\)"),
    (np.zeros((3, 0)), r"got \(3, 0\)"),
    (np.zeros((2, 3, 4)), r"got \(2, 3, 4\)"),
    (
        np.array([[1.0], [np.nan]]),
        "the features hold values that are not finite, or too large to square, first at frame 1",
    ),
    (np.array([[np.inf], [1.0]]), "first at frame 0"),
    (np.array([[1j], [1.0]]), "expected features of real numbers, got complex128"),
    (np.array([["a"]]), "expected features of real numbers"),
]


@pytest.mark.parametrize(("features", "message"), BAD_FEATURES, ids=[str(bad[0].shape) for bad in BAD_FEATURES])
def test_bad_features_are_refused(features: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kts(features)


BAD_KERNELS = [
    (np.zeros((2, 3)), r"expected a square kernel \(N, N\) of at least one frame, got \(2, 3\)"),
    (np.zeros(3), r"got \(3,\)"),
    (np.zeros((0, 0)), r"got \(0, 0\)"),
    (np.array([[1.0, 0.5], [0.4, 1.0]]), r"must be symmetric, got 0.5 at \(0, 1\) and 0.4 at \(1, 0\)"),
    (np.array([[1.0, np.nan], [np.nan, 1.0]]), "the kernel holds values that are not finite, first at row 0"),
    (np.array([[1.0, 0.0], [0.0, -1.0]]), "diagonal must not be negative, got -1 at frame 1"),
]


@pytest.mark.parametrize(("kernel", "message"), BAD_KERNELS, ids=[str(bad[1]) for bad in BAD_KERNELS])
def test_bad_kernels_are_refused(kernel: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kts_from_kernel(kernel)


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"vmax": -0.1}, "vmax must be finite and at least 0, got -0.1"),
    ({"vmax": math.nan}, "vmax must be finite and at least 0, got nan"),
    ({"desc_rate": 0.5}, "desc_rate must be finite and at least 1, got 0.5"),
    ({"desc_rate": math.inf}, "desc_rate must be finite and at least 1, got inf"),
    ({"max_change_points": -1}, "max_change_points must be at least 0, got -1"),
    ({"min_length": 0}, "expected 1 <= min_length <= max_length, got min_length=0, max_length=10"),
    ({"min_length": 4, "max_length": 3}, "got min_length=4, max_length=3"),
    ({"min_length": 11}, "min_length=11, max_length=10"),
    ({"max_length": 0}, "max_length=0"),
    ({"min_length": 6, "max_length": 8}, "10 frames cannot be cut into segments of 6 to 8 frames"),
    ({"max_length": 3, "max_change_points": 2}, "segments of 1 to 3 frames with at most 2 change points: it takes 3"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS, ids=[str(bad[0]) for bad in BAD_OPTIONS])
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    features = make_features("noise", 10)
    with pytest.raises(ValueError, match=message):
        kts(features, **options)
    with pytest.raises(ValueError, match=message):
        kts_from_kernel(features @ features.T, **options)
