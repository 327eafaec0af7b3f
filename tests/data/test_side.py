"""What a video carries beside its frames: read, cut and refused."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from visp.data import (
    InMemoryDataset,
    Video,
    VideoDataset,
    VideoRecord,
    read_layout,
    read_record,
    write_h5,
)
from visp.data.side import rows_of_shots


def record(name: str = "video_1", length: int = 6, **side: Any) -> VideoRecord:
    rows = np.arange(length, dtype=np.float32)
    return VideoRecord(
        name,
        np.stack([rows, -rows], axis=1),
        picks=np.arange(length) * 10 + 5,
        n_frames=length * 10,
        change_points=np.array([[0, 19], [20, 24], [25, length * 10 - 1]]),
        side={"text": np.ones((2, 3), np.float32), "audio": rows[:, None] * [1.0, 2.0, 3.0], **side},
    )


WITH = {"change_points": "shots", "picks": "frames", "text": "whole", "audio": "frames"}


@pytest.mark.parametrize("stride", [1, 2])
def test_a_file_and_records_give_the_same_videos(stride: int, tmp_path: Path) -> None:
    write_h5(tmp_path / "videos.h5", [record()])
    options: dict[str, Any] = {"stride": stride, "with_": WITH}
    for videos in (VideoDataset(tmp_path / "videos.h5", **options), InMemoryDataset([record()], **options)):
        video = pickle.loads(pickle.dumps(videos[0]))
        rows = list(range(0, 6, stride))
        assert video.frames[:, 0].tolist() == rows
        assert video.side["audio"][:, 1].tolist() == [2 * row for row in rows]
        assert video.side["picks"].tolist() == [10 * row + 5 for row in rows]
        assert video.side["text"].shape == (2, 3)
        # Frame 20 to 24 shows in no row; frames 0 to 19 in rows 5 and 15, of which every second has one.
        assert video.side["change_points"].tolist() == {1: [[0, 1], [2, 5]], 2: [[0, 0], [1, 2]]}[stride]
        assert (video.side["picks"].dtype, video.side["audio"].dtype) == (torch.int64, torch.float32)


def test_without_names_nothing_is_beside_the_frames(tmp_path: Path) -> None:
    write_h5(tmp_path / "videos.h5", [record()])
    plain = VideoDataset(tmp_path / "videos.h5")
    assert isinstance(plain[0], Tensor)
    assert plain.content_hash() == InMemoryDataset([replace(record(), side={})]).content_hash()
    assert read_record(tmp_path / "videos.h5", "video_1").side == {}


def test_the_content_hash_knows_what_is_read_and_as_what(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5", [record()])
    write_h5(tmp_path / "b.h5", [record(text=np.zeros((2, 3), np.float32))])
    index = tmp_path / "index.json"
    withs: list[Any] = [(), ("text",), {"audio": "frames"}, {"audio": "whole"}]
    found = [
        [VideoDataset(tmp_path / file, with_=with_, index=index).content_hash() for with_ in withs]
        for file in ("a.h5", "b.h5")
    ]
    assert len(set(found[0])) == len(withs)
    assert [one == other for one, other in zip(*found, strict=True)] == [True, False, True, True]
    again = [VideoDataset(tmp_path / "a.h5", with_=with_, index=index).content_hash() for with_ in withs]
    assert again == found[0]


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_part_has_the_shots_of_its_rows(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 12))
    ends = sorted(data.draw(st.sets(st.integers(0, length - 1), max_size=4)) | {length - 1})
    shots = torch.tensor([[first, last] for first, last in zip([0, *(end + 1 for end in ends)], ends, strict=False)])
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    owner = torch.repeat_interleave(torch.arange(len(shots)), shots[:, 1] - shots[:, 0] + 1)  # (T,), the shot of a row
    video = Video(torch.zeros(length, 1), {"shots": shots, "shot": owner}, {"shots": "shots", "shot": "frames"})
    part = video[start:stop]
    counts = part.side["shots"][:, 1] - part.side["shots"][:, 0] + 1
    assert torch.equal(torch.repeat_interleave(torch.unique(owner[start:stop]), counts), part.side["shot"])
    assert part.side["shots"][0, 0] == 0


@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_shots_in_rows_are_those_of_the_frames_that_rows_show(length: int, stride: int, every: int) -> None:
    n_frames = length * every
    starts = np.arange(0, n_frames, 7)
    shots = np.stack([starts, np.minimum(starts + 6, n_frames - 1)], axis=1)
    picks = np.arange(length) * every
    of_rows = [int(pick // 7) for pick in picks[::stride]]
    expected = [[of_rows.index(shot), len(of_rows) - 1 - of_rows[::-1].index(shot)] for shot in sorted(set(of_rows))]
    assert rows_of_shots("shots", shots, picks, length, stride).tolist() == expected


def test_shots_without_picks_count_rows_or_are_refused() -> None:
    shots = np.array([[0, 3], [4, 9]])
    assert rows_of_shots("shots", shots, None, 10, 2).tolist() == [[0, 1], [2, 4]]
    with pytest.raises(ValueError, match="up to frame 9 of 9 rows, and no picks"):
        rows_of_shots("shots", shots, None, 9)


@pytest.mark.parametrize(
    ("with_", "message"),
    [
        (("audio",), r"audio: shape \(6, 3\) has as many rows as there are frames: say which it is, with_="),
        (("sound",), "no 'sound'"),
        ({"text": "frames"}, r"text: expected \(6, ...\), one row per frame, got shape \(2, 3\)"),
        ({"text": "shots"}, r"text: expected shots \(S, 2\), got shape \(2, 3\)"),
        ({"text": "tokens"}, r"with_: expected names .* got 'text': 'tokens'"),
        (("features",), "with_: expected names but features"),
        (("title",), "title.*expected numbers"),
        (("broken",), "broken: values that are not finite"),
    ],
)
def test_what_cannot_be_carried_is_named(with_: Any, message: str, tmp_path: Path) -> None:
    given = record(title=np.array(b"a trip"), broken=np.array([np.nan, 1.0]))
    write_h5(tmp_path / "videos.h5", [given])
    with pytest.raises(ValueError, match=message):
        VideoDataset(tmp_path / "videos.h5", with_=with_)[0]
    with pytest.raises(ValueError, match=message):
        InMemoryDataset([given], with_=with_)


def test_a_video_of_ones_own_is_checked() -> None:
    with pytest.raises(ValueError, match=r"audio: expected \(2, ...\), one row per frame"):
        Video(torch.zeros(2, 1), {"audio": torch.zeros(3, 1)}, {"audio": "frames"})
    with pytest.raises(ValueError, match="sound: expected a side input"):
        Video(torch.zeros(2, 1), {}, {"sound": "frames"})
    with pytest.raises(ValueError, match="neighbouring frames"):
        Video(torch.zeros(2, 1), {})[::2]


def test_a_side_input_may_not_take_a_name_of_the_schema(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'picks' cannot name a side input"):
        write_h5(tmp_path / "a.h5", [record(picks=np.arange(6))])


def test_streams_of_other_layouts_are_kept_apart_and_arrays_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"picture": rng.random((5, 4)), "sound": rng.random((6, 3))}
    for name, values in arrays.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["v"] = values
    with h5py.File(tmp_path / "labels.h5", "w") as file:
        file["v/gt_score"], file["v/script"] = rng.random(5), rng.random((2, 7))
    paths = [tmp_path / f"{name}.h5" for name in arrays]
    with pytest.warns(UserWarning, match="streams of 5, 6 steps"):
        (found,) = read_layout(paths, truth=tmp_path / "labels.h5", apart=True, with_=("script",))
    assert found.features.shape == (5, 4)
    assert {name: values.shape for name, values in found.side.items()} == {"sound": (5, 3), "script": (2, 7)}
    with pytest.warns(UserWarning, match="streams of 5, 6 steps"):
        (joined,) = read_layout(paths)
    assert (joined.features.shape, joined.side) == ((5, 7), {})


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 11), st.booleans(), st.booleans(), st.data())
def test_a_part_that_is_read_alone_is_the_part_of_the_whole(
    stride: int, length: int, chunked: bool, sided: bool, data: st.DataObject
) -> None:
    ends = np.cumsum(data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=6)))
    shots = np.stack([np.r_[0, ends[:-1]], ends - 1], axis=1)
    video = replace(record(length=length), change_points=shots, n_frames=None)
    options: dict[str, Any] = {"stride": stride, "with_": WITH if sided else ()}
    with TemporaryDirectory() as folder:
        write_h5(Path(folder, "videos.h5"), [video])
        if chunked:
            with h5py.File(Path(folder, "videos.h5"), "r+") as file:
                for key in ("features", "audio"):
                    values = file[f"video_1/{key}"][()]
                    del file[f"video_1/{key}"]
                    file["video_1"].create_dataset(key, data=values, chunks=(min(2, length), 1), compression="gzip")
        for videos in (VideoDataset(Path(folder, "videos.h5"), **options), InMemoryDataset([video], **options)):
            start = data.draw(st.integers(0, videos.lengths[0] - 1))
            stop = data.draw(st.integers(start + 1, videos.lengths[0]))
            part, whole = videos.part(0, start, stop), videos[0][start:stop]
            if not sided:
                assert torch.equal(part, whole)
                continue
            assert torch.equal(part.frames, whole.frames)
            assert part.side.keys() == whole.side.keys()
            assert all(torch.equal(value, whole.side[name]) for name, value in part.side.items())
            assert part.kinds == whole.kinds


def test_only_the_rows_of_a_part_are_read(tmp_path: Path) -> None:
    options: dict[str, Any] = {"with_": WITH}
    write_h5(tmp_path / "videos.h5", [record()])
    videos = VideoDataset(tmp_path / "videos.h5", **options)
    with h5py.File(tmp_path / "videos.h5", "r+") as file:
        file["video_1/features"][5] = file["video_1/audio"][0] = np.nan
    assert videos.part(0, 1, 5).frames[:, 0].tolist() == [1, 2, 3, 4]
    for start, stop in ((0, 2), (4, 6)):
        with pytest.raises(ValueError, match="not finite"):
            videos.part(0, start, stop)
    for start, stop in ((0, 7), (-1, 2), (2, 2)):
        with pytest.raises(IndexError, match=f"frames {start} to {stop} of 6"):
            videos.part(0, start, stop)
