"""Files that are damaged, or made to harm: each ends in one error of one line, before anything else is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from visp.data import (
    H5SchemaError,
    InMemoryDataset,
    VideoDataset,
    VideoRecord,
    as_dataset,
    read_record,
    read_splits,
    read_tvsum_mat,
    read_tvsum_tsv,
    validate_h5,
    write_h5,
)

ONES = np.ones((6, 4), dtype=np.float32)


def full(path: Path) -> object:
    return validate_h5(path)


def shapes(path: Path) -> object:
    return VideoDataset(path, validate="shapes")


def record(path: Path) -> object:
    return read_record(path, "video_1")


READERS: list[Callable[[Path], object]] = [full, shapes, record]


def external_link(file: h5py.File, folder: Path) -> None:
    write_h5(folder / "other.h5", [VideoRecord("video_1", ONES)])
    file["video_1"] = h5py.ExternalLink(str(folder / "other.h5"), "/video_1")


def external_link_to_a_pipe(file: h5py.File, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    file["video_1"] = h5py.ExternalLink(str(folder / "pipe"), "/")


def external_features(file: h5py.File, folder: Path) -> None:
    write_h5(folder / "other.h5", [VideoRecord("video_1", ONES)])
    file.create_group("video_1")["features"] = h5py.ExternalLink(str(folder / "other.h5"), "/video_1/features")


def soft_link_through_an_external_one(file: h5py.File, folder: Path) -> None:
    external_link(file, folder)
    file.move("video_1", "away")
    file.create_group("video_1")["features"] = h5py.SoftLink("/away/features")


def link_to_itself(file: h5py.File, folder: Path) -> None:
    file.create_group("video_1")["features"] = h5py.SoftLink("/video_1/features")


def external_storage(file: h5py.File, folder: Path) -> None:
    (folder / "secret").write_bytes(ONES.tobytes())
    file.create_dataset("video_1/features", (6, 4), "f4", external=[(str(folder / "secret"), 0, 96)])


def virtual_elsewhere(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((6, 4), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "nowhere.h5"), "features", (6, 4), "f4")
    file.create_group("video_1").create_virtual_dataset("features", layout)


def virtual_missing(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((6, 4), "f4")
    layout[:] = h5py.VirtualSource(".", "nowhere", (6, 4), "f4")
    file.create_group("video_1").create_virtual_dataset("features", layout)


def virtual_in_part(file: h5py.File, folder: Path) -> None:
    file["half"] = ONES[:3]
    layout = h5py.VirtualLayout((6, 4), "f4")
    layout[:3] = h5py.VirtualSource(".", "half", (3, 4), "f4")
    file.create_group("video_1").create_virtual_dataset("features", layout)


def never_written(file: h5py.File, folder: Path) -> None:
    file.create_dataset("video_1/features", (6, 4), "f4")


def endless(file: h5py.File, folder: Path) -> None:
    file.create_dataset("video_1/features", (2**45, 4), "f4", chunks=(64, 4))[:64] = 1


def packed_without_measure(file: h5py.File, folder: Path) -> None:
    file.create_dataset("video_1/features", (2**20, 64), "f4", chunks=(2**20, 64), compression="gzip")
    data = file["video_1/features"]
    data.id.write_direct_chunk((0, 0), b"x" * 100)


HOSTILE = [
    (external_link, "a link into another file"),
    (external_link_to_a_pipe, "a link into another file"),
    (external_features, "a link into another file"),
    (soft_link_through_an_external_one, "a link into another file"),
    (link_to_itself, "a link that leads to too many others"),
    (external_storage, "values kept in another file, which is not opened"),
    (virtual_elsewhere, "values taken from another file"),
    (virtual_missing, "values taken from 'nowhere', which is missing"),
    (virtual_in_part, "12 of 24 values are stored"),
    (never_written, r"shape \(6, 4\), but no value is stored"),
    (endless, "1 of 549755813888 parts"),
    (packed_without_measure, "100 bytes are stored"),
]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(("make", "problem"), HOSTILE, ids=[make.__name__ for make, _ in HOSTILE])
def test_what_a_file_does_not_store_itself_is_not_read(
    tmp_path: Path, make: Callable[[h5py.File, Path], None], problem: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        make(file, tmp_path)
    with pytest.raises(H5SchemaError, match=rf"(?s)a\.h5.*video_1[^\n]*{problem}"):
        read(path)


def test_links_and_virtual_data_within_the_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["all"] = np.arange(24, dtype=np.float32).reshape(6, 4)
        layout = h5py.VirtualLayout((6, 4), "f4")
        layout[:] = h5py.VirtualSource(".", "all", (6, 4), "f4")
        file.create_group("video_1").create_virtual_dataset("features", layout)
        file.create_group("video_2")["features"] = h5py.SoftLink("/all")
        file["video_3"] = h5py.SoftLink("video_2")
    for validate in ("full", "shapes"):
        dataset = VideoDataset(path, validate=validate)
        assert [float(dataset[i].sum()) for i in range(3)] == [276.0] * 3


def test_a_declared_size_beyond_the_file_is_refused(tmp_path: Path) -> None:
    """A contiguous array whose header was changed to more rows than there are bytes."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["video_1/features"] = np.ones((0x1357, 4), dtype=np.float32)
    content = path.read_bytes()
    old, new = (0x1357).to_bytes(8, "little"), (2**40).to_bytes(8, "little")
    size, huge = (0x1357 * 16).to_bytes(8, "little"), (2**44).to_bytes(8, "little")
    path.write_bytes(content.replace(old, new).replace(size, huge))
    for read in READERS:
        with pytest.raises(H5SchemaError, match=r"bytes are stored|cannot be read"):
            read(path)


@pytest.mark.parametrize("validate", ["full", "shapes"])
@pytest.mark.parametrize("key", ["features"])
def test_values_beyond_float32_are_refused(tmp_path: Path, validate: Any, key: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file[f"video_1/{key}"] = np.array([[1.0, 1e300]])
    with pytest.raises(H5SchemaError, match=r"video_1/features: .*finite in float32"):
        VideoDataset(tmp_path / "a.h5", validate=validate)[0]


@pytest.mark.parametrize("validate", ["full", "shapes"])
def test_values_beyond_the_type_asked_for_are_refused(tmp_path: Path, validate: Any) -> None:
    write_h5(tmp_path / "a.h5", [VideoRecord("video_1", ONES * 1e6)])
    dataset = VideoDataset(tmp_path / "a.h5", validate=validate, dtype=torch.float16)
    with pytest.raises(H5SchemaError, match="not finite in float16"):
        dataset[0]
    with pytest.raises(H5SchemaError, match="not finite in float16"):
        InMemoryDataset([VideoRecord("video_1", ONES * 1e6)], dtype=torch.float16)[0]


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("n_frames", np.uint64(2**64 - 1), "expected whole numbers up to 1000000000"),
        ("n_frames", 1e300, "expected whole numbers up to 1000000000"),
        ("picks", np.array([0, 2**62, 1, 2, 3, 4]), "expected whole numbers up to 1000000000"),
        ("video_name", "x" * 20_000, "a text of 20000 letters"),
        ("user_summary", np.array([[b"a"] * 6]), "expected numbers"),
        ("gtscore", np.array(["a"] * 6, dtype=object), "expected numbers"),
    ],
)
@pytest.mark.parametrize("read", [full, record])
def test_values_out_of_bounds_are_refused(
    tmp_path: Path, key: str, value: Any, problem: str, read: Callable[[Path], object]
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["video_1/features"] = ONES
        file[f"video_1/{key}"] = value
    with pytest.raises(H5SchemaError, match=rf"video_1/{key}: {problem}"):
        read(tmp_path / "a.h5")


@pytest.mark.parametrize("read", [full, shapes])
@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", b"\xff\xfe", "x" * 501])
def test_names_that_cannot_be_shown_are_refused_and_escaped(
    tmp_path: Path, name: str | bytes, read: Callable[[Path], object]
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group(name)["features"] = ONES
    with pytest.raises(H5SchemaError, match="a name") as caught:
        read(tmp_path / "a.h5")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("read", [*READERS, read_splits, read_tvsum_mat, read_tvsum_tsv])
@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder"])
def test_what_is_no_file_is_not_opened(tmp_path: Path, kind: str, read: Callable[[Path], object]) -> None:
    path = tmp_path / "a.h5"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(OSError, match=rf"a\.h5 is {kind}, expected a regular file"):
        read(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[{"train_keys": ["a"], "train_keys": ["b"], "test_keys": ["c"]}]', "the key 'train_keys' is given twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"train_keys": ' * 100_000, "nested too deeply"),
        ('[{"train_keys": [null], "test_keys": ["c"]}]', "expected a list of video names"),
        ('[{"train_keys": ["\\ud800"], "test_keys": ["c"]}]', "is no name"),
        ('[{"train_keys": ["\\u001b[2J"], "test_keys": ["c"]}]', r"'\\x1b\[2J' under 'train_keys' is no name"),
        (f'[{{"train_keys": ["{"x" * 501}"], "test_keys": ["c"]}}]', "is no name"),
        (f'[{{"train_keys": {"9" * 5000}, "test_keys": ["c"]}}]', "integer string conversion|expected a list"),
        (f'[{{"train_keys": {json.dumps([[1] * 9] * 9999)}, "test_keys": ["c"]}}]', "expected a list of video names"),
    ],
    ids=lambda value: value[:20],
)
def test_a_hostile_split_file_is_one_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "splits.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=problem) as caught:
        read_splits(path)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


def test_a_split_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    path.write_bytes(b'\xef\xbb\xbf[{"train_keys": ["a"], "test_keys": ["b"]}]')
    assert read_splits(path)[0].train == ("a",)


def test_a_split_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    with path.open("wb") as file:
        file.truncate(2**40)
    for read in (read_splits, read_tvsum_tsv):
        with pytest.raises(ValueError, match="1099511627776 bytes, expected at most"):
            read(path)


@pytest.mark.parametrize(
    "entry",
    [
        [],
        {},
        {"stamp": 3},
        {"stamp": [], "keys": ["a"], "lengths": {"b": 1}, "n_frames": {}, "feature_dim": 1, "provenance": {}},
        {"stamp": [], "keys": ["a"], "lengths": {"a": "x"}, "n_frames": {}, "feature_dim": 1, "provenance": {}},
        {"stamp": [], "keys": ["a"], "lengths": {"a": 1}, "n_frames": {}, "feature_dim": "x", "provenance": {}},
    ],
)
def test_a_damaged_index_is_one_line(tmp_path: Path, entry: Any) -> None:
    write_h5(tmp_path / "a.h5", [VideoRecord("video_1", ONES)])
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"format": "visp-index-1", "files": {str(tmp_path / "a.h5"): entry}}))
    with pytest.raises(ValueError, match=r"index\.json is not an index of videos, or is damaged"):
        VideoDataset(tmp_path / "a.h5", index=index)


# --- the hash of what videos hold -----------------------------------------------------------------------------------


RECORDS = [VideoRecord(f"video_{i}", ONES * i, gtscore=np.linspace(0, 1, 6), n_frames=90) for i in (1, 2)]


def test_memory_and_file_have_one_hash_whatever_stride_and_type(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5", RECORDS)
    expected = InMemoryDataset(RECORDS).content_hash()
    for options in ({}, {"stride": 2}, {"dtype": torch.float16}, {"validate": "shapes"}):
        assert VideoDataset(tmp_path / "a.h5", **options).content_hash() == expected
    assert InMemoryDataset(RECORDS, stride=3).content_hash() == expected


@pytest.mark.parametrize(
    "changed",
    [
        [RECORDS[1], RECORDS[0]],
        RECORDS[:1],
        [VideoRecord("video_3", ONES, gtscore=np.linspace(0, 1, 6), n_frames=90), RECORDS[1]],
        [VideoRecord("video_1", ONES + 1e-6, gtscore=np.linspace(0, 1, 6), n_frames=90), RECORDS[1]],
        [VideoRecord("video_1", ONES, gtscore=np.linspace(0, 0.9, 6), n_frames=90), RECORDS[1]],
        [VideoRecord("video_1", ONES, n_frames=90), RECORDS[1]],
        [VideoRecord("video_1", ONES.reshape(4, 6), gtscore=np.linspace(0, 1, 6), n_frames=90)],
    ],
)
def test_other_names_features_or_labels_change_the_hash(changed: list[VideoRecord]) -> None:
    assert InMemoryDataset(changed).content_hash() != InMemoryDataset(RECORDS).content_hash()


def test_an_index_keeps_the_hash_until_the_file_changes(tmp_path: Path) -> None:
    path, index = tmp_path / "a.h5", tmp_path / "index.json"
    write_h5(path, RECORDS)
    before = VideoDataset(path, index=index).content_hash()
    state = path.stat()
    with path.open("r+b") as file:  # neither size nor time tells that the content is gone
        file.write(bytes(state.st_size))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert VideoDataset(path, index=index).content_hash() == before
    write_h5(path, [VideoRecord("video_1", ONES), RECORDS[1]], overwrite=True)
    assert VideoDataset(path, index=index).content_hash() != before


# --- videos in other forms ------------------------------------------------------------------------------------------


def test_videos_of_any_form_become_a_dataset(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5", RECORDS)
    arrays = [record.features for record in RECORDS]
    forms: list[object] = [
        tmp_path / "a.h5",
        [str(tmp_path / "a.h5")],
        RECORDS,
        tuple(RECORDS),
        arrays,
        [torch.from_numpy(array) for array in arrays],
        [torch.from_numpy(array).bfloat16() for array in arrays],
        [array.astype(np.float64) for array in arrays],
    ]
    for form in forms:
        dataset = as_dataset(form)
        assert (tuple(dataset.names), tuple(dataset.lengths)) == (("video_1", "video_2"), (6, 6))
        torch.testing.assert_close(dataset[1], torch.from_numpy(arrays[1]))
        assert as_dataset(dataset) is dataset


@pytest.mark.parametrize(
    ("videos", "error", "problem"),
    [
        ((v for v in RECORDS), TypeError, "of type generator, expected a dataset.*only once, so make it a list"),
        (torch.ones(3, 6, 4), TypeError, "of type Tensor, expected a dataset"),
        (None, TypeError, "of type NoneType"),
        ([], ValueError, "no video was given"),
        ([RECORDS[0], ONES], TypeError, "a list of VideoRecord, ndarray, expected one of"),
        ([ONES.astype(int)], TypeError, r"video_1: expected features \(T, d\) of floats, got torch.int64"),
        ([ONES[0]], ValueError, r"video_1: expected features \(T, d\)"),
    ],
)
def test_what_makes_no_dataset_is_one_line(videos: object, error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem):
        as_dataset(videos)
