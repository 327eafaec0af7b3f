"""Sound: from every container and codec as clean as FFmpeg's own re-encode, and in step with the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("av")

from tests.video.clips import RATE, decode_fully, ffmpeg, heard, mean_colours, noise, probe
from visp.video import VideoError, iter_sampled_frames, write_summary
from visp.video.reel import write_reel
from visp.video.remux import copy_spans

MATRIX = [  # every container, and every codec
    ("mkv", "libx264", "flac"),
    ("mkv", "libx264", "libopus"),
    ("webm", "libvpx", "libvorbis"),
    ("flv", "flv1", "libmp3lame"),
    ("wmv", "wmv2", "wmav2"),
    ("ts", "libx264", "aac"),
    ("vob", "mpeg2video", "ac3"),
    ("mpg", "mpeg1video", "mp2"),
    ("mov", "libx264", "pcm_s16le"),
    ("mp4", "libx264", "aac"),
    ("avi", "mpeg4", "libmp3lame"),
]
FLASHES = (12, 37)
"""Frames, at 25 a second, that are white and with which a click begins."""


def frame_times(path: Path) -> npt.NDArray[np.float64]:
    return np.array([frame.time for frame in iter_sampled_frames(path, fps=None)])


def flashing(folder: Path, ending: str, video: str, audio: str) -> Path:
    """Two seconds of flashes and clicks, two of a tone, at a rate that milliseconds cannot hold."""
    rate = 44_100 if audio not in ("libopus", "ac3") else 48_000
    seen = "+".join(f"eq(N,{n})" for n in FLASHES)
    clicks = "+".join(f"between(t,{n / 25},{n / 25 + 0.02})" for n in FLASHES)
    source = folder / f"in.{ending}"
    ffmpeg(
        f"-f lavfi -i \"color=black:s=96x64:r=25:d=4,geq=lum='if({seen},235,16)':cb=128:cr=128\" "
        f"-f lavfi -i \"aevalsrc='if(lt(t,2),0.9*({clicks})*sin(2*PI*3000*t),0.4*sin(2*PI*1000*t))':s={rate}:d=4\" "
        f"-pix_fmt yuv420p -c:v {video} -g 10 -b:v 400k -bf 0 -c:a {audio} -b:a 160k -strict -2 {source}"
    )
    return source


def assert_in_step(path: Path, flashes: int) -> None:
    """Assert that there are so many flashes, and that a click begins with each, to half a frame."""
    white = np.array([f.time for f in iter_sampled_frames(path, fps=None) if f.image.mean() > 100])
    loud = np.flatnonzero(np.abs(heard(path, "-af aresample=async=1:min_hard_comp=0.001:first_pts=0")) > 0.2) / RATE
    assert len(white) == flashes
    for time in white:
        near = loud[np.abs(loud - time) < 0.1] - time
        assert abs(near.min()) < 0.02
        assert abs(near.max() - 0.02) < 0.02


@pytest.mark.parametrize(("ending", "video", "audio"), MATRIX)
def test_a_tone_is_as_clean_as_in_ffmpegs_own_reencode_and_clicks_stay_with_their_flashes(
    tmp_path: Path, ending: str, video: str, audio: str
) -> None:
    source = flashing(tmp_path, ending, video, audio)
    out, again = tmp_path / "out.mp4", tmp_path / "again.mkv"
    shots = [[n - 4, n + 5] for n in FLASHES] + [[50, 96]]
    write_summary(source, shots, out)
    ffmpeg(f"-i {source} -map 0:a -af atrim=start_sample=500 -c:a aac -b:a 128k {again}")

    bright = np.flatnonzero(mean_colours(out).mean(axis=1) > 100)
    assert bright.tolist() == [4, 14]
    assert_in_step(out, 2)
    sound = heard(out)
    tone = sound[round(1.1 * RATE) : round(2.5 * RATE)]
    reference = heard(again)[round(2.3 * RATE) : round(3.7 * RATE)]
    assert noise(tone) < noise(reference) + 3
    found = probe(out)
    assert int(found["video"]["nb_read_frames"]) == 20 + 47
    assert abs(float(found["video"]["duration"]) - float(found["audio"]["duration"])) < 0.02
    decode_fully(out)


@pytest.mark.parametrize(("ending", "video", "audio"), MATRIX)
def test_in_copies_and_reels_clicks_stay_with_their_flashes(
    tmp_path: Path, ending: str, video: str, audio: str
) -> None:
    source = flashing(tmp_path, ending, video, audio)
    copied, reel = tmp_path / "copied.mkv", tmp_path / "reel.mp4"
    seconds = 0.0
    if video in ("flv1", "wmv2"):
        with pytest.raises(VideoError, match="cannot hold a copy"):
            copy_spans(source, [[0, 1]], copied)
    else:
        spans = copy_spans(source, [[(n - 4) / 25, (n + 6) / 25] for n in FLASHES], copied)
        seconds = float(np.diff(spans.times).sum())
        assert seconds == pytest.approx(0.8) if video == "libx264" else 0.79 < seconds < 1.61
        assert_in_step(copied, 2)
        decode_fully(copied)
    write_reel([source, copied, source] if seconds else [source, source], reel)
    assert_in_step(reel, 6 if seconds else 4)
    assert float(probe(reel)["video"]["duration"]) == pytest.approx(8 + seconds, abs=0.1)


@pytest.mark.parametrize(
    ("ending", "codecs"),
    [
        ("ts", "-c:v libx264 -x264-params nal-hrd=cbr -c:a aac"),
        ("vob", "-c:v mpeg2video -c:a ac3"),
        ("mkv", "-c:v libx264 -c:a aac"),
    ],
)
def test_sound_that_starts_later_than_probing_looks_is_silent_until_then(
    tmp_path: Path, ending: str, codecs: str
) -> None:
    source, out = tmp_path / f"in.{ending}", tmp_path / "out.mp4"
    ffmpeg(
        "-f lavfi -i testsrc2=s=160x96:r=25:d=16 -f lavfi -i sine=d=4 -filter_complex [1:a]asetpts=PTS+12/TB[a] "
        f"-map 0:v -map [a] -pix_fmt yuv420p -b:v 3M -minrate 3M -maxrate 3M -bufsize 1M {codecs} {source}"
    )
    write_summary(source, [[25, 49], [275, 374]], out)
    loud = np.abs(heard(out))[: 5 * RATE].reshape(-1, RATE // 50).max(axis=1) > 0.03
    assert abs(int(np.argmax(loud)) / 50 - 2) <= 0.06  # a second, and one more until 12 s
    assert loud[105:].all()
    decode_fully(out)


@pytest.mark.parametrize(
    ("ending", "audio", "second"),
    [
        ("ts", "ac3", "-ac 6 -ar 32000"),
        ("ts", "aac", "-ac 2 -ar 48000"),
        ("ts", "aac", "-ac 1 -ar 44100"),
        ("mpg", "ac3", "-ac 2 -ar 48000"),
        ("mpg", "ac3", "-ac 6 -ar 32000"),
    ],
)
def test_channels_and_rates_that_change_on_the_way_are_followed(
    tmp_path: Path, ending: str, audio: str, second: str
) -> None:
    video = "libx264" if ending == "ts" else "mpeg2video"
    parts = []
    for number, sound in enumerate(["-ac 6 -ar 48000", second]):
        parts.append(tmp_path / f"{number}.{ending}")
        ffmpeg(
            "-f lavfi -i testsrc2=s=96x64:r=25:d=2 -f lavfi -i aevalsrc='0.5*sin(2*PI*1000*t)':s=48000:d=2 "
            f"-pix_fmt yuv420p -c:v {video} -bf 0 -c:a {audio} -b:a 192k {sound} "
            f"-output_ts_offset {2 * number} {parts[-1]}"
        )
    source, out = tmp_path / f"in.{ending}", tmp_path / "out.mp4"
    source.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
    write_summary(source, [[0, 99]], out)
    played = heard(out)
    assert len(played) / RATE == pytest.approx(4, abs=0.05)
    for begin in (0.5, 2.5):
        assert noise(played[round(begin * RATE) : round((begin + 1) * RATE)]) < -40


@pytest.mark.parametrize(("ending", "second"), [("ts", "0"), ("ts", "7200"), ("ts", "-2"), ("vob", "0"), ("vob", "-2")])
def test_joined_recordings_keep_picture_and_sound_together(tmp_path: Path, ending: str, second: str) -> None:
    codecs = "-c:v libx264 -bf 2 -c:a aac" if ending == "ts" else "-c:v mpeg2video -bf 2 -c:a ac3"
    parts = []
    for number, offset in enumerate(["10", second if second != "-2" else "8"]):
        parts.append(tmp_path / f"{number}.{ending}")
        ffmpeg(
            "-f lavfi -i \"color=black:s=96x64:r=25:d=3,geq=lum='if(eq(N,40),235,16)':cb=128:cr=128\" "
            "-f lavfi -i \"aevalsrc='0.9*between(t,1.6,1.64)*sin(2*PI*3000*t)':s=48000:d=3\" -pix_fmt yuv420p "
            f"{codecs} -output_ts_offset {offset} {parts[-1]}"
        )
    source, out = tmp_path / f"in.{ending}", tmp_path / "out.mp4"
    source.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
    written = write_summary(source, [[0, 148]], out)
    assert 5.9 < written.duration < 6.3
    assert any("joins 2 recordings" in note for note in written.notes) == (second != "7200")
    white = frame_times(source)[mean_colours(source).mean(axis=1) > 100]
    sound = np.abs(heard(out)) > 0.2
    assert len(white) == 2
    for time in white:
        begin = round((time - 1) * RATE)
        assert np.flatnonzero(sound[begin:])[0] / RATE - 1 == pytest.approx(0, abs=0.02)
