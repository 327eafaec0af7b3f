"""What the user wishes of a summary is kept: spans in and out, margins, lengths of shots, always within the budget."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")

from hypothesis import given, settings
from hypothesis import strategies as st

from visp.eval import check_shots
from visp.video.choose import Choice, Wishes, choose, find_candidates
from visp.video.extract import VideoFeatures


def video(lengths: list[int], fps: float = 10, every: int = 5, seed: int = 0) -> VideoFeatures:
    """Scenes of these lengths in frames, each of its own direction."""
    rng = np.random.default_rng(seed)
    scenes = np.concatenate([np.full(length, number) for number, length in enumerate(lengths)])
    picks = np.arange(0, len(scenes), every)
    features = np.eye(len(lengths), dtype=np.float32)[scenes[picks]] + 0.01 * rng.random((len(picks), len(lengths)))
    return VideoFeatures(features.astype(np.float32), picks, np.arange(len(scenes) + 1) / fps, 0, {})


def chosen(of: VideoFeatures, longest: float, scores: Any = None, **wishes: Any) -> Choice:
    wish = Wishes(**wishes)
    given_scores = np.linspace(0.9, 0.1, len(of.picks)) if scores is None else scores
    return choose(of, np.asarray(given_scores, np.float32), find_candidates(of, longest, wish), longest, wish)


def spans(of: VideoFeatures, choice: Choice) -> list[list[float]]:
    rows = choice.shots[choice.selected]
    found: list[list[float]] = np.stack([of.frame_times[rows[:, 0]], of.frame_times[rows[:, 1] + 1]], axis=1).tolist()
    return found


SCENES = [50, 50, 50, 50]


def test_spans_to_keep_are_there_and_spans_to_drop_are_not() -> None:
    of = video(SCENES)
    choice = chosen(of, 10, keep=[(12, 13.5)], drop=[(0, 2)])
    found = spans(of, choice)
    assert [12, 13.5] in found
    assert min(start for start, _ in found) >= 2
    assert sum(end - start for start, end in found) <= 10
    assert choice.notes == ["A part of a shot too long for what was left of the budget was added."]


def test_spans_to_keep_may_exceed_the_budget_and_the_notes_say_so() -> None:
    of = video(SCENES)
    choice = chosen(of, 2, keep=[(5, 9)])
    assert spans(of, choice) == [[5, 9]]
    assert choice.notes == ["The spans to keep last 4.00 s, longer than the budget of 2.00 s."]


def test_margins_widen_shots_into_their_neighbours() -> None:
    of = video(SCENES)
    scores = np.where((of.picks >= 100) & (of.picks < 150), 0.9, 0.1)
    assert spans(of, chosen(of, 6, scores)) == [[10, 15]]
    assert spans(of, chosen(of, 6, scores, margin=0.4)) == [[9.6, 15.4]]
    assert spans(of, chosen(of, 6, scores, margin=0.4, drop=[(8, 9.8)])) == [[9.8, 15.4]]


def test_margins_that_meet_leave_no_frame_between() -> None:
    of = video([50, 4, 50, 100], every=1)
    scores = np.where(of.picks < 104, np.where((of.picks >= 50) & (of.picks < 54), 0.01, 0.9), 0.1)
    found = spans(of, chosen(of, 12, scores, margin=0.3))
    assert found[0][0] == 0
    assert found[0][1] == found[1][0]
    assert found[1][1] == pytest.approx(10.7)


def test_short_shots_join_the_neighbour_that_is_more_alike() -> None:
    of = video([50, 10, 50, 50], every=1)
    alike = of.features.copy()
    alike[50:60] = 0.6 * alike[50:60] + 0.4 * alike[100]
    of = VideoFeatures(alike, of.picks, of.frame_times, 0, {})
    assert find_candidates(of, 6, Wishes()).shots.tolist()[1] == [50, 59]
    assert find_candidates(of, 7, Wishes(min_shot=2)).shots.tolist()[1] == [50, 109]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(3, 60), min_size=1, max_size=6),
    st.sampled_from([0.0, 0.2, 0.5]),
    st.sampled_from([0.0, 0.5, 1.5]),
    st.floats(1.6, 12),
    st.lists(st.tuples(st.floats(0, 8), st.floats(0.3, 2)), max_size=2),
    st.integers(0, 5),
)
def test_every_summary_is_within_its_budget_and_as_wished(
    lengths: list[int], margin: float, min_shot: float, longest: float, dropped: list[tuple[float, float]], seed: int
) -> None:
    of = video(lengths, seed=seed)
    drop = [(start, start + length) for start, length in dropped if start < of.duration - 0.2]
    scores = np.random.default_rng(seed).random(len(of.picks))
    try:
        choice = chosen(of, longest, scores, margin=margin, min_shot=min_shot, drop=drop)
    except ValueError as error:
        assert "the whole video" in str(error)  # noqa: PT017
        return
    check_shots(choice.shots, of.n_frames)
    assert choice.shots[-1, 1] == of.n_frames - 1
    assert len(choice.shots) == len(choice.scores)
    found = spans(of, choice)
    seconds = np.minimum(np.diff(found).ravel(), choice.lengths).sum()
    assert 0 < seconds <= longest + 1e-6
    if not (margin or min_shot or drop):  # with these, what is left may be nothing to take from
        least = max(longest / 10, min(2, longest / 4)) + 0.1
        assert min(longest, of.duration) - seconds < least
    kept = np.concatenate([np.arange(a, b + 1) for a, b in choice.shots[choice.selected].tolist()])
    middles = (of.frame_times[kept] + of.frame_times[kept + 1]) / 2
    for start, end in drop:
        assert not ((middles > start + 0.05) & (middles < end - 0.05)).any()
    if not choice.notes:
        assert min(end - start for start, end in found) >= min(min_shot, of.duration) - 1e-6 or of.duration < min_shot


@pytest.mark.parametrize(
    ("wishes", "reason"),
    [
        ({"margin": -1}, "margin must be a number of seconds of at least 0, got -1"),
        ({"min_shot": float("nan")}, "min_shot must be"),
        ({"keep": [(3, 2)]}, "keep expects spans"),
        ({"drop": [(-1, 2)]}, "drop expects spans"),
        ({"keep": [(1, 3)], "drop": [(2, 4)]}, "1 to 3 s is to be kept, and 2 to 4 s to be dropped"),
        ({"margin": 2}, "leaves nothing of the budget"),
        ({"min_shot": 4}, "more than the budget"),
        ({"drop": [(0, float("inf"))]}, "the whole video"),
        ({"keep": [(30, 40)]}, "holds no frame"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(wishes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        chosen(video(SCENES), 3, **wishes)
