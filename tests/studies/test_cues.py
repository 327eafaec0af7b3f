from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from visp.eval.agreement import agreement, spread_within_video
from visp.studies import cues
from visp.studies.cues import frame_change, nearest_other

Floats = npt.NDArray[np.floating]


def video(length: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((length, 3))


def distance(one: Floats, other: Floats) -> float:
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(one.tolist(), other.tolist(), strict=True)))


@given(st.integers(1, 30), st.integers(0, 9))
def test_the_nearest_other_frame_equals_a_slow_search(length: int, apart: int) -> None:
    frames = video(length)
    expected = [
        min((distance(frames[t], frames[s]) for s in range(length) if abs(s - t) > apart), default=math.nan)
        for t in range(length)
    ]
    np.testing.assert_allclose(nearest_other(frames, apart), expected, atol=1e-7)


def test_long_videos_are_searched_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = nearest_other(video(50))
    monkeypatch.setattr(cues, "_ROWS", 7)
    np.testing.assert_allclose(nearest_other(video(50)), whole)


@given(st.integers(1, 20), st.sampled_from([1, 3, 5]))
def test_the_change_around_a_frame_equals_a_slow_loop(length: int, smoothing: int) -> None:
    frames = video(length)
    at_frame = []
    for t in range(length):
        near = [distance(frames[t], frames[s]) for s in (t - 1, t + 1) if 0 <= s < length]
        at_frame.append(sum(near) / len(near) if near else math.nan)
    half = smoothing // 2
    expected = [np.mean(at_frame[max(0, t - half) : t + half + 1]) for t in range(length)]
    np.testing.assert_allclose(frame_change(frames, smoothing), expected)


def test_distances_from_the_means_weight_every_frame_equally() -> None:
    videos = [video(4), video(9, seed=1) + 2]
    found = cues.cues(videos)
    frames = np.concatenate(videos)
    corpus, own = found["distance from the corpus mean"], found["distance from the video's own mean"]
    for index, one in enumerate(videos):
        np.testing.assert_allclose(corpus[index], [distance(frame, frames.mean(axis=0)) for frame in one])
        np.testing.assert_allclose(own[index], [distance(frame, one.mean(axis=0)) for frame in one])
    assert found["position in the video"][1].tolist() == list(range(9))


def test_agreement_is_kendalls_tau_over_the_frames_that_both_know() -> None:
    first, second = [video(12)[:, 0], video(7)[:, 0]], [video(12)[:, 1], video(7)[:, 1]]
    second[0][3] = np.nan
    known = [index for index in range(12) if index != 3]
    expected = [
        stats.kendalltau(first[0][known], second[0][known]).statistic,
        stats.kendalltau(first[1], second[1]).statistic,
    ]
    assert agreement(first, second) == pytest.approx(np.mean(expected))
    assert agreement(first, first) == pytest.approx(1)
    assert math.isnan(agreement([np.ones(4)], [np.arange(4.0)]))


def test_the_spread_is_within_videos_not_between_them() -> None:
    assert spread_within_video([np.full(5, -3.0), np.full(4, 8.0)]) == 0
    assert spread_within_video([np.array([0.0, 2.0]), np.array([5.0, 5.0])]) == pytest.approx(0.5)
