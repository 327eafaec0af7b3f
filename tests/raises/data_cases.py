"""Errors of `visp.data`: files that are missing, damaged or of another kind, and what does not fit together."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from tests.raises.case import Case
from visp.data import H5SchemaError, InMemoryDataset, Split, VideoDataset, VideoRecord, write_h5

ONE = VideoRecord("video_1", np.ones((4, 3), np.float32))
OTHER = VideoRecord("video_2", np.ones((4, 2), np.float32))
FRAMES = torch.ones(4, 3)
SPLIT = Split(("a", "b"), ("c",))


def h5(folder: Path, *records: VideoRecord, name: str = "videos.h5") -> Path:
    write_h5(folder / name, records or (ONE,))
    return folder / name


def text(folder: Path, content: str = "plain text") -> Path:
    (folder / "file.txt").write_text(content)
    return folder / "file.txt"


def broken_h5(folder: Path, **changes: Any) -> Path:
    """A file whose video has these entries in place of its own."""
    path = h5(folder)
    with h5py.File(path, "r+") as file:
        for key, value in changes.items():
            if key in file["video_1"]:
                del file["video_1"][key]
            if value is not None:
                file["video_1"][key] = value
    return path


def a_video_that_goes(this: Any, folder: Path) -> None:
    dataset = VideoDataset(h5(folder))
    with h5py.File(folder / "videos.h5", "r+") as file:
        del file["video_1"]
    this(dataset, 0)


def a_file_that_goes(this: Any, folder: Path) -> None:
    dataset = VideoDataset(h5(folder))
    (folder / "videos.h5").unlink()
    this(dataset, 0)


def no_longer_finite(this: Any, folder: Path) -> None:
    dataset = VideoDataset(h5(folder), validate="shapes")
    with h5py.File(folder / "videos.h5", "r+") as file:
        file["video_1/features"][0, 0] = np.nan
    this(dataset, 0)


def tvsum_tsv(folder: Path, *rows: str) -> Path:
    return text(folder, "".join(f"{row}\n" for row in rows))


def tvsum_mat(folder: Path, scores: tuple[Any, ...] = (np.ones((4, 2)),), **fields: Any) -> Path:
    """TVSum's annotations as MATLAB stores them, one video for each array of scores (n_frames, U)."""
    names = [np.array([[ord("a") + number]], np.uint16) for number in range(len(scores))]
    path = folder / "annotations.mat"
    with h5py.File(path, "w") as file:
        for field, values in {"video": names, "user_anno": scores, **fields}.items():
            made = file.create_dataset(f"tvsum50/{field}", (len(values), 1), dtype=h5py.ref_dtype)
            for number, value in enumerate(values):
                file[f"#refs#/{field}{number}"] = value
                made[number, 0] = file[f"#refs#/{field}{number}"].ref
    return path


def gone(name: str) -> Case:
    return Case(name, FileNotFoundError, r"gone\.h5", lambda this, folder: this(folder / "gone.h5"))


def splits(folder: Path, *folds: dict[str, Any]) -> Path:
    return text(folder, json.dumps(list(folds)))


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def endless() -> Iterator[VideoRecord]:
    yield ONE


VIDEOS = [
    Case("visp.data.VideoRecord.every", ValueError, "stride must be at least 1, got 0", lambda this, _: this(ONE, 0)),
    Case("visp.data.Video", ValueError, "text: expected a side input and one of .* 'words'",
         lambda this, _: this(FRAMES, {"text": FRAMES}, {"text": "words"})),
    Case("visp.data.Video", ValueError, "text: expected a side input",
         lambda this, _: this(FRAMES, {}, {"text": "whole"})),
    Case("visp.data.Video", ValueError, r"audio: expected \(4, ...\), one row per frame, got shape \(3, 3\)",
         lambda this, _: this(FRAMES, {"audio": FRAMES[:3]}, {"audio": "frames"})),
    Case("visp.data.Video", ValueError, r"cuts: expected shots \(S, 2\)",
         lambda this, _: this(FRAMES, {"cuts": FRAMES}, {"cuts": "shots"})),
]  # fmt: skip

DATASETS = [
    gone("visp.data.VideoDataset"),
    Case("visp.data.VideoDataset", H5SchemaError, r"videos\.h5.*\n.*video_1.*features",
         lambda this, folder: this(broken_h5(folder, features=np.ones(3)))),
    Case("visp.data.VideoDataset", H5SchemaError, "feature dimensions disagree: .*videos.*others",
         lambda this, folder: this([h5(folder), h5(folder, OTHER, name="others.h5")])),
    Case("visp.data.VideoDataset", KeyError, "no video is named 'tape'",
         lambda this, folder: this(h5(folder), keys=["tape"])),
    Case("visp.data.VideoDataset", ValueError, "stride must be at least 1, got 0",
         lambda this, folder: this(h5(folder), stride=0)),
    Case("visp.data.VideoDataset", ValueError, "no h5 file was given", lambda this, _: this([])),
    Case("visp.data.VideoDataset", ValueError, r"files given twice: .*videos\.h5",
         lambda this, folder: this([h5(folder), folder / "videos.h5"])),
    Case("visp.data.VideoDataset", ValueError, "keys given twice: video_1",
         lambda this, folder: this(h5(folder), keys=["video_1", "video_1"])),
    Case("visp.data.VideoDataset", ValueError, "validate must be .* 'some'",
         lambda this, folder: this(h5(folder), validate="some")),
    Case("visp.data.VideoDataset", ValueError, r"file\.txt is not an index of videos",
         lambda this, folder: this(h5(folder), index=text(folder))),
    Case("visp.data.VideoDataset", ValueError, "with_: .*'words'",
         lambda this, folder: this(h5(folder), with_={"text": "words"})),
    Case("visp.data.VideoDataset.record", IndexError, "video 1 of 1",
         lambda this, folder: this(VideoDataset(h5(folder)), 1)),
    Case("visp.data.VideoDataset.record", H5SchemaError, r"videos\.h5: video_1", a_video_that_goes),
    Case("visp.data.VideoDataset.record", H5SchemaError, "features: values that are not finite", no_longer_finite),
    Case("visp.data.VideoDataset.record", OSError, r"videos\.h5", a_file_that_goes),
    Case("visp.data.InMemoryDataset", ValueError, "stride must be at least 1, got 0",
         lambda this, _: this([ONE], stride=0)),
    Case("visp.data.InMemoryDataset", ValueError, "no record was given", lambda this, _: this([])),
    Case("visp.data.InMemoryDataset", ValueError, "records given twice: video_1", lambda this, _: this([ONE, ONE])),
    Case("visp.data.InMemoryDataset", ValueError, r"video_1: expected features \(T, d\), got shape \(3,\)",
         lambda this, _: this([replace(ONE, features=np.ones(3))])),
    Case("visp.data.InMemoryDataset", ValueError, "feature dimensions disagree: video_1 has .*3.*video_2 has .*2",
         lambda this, _: this([ONE, OTHER])),
    Case("visp.data.InMemoryDataset", ValueError, "with_: .*'words'",
         lambda this, _: this([ONE], with_={"text": "words"})),
    Case("visp.data.VideoDataset.part", IndexError, "video 1 of 1",
         lambda this, folder: this(VideoDataset(h5(folder)), 1, 0, 2)),
    Case("visp.data.VideoDataset.part", IndexError, "frames 0 to 9 of 4",
         lambda this, folder: this(VideoDataset(h5(folder)), 0, 0, 9)),
    Case("visp.data.InMemoryDataset.part", IndexError, "video 1 of 1",
         lambda this, _: this(InMemoryDataset([ONE]), 1, 0, 2)),
    Case("visp.data.InMemoryDataset.part", IndexError, "frames 0 to 9 of 4",
         lambda this, _: this(InMemoryDataset([ONE]), 0, 0, 9)),
    Case("visp.data.InMemoryDataset.record", IndexError, "video -2 of 1",
         lambda this, _: this(InMemoryDataset([ONE]), -2)),
    Case("visp.data.as_dataset", TypeError, "type generator, .*can be read only once",
         lambda this, _: this(endless())),
    Case("visp.data.as_dataset", TypeError, "a list of int", lambda this, _: this([1])),
    Case("visp.data.as_dataset", TypeError, r"video_1: expected features \(T, d\) of floats, got torch.int64",
         lambda this, _: this([torch.ones(4, 3).long()])),
    Case("visp.data.as_dataset", ValueError, "no video was given", lambda this, _: this([])),
    Case("visp.data.as_dataset", ValueError, "feature dimensions disagree",
         lambda this, _: this([FRAMES, FRAMES[:, :2]])),
]  # fmt: skip

FILES = [
    Case("visp.data.read_record", FileNotFoundError, r"gone\.h5", lambda this, folder: this(folder / "gone.h5", "v")),
    Case("visp.data.read_record", KeyError, r"videos\.h5: no 'tape'", lambda this, folder: this(h5(folder), "tape")),
    Case("visp.data.read_record", H5SchemaError, r"file\.txt: not a readable HDF5 file",
         lambda this, folder: this(text(folder), "video_1")),
    Case("visp.data.read_record", H5SchemaError, r"video_1.*features.*expected \(T, d\) floats",
         lambda this, folder: this(broken_h5(folder, features=np.ones(3)), "video_1")),
    gone("visp.data.validate_h5"),
    Case("visp.data.validate_h5", H5SchemaError, r"file\.txt: not a readable HDF5 file",
         lambda this, folder: this(text(folder))),
    Case("visp.data.validate_h5", H5SchemaError, r"(?s)videos\.h5.*video_1.*gtscore",
         lambda this, folder: this(broken_h5(folder, gtscore=np.ones(7)))),
    Case("visp.data.write_h5", FileExistsError, r"videos\.h5", lambda this, folder: this(h5(folder), [ONE])),
    Case("visp.data.write_h5", FileNotFoundError, "nowhere",
         lambda this, folder: this(folder / "nowhere" / "videos.h5", [ONE])),
    Case("visp.data.write_h5", ValueError, r"out\.h5: no records", lambda this, folder: this(folder / "out.h5", [])),
    Case("visp.data.write_h5", ValueError, "two records are named 'video_1'",
         lambda this, folder: this(folder / "out.h5", [ONE, ONE])),
    Case("visp.data.write_h5", ValueError, "'a/b' cannot name a group",
         lambda this, folder: this(folder / "out.h5", [replace(ONE, name="a/b")])),
    Case("visp.data.read_layout", FileNotFoundError, r"gone\.h5", lambda this, folder: list(this(folder / "gone.h5"))),
    Case("visp.data.read_layout", H5SchemaError, r"file\.txt", lambda this, folder: list(this(text(folder)))),
    Case("visp.data.read_layout", H5SchemaError, "video_1: no features under",
         lambda this, folder: list(this(broken_h5(folder, features=None, other=np.ones(3))))),
    Case("visp.data.read_layout", ValueError, "no file was given", lambda this, _: list(this([]))),
    Case("visp.data.read_layout", ValueError, "files of different names, got videos",
         lambda this, folder: list(this([h5(folder)] * 3, apart=True))),
    gone("visp.data.read_qvhighlights"),
    Case("visp.data.read_qvhighlights", ValueError, r"file\.txt: line 1 is not of QVHighlights' form",
         lambda this, folder: this(text(folder))),
    gone("visp.data.check_isolated"),
    Case("visp.data.check_isolated", H5SchemaError, r"file\.txt: not a readable HDF5 file",
         lambda this, folder: this(text(folder))),
    Case("visp.data.check_isolated", H5SchemaError, r"videos\.h5: .*took longer than 0 seconds",
         lambda this, folder: this(h5(folder), seconds=0.01)),
    Case("visp.data.check_isolated", OSError, "folder", lambda this, folder: this(folder)),
    Case("visp.data.check_isolated", OSError, "pipe",
         lambda this, folder: this(pipe(folder))),
]  # fmt: skip

SPLITS = [
    Case("visp.data.Split", ValueError, "'a' is named 2 times", lambda this, _: this(("a", "a"), ("b",))),
    Case("visp.data.Split", ValueError, "'a' is named 2 times", lambda this, _: this(("a",), ("a",))),
    gone("visp.data.read_splits"),
    Case("visp.data.read_splits", ValueError, r"file\.txt: line 1: expected", lambda this, folder: this(text(folder))),
    Case("visp.data.read_splits", ValueError, r"file\.txt: fold 0: no 'test_keys'",
         lambda this, folder: this(splits(folder, {"train_keys": ["a"], "test_keys": []}))),
    Case("visp.data.read_splits", ValueError, r"file\.txt: fold 0: no 'train_keys'",
         lambda this, folder: this(splits(folder, {"train_keys": [], "test_keys": ["a"]}))),
    Case("visp.data.read_splits", ValueError, r"file\.txt: fold 0: 'a' is named 2 times",
         lambda this, folder: this(splits(folder, {"train_keys": ["a"], "test_keys": ["a"]}))),
    Case("visp.data.read_splits", ValueError, r"file\.txt: fold 0 names 'b', not in the dataset",
         lambda this, folder: this(splits(folder, {"train_keys": ["a"], "test_keys": ["b"]}), ["a"])),
    Case("visp.data.write_splits", FileNotFoundError, "nowhere",
         lambda this, folder: this(folder / "nowhere" / "splits.json", [SPLIT])),
    Case("visp.data.write_splits", ValueError, r"splits\.json: no splits",
         lambda this, folder: this(folder / "splits.json", [])),
    Case("visp.data.make_splits", ValueError, "folds must be between 2 and .* 3, got 4",
         lambda this, _: this("abc", folds=4)),
    Case("visp.data.make_splits", ValueError, "'a' is named 2 times", lambda this, _: this("aab", folds=2)),
    Case("visp.data.hold_out", ValueError, "share must be between 0 and 1, .* got 1", lambda this, _: this(SPLIT, 1)),
    Case("visp.data.hold_out", ValueError, "has validation videos already",
         lambda this, _: this(Split(("a", "b"), ("c",), ("d",)))),
    Case("visp.data.hold_out", ValueError, "at least 2 training videos, got 1",
         lambda this, _: this(Split(("a",), ("b",)))),
]  # fmt: skip

TVSUM = [
    gone("visp.data.read_tvsum_tsv"),
    Case("visp.data.read_tvsum_tsv", ValueError, r"file\.txt: line 1: expected 3 columns",
         lambda this, folder: this(tvsum_tsv(folder, "a\t1,2"))),
    Case("visp.data.read_tvsum_tsv", ValueError, "line 2: 'a' has 3 scores, but line 1 has 2",
         lambda this, folder: this(tvsum_tsv(folder, "a\tVT\t1,2", "a\tVT\t1,2,3"))),
    Case("visp.data.read_tvsum_tsv", ValueError, "'b' .* has 1 annotators, but 'a' .* has 2",
         lambda this, folder: this(tvsum_tsv(folder, "a\tVT\t1,2", "a\tVT\t1,2", "b\tVT\t1,2"))),
    Case("visp.data.read_tvsum_tsv", ValueError, "'a' .* has scores of 2 frames, but the dataset's 'video_1' has 9",
         lambda this, folder: this(tvsum_tsv(folder, "a\tVT\t1,2"), {"video_1": 9})),
    gone("visp.data.read_tvsum_mat"),
    Case("visp.data.read_tvsum_mat", H5SchemaError, r"file\.txt: not a readable HDF5 file",
         lambda this, folder: this(text(folder))),
    Case("visp.data.read_tvsum_mat", ValueError, r"videos\.h5: no struct array 'tvsum50'",
         lambda this, folder: this(h5(folder))),
    Case("visp.data.read_tvsum_mat", ValueError, r"'a' .*: expected scores from 1 to 5, got 9",
         lambda this, folder: this(tvsum_mat(folder, (np.full((2, 4), 9.0),)))),
    Case("visp.data.read_tvsum_mat", ValueError, "'b' .* has 3 annotators, but 'a' .* has 2",
         lambda this, folder: this(tvsum_mat(folder, (np.ones((2, 4)), np.ones((3, 4)))))),
    Case("visp.data.read_tvsum_mat", ValueError, "but the dataset's 'video_1' has 9",
         lambda this, folder: this(tvsum_mat(folder), {"video_1": 9})),
]  # fmt: skip

SYNTHETIC = [
    Case("visp.data.synthetic.make_corpus", ValueError, "num_videos must be at least 1, got 0",
         lambda this, _: this(0)),
    Case("visp.data.synthetic.make_corpus", ValueError, r"particular_share in \(0, 1\).*=1.5",
         lambda this, _: this(particular_share=1.5)),
    Case("visp.data.synthetic.make_corpus", ValueError, "shot_length must be",
         lambda this, _: this(shot_length=(4, 2))),
    Case("visp.data.synthetic.make_corpus", ValueError, "fillers must be .* 'none'",
         lambda this, _: this(fillers="none")),
    Case("visp.data.synthetic.write_corpus", ValueError, "num_videos must be at least 1",
         lambda this, folder: this(folder / "corpus.h5", num_videos=0)),
    Case("visp.data.synthetic.write_corpus", FileExistsError, r"videos\.h5", lambda this, folder: this(h5(folder))),
    Case("visp.data.synthetic.write_corpus", FileNotFoundError, "nowhere",
         lambda this, folder: this(folder / "nowhere" / "corpus.h5")),
]  # fmt: skip

CASES = [*VIDEOS, *DATASETS, *FILES, *SPLITS, *TVSUM, *SYNTHETIC]
