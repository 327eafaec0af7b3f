"""Copies without encoding: the source's own frames from key frame to end, in step with their sound."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("av")

from tests.video.clips import (
    RATE,
    REAL_VIDEOS,
    decode_fully,
    ffmpeg,
    flashes_and_beeps,
    mean_colours,
    probe,
    real_video,
    write_clip,
)
from visp.video import VideoError, iter_sampled_frames, write_summary
from visp.video.remux import copy_spans


def images(path: Path) -> list[npt.NDArray[np.int64]]:
    return [frame.image.astype(np.int64) for frame in iter_sampled_frames(path, fps=None)]


def frame_hashes(path: Path) -> list[str]:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:v:0", "-vsync", "0", "-f", "framemd5", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split(",")[-1].strip() for line in done.stdout.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize(("ending", "b_frames"), [(".mp4", "0"), (".mp4", "2"), (".mkv", "2"), (".mov", "2")])
def test_spans_begin_at_key_frames_and_hold_the_sources_frames(tmp_path: Path, ending: str, b_frames: str) -> None:
    clip = tmp_path / "clip.mp4"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=7", "-f", "lavfi", "-i"]
    encode = ["-c:v", "libx264", "-g", "20", "-keyint_min", "20", "-sc_threshold", "0", "-bf", b_frames, "-c:a", "aac"]
    subprocess.run([*command, "sine=d=7", *encode, str(clip)], check=True)
    out = tmp_path / f"out{ending}"
    times = copy_spans(clip, [[1.0, 2.0], [4.0, 5.0], [5.5, 6.2]], out, encode_borders=False).times
    source, found = frame_hashes(clip), frame_hashes(out)
    assert times[:2, 0] == pytest.approx([0.8, 4])
    assert times[2, 0] == pytest.approx(times[1, 1])  # the key frame before it is in the span before
    assert (np.abs(times[:, 1] - [2, 5, 6.2]) < 0.13).all()
    expected = [frame for a, b in np.rint(times * 25).astype(int) for frame in source[a:b]]
    assert found == expected
    decode_fully(out)
    played = probe(out)
    if ending != ".mkv":
        assert float(played["audio"]["duration"]) == pytest.approx(float(played["video"]["duration"]), abs=0.05)


SHOTS = [(10, 130), (133, 140), (150, 199)]
"""First frame and one past the last: parts between key frames, less than one, and up to the end."""


@pytest.mark.parametrize(
    ("ending", "rate", "out"),
    [(".mp4", "30000/1001", "out.mp4"), (".ts", "25", "out.mp4"), (".mkv", "30000/1001", "out.mkv")],
)
def test_spans_of_h264_are_cut_to_the_frame_and_only_their_borders_encoded(
    tmp_path: Path, ending: str, rate: str, out: str
) -> None:
    clip = tmp_path / f"clip{ending}"
    ffmpeg(
        f"-f lavfi -i testsrc2=s=96x64:r={rate}:d=8 -f lavfi -i sine=d=8 -pix_fmt yuv420p -c:v libx264 -g 40 "
        f"-sc_threshold 0 -bf 2 -c:a aac {clip}"
    )
    period = float(1 / Fraction(rate))
    copied = copy_spans(clip, [[a * period, b * period] for a, b in SHOTS], tmp_path / out)
    np.testing.assert_allclose(copied.times, np.array(SHOTS) * period, atol=1e-4)
    wanted = [number for a, b in SHOTS for number in range(a, b)]
    whole = frame_hashes(clip)
    found = frame_hashes(tmp_path / out)
    assert len(found) == len(wanted)
    as_they_were = [hash_ == whole[number] for hash_, number in zip(found, wanted, strict=True)]
    assert as_they_were[30:110] == [True] * 80  # from key frame 40 to key frame 120
    assert copied.encoded == pytest.approx((len(wanted) - 80) * period, abs=1e-3)
    frames, source = images(tmp_path / out), images(clip)
    for frame, number in zip(frames, wanted, strict=True):
        off = [np.abs(frame - source[near]).mean() for near in (number - 1, number, number + 1)]
        assert off.index(min(off)) == 1
    decode_fully(tmp_path / out)


@pytest.mark.parametrize("options", ["-x264-params open-gop=1", "-flags +ildct+ilme", "-pix_fmt yuv422p"])
def test_h264_that_cannot_be_begun_anywhere_or_is_of_another_kind_is_cut_at_key_frames(
    tmp_path: Path, options: str
) -> None:
    clip = tmp_path / "clip.mp4"
    ffmpeg(f"-f lavfi -i testsrc2=s=96x64:r=25:d=5 -pix_fmt yuv420p -c:v libx264 -g 40 -bf 2 {options} {clip}")
    copied = copy_spans(clip, [[2, 4]], tmp_path / "out.mp4")
    assert copied.encoded == 0
    assert copied.times[0, 0] == pytest.approx(1.6)
    assert set(frame_hashes(tmp_path / "out.mp4")) <= set(frame_hashes(clip))


def test_turned_pictures_stay_turned(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 60, rotation=90)
    copy_spans(clip, [[0.5, 1.5]], tmp_path / "out.mp4")
    frames, source = images(tmp_path / "out.mp4"), images(clip)[15:45]
    assert [np.abs(a - b).mean() < 10 for a, b in zip(frames, source, strict=True)] == [True] * 30


@pytest.mark.parametrize("second", ["0", "7200"])
def test_joined_recordings_are_copied_on_one_clock(tmp_path: Path, second: str) -> None:
    parts = []
    for number, offset in enumerate(["10", second]):
        parts.append(tmp_path / f"{number}.ts")
        ffmpeg(
            f"-f lavfi -i testsrc2=s=96x64:r=25:d=3 -f lavfi -i sine=d=3 -pix_fmt yuv420p -c:v libx264 -g 20 "
            f"-c:a aac -output_ts_offset {offset} {parts[-1]}"
        )
    source, out = tmp_path / "in.ts", tmp_path / "out.mp4"
    source.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
    copied = copy_spans(source, [[1, 5]], out)
    assert copied.times[0, 1] - copied.times[0, 0] == pytest.approx(4)
    played = probe(out)
    assert float(played["video"]["duration"]) == pytest.approx(4, abs=0.1)
    assert float(played["audio"]["duration"]) == pytest.approx(4, abs=0.1)
    decode_fully(out)


def test_sound_stays_in_step(tmp_path: Path) -> None:
    images, sound = flashes_and_beeps(10, 25, at=[30, 130, 205])
    clip = write_clip(tmp_path / "clip.mp4", images, fps=25, sound=sound)
    out = tmp_path / "out.mkv"
    copy_spans(clip, [[1, 2], [5, 6], [8, 9]], out)
    bright = np.flatnonzero(mean_colours(out).mean(axis=1) > 128) / 25
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        str(out),
        "-map",
        "0:a",
        "-af",
        "aresample=async=1:first_pts=0",
        "-f",
        "f32le",
        "-",
    ]
    heard = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.float32)
    loud = np.flatnonzero(np.abs(heard) > 0.2) / RATE
    for time in bright:
        assert np.abs(loud - time - 0.02).min() < 0.02
    assert all(np.abs(bright + 0.02 - t).min() < 0.05 for t in loud)


def test_clips_of_a_summary_are_its_shots_to_the_frame(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 200, fps=25, size=(64, 48), sound=np.zeros((1, 8 * RATE), np.float32))
    shots = [[10, 33], [50, 51], [52, 90], [199, 199]]
    written = write_summary(clip, shots, tmp_path / "out.mp4")
    ends = np.cumsum(np.diff(written.times).ravel())
    spans = np.stack([ends - np.diff(written.times).ravel(), ends], axis=1)
    outs = [tmp_path / f"{number}.mp4" for number in range(4)]
    times = copy_spans(tmp_path / "out.mp4", spans, outs).times
    assert times == pytest.approx(spans, abs=1e-3)
    whole = frame_hashes(tmp_path / "out.mp4")
    assert [frame_hashes(out) for out in outs] == [whole[:24], whole[24:26], whole[26:65], whole[65:]]
    for out in outs:
        decode_fully(out)


@pytest.mark.parametrize("name", REAL_VIDEOS)
def test_real_videos_are_copied(tmp_path: Path, name: str) -> None:
    source, out = real_video(name), tmp_path / "out.mkv"
    times = copy_spans(source, [[0.5, 1], [1.5, 2]], out, encode_borders=False).times
    hashes, found = frame_hashes(source), frame_hashes(out)
    exact = copy_spans(source, [[0.5, 1], [1.5, 2]], tmp_path / "exact.mkv")
    if exact.encoded:
        np.testing.assert_allclose(exact.times, [[0.5, 1], [1.5, 2]], atol=0.051)
    decode_fully(tmp_path / "exact.mkv")
    assert (times[:, 0] <= [0.5 + 1e-3, 1.5 + 1e-3]).all()
    assert set(found) <= set(hashes)
    assert len(found) > 0
    decode_fully(out)


def test_what_a_container_cannot_hold_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", 30, codec="huffyuv", pix_fmt="yuv422p")
    with pytest.raises(VideoError, match=r"out.mp4: cannot hold a copy .* try .mkv"):
        copy_spans(clip, [[0, 1]], tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.avi"]
