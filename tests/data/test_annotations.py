from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from visp.data import H5SchemaError, VideoRecord, read_tvsum_mat, read_tvsum_tsv, validate_h5, write_h5

Scores = npt.NDArray[np.integer]
IDS = ("AwmHb44_ouw", "-esJrBWj2d8", "0tmA_C6XwfM")
FRAMES = (30, 24, 41)
U = 20


def tvsum(frames: Sequence[int] = FRAMES) -> list[Scores]:
    rng = np.random.default_rng(0)
    return [rng.integers(1, 6, size=(U, n)) for n in frames]


def row(video: str, scores: npt.ArrayLike) -> str:
    return f"{video}\tVT\t{','.join(map(str, np.asarray(scores).tolist()))}"


def rows(annotations: Sequence[Scores]) -> list[str]:
    return [row(video, scores) for video, users in zip(IDS, annotations, strict=True) for scores in users]


def write_tsv(path: Path, lines: Sequence[str], end: str = "\n") -> Path:
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def write_mat(path: Path, annotations: Sequence[Scores], **changes: Callable[[int], Any]) -> Path:
    """The layout of MATLAB 7.3: a struct array is a group of references, and arrays are transposed."""
    values: dict[str, Callable[[int], Any]] = {
        "category": lambda i: codes("VT"),
        "gt_score": lambda i: annotations[i].mean(axis=0, keepdims=True),
        "length": lambda i: np.array([[12.5]]),
        "nframes": lambda i: np.array([[float(annotations[i].shape[1])]]),
        "title": lambda i: codes("Fête au château"),
        "user_anno": lambda i: annotations[i].astype(np.float64),
        "video": lambda i: codes(IDS[i]),
        **changes,
    }
    with h5py.File(path, "w", userblock_size=512) as file:
        for field, value in values.items():
            references = file.create_dataset(f"tvsum50/{field}", (len(annotations), 1), dtype=h5py.ref_dtype)
            for i in range(len(annotations)):
                file[f"#refs#/{field}{i}"] = value(i)
                references[i, 0] = file[f"#refs#/{field}{i}"].ref
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
    return path


def codes(text: str) -> npt.NDArray[np.uint16]:
    return np.array([[ord(letter)] for letter in text], dtype=np.uint16)


def message_of(read: Callable[..., object], path: Path, *arguments: object) -> str:
    with pytest.raises(ValueError, match=path.name) as caught:
        read(path, *arguments)
    return str(caught.value)


def assert_is_tvsum(got: Mapping[str, npt.NDArray[np.float32]]) -> None:
    assert list(got) == ["video_1", "video_2", "video_3"]
    for scores, expected in zip(got.values(), tvsum(), strict=True):
        assert scores.dtype == np.float32
        np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tsv_rows_become_one_array_per_video(tmp_path: Path, end: str) -> None:
    assert_is_tvsum(read_tvsum_tsv(write_tsv(tmp_path / "a.tsv", rows(tvsum()), end)))


def test_tsv_rows_of_a_video_need_not_be_together(tmp_path: Path) -> None:
    lines = rows(tvsum())
    together_no_more = [lines[0], lines[U], *lines[1:U], *lines[U + 1 :]]
    assert_is_tvsum(read_tvsum_tsv(write_tsv(tmp_path / "a.tsv", together_no_more)))


def test_mat_elements_become_one_array_per_video(tmp_path: Path) -> None:
    assert_is_tvsum(read_tvsum_mat(write_mat(tmp_path / "a.mat", tvsum())))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("AwmHb44_ouw\t4,4,4", "expected 3 columns with tabs between them (id, category, scores), got 2"),
        ("AwmHb44_ouw\tVT\t4,4\t4", "expected 3 columns with tabs between them (id, category, scores), got 4"),
        (row(IDS[0], [1] * 30).replace("1,1,", "1,x,", 1), "expected numbers with commas between them, got 'x'"),
        (row(IDS[0], [1] * 30) + ",", "expected numbers with commas between them, got '' for frame 30"),
        (row(IDS[0], [1] * 7 + [0] * 23), "expected scores from 1 to 5, got 0 for frame 7"),
        (row(IDS[0], [6] * 30), "expected scores from 1 to 5, got 6 for frame 0"),
        (row(IDS[0], [1] * 29) + ",nan", "expected scores from 1 to 5, got nan for frame 29"),
        (row(IDS[0], [1] * 29), "'AwmHb44_ouw' has 29 scores, but line 1 has 30 for it"),
    ],
)
def test_a_malformed_tsv_row_is_told_with_its_line(tmp_path: Path, line: str, problem: str) -> None:
    lines = rows(tvsum())
    lines[2] = line
    path = write_tsv(tmp_path / "a.tsv", lines)
    assert message_of(read_tvsum_tsv, path).startswith(f"{path}: line 3: {problem}")


def test_a_tsv_video_with_an_annotator_less_is_told(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "a.tsv", rows(tvsum())[:-1])
    assert message_of(read_tvsum_tsv, path) == (
        f"{path}: '0tmA_C6XwfM' (from line 41) has 19 annotators, but 'AwmHb44_ouw' (from line 1) has 20"
    )


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_tsv_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tsv: no annotations"):
        read_tvsum_tsv(tmp_path / "a.tsv")


def test_a_binary_file_is_no_tsv(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="line 1: expected 3 columns"):
        read_tvsum_tsv(tmp_path / "a.tsv")


@pytest.mark.parametrize("read", [read_tvsum_tsv, read_tvsum_mat])
def test_a_missing_annotation_file_is_told(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(tmp_path / "nowhere")


def write_both(folder: Path, annotations: Sequence[Scores]) -> list[tuple[Callable[..., Any], Path]]:
    return [
        (read_tvsum_tsv, write_tsv(folder / "a.tsv", rows(annotations))),
        (read_tvsum_mat, write_mat(folder / "a.mat", annotations)),
    ]


def write_dataset(path: Path, frames: Sequence[int]) -> dict[str, int]:
    records = (VideoRecord(f"video_{i}", np.ones((2, 3)), n_frames=n) for i, n in enumerate(frames, start=1))
    write_h5(path, records)
    return validate_h5(path).n_frames


def test_annotations_of_the_datasets_lengths_are_accepted(tmp_path: Path) -> None:
    n_frames = write_dataset(tmp_path / "a.h5", FRAMES)
    for read, path in write_both(tmp_path, tvsum()):
        assert_is_tvsum(read(path, n_frames))


def test_a_part_of_the_dataset_is_checked_alone(tmp_path: Path) -> None:
    for read, path in write_both(tmp_path, tvsum()):
        assert_is_tvsum(read(path, {"video_2": FRAMES[1]}))


def test_a_length_that_disagrees_names_both_sides(tmp_path: Path) -> None:
    n_frames = write_dataset(tmp_path / "a.h5", (30, 25, 41))
    places = ("'-esJrBWj2d8' (from line 21)", "'-esJrBWj2d8' (tvsum50(2))")
    for (read, path), place in zip(write_both(tmp_path, tvsum()), places, strict=True):
        assert message_of(read, path, n_frames) == (
            f"{path}: {place} has scores of 24 frames, but the dataset's 'video_2' has 25"
        )


def test_another_order_is_told_as_such(tmp_path: Path) -> None:
    n_frames = write_dataset(tmp_path / "a.h5", (30, 41, 24))
    for read, path in write_both(tmp_path, tvsum()):
        message = message_of(read, path, n_frames)
        assert "has scores of 24 frames, but the dataset's 'video_2' has 41 (and 1 more disagree)" in message
        assert message.endswith("file and dataset have the same lengths, but in different order")


def test_a_video_without_annotations_names_both_sides(tmp_path: Path) -> None:
    n_frames = write_dataset(tmp_path / "a.h5", (*FRAMES, 50))
    for read, path in write_both(tmp_path, tvsum()):
        assert message_of(read, path, n_frames) == (
            f"{path}: annotates 3 videos, video_1 to video_3, but the dataset has 'video_4'"
        )


def test_a_mat_video_with_an_annotator_less_is_told(tmp_path: Path) -> None:
    annotations = tvsum()
    annotations[2] = annotations[2][1:]
    with pytest.raises(ValueError, match=r"'0tmA_C6XwfM' \(tvsum50\(3\)\) has 19 annotators, but .* has 20"):
        read_tvsum_mat(write_mat(tmp_path / "a.mat", annotations))


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("user_anno", np.full((U, 9), 0.0), "'AwmHb44_ouw' (tvsum50(1)): expected scores from 1 to 5, got 0"),
        ("user_anno", np.full((U, 9), np.nan), "'AwmHb44_ouw' (tvsum50(1)): expected scores from 1 to 5, got nan"),
        ("user_anno", np.ones(9), "'AwmHb44_ouw' (tvsum50(1)): expected user_anno (U, n_frames) of numbers"),
        ("user_anno", np.ones((0, 9)), "'AwmHb44_ouw' (tvsum50(1)): expected user_anno (U, n_frames) of numbers"),
        ("video", np.ones((3, 1)), "tvsum50(1).video: expected the codes of a text, got float64"),
    ],
)
def test_a_malformed_mat_element_is_told(tmp_path: Path, field: str, value: Scores, problem: str) -> None:
    path = write_mat(tmp_path / "a.mat", tvsum(), **{field: lambda i: value})
    assert message_of(read_tvsum_mat, path).startswith(f"{path}: {problem}")


def test_a_mat_without_the_struct_array_is_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["scores"] = np.ones(3)
    with pytest.raises(ValueError, match="no struct array 'tvsum50'; there is scores"):
        read_tvsum_mat(tmp_path / "a.mat")


def test_a_mat_without_a_field_is_told(tmp_path: Path) -> None:
    path = write_mat(tmp_path / "a.mat", tvsum())
    with h5py.File(path, "a") as file:
        del file["tvsum50/user_anno"]
    with pytest.raises(ValueError, match="tvsum50 has no field 'user_anno'; there is category"):
        read_tvsum_mat(path)


def test_a_mat_of_one_video_without_references_is_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["tvsum50/video"] = codes(IDS[0])
        file["tvsum50/user_anno"] = tvsum()[0]
    with pytest.raises(ValueError, match="tvsum50/video: expected a reference for each video, got uint16"):
        read_tvsum_mat(tmp_path / "a.mat")


def test_an_older_mat_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(600))
    with pytest.raises(H5SchemaError, match=r"a\.mat: not a readable HDF5 file"):
        read_tvsum_mat(tmp_path / "a.mat")
