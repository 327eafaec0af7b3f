from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.studies.few_models import Linear
from visp import cli
from visp.data import InMemoryDataset, write_h5
from visp.data.synthetic import make_corpus
from visp.prediction import predict
from visp.studies.saliency import saliency_rows, thumbnails

pytest.importorskip("av")

from tests.video.clips import coloured, write_clip


def test_rows_are_the_users_and_then_the_models() -> None:
    records = make_corpus(2, feature_dim=8)
    model = Linear(8)
    rows = saliency_rows(InMemoryDataset(records), "video_2", {"mine": model})
    assert list(rows) == ["users", "mine"]
    assert np.array_equal(rows["users"], np.asarray(records[1].gtscore))
    assert np.array_equal(rows["mine"], predict(model, records[1].features))
    with pytest.raises(ValueError, match="no video is named 'video_9'; there are video_1, video_2"):
        saliency_rows(InMemoryDataset(records), "video_9", {})


def test_thumbnails_are_the_best_frames_of_equal_parts(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", coloured([10, 10, 10]))
    picks, scores = np.arange(0, 30, 5), np.array([0.1, 0.9, 0.2, 0.1, 0.5, 0.6])
    found = thumbnails(tmp_path / "clip.mp4", picks, scores)
    assert list(found) == [0, 1, 2, 3, 4, 5]
    assert [int(image.mean(axis=(0, 1)).argmax()) for image in found.values()] == [0, 0, 1, 1, 2, 2]
    few = thumbnails(tmp_path / "clip.mp4", np.arange(12), np.arange(12) % 2 * 1.0)
    assert list(few) == [1, 3, 5, 7, 9, 11]
    with pytest.raises(ValueError, match="has fewer frames than the file of features says: frame 100 is not there"):
        thumbnails(tmp_path / "clip.mp4", np.array([0, 100]), np.ones(2))


def test_the_command_draws_the_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    write_h5(tmp_path / "videos.h5", make_corpus(1, feature_dim=8))
    torch.save(Linear(8).state_dict(), tmp_path / "weights.pt")
    common = [
        "study",
        "saliency",
        "--data",
        str(tmp_path / "videos.h5"),
        "--summarizer",
        "tests.studies.few_models:Linear",
    ]
    common += ["--video", "video_1", "--out", str(tmp_path / "figure.png")]
    assert cli.main([*common, "--weights", f"ViSP={tmp_path / 'weights.pt'}"]) == 0
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main([*common, "--weights", "weights.pt"]) == 2
    assert "expected NAME=FILE" in capsys.readouterr().err
