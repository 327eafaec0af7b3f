from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from visp import cli
from visp.data import VideoDataset, read_layout, read_qvhighlights, validate_h5, write_h5
from visp.data.h5 import H5SchemaError
from visp.data.layouts import inclusive_shots
from visp.data.synthetic import make_corpus
from visp.eval.protocols import Protocol
from visp.evaluator import Evaluator

RNG = np.random.default_rng(0)


def write(path: Path, groups: Mapping[str, Mapping[str, Any] | np.ndarray[Any, Any]]) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in groups.items():
            if isinstance(values, Mapping):
                for key, value in values.items():
                    file[f"{name}/{key}"] = value
            else:
                file[name] = values
    return path


def equal(one: Any, other: Any) -> bool:
    return bool(np.array_equal(one, other))


def close(one: Any, other: Any) -> bool:
    return bool(np.allclose(one, other))


def features(length: int, d: int = 4) -> np.ndarray[Any, np.dtype[np.float32]]:
    return RNG.standard_normal((length, d)).astype(np.float32)


@pytest.mark.parametrize("key", ["gt_summary", "gtsummary"])
def test_mr_hisum_becomes_the_usual_schema_with_inclusive_shots(key: str, tmp_path: Path) -> None:
    truth, summary = RNG.random(20), (np.arange(20) < 3).astype(np.float64)
    shots = np.array([[0, 7], [7, 12], [12, 20]])
    group = {"features": features(20), "gtscore": truth, "change_points": shots, key: summary}
    (record,) = read_layout(write(tmp_path / "mr_hisum.h5", {"video_10": group}))
    assert record.n_frames == 20
    assert equal(record.picks, np.arange(20))
    assert equal(record.change_points, [[0, 6], [7, 11], [12, 19]])
    assert equal(record.n_frame_per_seg, [7, 5, 8])
    assert equal(record.user_summary, summary[None])
    assert close(record.gtscore, truth)


def test_mr_hisum_is_evaluated_by_both_its_protocols(tmp_path: Path) -> None:
    groups: dict[str, dict[str, Any]] = {
        f"video_{number}": {
            "features": features(40),
            "gtscore": RNG.random(40),
            "change_points": np.array([[0, 10], [10, 14], [14, 40]]),
            "gt_summary": (np.arange(40) // 4 == number).astype(np.float64),
        }
        for number in (1, 2)
    }
    write_h5(tmp_path / "usual.h5", read_layout(write(tmp_path / "mr_hisum.h5", groups)))
    videos = VideoDataset(tmp_path / "usual.h5")
    protocols: tuple[Protocol, ...] = ("triplesumm", "mrhisum")
    for protocol in protocols:
        evaluator = Evaluator(videos, protocol=protocol, benchmark="mrhisum")
        found = evaluator.of_scores({name: groups[name]["gtscore"].astype(np.float32) for name in videos.names})
        if protocol == "triplesumm":
            assert found.tau == pytest.approx(1.0)
            assert abs(found.mean("tau", "random")) < 0.2
        assert set(found.baselines) == {"constant", "random"}


def test_stores_of_one_file_per_modality_are_joined_with_labels_and_split(tmp_path: Path) -> None:
    visual, text = {name: features(12, 3) for name in "abc"}, {name: features(12, 2) for name in "abc"}
    labels = {
        name: {
            "gt_score": RNG.random(12),
            "gt_summary": np.ones(12),
            "change_points": np.array([[0, 5], [6, 11]]),
        }
        for name in "abc"
    }
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train_keys": ["c"], "val_keys": [], "test_keys": ["a"]}))
    stores = [write(tmp_path / "visual.h5", visual), write(tmp_path / "text.h5", text)]
    records = list(read_layout(stores, truth=write(tmp_path / "gt.h5", labels), split=split))
    assert [record.name for record in records] == ["c", "a"]
    assert equal(records[0].features, np.concatenate([visual["c"], text["c"]], axis=1))
    assert equal(records[0].change_points, [[0, 5], [6, 11]])
    assert close(records[1].gtscore, labels["a"]["gt_score"])


def test_a_video_of_the_split_that_cannot_be_read_is_named_and_left_out(tmp_path: Path) -> None:
    store = write(tmp_path / "visual.h5", {"a": features(5)})
    (tmp_path / "split.json").write_text(json.dumps({"train_keys": ["missing", "a"]}))
    with pytest.warns(UserWarning, match="missing is left out: .*there is nothing of that name; there is a"):
        records = list(read_layout(store, split=tmp_path / "split.json"))
    assert [record.name for record in records] == ["a"]


def test_sd_mvsum_has_other_keys_and_n_frames_of_the_original_video(tmp_path: Path) -> None:
    scores = RNG.random((10, 15))
    group = {"video_embeddings": features(15), "gtscores": scores, "n_frames": 4500, "gtsummaries": scores > 0.5}
    (record,) = read_layout(write(tmp_path / "xum.h5", {"v": group}))
    assert record.n_frames == 15
    assert close(record.gtscore, scores.mean(axis=0))
    assert equal(record.user_summary, scores > 0.5)


def test_zhangs_arrays_are_numbered_and_may_be_stored_columns_first(tmp_path: Path) -> None:
    first, second = features(9, 4), features(11, 4)
    arrays = {
        "fea_2": second.T,
        "gt_1_2": RNG.random(11),
        "fea_1": first,
        "gt_1_1": RNG.random((9, 1)),
        "idx": np.ones(2),
    }
    records = list(read_layout(write(tmp_path / "data.h5", arrays)))
    assert [record.name for record in records] == ["video_1", "video_2"]
    assert equal(records[0].features, first)
    assert equal(records[1].features, second)


def test_folders_of_arrays_are_streams(tmp_path: Path) -> None:
    values = {name: features(6, 2) for name in ("npy", "npz", "pt")}
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "video_2.npy", values["npy"])
        np.savez(tmp_path / folder / "video_10.npz", features=values["npz"], other=np.ones(3))
        torch.save(torch.from_numpy(values["pt"]), tmp_path / folder / "video_1.pt")
    records = list(read_layout([tmp_path / "one", tmp_path / "two"]))
    assert [record.name for record in records] == ["video_1", "video_2", "video_10"]
    for record, kind in zip(records, ("pt", "npy", "npz"), strict=True):
        assert equal(record.features, np.concatenate([values[kind], values[kind]], axis=1))


def test_the_usual_schema_is_read_as_it_is(tmp_path: Path) -> None:
    expected = make_corpus(2, feature_dim=4)
    write_h5(tmp_path / "usual.h5", expected)
    for record, wanted in zip(read_layout(tmp_path / "usual.h5"), expected, strict=True):
        assert equal(record.features, wanted.features)
        assert equal(record.picks, wanted.picks)


def test_labels_of_another_length_are_cut_with_a_warning(tmp_path: Path) -> None:
    group = {
        "features": features(10),
        "gtscore": RNG.random(13),
        "change_points": np.array([[0, 6], [6, 11], [11, 13]]),
    }
    with pytest.warns(UserWarning, match="features and labels of 10 and 13 steps are cut to 10"):
        (record,) = read_layout(write(tmp_path / "cut.h5", {"v": group}))
    assert equal(record.change_points, [[0, 5], [6, 9]])
    assert record.gtscore is not None
    assert len(record.gtscore) == 10


@pytest.mark.parametrize(
    ("shots", "length", "expected"),
    [
        ([[0, 4], [4, 9]], 9, [[0, 3], [4, 8]]),
        ([[0, 4], [4, 8]], 9, [[0, 3], [4, 8]]),
        ([[0, 3], [4, 8]], 9, [[0, 3], [4, 8]]),
        ([[0, 9]], 9, [[0, 8]]),
        ([[0, 8]], 9, [[0, 8]]),
    ],
)
def test_both_forms_of_shots_are_told_apart(shots: list[list[int]], length: int, expected: list[list[int]]) -> None:
    assert equal(inclusive_shots(np.array(shots), length), expected)


@pytest.mark.parametrize("shots", [[[0, 3], [5, 8]], [[0, 12], [12, 20]], [[0.5, 2.0]], [0, 1]])
def test_shots_of_no_form_are_refused(shots: Any) -> None:
    with pytest.raises(H5SchemaError, match="change_points"):
        inclusive_shots(np.array(shots), 9)


def test_what_is_missing_is_said_with_what_was_found(tmp_path: Path) -> None:
    store = write(tmp_path / "odd.h5", {"v": {"clip": features(4), "text": features(4)}})
    with pytest.raises(
        H5SchemaError, match="v: no features under features, video_embeddings, feature; there is clip, text"
    ):
        list(read_layout(store))
    (record,) = read_layout(store, features_key="clip")
    assert record.features.shape == (4, 4)
    with pytest.raises(H5SchemaError, match=r"expected features \(T, d\) of floats, got float64 \(3, 2, 5, 1\)"):
        list(read_layout(write(tmp_path / "tokens.h5", {"v": np.ones((3, 2, 5, 1))})))


def test_qvhighlights_are_ratings_by_clip(tmp_path: Path) -> None:
    line = {
        "vid": "v_1",
        "query": "a dog",
        "duration": 9,
        "relevant_clip_ids": [1, 3],
        "saliency_scores": [[4, 2, 0], [1, 1, 3]],
    }
    (tmp_path / "qv.jsonl").write_text(json.dumps(line) + "\n\n")
    (found,) = read_qvhighlights(tmp_path / "qv.jsonl")
    assert (found.video, found.query) == ("v_1", "a dog")
    assert equal(found.ratings, [[0, 0, 0], [4, 2, 0], [0, 0, 0], [1, 1, 3], [0, 0, 0]])
    (tmp_path / "qv.jsonl").write_text(json.dumps({**line, "relevant_clip_ids": [1, 9]}))
    with pytest.raises(ValueError, match=r"qv\.jsonl: line 1 is not of QVHighlights' form: 2 relevant clips of 5"):
        read_qvhighlights(tmp_path / "qv.jsonl")


def test_convert_writes_a_file_that_every_command_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = write(tmp_path / "mr_hisum.h5", {"video_1": {"features": features(8), "gtscore": RNG.random(8)}})
    assert cli.main(["convert", str(store), "-o", str(tmp_path / "out.h5")]) == 0
    assert "1 videos, features of dimension 4" in capsys.readouterr().out
    assert validate_h5(tmp_path / "out.h5").provenance["converted_from"] == "mr_hisum.h5"
    assert cli.main(["convert", str(store), "-o", str(tmp_path / "out.h5")]) == 2
