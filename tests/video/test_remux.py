"""Copies without encoding: the source's own frames from key frame to end, in step with their sound."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")

from tests.video.clips import (
    RATE,
    REAL_VIDEOS,
    decode_fully,
    flashes_and_beeps,
    mean_colours,
    probe,
    real_video,
    write_clip,
)
from visp.video import VideoError, write_summary
from visp.video.remux import copy_spans


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
    times = copy_spans(clip, [[1.0, 2.0], [4.0, 5.0], [5.5, 6.2]], out)
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
    times = copy_spans(tmp_path / "out.mp4", spans, outs)
    assert times == pytest.approx(spans, abs=1e-3)
    whole = frame_hashes(tmp_path / "out.mp4")
    assert [frame_hashes(out) for out in outs] == [whole[:24], whole[24:26], whole[26:65], whole[65:]]
    for out in outs:
        decode_fully(out)


@pytest.mark.parametrize("name", REAL_VIDEOS)
def test_real_videos_are_copied(tmp_path: Path, name: str) -> None:
    source, out = real_video(name), tmp_path / "out.mkv"
    times = copy_spans(source, [[0.5, 1], [1.5, 2]], out)
    hashes, found = frame_hashes(source), frame_hashes(out)
    assert (times[:, 0] <= [0.5 + 1e-3, 1.5 + 1e-3]).all()
    assert set(found) <= set(hashes)
    assert len(found) > 0
    decode_fully(out)


def test_what_a_container_cannot_hold_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", 30, codec="huffyuv", pix_fmt="yuv422p")
    with pytest.raises(VideoError, match=r"out.mp4: cannot hold a copy .* try .mkv"):
        copy_spans(clip, [[0, 1]], tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.avi"]
