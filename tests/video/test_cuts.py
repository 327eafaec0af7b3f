"""Cut lists, read back by other programs: their times are the summary's, to a frame, at every rate."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("av")

from hypothesis import given
from hypothesis import strategies as st

from tests.video.clips import RATE, coloured, made_up, mean_colours, write_clip
from tests.video.test_summarize import summarize
from visp.video import VideoSummary
from visp.video.cut_formats import FORMATS, check_format, write_cuts
from visp.video.cuts import Cut, CutList, Media, cuts_of, frames_of, probe_media, read_cuts, read_frame_times

VARIABLE = "variable"
RATES = [24, 25, 30000 / 1001, 30, VARIABLE]


@pytest.fixture(scope="module", params=RATES, ids=str)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoSummary, CutList]:
    folder = tmp_path_factory.mktemp("cuts")
    images = coloured([41, 60, 53, 60, 47, 60, 60], (32, 32))
    sound = np.zeros((2, 10 * RATE), np.float32)
    if request.param == VARIABLE:
        steps = np.random.default_rng(0).choice([1 / 60, 1 / 30, 1 / 15], len(images))
        times = np.round(np.cumsum(steps) - steps[0], 4)
        clip = write_clip(folder / "it's é #1.mp4", images, times=times.tolist(), sound=sound)
    else:
        clip = write_clip(folder / "it's é #1.mp4", images, fps=request.param, sound=sound)
    summary = summarize(clip, folder / "out.mp4", budget=0.4, kts_frames="all")
    assert len(summary.selected) >= 2
    return summary, CutList(probe_media(clip, summary.duration), cuts_of(summary))


def times_of(summary: VideoSummary) -> list[list[float]]:
    found: list[list[float]] = summary.shot_times[summary.selected].tolist()
    return found


def close(summary: VideoSummary, cuts: CutList, found: Any) -> bool:
    """Whether times are the summary's to a frame: exactly so at a constant rate, within half of one else."""
    return np.allclose(found, times_of(summary), rtol=0, atol=float(Fraction(1, 2) / cuts.media.rate) + 1e-6)


def test_the_csv_of_lossless_cut_holds_seconds_and_labels(made: tuple[VideoSummary, CutList], tmp_path: Path) -> None:
    summary, cuts = made
    write_cuts(cuts, tmp_path / "a.csv")
    rows = list(csv.reader((tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()))
    assert np.allclose([[float(a), float(b)] for a, b, _ in rows], times_of(summary), rtol=0, atol=1e-6)
    assert rows[0][2] == f"shot 1, score {summary.shot_scores[summary.selected[0]]:.3f}"


def seconds(text: str | None) -> Fraction:
    assert text is not None
    return Fraction(text.removesuffix("s"))


@pytest.mark.parametrize("ending", [".edl", ".fcpxml", ".otio"])
def test_opentimelineio_reads_the_times_and_the_scores(
    made: tuple[VideoSummary, CutList], tmp_path: Path, ending: str
) -> None:
    otio = pytest.importorskip("opentimelineio")
    adapter = {".edl": "cmx_3600", ".fcpxml": "fcpx_xml", ".otio": "otio_json"}[ending]
    if adapter not in otio.adapters.available_adapter_names():
        pytest.skip(f"needs OpenTimelineIO's adapter {adapter}")
    summary, cuts = made
    write_cuts(cuts, tmp_path / f"a{ending}")
    rate = float(cuts.media.rate)
    options = {"rate": rate} if ending == ".edl" else {}
    read = otio.adapters.read_from_file(str(tmp_path / f"a{ending}"), adapter, **options)
    timeline = read if ending != ".fcpxml" else next(iter(read.find_children(descended_from_type=otio.schema.Timeline)))
    clips = list(timeline.video_tracks()[0].find_clips())
    ranges = [clip.source_range for clip in clips]
    found = [[r.start_time.value / r.start_time.rate, r.end_time_exclusive().value / r.duration.rate] for r in ranges]
    frames = [[round(a * rate), round(b * rate)] for a, b in times_of(summary)]
    if ending == ".fcpxml" and cuts.media.rate.denominator > 1:  # of which this reader drops the fraction
        root = ElementTree.parse(tmp_path / "a.fcpxml").getroot()
        spans = [[seconds(clip.get("start")), seconds(clip.get("duration"))] for clip in root.iter("asset-clip")]
        assert [[start * cuts.media.rate, (start + length) * cuts.media.rate] for start, length in spans] == frames
        return
    assert [[round(r.start_time.value), round(r.end_time_exclusive().value)] for r in ranges] == frames
    assert close(summary, cuts, found)
    scores = [f"{score:.3f}" for score in summary.shot_scores[summary.selected]]
    assert all(score in str(clip.markers[0]) for score, clip in zip(scores, clips, strict=True))
    if ending != ".edl":
        assert {clip.media_reference.target_url for clip in clips} == {summary.video.absolute().as_uri()}


def test_chunks_of_auto_editor_cover_the_video(made: tuple[VideoSummary, CutList], tmp_path: Path) -> None:
    summary, cuts = made
    write_cuts(cuts, tmp_path / "a.v1")
    found = json.loads((tmp_path / "a.v1").read_text())
    assert (found["version"], found["source"]) == ("1", str(summary.video))
    chunks = found["chunks"]
    assert chunks[0][0] == 0
    assert all(a[1] == b[0] for a, b in pairwise(chunks))
    assert {speed for *_, speed in chunks} == {1.0, 99999.0}
    rate = Fraction(found["timebase"])
    assert chunks[-1][1] == round(summary.duration * rate)
    kept = [[float(a / rate), float(b / rate)] for a, b, speed in chunks if speed == 1]
    assert close(summary, cuts, kept)


def test_auto_editor_renders_the_summarys_frames(tmp_path: Path) -> None:
    pytest.importorskip("auto_editor")
    clip = write_clip(tmp_path / "clip.mp4", 100, fps=25, sound=np.zeros((1, 4 * RATE), np.float32))
    cuts = (Cut(0.4, 1.2, ""), Cut(2, 3.04, ""))
    write_cuts(CutList(probe_media(clip), cuts), tmp_path / "a.v1")
    (tmp_path / "a.v1").rename(tmp_path / "a.json")  # the name that earlier versions expect
    command = [sys.executable, "-m", "auto_editor", "a.json", "-o", "out.mp4", "--my-ffmpeg", "--no-open", "--quiet"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    found, source = mean_colours(tmp_path / "out.mp4"), mean_colours(clip)
    wanted = [*range(10, 30), *range(50, 76)]
    assert len(found) == len(wanted)
    assert np.abs(found - source[wanted]).max() < 3


def test_ffprobe_reads_the_chapters_of_the_summary(made: tuple[VideoSummary, CutList], tmp_path: Path) -> None:
    summary, cuts = made
    write_cuts(cuts, tmp_path / "a.ffmeta")
    command = ["ffprobe", "-v", "error", "-f", "ffmetadata", "-show_chapters", "-of", "json"]
    chapters = json.loads(
        subprocess.run([*command, str(tmp_path / "a.ffmeta")], capture_output=True, check=True).stdout
    )["chapters"]
    lengths = np.diff(times_of(summary)).ravel()
    ends = np.cumsum(lengths)
    found = [[float(chapter["start_time"]), float(chapter["end_time"])] for chapter in chapters]
    assert np.allclose(found, np.stack([ends - lengths, ends], axis=1), rtol=0, atol=1e-5)
    assert chapters[0]["tags"]["title"] == cuts.cuts[0].label


def test_ffmpeg_plays_the_summarys_frames_from_an_ffconcat(made: tuple[VideoSummary, CutList], tmp_path: Path) -> None:
    summary, cuts = made
    write_cuts(cuts, tmp_path / "a.ffconcat")
    command = ["ffmpeg", "-v", "error", "-safe", "0", "-segment_time_metadata", "1", "-i"]
    filters = ["-an", "-vf", "select=concatdec_select", "-vsync", "0", "-c:v", "ffv1"]
    subprocess.run([*command, str(tmp_path / "a.ffconcat"), *filters, str(tmp_path / "played.mkv")], check=True)
    played, expected = mean_colours(tmp_path / "played.mkv"), mean_colours(summary.out)
    assert len(played) == len(expected)
    assert np.abs(played - expected).max() < 12


def test_times_count_from_the_files_beginning_where_a_player_does(tmp_path: Path) -> None:
    times = 0.5 + np.arange(60) / 30
    clip = write_clip(
        tmp_path / "clip.mkv", made_up(60, (32, 32)), times=times.tolist(), sound=np.zeros((1, 3 * RATE), np.float32)
    )
    media = probe_media(clip)
    assert media.offset == pytest.approx(0.5, abs=2e-3)
    cuts = CutList(media, (Cut(0.5, 1, "one"),))
    write_cuts(cuts, tmp_path / "a.csv")
    write_cuts(cuts, tmp_path / "a.ffconcat")
    write_cuts(cuts, tmp_path / "a.edl")
    start = float((tmp_path / "a.csv").read_text().split(",")[0])
    assert start == pytest.approx(1, abs=2e-3)
    assert "inpoint 1.0" in (tmp_path / "a.ffconcat").read_text()
    assert "00:00:00:15 00:00:01:00" in (tmp_path / "a.edl").read_text()
    (back,) = read_cuts(tmp_path / "a.csv", media.offset)
    assert (back.start, back.end) == pytest.approx((0.5, 1), abs=1e-5)


def media(rate: Fraction = Fraction(25), **changes: Any) -> Media:
    values: dict[str, Any] = {
        "path": Path("/videos/a.mp4"), "rate": rate, "duration": 100.0, "first": 0.0, "offset": 0.0, "width": 640,
        "height": 360, "channels": 2, "sound_rate": 48_000, "timecode": 0, "drop_frame": False, **changes,
    }  # fmt: skip
    return Media(**values)


@given(st.integers(0, 24 * 107_892 - 1))
def test_drop_frame_timecodes_are_those_of_opentimelineio(frame: int) -> None:
    opentime = pytest.importorskip("opentimelineio").opentime
    from visp.video.cut_formats import _timecode as written
    from visp.video.cuts import _timecode as read

    rate = Fraction(30000, 1001)
    text = written(frame, rate, True)
    assert text == opentime.RationalTime(frame, 29.97).to_timecode(29.97, True)
    assert read(text, rate) == (frame, True)
    plain = written(frame, rate, False)
    assert (read(plain, rate), plain.count(":")) == ((frame, False), 3)


def test_source_times_begin_at_the_cameras_timecode(tmp_path: Path) -> None:
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=s=64x48:r=25:d=2", "-timecode", "10:00:00:05"]
    subprocess.run([*command, "-c:v", "mpeg4", str(tmp_path / "clip.mov")], check=True)
    cuts = CutList(probe_media(tmp_path / "clip.mov"), (Cut(0.2, 1, "one", 0.5),))
    write_cuts(cuts, tmp_path / "a.edl")
    assert "10:00:00:10 10:00:01:05 00:00:00:00 00:00:00:20" in (tmp_path / "a.edl").read_text()


def test_youtubes_chapters_last_ten_seconds_and_begin_at_zero(tmp_path: Path) -> None:
    spans = [(0, 4), (10, 17), (20, 45), (3600, 7300), (8000, 8003)]
    cuts = CutList(media(), tuple(Cut(a, b, f"shot {i}") for i, (a, b) in enumerate(spans)))
    write_cuts(cuts, tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "0:00 shot 0\n0:11 shot 2\n0:36 shot 3\n"


def test_names_stay_one_line_of_text_in_every_format(tmp_path: Path) -> None:
    pytest.importorskip("opentimelineio")
    path = Path("/videos/<a>&\x1b[31m'\u202e\udcff;=#\\.mp4")
    cuts = CutList(media(path=path), (Cut(1, 2, "a\n* LOC: <b>\x07&;=", 0.5),))
    for ending in FORMATS:
        file = tmp_path / f"a{ending}"
        write_cuts(cuts, file)
        text = file.read_bytes()
        if ending != ".ffconcat":  # which names the file as it is
            assert not {b"\x1b", b"\x07", "\u202e".encode()} & {
                text[i : i + n] for i in range(len(text)) for n in (1, 3)
            }
            assert b"\n* LOC: <b>" not in text
    with pytest.raises(ValueError, match="line break"):
        write_cuts(CutList(media(path=Path("/a\nb.mp4")), cuts.cuts), tmp_path / "a.ffconcat")


def test_another_ending_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.csv, \.edl"):
        check_format(tmp_path / "a.doc")
    with pytest.raises(ValueError, match="999 cuts"):
        write_cuts(CutList(media(), tuple(Cut(i, i + 0.5, "") for i in range(1000))), tmp_path / "a.edl")
    assert list(tmp_path.iterdir()) == []


def test_an_edited_csv_is_read_as_lossless_cut_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('70,82.5,"a ""quoted"", label"\n,5.25,first\n\n80,90,b\n1234,,last\n', encoding="utf-8-sig")
    assert read_cuts(file) == (
        Cut(0, 5.25, "first"),
        Cut(70, 90, 'a "quoted", label; b'),
        Cut(1234, math.inf, "last"),
    )


def test_an_edited_json_is_read_by_what_is_chosen(made: tuple[VideoSummary, CutList], tmp_path: Path) -> None:
    summary, _ = made
    found = summary.to_json()
    for shot in found["shots"]:
        shot["chosen"] = not shot["chosen"]
    (tmp_path / "a.json").write_text(json.dumps(found))
    cuts = read_cuts(tmp_path / "a.json")
    spans = frames_of(cuts, read_frame_times(summary.video))
    kept = {frame for first, last in summary.shots[summary.selected].tolist() for frame in range(first, last + 1)}
    left = {frame for first, last in spans.tolist() for frame in range(first, last + 1)}
    assert kept | left == set(range(summary.n_frames))
    assert not kept & left


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"", "holds no cut"),
        ("a.csv", b"one,two,three\n", "line 1: expected start, end and label"),
        ("a.csv", b"1\n", "line 1"),
        ("a.csv", b"5,2,a\n", "from 5 to 2 s"),
        ("a.csv", b"nan,2,a\n", "from nan to 2 s"),
        ("a.csv", b"\xff\xfe\x00", "cannot be read"),
        ("a.csv", b'1,2,"open\n', "cannot be read"),
        ("a.json", b"[]", "cannot be read"),
        ("a.json", b'{"shots": [{"chosen": true, "start": 1}]}', "there is no 'end'"),
        ("a.json", b'{"shots": 1}', "cannot be read"),
        ("a.json", b"[" * 100_000, "cannot be read"),
        ("a.edl", b"", "ends in .csv or .json"),
    ],
)
def test_what_is_no_list_of_cuts_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        read_cuts(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_cuts_take_the_frames_that_begin_within_them() -> None:
    times = np.arange(11) / 10
    spans = frames_of((Cut(0, 0.2, ""), Cut(0.26, 0.41, ""), Cut(0.9, math.inf, "")), times)
    assert spans.tolist() == [[0, 1], [3, 3], [9, 9]]
    with pytest.raises(ValueError, match="holds no frame"):
        frames_of((Cut(1.2, 2, ""),), times)
