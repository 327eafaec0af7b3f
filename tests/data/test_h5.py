from __future__ import annotations

import dataclasses
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from visp import _version
from visp.data import H5SchemaError, VideoRecord, read_record, validate_h5, write_h5

T, D, N_FRAMES = 6, 4, 60


def full_record(name: str = "video_1", **changes: Any) -> VideoRecord:
    rng = np.random.default_rng(0)
    record = VideoRecord(
        name=name,
        features=rng.normal(size=(T, D)).astype(np.float32),
        picks=np.arange(T) * 10,
        n_frames=N_FRAMES,
        gtscore=rng.uniform(size=T).astype(np.float32),
        user_summary=rng.integers(0, 2, size=(3, N_FRAMES)).astype(np.float32),
        change_points=np.array([[0, 19], [20, 34], [35, 57]]),
        n_frame_per_seg=np.array([20, 15, 23]),
        n_steps=T,
        gtsummary=rng.integers(0, 2, size=T).astype(np.float32),
        video_name="Fête au château",
        provenance={"extractor": "resnet", "source": "a.mp4"},
    )
    return dataclasses.replace(record, **changes)


def plain_record(name: str = "video_1", length: int = T, dim: int = D) -> VideoRecord:
    return VideoRecord(name=name, features=np.ones((length, dim), dtype=np.float32))


def replace_dataset(path: Path, key: str, value: Any) -> None:
    with h5py.File(path, "a") as file:
        if key in file:
            del file[key]
        file[key] = value


def schema_message(path: Path) -> str:
    with pytest.raises(H5SchemaError) as caught:
        validate_h5(path)
    return str(caught.value)


def folder_contents(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.h5"
    write_h5(path, [full_record()])
    return path


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(VideoRecord)])
def test_a_field_reads_back_as_written(corpus: Path, name: str) -> None:
    expected, got = getattr(full_record(), name), getattr(read_record(corpus, "video_1"), name)
    assert type(got) is type(expected)
    np.testing.assert_array_equal(got, expected)


def test_absent_fields_read_back_as_absent(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5", [plain_record()])
    record = read_record(tmp_path / "a.h5", "video_1")
    for field in dataclasses.fields(VideoRecord):
        if field.name not in ("name", "features", "provenance", "side"):
            assert getattr(record, field.name) is None


def test_float16_features_stay_float16_in_the_file(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5", [full_record(features=np.ones((T, D), dtype=np.float16))])
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["video_1/features"].dtype == np.float16


def test_float16_features_are_read_as_float32(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5", [full_record(features=np.ones((T, D), dtype=np.float16))])
    assert read_record(tmp_path / "a.h5", "video_1").features.dtype == np.float32


def test_a_video_name_stored_as_fixed_bytes_is_decoded(corpus: Path) -> None:
    replace_dataset(corpus, "video_1/video_name", np.bytes_(b"Base jumping"))
    assert read_record(corpus, "video_1").video_name == "Base jumping"


def test_whole_numbers_stored_as_floats_are_read_as_integers(corpus: Path) -> None:
    replace_dataset(corpus, "video_1/picks", np.arange(T) * 10.0)
    picks = read_record(corpus, "video_1").picks
    assert picks is not None
    assert picks.dtype == np.int64


def test_unsigned_change_points_are_read_signed(corpus: Path) -> None:
    replace_dataset(corpus, "video_1/change_points", np.array([[0, 19], [20, 59]], dtype=np.uint32))
    shots = read_record(corpus, "video_1").change_points
    assert shots is not None
    assert shots.dtype == np.int64


def test_reading_an_unknown_key_says_which_exist(corpus: Path) -> None:
    with pytest.raises(KeyError, match=r"no 'video_9'; there is video_1"):
        read_record(corpus, "video_9")


def test_reading_a_malformed_value_names_file_group_and_key(corpus: Path) -> None:
    replace_dataset(corpus, "video_1/n_frames", np.array([1, 2]))
    with pytest.raises(H5SchemaError, match=r"corpus\.h5: video_1/n_frames: expected one whole number"):
        read_record(corpus, "video_1")


def test_reading_a_group_without_features_names_it(corpus: Path) -> None:
    with h5py.File(corpus, "a") as file:
        del file["video_1/features"]
    with pytest.raises(H5SchemaError, match=r"corpus\.h5: video_1: no 'features'"):
        read_record(corpus, "video_1")


def test_provenance_is_kept_beside_the_version(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5", [plain_record()], provenance={"extractor": "googlenet"})
    expected = {"extractor": "googlenet", "visp_version": _version.__version__}
    assert validate_h5(tmp_path / "a.h5").provenance == expected


def test_records_are_taken_one_at_a_time(tmp_path: Path) -> None:
    alive: list[weakref.ref[VideoRecord]] = []
    held: list[int] = []

    def records() -> Iterator[VideoRecord]:
        for i in range(4):
            held.append(sum(reference() is not None for reference in alive))
            record = plain_record(f"video_{i}")
            alive.append(weakref.ref(record))
            yield record
            del record

    write_h5(tmp_path / "a.h5", records())
    assert max(held) <= 1


def test_an_existing_file_is_not_overwritten_unasked(corpus: Path) -> None:
    with pytest.raises(FileExistsError, match=r"corpus\.h5"):
        write_h5(corpus, [plain_record("video_2")])


def test_an_existing_file_is_overwritten_when_asked(corpus: Path) -> None:
    write_h5(corpus, [plain_record("video_2")], overwrite=True)
    assert validate_h5(corpus).keys == ("video_2",)


def failing_records() -> Iterator[VideoRecord]:
    yield plain_record("video_2")
    raise RuntimeError("the video cannot be decoded")


def test_a_failure_midway_leaves_an_existing_file_as_it_was(corpus: Path) -> None:
    before = corpus.read_bytes()
    with pytest.raises(RuntimeError, match="decoded"):
        write_h5(corpus, failing_records(), overwrite=True)
    assert corpus.read_bytes() == before


def test_a_failure_midway_leaves_no_file_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="decoded"):
        write_h5(tmp_path / "a.h5", failing_records())
    assert folder_contents(tmp_path) == []


def test_writing_leaves_only_the_file_itself(corpus: Path) -> None:
    assert folder_contents(corpus.parent) == ["corpus.h5"]


def test_writing_into_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        write_h5(tmp_path / "nowhere" / "a.h5", [plain_record()])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no records"),
        (["video_1", "video_1"], "two records are named 'video_1'"),
        (["a/b"], "cannot name a group"),
        ([""], "cannot name a group"),
    ],
)
def test_names_that_make_no_corpus_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_h5(tmp_path / "a.h5", [plain_record(name) for name in names])


def test_a_full_record_is_valid(corpus: Path) -> None:
    contents = validate_h5(corpus)
    assert (contents.path, contents.lengths, contents.feature_dim) == (corpus, {"video_1": T}, D)


def test_the_numbers_of_frames_are_told_where_the_file_has_them(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5", [full_record("video_1"), plain_record("video_2")])
    assert validate_h5(tmp_path / "a.h5").n_frames == {"video_1": N_FRAMES}


def test_keys_are_in_natural_order(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5", [plain_record(f"video_{i}") for i in (10, 2, 1)])
    assert validate_h5(tmp_path / "a.h5").keys == ("video_1", "video_2", "video_10")


PROBLEMS: list[tuple[str, Any, str]] = [
    ("features", np.ones(3), "expected (T, d) floats, got shape (3,)"),
    ("features", np.ones((T, D), dtype=np.int32), "expected (T, d) floats, got int32"),
    ("features", np.ones((0, D)), "an empty video"),
    ("features", np.ones((T, 0)), "the feature dimension is 0"),
    ("n_frames", np.array([60, 60]), "expected one whole number, got shape (2,)"),
    ("n_frames", 60.5, "expected whole numbers, got float64 with fractions or non-finite values"),
    ("n_frames", "60", "expected whole numbers, got object"),
    ("n_frames", 0, "expected at least 1, got 0"),
    ("n_steps", 5, "5, but features has 6 rows"),
    ("picks", np.arange(5), "expected (6,), one per row of features, got shape (5,)"),
    ("picks", np.array([0, 1, 2, 2, 1, 5]), "not strictly increasing at row 3 (and 1 more)"),
    ("picks", np.arange(T) - 1, "negative frames"),
    ("picks", np.arange(T) + 55, "up to frame 60, but the video has 60 frames"),
    ("picks", np.arange(T) + 0.5, "expected whole numbers, got float64 with fractions or non-finite values"),
    ("gtscore", np.ones((T, 1)), "expected (6,), one per row of features, got shape (6, 1)"),
    ("gtscore", np.array([0, np.nan, 0, 0, 0, 0]), "1 value is not finite (first at row 1)"),
    ("gtscore", np.array([b"a"] * T), "expected numbers, got |S1"),
    ("gtsummary", np.ones(7), "expected (6,), one per row of features, got shape (7,)"),
    ("user_summary", np.ones(60), "expected (U, 60), got shape (60,)"),
    ("user_summary", np.ones((3, 59)), "expected (U, 60), got shape (3, 59)"),
    ("change_points", np.ones((2, 3)), "expected (S, 2) whole numbers with S at least 1, got shape (2, 3)"),
    ("change_points", [[0, 19], [20, 15], [16, 57]], "shot 1 ends before it starts"),
    ("change_points", [[0, 19], [18, 34], [35, 57]], "shot 1 starts before the one before it has ended"),
    (
        "change_points",
        [[0, 19], [22, 34], [36, 57]],
        "shot 1 (and 1 more) leaves a gap after the one before it",
    ),
    ("change_points", [[-1, 19], [20, 34], [35, 57]], "negative frames"),
    ("change_points", [[0, 19], [20, 34], [35, 60]], "up to frame 60, but the video has 60 frames"),
    ("n_frame_per_seg", np.array([20, 15]), "expected (3,), got shape (2,)"),
    ("n_frame_per_seg", np.array([20, 16, 22]), "disagrees with change_points at shot 1 (and 1 more)"),
    ("video_name", 7, "expected one text, got int64 of shape ()"),
]


@pytest.mark.parametrize(("key", "value", "problem"), PROBLEMS)
def test_a_problem_is_told_by_group_and_key(corpus: Path, key: str, value: Any, problem: str) -> None:
    replace_dataset(corpus, f"video_1/{key}", value)
    assert f"\n  video_1/{key}: {problem}" in schema_message(corpus)


def test_one_problem_makes_a_message_of_one_problem(corpus: Path) -> None:
    replace_dataset(corpus, "video_1/n_steps", 5)
    assert schema_message(corpus) == f"{corpus}: 1 problem\n  video_1/n_steps: 5, but features has 6 rows"


@pytest.mark.parametrize("key", ["picks", "change_points", "n_frame_per_seg", "n_frames", "n_steps"])
def test_whole_numbers_stored_as_floats_are_valid(corpus: Path, key: str) -> None:
    replace_dataset(corpus, f"video_1/{key}", np.asarray(getattr(full_record(), key), dtype=np.float64))
    assert validate_h5(corpus).keys == ("video_1",)


def test_a_file_with_many_problems_lists_them_all(tmp_path: Path) -> None:
    path = tmp_path / "corpus.h5"
    write_h5(path, [plain_record(f"video_{i}", length=8) for i in (2, 7, 9, 10)])
    features = np.ones((8, D), dtype=np.float32)
    features[4:7] = np.nan
    replace_dataset(path, "video_2/features", np.ones(3))
    replace_dataset(path, "video_9/features", features)
    with h5py.File(path, "a") as file:
        del file["video_7/features"]
    assert schema_message(path) == (
        f"{path}: 3 problems\n"
        "  video_2/features: expected (T, d) floats, got shape (3,)\n"
        "  video_7: no 'features'\n"
        "  video_9/features: 12 values are not finite (first at row 4)"
    )


def test_non_finite_values_are_counted_over_all_chunks_of_rows(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visp.data.schema._VALUES_AT_ONCE", 2 * D)
    features = np.ones((T, D), dtype=np.float32)
    features[3, 1] = np.inf
    features[5, 0] = np.nan
    replace_dataset(corpus, "video_1/features", features)
    assert "2 values are not finite (first at row 3)" in schema_message(corpus)


def test_the_video_whose_dimension_disagrees_is_named(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5", [plain_record("video_1", dim=5), plain_record("video_2"), plain_record("video_3")])
    assert "\n  video_1/features: d = 5, but video_2 has d = 4" in schema_message(tmp_path / "a.h5")


def test_a_group_in_place_of_an_array_is_told(corpus: Path) -> None:
    with h5py.File(corpus, "a") as file:
        del file["video_1/picks"]
        file.create_group("video_1/picks")
    assert "video_1/picks: expected an array, got group" in schema_message(corpus)


def test_a_damaged_array_is_told_beside_the_other_problems(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("video_1/features", data=np.ones((T, D)), chunks=(T, D), compression="gzip")
        file["video_1/n_steps"] = 5
        chunk = file["video_1/features"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    path.write_bytes(content)
    message = schema_message(path)
    assert "video_1/features: cannot be read" in message
    assert "video_1/n_steps: 5, but" in message


def test_a_file_without_groups_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["mean"] = np.ones(3)
    assert "no groups" in schema_message(tmp_path / "a.h5")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.h5: no such file"):
        validate_h5(tmp_path / "nowhere.h5")


def test_a_truncated_file_is_named(corpus: Path) -> None:
    content = corpus.read_bytes()
    corpus.write_bytes(content[: len(content) // 2])
    assert schema_message(corpus).startswith(f"{corpus}: not a readable HDF5 file (truncated?): ")


def test_a_text_file_is_not_taken_for_h5(tmp_path: Path) -> None:
    path = tmp_path / "notes.h5"
    path.write_text("video_1, video_2\n")
    assert schema_message(path).startswith(f"{path}: not a readable HDF5 file (truncated?): ")


@pytest.fixture(scope="module")
def summe() -> Path:
    folder = os.environ.get("VISP_TEST_DATA")
    if folder is None:
        pytest.skip("VISP_TEST_DATA is not set")
    return Path(folder) / "summe14_dino_vitb16.h5"


def test_the_real_summe_file_is_valid(summe: Path) -> None:
    contents = validate_h5(summe)
    assert (len(contents.keys), contents.feature_dim, sum(contents.lengths.values())) == (14, 768, 6076)


def test_a_real_video_reads_with_its_name_and_shots(summe: Path) -> None:
    record = read_record(summe, "video_2")
    assert (record.video_name, record.n_frames, record.n_steps) == ("Base jumping", 4729, 676)
    assert record.change_points is not None
    assert record.change_points.shape == (32, 2)
    assert record.gtscore is None
    np.testing.assert_allclose(np.linalg.norm(record.features, axis=1), 1, atol=2e-3)
