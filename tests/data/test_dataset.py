from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from visp.data import (
    H5SchemaError,
    InMemoryDataset,
    VideoDataset,
    VideoRecord,
    VideoSource,
    collate_videos,
    read_record,
    write_h5,
)
from visp.data.dataset import OPEN_FILES

D = 4
LENGTHS = {"video_1": 7, "video_2": 5, "video_10": 9}


def make_record(name: str, length: int, dim: int = D) -> VideoRecord:
    rng = np.random.default_rng(length)
    return VideoRecord(
        name=name,
        features=rng.normal(size=(length, dim)).astype(np.float16),
        picks=np.arange(length) * 15,
        n_frames=length * 15,
        gtscore=rng.uniform(size=length).astype(np.float32),
        gtsummary=rng.integers(0, 2, size=length),
        user_summary=np.ones((2, length * 15), dtype=np.float32),
        n_steps=length,
    )


RECORDS = [make_record(name, length) for name, length in LENGTHS.items()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_h5(tmp_path / "corpus.h5", RECORDS)
    return tmp_path / "corpus.h5"


def test_videos_come_in_natural_order_with_their_lengths(path: Path) -> None:
    dataset = VideoDataset(path)
    assert (dataset.names, dataset.lengths) == (tuple(LENGTHS), tuple(LENGTHS.values()))


def test_an_item_is_the_features_of_the_video(path: Path) -> None:
    torch.testing.assert_close(VideoDataset(path)[2], torch.from_numpy(RECORDS[2].features).float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_items_have_the_dtype_asked_for(path: Path, dtype: torch.dtype) -> None:
    assert VideoDataset(path, dtype=dtype)[0].dtype == dtype


def test_features_of_another_byte_order_are_read(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["video_1/features"]
        file["video_1/features"] = np.full((7, D), 2, dtype=">f4")
    assert VideoDataset(path)[0].sum() == 2 * 7 * D


def test_stride_takes_every_so_many_rows(path: Path) -> None:
    dataset = VideoDataset(path, stride=3)
    assert [len(dataset[i]) for i in range(3)] == list(dataset.lengths) == [3, 2, 3]
    torch.testing.assert_close(dataset[0], torch.from_numpy(RECORDS[0].features[::3]).float())


def test_a_record_is_whole(path: Path) -> None:
    record, expected = VideoDataset(path).record(1), read_record(path, "video_2")
    assert (record.name, record.n_frames, record.n_steps) == ("video_2", 75, 5)
    np.testing.assert_array_equal(record.features, expected.features)


@pytest.mark.parametrize("source", ["h5", "memory"])
def test_a_strided_record_agrees_with_itself(path: Path, source: str) -> None:
    dataset: VideoSource = VideoDataset(path, stride=3) if source == "h5" else InMemoryDataset(RECORDS, stride=3)
    record = dataset.record(0)
    assert record.picks is not None
    assert record.gtscore is not None
    assert record.gtsummary is not None
    assert record.user_summary is not None
    assert record.picks.tolist() == [0, 45, 90]
    assert len(record.features) == len(record.gtscore) == len(record.gtsummary) == record.n_steps == 3
    assert record.user_summary.shape == (2, record.n_frames)


@pytest.mark.parametrize("stride", [0, -1])
def test_a_stride_below_one_is_refused(path: Path, stride: int) -> None:
    with pytest.raises(ValueError, match="stride must be at least 1"):
        VideoDataset(path, stride=stride)


def test_a_negative_index_counts_from_the_end(path: Path) -> None:
    assert len(VideoDataset(path)[-1]) == LENGTHS["video_10"]


@pytest.mark.parametrize("index", [3, -4])
def test_an_index_out_of_range_is_refused(path: Path, index: int) -> None:
    with pytest.raises(IndexError, match="of 3"):
        VideoDataset(path)[index]


def test_keys_select_videos_in_their_order(path: Path) -> None:
    dataset = VideoDataset(path, keys=["video_10", "video_1"])
    assert [len(video) for video in (dataset[0], dataset[1])] == [9, 7]
    assert dataset.names == ("video_10", "video_1")


def test_an_unknown_key_says_which_exist(path: Path) -> None:
    with pytest.raises(KeyError, match=r"no video is named 'video_3'; there is video_1, video_2, video_10"):
        VideoDataset(path, keys=["video_1", "video_3"])


def test_a_key_given_twice_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="keys given twice: video_1"):
        VideoDataset(path, keys=["video_1", "video_1"])


def test_videos_of_several_files_are_named_by_file_and_key(tmp_path: Path) -> None:
    write_h5(tmp_path / "summe.h5", RECORDS[:1])
    write_h5(tmp_path / "tvsum.h5", RECORDS[:2])
    dataset = VideoDataset([tmp_path / "summe.h5", tmp_path / "tvsum.h5"])
    assert dataset.names == ("summe/video_1", "tvsum/video_1", "tvsum/video_2")


def test_names_stay_unique_where_files_have_one_stem(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_h5(tmp_path / folder / "features.h5", RECORDS[:1])
    dataset = VideoDataset([tmp_path / "a/features.h5", tmp_path / "b/features.h5"])
    assert len(set(dataset.names)) == len(dataset) == 2


def test_a_file_given_twice_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="files given twice"):
        VideoDataset([path, path])


def test_no_file_is_refused() -> None:
    with pytest.raises(ValueError, match="no h5 file"):
        VideoDataset([])


def test_the_problems_of_all_files_come_in_one_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_group(f"video_{name}")
    with pytest.raises(H5SchemaError) as caught:
        VideoDataset([tmp_path / "a.h5", tmp_path / "b.h5"])
    assert "video_a: no 'features'" in str(caught.value)
    assert "video_b: no 'features'" in str(caught.value)


def test_feature_dimensions_that_disagree_name_files_and_dimensions(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5", [make_record("video_1", 5, dim=3)])
    write_h5(tmp_path / "b.h5", [make_record("video_1", 5, dim=4)])
    with pytest.raises(H5SchemaError, match=r"a\.h5 has d = 3, .*b\.h5 has d = 4"):
        VideoDataset([tmp_path / "a.h5", tmp_path / "b.h5"])


def test_files_made_differently_warn_of_the_attribute_and_its_values(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5", RECORDS, provenance={"extractor": "googlenet", "rate": "2"})
    write_h5(tmp_path / "b.h5", RECORDS, provenance={"extractor": "resnet", "rate": "2"})
    with pytest.warns(UserWarning, match="extractor: 'googlenet' in .*a.h5, 'resnet' in .*b.h5") as caught:
        VideoDataset([tmp_path / "a.h5", tmp_path / "b.h5"])
    assert "rate" not in str(caught[0].message)


def test_a_file_without_provenance_does_not_warn(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5", RECORDS, provenance={"extractor": "googlenet"})
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["video_1/features"] = np.ones((3, D), dtype=np.float32)
    assert len(VideoDataset([tmp_path / "a.h5", tmp_path / "b.h5"])) == 4


def test_no_file_is_open_before_the_first_read(path: Path) -> None:
    dataset = VideoDataset(path)
    with h5py.File(path, "a"):
        pass
    assert len(dataset[0]) == 7


def test_a_closed_dataset_opens_again_on_the_next_read(path: Path) -> None:
    with VideoDataset(path) as dataset:
        before = dataset[0]
    with h5py.File(path, "a"):
        pass
    torch.testing.assert_close(dataset[0], before)


def test_a_dataset_with_open_files_can_be_pickled(path: Path) -> None:
    dataset = VideoDataset(path)
    before = dataset[0]
    torch.testing.assert_close(pickle.loads(pickle.dumps(dataset))[0], before)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_what_the_parent_reads(path: Path, start: str) -> None:
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this platform has no {start}")
    dataset = VideoDataset(path)
    expected = [dataset[i] for i in range(3)]
    loader = DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=collate_videos, multiprocessing_context=start)
    got = [video for batch in loader for video in batch]
    torch.testing.assert_close(got, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_opens_its_own_file(path: Path) -> None:
    dataset = VideoDataset(path)
    expected = dataset[1]
    child = os.fork()
    if child == 0:
        ok = torch.equal(dataset[1], expected) and list(dataset._handles) == [os.getpid()]
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    torch.testing.assert_close(dataset[1], expected)


def test_a_file_that_vanished_is_named_with_the_video(path: Path) -> None:
    dataset = VideoDataset(path)
    path.unlink()
    with pytest.raises(OSError, match=r"corpus\.h5: video_2 cannot be read"):
        dataset[1]


@pytest.mark.parametrize("deleted", ["video_2", "video_2/features"])
@pytest.mark.parametrize("read", [VideoDataset.__getitem__, VideoDataset.record])
def test_a_video_that_vanished_is_named_with_the_file(path: Path, deleted: str, read: object) -> None:
    dataset = VideoDataset(path)
    with h5py.File(path, "a") as file:
        del file[deleted]
    assert callable(read)
    with pytest.raises(H5SchemaError, match=r"corpus\.h5: .*video_2"):
        read(dataset, 1)


def test_memory_and_file_give_the_same_videos(path: Path) -> None:
    stored, held = VideoDataset(path, stride=2), InMemoryDataset(RECORDS, stride=2)
    assert (held.names, held.lengths, held.feature_dim) == (stored.names, stored.lengths, stored.feature_dim)
    torch.testing.assert_close([held[i] for i in range(3)], [stored[i] for i in range(3)])


def test_changing_an_item_leaves_the_record_in_memory_alone() -> None:
    record = VideoRecord(name="video_1", features=np.ones((3, D), dtype=np.float32))
    InMemoryDataset([record])[0].zero_()
    assert record.features.all()


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "no record"),
        ([RECORDS[0], RECORDS[0]], "records given twice: video_1"),
        ([RECORDS[0], make_record("video_3", 5, dim=6)], "video_1 has d = 4, video_3 has d = 6"),
        ([VideoRecord(name="video_1", features=np.ones((0, D)))], r"features \(T, d\), got shape \(0, 4\)"),
        ([VideoRecord(name="video_1", features=np.ones(D))], r"features \(T, d\), got shape \(4,\)"),
    ],
)
def test_records_that_make_no_dataset_are_refused(records: list[VideoRecord], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InMemoryDataset(records)


def test_both_datasets_are_video_sources(path: Path) -> None:
    assert isinstance(VideoDataset(path), VideoSource)
    assert isinstance(InMemoryDataset(RECORDS), VideoSource)


def test_the_real_summe_file_loads() -> None:
    folder = os.environ.get("VISP_TEST_DATA")
    if folder is None:
        pytest.skip("VISP_TEST_DATA is not set")
    dataset = VideoDataset(Path(folder) / "summe14_dino_vitb16.h5")
    assert (len(dataset), dataset.feature_dim, sum(dataset.lengths)) == (14, 768, 6076)
    assert dataset[0].shape == (676, 768)


# --- large corpora ------------------------------------------------------------------------------------------


def bare(path: Path, **videos: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, features in videos.items():
            file.create_group(name)["features"] = features
    return path


def test_shapes_alone_give_the_same_videos(path: Path) -> None:
    full, shapes = VideoDataset(path), VideoDataset(path, validate="shapes")
    assert (shapes.names, shapes.lengths, shapes.feature_dim) == (full.names, full.lengths, full.feature_dim)
    torch.testing.assert_close([shapes[i] for i in range(3)], [full[i] for i in range(3)])


@pytest.mark.parametrize(
    ("videos", "problem"),
    [
        ({"a": np.ones((2, 3, 4, 5), np.float32)}, r"a/features: expected \(T, d\) floats, got float32 \(2, 3, 4, 5\)"),
        ({"a": np.ones((0, 3), np.float32)}, r"a/features: expected \(T, d\) floats, got float32 \(0, 3\)"),
        ({"a": np.ones((2, 3), np.int64)}, r"a/features: expected \(T, d\) floats, got int64"),
        ({"a": np.ones((2, 3), "f4"), "b": np.ones((2, 4), "f4")}, "a/features has d = 3, but b/features has d = 4"),
        ({}, "no groups"),
    ],
)
def test_shapes_that_do_not_fit_are_told(tmp_path: Path, videos: dict[str, np.ndarray], problem: str) -> None:
    with pytest.raises(H5SchemaError, match=rf"corpus\.h5: 1 problem\n  {problem}"):
        VideoDataset(bare(tmp_path / "corpus.h5", **videos), validate="shapes")


def test_a_group_without_features_is_told(tmp_path: Path) -> None:
    with h5py.File(bare(tmp_path / "corpus.h5", a=np.ones((2, 3), "f4")), "a") as file:
        file.create_group("b")
        file["not_a_video"] = 3
    with pytest.raises(H5SchemaError, match=r"1 problem\n  b: no 'features' that can be read$"):
        VideoDataset(tmp_path / "corpus.h5", validate="shapes")


def test_values_that_are_not_finite_are_told_when_read(tmp_path: Path) -> None:
    features = np.ones((3, D), np.float16)
    features[1, 2] = np.nan
    dataset = VideoDataset(
        bare(tmp_path / "corpus.h5", good=np.ones((2, D), np.float16), bad=features), validate="shapes"
    )
    assert len(dataset[dataset.names.index("good")]) == 2
    with pytest.raises(H5SchemaError, match=r"corpus\.h5: bad/features: values that are not finite"):
        dataset[dataset.names.index("bad")]


def test_an_unknown_validation_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="validate must be 'full' or 'shapes', got 'none'"):
        VideoDataset(path, validate="none")  # type: ignore[arg-type]


@pytest.fixture
def many(tmp_path: Path) -> list[Path]:
    return [bare(tmp_path / f"part_{i}.h5", video=np.full((i + 1, D), i, np.float16)) for i in range(100)]


def test_no_more_files_are_open_than_allowed(many: list[Path]) -> None:
    dataset = VideoDataset(many, validate="shapes")
    for _ in range(2):
        assert [int(dataset[i][0, 0]) for i in range(100)] == list(range(100))
    assert len(dataset._handles[os.getpid()]) == OPEN_FILES < 100


@pytest.mark.parametrize("validate", ["full", "shapes"])
def test_an_index_tells_what_the_files_hold_without_opening_them(
    many: list[Path], tmp_path: Path, validate: str
) -> None:
    options: dict[str, Any] = {"validate": validate, "index": tmp_path / "index.json"}
    first = VideoDataset(many, **options)
    for path in many:  # neither size nor time tells that the content is gone
        state = path.stat()
        path.write_bytes(bytes(state.st_size))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    second = VideoDataset(many, **options)
    assert (second.names, second.lengths, second.feature_dim) == (first.names, first.lengths, first.feature_dim)


def test_a_file_that_changed_is_opened_again(many: list[Path], tmp_path: Path) -> None:
    VideoDataset(many, index=tmp_path / "index.json")
    bare(many[7], video=np.ones((50, D), np.float16))
    assert VideoDataset(many, index=tmp_path / "index.json").lengths[7] == 50


def test_what_was_found_by_shape_alone_is_validated_for_full(tmp_path: Path) -> None:
    path = bare(tmp_path / "corpus.h5", video=np.full((2, D), np.inf, np.float32))
    VideoDataset(path, validate="shapes", index=tmp_path / "index.json")
    with pytest.raises(H5SchemaError, match="not finite"):
        VideoDataset(path, index=tmp_path / "index.json")


def test_a_file_of_another_kind_is_no_index(path: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.json"
    precious.write_text('{"my": "results"}')
    with pytest.raises(ValueError, match=r"precious\.json is not an index of videos"):
        VideoDataset(path, index=precious)
    assert precious.read_text() == '{"my": "results"}'
