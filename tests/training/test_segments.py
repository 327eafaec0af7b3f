"""Segments: each is the part of its video, and of a file only its rows are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from visp.data import InMemoryDataset, VideoDataset, write_h5
from visp.data.synthetic import make_corpus
from visp.training.segments import Segments, labelled_segments

RECORDS = make_corpus(3, feature_dim=4, num_shots=5)


class Doubled(InMemoryDataset):
    def __getitem__(self, index: int) -> Any:
        return 2 * super().__getitem__(index)


@pytest.mark.parametrize("kind", [InMemoryDataset, Doubled, list])
def test_a_segment_is_the_part_of_the_item_of_any_dataset(kind: Any) -> None:
    videos = [torch.from_numpy(each.features) for each in RECORDS] if kind is list else kind(RECORDS)
    lengths = [len(each.features) for each in RECORDS]
    segments = Segments(videos, "abc", lengths, 9)
    expected = [videos[index][start:stop] for index, start, stop in segments._bounds]
    assert len(segments) > 6
    assert all(torch.equal(segments[number], part) for number, part in enumerate(expected))


def test_labelled_segments_of_a_file_read_their_rows_alone(tmp_path: Path) -> None:
    path = tmp_path / "videos.h5"
    write_h5(path, RECORDS)
    videos = VideoDataset(path)
    segments = labelled_segments(videos, ["video_2"], 9)
    videos.close()
    with h5py.File(path, "r+") as file:
        file["video_2/features"][0] = np.nan
    for number, (_, start, stop) in enumerate(segments._bounds[1:], start=1):
        frames, importance = segments[number]
        np.testing.assert_array_equal(frames, RECORDS[1].features[start:stop])
        np.testing.assert_array_equal(importance, RECORDS[1].gtscore[start:stop])  # type: ignore[index]
    with pytest.raises(ValueError, match="not finite"):
        segments[0]
