"""Decoding: which frames are taken when, and what becomes of files that are broken, odd or hostile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")

from tests.video.clips import RATE, coloured, mean_colours, probe, real_video, write_clip
from visp.video import VideoError, iter_sampled_frames
from visp.video.decode import VideoReader, sampled


def picks(path: Path, fps: float | None = 2.0) -> list[int]:
    return [frame.index for frame in iter_sampled_frames(path, fps)]


def test_at_30_frames_a_second_every_15th_frame_is_taken(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 61)
    assert picks(clip) == [0, 15, 30, 45, 60]
    assert [frame.time for frame in iter_sampled_frames(clip)] == [0, 0.5, 1, 1.5, 2]


@pytest.mark.parametrize("fps", [24000 / 1001, 25, 30000 / 1001, 50])
@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_frames_are_taken_by_timestamp(tmp_path: Path, fps: float, ending: str) -> None:
    clip = write_clip(tmp_path / f"clip{ending}", 120, fps=fps)
    due = np.arange(0, 120 / fps, 0.5)
    expected = np.searchsorted(np.arange(120) / fps, due - 0.0006)  # Matroska rounds times to milliseconds
    assert picks(clip) == [index for index in expected.tolist() if index < 120]


def test_without_a_rate_every_frame_is_taken(tmp_path: Path) -> None:
    assert picks(write_clip(tmp_path / "clip.mp4", 20), None) == list(range(20))


def test_more_than_there_are_frames_takes_each_once(tmp_path: Path) -> None:
    assert picks(write_clip(tmp_path / "clip.mp4", 20, fps=10), 100) == list(range(20))


def test_variable_frame_rate_is_sampled_by_time(tmp_path: Path) -> None:
    times = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 1.7, 1.8, 2.1]
    clip = write_clip(tmp_path / "clip.mp4", 10, times=times)
    assert picks(clip) == [0, 5, 7, 9]  # nothing is shown anew in [1, 1.5)


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", 10, times=[5 + i / 10 for i in range(10)])
    assert [round(frame.time, 3) for frame in iter_sampled_frames(clip)] == [0, 0.5]


def test_images_are_rgb_of_the_sources_size(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", coloured([3], (80, 32)))
    frame = next(iter(iter_sampled_frames(clip)))
    assert frame.image.shape == (32, 80, 3)
    np.testing.assert_allclose(frame.image.mean(axis=(0, 1)), (230, 30, 30), atol=6)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_metadata_turns_the_image_upright(tmp_path: Path, rotation: int) -> None:
    image = np.full((48, 64, 3), 20, np.uint8)
    image[:16, :16] = 250  # a light corner at the top left of the stored picture
    clip = write_clip(tmp_path / "clip.mp4", [image] * 5, rotation=rotation)
    turned = next(iter(iter_sampled_frames(clip))).image
    expected = np.rot90(image, rotation // 90)
    assert turned.shape == expected.shape
    np.testing.assert_allclose(turned.astype(int), expected, atol=12)
    assert probe(clip)["video"]["side_data_list"][0]["rotation"] in (rotation, rotation - 360)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_a_file_of_sound_alone_is_no_video(tmp_path: Path) -> None:
    sound = write_clip(tmp_path / "song.mp4", 2, sound=np.zeros((1, RATE), np.float32))
    only = tmp_path / "only_sound.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(sound), "-vn", "-c", "copy", str(only)], check=True)
    with pytest.raises(VideoError, match=r"only_sound.mp4: has no video stream"):
        picks(only)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "it is empty"), (b"hello\n" * 400, "cannot be read as a video"), (bytes(4000), "cannot be read as a video")],
)
def test_what_is_no_video_is_refused_in_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "clip.mp4"
    file.write_bytes(content)
    with pytest.raises(VideoError, match=rf"clip\.mp4: .*{reason}") as caught:
        picks(file)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.mp4: no such file"):
        picks(tmp_path / "none.mp4")
    with pytest.raises(VideoError, match="not a file"):
        picks(tmp_path)


@pytest.mark.parametrize("options", [{}, {"movflags": "+faststart"}])
def test_a_file_cut_short_is_refused(tmp_path: Path, options: dict[str, str]) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 60, options=options)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(VideoError, match="cut short" if options else "cannot be read as a video"):
        picks(clip)


def test_a_cut_short_matroska_file_is_refused(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", 60)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(VideoError, match="cut short or badly damaged: only"):
        picks(clip)


def test_damaged_packets_are_left_out_and_counted(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8)
    clip = write_clip(tmp_path / "clip.mp4", list(noise), options={"movflags": "+faststart"})
    content = bytearray(clip.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 9000] = b"\xff" * 9000
    clip.write_bytes(bytes(content))
    with VideoReader(clip) as reader:
        taken = [frame.index for frame in sampled(reader)]
        assert 0 < reader.damaged < 10
        assert 50 <= reader.n_frames <= 60
    assert taken[:2] == [0, 15]


HOSTILE = [
    "concat:a|b.mp4",
    "-i.mp4",
    "%03d.mp4",
    "a\nb; rm -rf ~.mp4",
    "<script>alert(1)<script>.mp4",
    "http:example.mp4",
    " $(id) `id` '\".mp4",
    "видео 視頻.mp4",
    os.fsdecode(b"\xff\xfe.mp4"),
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_name_is_only_a_name(tmp_path: Path, name: str) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 20)
    assert picks(clip.rename(tmp_path / name)) == [0, 15]


def test_a_hostile_name_cannot_break_an_error_line(tmp_path: Path) -> None:
    file = tmp_path / "a\nb\x1b[31m.mp4"
    file.write_bytes(b"nothing")
    with pytest.raises(VideoError) as caught:
        picks(file)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_a_rate_must_be_positive(tmp_path: Path, fps: float) -> None:
    with pytest.raises(ValueError, match="fps must be a positive number"):
        picks(write_clip(tmp_path / "clip.mp4", 3), fps)


@pytest.mark.parametrize(
    ("name", "n_frames", "first"),
    [
        ("torchcodec_nasa_13013.mp4", 325, [0, 13, 25, 38]),
        ("torchcodec_testsrc2.mp4", 60, [0, 15, 30, 45]),
        ("torchcodec_var_fps_video.mp4", 300, [0, 15, 30, 31]),
    ],
)
def test_real_videos(name: str, n_frames: int, first: list[int]) -> None:
    with VideoReader(real_video(name)) as reader:
        taken = [frame.index for frame in sampled(reader)]
        assert reader.n_frames == n_frames
        assert reader.damaged == 0
    assert taken[:4] == first


def test_every_frame_is_decoded_in_order(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", coloured([4, 4, 4]))
    assert (mean_colours(clip).argmax(axis=1)).tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_without_pyav_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['av'] = None\n"
        "import visp.video\n"
        "try:\n    list(visp.video.iter_sampled_frames('x.mp4'))\n"
        "except ModuleNotFoundError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "visp[video]"' in done.stdout
