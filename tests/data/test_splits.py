from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visp.data import Split, hold_out, make_splits, read_splits, write_splits

FOLDS = [
    Split(("video_3", "video_1", "video_10"), ("video_2",)),
    Split(("video_1", "video_2"), ("video_10", "video_3")),
]
NAMES = ("video_1", "video_2", "video_3", "video_10")
H5 = "../datasets/eccv16_dataset_summe_google_pool5.h5/"


def as_json(folds: Sequence[Split], prefix: str = "") -> str:
    lists = [
        {"train_keys": [prefix + v for v in fold.train], "test_keys": [prefix + v for v in fold.test]} for fold in folds
    ]
    return json.dumps(lists, indent=4)


def as_yaml(folds: Sequence[Split], prefix: str = "") -> str:
    lines = []
    for fold in folds:
        lines += ["- test_keys:", *(f"  - {prefix}{v}" for v in fold.test)]
        lines += ["  train_keys:", *(f"  - {prefix}{v}" for v in fold.train)]
    return "\n".join(lines) + "\n"


def as_lines(folds: Sequence[Split]) -> str:
    return "".join(f"SumMe/split{i}/{','.join(f.train)}/{','.join(f.test)}\n" for i, f in enumerate(folds))


def write(folder: Path, text: str) -> Path:
    path = folder / "splits"
    path.write_text(text, encoding="utf-8")
    return path


def message_of(path: Path, names: Sequence[str] | None = None) -> str:
    with pytest.raises(ValueError, match=path.name) as caught:
        read_splits(path, names)
    return str(caught.value)


TEXTS = {
    "json": as_json(FOLDS),
    "json with files": as_json(FOLDS, "eccv16_dataset_summe_google_pool5/"),
    "yaml": as_yaml(FOLDS),
    "yaml with files": as_yaml(FOLDS, H5),
    "yaml, indented, with quotes and comments": "---\n# five\n\n"
    + as_yaml(FOLDS).replace("  - video_2", "      - 'video_2'"),
    "lines": as_lines(FOLDS),
    "lines with spaces and blank ones": "\n" + as_lines(FOLDS).replace(",", ", ") + "\n",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("names", [None, NAMES])
def test_each_form_is_read(tmp_path: Path, text: str, names: tuple[str, ...] | None) -> None:
    assert read_splits(write(tmp_path, text), names) == FOLDS


def test_one_object_is_one_fold_with_its_validation_videos(tmp_path: Path) -> None:
    text = json.dumps({"train_keys": ["a", "b"], "val_keys": ["c"], "test_keys": ["d"]})
    assert read_splits(write(tmp_path, text)) == [Split(("a", "b"), ("d",), ("c",))]


def test_what_is_no_list_of_videos_may_stand_beside_them(tmp_path: Path) -> None:
    text = json.dumps([{"dataset": "some/where", "train_keys": ["x/a"], "test_keys": ["x/b"]}])
    assert read_splits(write(tmp_path, text)) == [Split(("a",), ("b",))]


@pytest.mark.parametrize("end", [".h5/", "/"])
def test_videos_of_several_files_keep_the_files_name(tmp_path: Path, end: str) -> None:
    text = json.dumps([{"train_keys": [f"ovp{end}video_1"], "test_keys": [f"summe{end}video_1"]}])
    assert read_splits(write(tmp_path, text)) == [Split(("ovp/video_1",), ("summe/video_1",))]


def test_videos_of_several_files_are_found_in_a_dataset_of_several_files(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps([{"train_keys": ["a/ovp.h5/video_1"], "test_keys": ["a/summe.h5/video_1"]}]))
    assert read_splits(path, ["ovp/video_1", "summe/video_1"]) == [Split(("ovp/video_1",), ("summe/video_1",))]


def test_videos_of_one_file_are_found_in_a_dataset_of_several_files(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps([{"train_keys": ["a/ovp.h5/video_1"], "test_keys": ["a/ovp.h5/video_2"]}]))
    names = ["ovp/video_1", "ovp/video_2", "summe/video_1"]
    assert read_splits(path, names) == [Split(("ovp/video_1",), ("ovp/video_2",))]


def test_videos_of_several_files_are_not_taken_for_those_of_one(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps([{"train_keys": ["ovp.h5/video_1"], "test_keys": ["summe.h5/video_2"]}]))
    assert "fold 0 names 'ovp/video_1', 'summe/video_2', not in the dataset" in message_of(path, NAMES)


@pytest.mark.parametrize("form", [as_json, as_yaml, as_lines])
def test_a_video_that_is_not_there_names_both_sides(tmp_path: Path, form: Callable[[Sequence[Split]], str]) -> None:
    path = write(tmp_path, form([FOLDS[0], Split(("video_1",), ("video_51",))]))
    assert message_of(path, NAMES) == (
        f"{path}: fold 1 names 'video_51', not in the dataset; there is video_1, video_2, video_3, video_10"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("SumMe/split0/video_1,video_2/video_2", "fold 0: 'video_2' is named 2 times, in train and test"),
        ("SumMe/split0/video_1,video_1/video_2", "fold 0: 'video_1' is named 2 times, in train and train"),
        (
            '[{"train_keys": ["a.h5/x"], "test_keys": ["a/x"]}]',
            "fold 0: 'a/x' is named 2 times, in train and test",
        ),
        ("SumMe/split0/video_1,,video_3/video_2", "fold 0: a video without a name under 'train_keys'"),
        ("SumMe/split0/video_1/", "fold 0: a video without a name under 'test_keys'"),
        ("SumMe/split0/video_1", "line 1: expected dataset/fold/train videos/test videos, got 'SumMe/split0/video_1'"),
        ("", "no folds"),
        ("[]", "no folds"),
        ('[{"train_keys": ["a"]}]', "fold 0: no 'test_keys'"),
        ('[{"train_keys": [], "test_keys": ["a"]}]', "fold 0: no 'train_keys'"),
        (
            '[{"train_keys": "a", "test_keys": ["b"]}]',
            "fold 0: expected a list of video names under 'train_keys', got 'a'",
        ),
        (
            '[{"train_keys": [1], "test_keys": ["b"]}]',
            "fold 0: expected a list of video names under 'train_keys', got [1]",
        ),
        ('[["a"], ["b"]]', "fold 0: expected an object with 'train_keys' and 'test_keys', got ['a']"),
        (
            '[{"train_keys": ["a"], "test_keys": ["b"], "dev_keys": ["c"]}]',
            "fold 0: unknown list 'dev_keys'; expected train_keys, test_keys, val_keys",
        ),
        ('[{"train_keys": ', "Expecting value"),
        ("- train_keys:\n  - a\n  - 'b\n", "line 3: expected '- train_keys:' or '- video_1', got \"- 'b\""),
        ("- train_keys: [a, b]\n", "line 1: expected '- train_keys:' or '- video_1', got '- train_keys: [a, b]'"),
        ("- a\n- train_keys:\n", "line 1: expected '- train_keys:' or '- video_1', got '- a'"),
        ("train_keys:\n  - a\n", "line 1: expected '- ' before the first list of a fold, got 'train_keys:'"),
        ("- train_keys:\n  - a\n  train_keys:\n", "line 3: expected '- ' before the first list of a fold"),
    ],
)
def test_what_makes_no_folds_is_told_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path, text)
    assert message_of(path).startswith(f"{path}: {problem}")


def test_a_missing_split_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_splits(tmp_path / "nowhere.json")


def test_a_split_with_one_video_in_two_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' is named 2 times, in train and validation"):
        Split(("a",), ("b",), ("a",))


def test_written_splits_read_back(tmp_path: Path) -> None:
    splits = [*FOLDS, Split(("a",), ("b",), ("c", "d"))]
    write_splits(tmp_path / "splits.json", splits)
    assert read_splits(tmp_path / "splits.json") == splits


def test_written_splits_are_the_fields_json(tmp_path: Path) -> None:
    write_splits(tmp_path / "splits.json", FOLDS)
    assert json.loads((tmp_path / "splits.json").read_text()) == json.loads(as_json(FOLDS))


def test_writing_leaves_only_the_new_file(tmp_path: Path) -> None:
    for splits in (FOLDS[:1], FOLDS):
        write_splits(tmp_path / "splits.json", splits)
    assert [path.name for path in tmp_path.iterdir()] == ["splits.json"]
    assert read_splits(tmp_path / "splits.json") == FOLDS


def test_a_failed_writing_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    write_splits(tmp_path / "splits.json", FOLDS)
    with pytest.raises(AttributeError):
        write_splits(tmp_path / "splits.json", [Split(("a",), ("b",)), 7])  # type: ignore[list-item]
    assert [path.name for path in tmp_path.iterdir()] == ["splits.json"]
    assert read_splits(tmp_path / "splits.json") == FOLDS


def test_writing_no_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no splits to write"):
        write_splits(tmp_path / "splits.json", [])


def test_writing_into_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        write_splits(tmp_path / "nowhere" / "splits.json", FOLDS)


@given(st.integers(2, 60), st.data(), st.integers(0, 2**32))
def test_made_folds_partition_the_videos(count: int, data: st.DataObject, seed: int) -> None:
    folds = data.draw(st.integers(2, min(count, 12)))
    names = [f"video_{i}" for i in range(count)]
    splits = make_splits(names, folds=folds, seed=seed)
    assert sorted(name for split in splits for name in split.test) == sorted(names)
    assert {len(split.test) for split in splits} <= {count // folds, -(-count // folds)}
    for split in splits:
        assert [name for name in names if name in split.test] == list(split.test)
        assert [name for name in names if name not in split.test] == list(split.train)


def test_the_seed_decides_the_folds() -> None:
    names = [f"video_{i}" for i in range(25)]
    assert make_splits(names, seed=3) == make_splits(names, seed=3) != make_splits(names, seed=4)


@pytest.mark.parametrize(("names", "folds"), [("abc", 1), ("abc", 4), ("", 2)])
def test_folds_that_cannot_be_made_are_refused(names: str, folds: int) -> None:
    with pytest.raises(ValueError, match=f"between 2 and the number of videos, {len(names)}, got {folds}"):
        make_splits(names, folds=folds)


def test_making_folds_of_a_name_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' is named 2 times"):
        make_splits("aba", folds=2)


@given(st.integers(2, 40), st.floats(0.001, 0.999), st.integers(0, 2**32))
def test_held_out_videos_come_from_the_training_videos(count: int, share: float, seed: int) -> None:
    split = Split(tuple(f"video_{i}" for i in range(count)), ("a", "b"))
    held = hold_out(split, share, seed=seed)
    assert held.test == split.test
    assert len(held.validation) == min(max(round(share * count), 1), count - 1)
    for part in (held.train, held.validation):
        assert tuple(name for name in split.train if name in part) == part
    assert set(held.train) | set(held.validation) == set(split.train)


def test_the_seed_decides_the_held_out_videos() -> None:
    split = make_splits([f"video_{i}" for i in range(50)])[0]
    assert hold_out(split, seed=3) == hold_out(split, seed=3) != hold_out(split, seed=4)


@pytest.mark.parametrize(
    ("split", "share", "message"),
    [
        (FOLDS[0], 0.0, "share must be between 0 and 1, both excluded, got 0.0"),
        (FOLDS[0], 1.0, "share must be between 0 and 1, both excluded, got 1.0"),
        (Split(("a",), ("b",)), 0.2, "needs at least 2 training videos, got 1"),
        (Split(("a", "b"), ("c",), ("d",)), 0.2, "has validation videos already; there is d"),
    ],
)
def test_what_cannot_be_held_out_is_refused(split: Split, share: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hold_out(split, share)


def test_leave_one_out_tests_each_video_once() -> None:
    folds = make_splits(["a", "b", "c"], folds="leave-one-out")
    assert sorted(fold.test for fold in folds) == [("a",), ("b",), ("c",)]
    assert all(len(fold.train) == 2 for fold in folds)
