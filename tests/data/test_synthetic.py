from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from visp.data import VideoRecord, read_record, validate_h5, write_h5
from visp.data.synthetic import CORPORA, FRAMES_PER_PICK, make_corpus, write_corpus

SMALL: dict[str, Any] = {"num_videos": 6, "feature_dim": 16, "num_shots": 5, "num_users": 3, "seed": 7}
ARRAYS = ("features", "picks", "gtscore", "user_summary", "change_points", "n_frame_per_seg")


def array(record: VideoRecord, name: str) -> npt.NDArray[Any]:
    value = getattr(record, name)
    assert isinstance(value, np.ndarray)
    return value


def kept_shots(record: VideoRecord) -> npt.NDArray[np.bool_]:
    """(U, S) whether a user keeps a shot, which they keep whole or not at all."""
    summary = array(record, "user_summary")
    shots = [summary[:, first : last + 1] for first, last in array(record, "change_points")]
    for shot in shots:
        assert (shot == shot[:, :1]).all()
    return np.stack([shot[:, 0] == 1 for shot in shots], axis=1)


def scenes(record: VideoRecord) -> npt.NDArray[np.float64]:
    """(S, d) mean features of each shot."""
    return np.stack(
        [
            array(record, "features")[first // FRAMES_PER_PICK : last // FRAMES_PER_PICK + 1].mean(axis=0)
            for first, last in array(record, "change_points")
        ]
    )


def common_shots(records: list[VideoRecord], index: int) -> npt.NDArray[np.bool_]:
    """(S,) whether a shot shows a scene that another video shows too; for corpora without noise."""
    others = np.concatenate([scenes(record) for other, record in enumerate(records) if other != index])
    return np.asarray((np.abs(scenes(records[index])[:, None] - others[None]).max(axis=2) < 1e-5).any(axis=1))


def test_the_same_seed_makes_the_same_corpus() -> None:
    for first, second in zip(make_corpus(**SMALL), make_corpus(**SMALL), strict=True):
        for name in ARRAYS:
            np.testing.assert_array_equal(array(first, name), array(second, name))


def test_another_seed_makes_another_corpus() -> None:
    first, second = make_corpus(**SMALL)[0], make_corpus(**{**SMALL, "seed": 8})[0]
    assert first.features.shape != second.features.shape or not np.array_equal(first.features, second.features)


def test_sizes_are_as_asked() -> None:
    records = make_corpus(**SMALL, shot_length=(2, 3))
    assert [record.name for record in records] == [f"video_{number}" for number in range(1, 7)]
    for record in records:
        length = len(record.features)
        assert record.features.shape == (length, 16)
        assert record.features.dtype == np.float32
        assert record.n_steps == length
        assert record.n_frames == length * FRAMES_PER_PICK
        assert array(record, "user_summary").shape == (3, length * FRAMES_PER_PICK)
        assert array(record, "gtscore").shape == (length,)
        assert set(array(record, "n_frame_per_seg") // FRAMES_PER_PICK) <= {2, 3}
        assert len(array(record, "change_points")) == 5


def test_shots_cover_every_frame_once() -> None:
    for record in make_corpus(**SMALL):
        shots = array(record, "change_points")
        assert np.concatenate([np.arange(first, last + 1) for first, last in shots]).tolist() == list(
            range(record.n_frames or 0)
        )
        assert (shots[:, 1] - shots[:, 0] + 1).tolist() == array(record, "n_frame_per_seg").tolist()


def test_picks_are_every_15th_frame() -> None:
    record = make_corpus(**SMALL)[0]
    assert array(record, "picks").tolist() == list(range(0, record.n_frames or 0, FRAMES_PER_PICK))


def test_users_keep_particular_shots_only() -> None:
    records = make_corpus(12, num_fillers=3, noise=0.0, seed=1)
    for index, record in enumerate(records):
        assert not (kept_shots(record) & common_shots(records, index)).any()


def test_particular_shots_have_the_share_asked_for() -> None:
    records = make_corpus(30, num_shots=10, particular_share=0.3, num_fillers=2, noise=0.0)
    assert [int((~common_shots(records, index)).sum()) for index in range(30)] == [3] * 30


@pytest.mark.parametrize(("taste", "expected"), [(1.0, 4), (0.5, 2), (0.01, 1)])
def test_each_user_keeps_the_share_of_their_taste(taste: float, expected: int) -> None:
    for record in make_corpus(4, num_shots=10, particular_share=0.4, taste=taste):
        assert kept_shots(record).sum(axis=1).tolist() == [expected] * 5


def test_users_have_different_tastes() -> None:
    assert any(len(np.unique(kept_shots(record), axis=0)) > 1 for record in make_corpus(4))


def test_gtscore_is_the_share_of_users_who_keep_a_frame() -> None:
    for record in make_corpus(**SMALL):
        chosen = array(record, "user_summary")[:, array(record, "picks")]
        np.testing.assert_allclose(array(record, "gtscore"), chosen.mean(axis=0), atol=1e-6)


def test_noise_has_the_length_asked_for() -> None:
    options: dict[str, Any] = {**SMALL, "feature_dim": 256}
    noisy, clean = make_corpus(**options, noise=0.5)[0], make_corpus(**options, noise=0.0)[0]
    shots = array(noisy, "n_frame_per_seg") // FRAMES_PER_PICK
    assert np.linalg.norm(clean.features, axis=1) == pytest.approx(1.0, abs=1e-5)
    spread = noisy.features - np.repeat(scenes(noisy), shots, axis=0)
    degrees = np.repeat(1 - 1 / shots, shots)  # a shot's mean takes some of its noise
    assert np.mean((spread**2).sum(axis=1) / degrees) == pytest.approx(0.25, rel=0.1)


def test_the_corpus_is_a_valid_file_that_reads_back(tmp_path: Path) -> None:
    records = make_corpus(**SMALL)
    write_h5(tmp_path / "corpus.h5", records)
    contents = validate_h5(tmp_path / "corpus.h5")
    assert contents.keys == tuple(record.name for record in records)
    for record in records:
        back = read_record(tmp_path / "corpus.h5", record.name)
        assert (back.n_frames, back.n_steps) == (record.n_frames, record.n_steps)
        assert back.provenance == record.provenance
        for name in ARRAYS:
            np.testing.assert_array_equal(array(back, name), array(record, name))


def test_write_corpus_writes_what_make_corpus_makes(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.h5", **SMALL)
    features = read_record(tmp_path / "corpus.h5", "video_2").features
    np.testing.assert_array_equal(features, make_corpus(**SMALL)[1].features)


def test_write_corpus_replaces_a_file_only_when_told(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.h5", **SMALL)
    with pytest.raises(FileExistsError):
        write_corpus(tmp_path / "corpus.h5", **SMALL)
    write_corpus(tmp_path / "corpus.h5", overwrite=True, **{**SMALL, "num_videos": 2})
    assert len(validate_h5(tmp_path / "corpus.h5").keys) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_videos": 0}, "num_videos must be at least 1, got 0"),
        ({"feature_dim": 0}, "feature_dim must be at least 1"),
        ({"num_fillers": 0}, "num_fillers must be at least 1"),
        ({"num_users": 0}, "num_users must be at least 1"),
        ({"shot_length": (0, 3)}, "shot_length must be at least 1"),
        ({"shot_length": (4, 3)}, r"shot_length must be \(shortest, longest\), got \(4, 3\)"),
        ({"num_shots": 1}, "num_shots >= 2.*got num_shots=1"),
        ({"particular_share": 0.0}, r"particular_share in \(0, 1\).*particular_share=0\.0"),
        ({"particular_share": 1.0}, r"particular_share=1\.0"),
        ({"taste": 0.0}, r"taste in \(0, 1\].*taste=0\.0"),
        ({"noise": -0.1}, "noise >= 0.*noise=-0.1"),
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_corpus(**options)


def nearest_elsewhere(record: VideoRecord) -> npt.NDArray[np.float64]:
    """(S,) distance of each shot's scene to the nearest other shot of the video."""
    found = scenes(record)
    distances = np.linalg.norm(found[:, None] - found[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    return np.asarray(distances.min(axis=1))


@pytest.mark.parametrize("name", ["own fillers", "identified frames"])
def test_own_fillers_return_within_their_video_and_moments_do_not(name: str) -> None:
    records = make_corpus(6, **CORPORA[name], noise=0.0, taste=1.0)
    for record in records:
        moments = kept_shots(record).any(axis=0)
        assert moments.sum() == 5
        assert nearest_elsewhere(record)[moments].min() > 0.5
        assert (nearest_elsewhere(record)[~moments] < 1e-5).mean() > 0.6  # a filler may happen to occur once


def test_own_fillers_are_no_other_videos() -> None:
    records = make_corpus(6, **CORPORA["own fillers"], noise=0.0)
    assert not any(common_shots(records, index).any() for index in range(6))


def test_mixed_fillers_are_partly_shared() -> None:
    records = make_corpus(12, **CORPORA["mixed fillers"], noise=0.0)
    shares = [common_shots(records, index).mean() for index in range(12)]
    assert 0.15 < np.mean(shares) < 0.5


def test_moments_are_as_brief_as_asked() -> None:
    for record in make_corpus(4, **CORPORA["own fillers"], taste=1.0):
        lengths = array(record, "n_frame_per_seg") // FRAMES_PER_PICK
        moments = kept_shots(record).any(axis=0)
        assert set(lengths[moments]) <= {2, 3, 4}
        assert set(lengths[~moments]) <= {5, 6, 7, 8, 9}


def test_an_identity_tells_every_frame_of_a_video_from_those_of_others() -> None:
    records = make_corpus(8, **CORPORA["identified frames"])
    means = np.stack([record.features.mean(axis=0) for record in records])
    for index, record in enumerate(records):
        assert ((record.features @ means.T).argmax(axis=1) == index).all()


@pytest.mark.parametrize(
    "wrong", [{"fillers": "none"}, {"moment_length": (3, 2)}, {"moment_length": (0, 2)}, {"identity": -1.0}]
)
def test_an_option_out_of_range_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make_corpus(**SMALL, **wrong)
