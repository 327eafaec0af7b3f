"""``visp summarize``: one video or a folder of them, learnt on the spot or from weights, cut for other programs."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("av")

import visp
from tests.video.clips import RATE, coloured, decode_fully, mean_colours, probe, write_clip
from visp.cli import main
from visp.cli.summarize import time_range

Command = Callable[..., tuple[int, str, str]]
MOVED = r"Cut at key frames, without encoding: shot \d begins -\d.\d\d s and ends \+\d.\d\d s"
LINEAR = ["--summarizer", "tests.video.test_summarize:make_linear", "--weights", "random"]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``visp summarize`` in a folder of its own; returns status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        own = ["--extractor", "tests.video.test_features:make_colour_extractor"]
        status = main(["summarize", *(str(word) for word in words), *own])
        printed = capsys.readouterr()
        return status, printed.out, re.sub(r".*\r", "", printed.err)

    return run


def clip(name: str, lengths: list[int] = [40, 40, 40, 40], size: tuple[int, int] = (64, 48)) -> Path:  # noqa: B006
    Path(name).parent.mkdir(exist_ok=True, parents=True)
    return write_clip(name, coloured(lengths, size), sound=np.zeros((1, sum(lengths) * RATE // 30), np.float32))


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("1:00-1:10", (60, 70)),
        ("90-95.5", (90, 95.5)),
        ("1:02:03-", (3723, math.inf)),
        ("-5", (0, 5)),
    ],
)
def test_spans_are_read_as_clocks_show_them(text: str, span: tuple[float, float]) -> None:
    assert time_range(text) == span


@pytest.mark.parametrize("text", ["", "5", "a-b", "1:2:3:4-5", "1--2", "nan-2", "1e3-2e3"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a span"):
        time_range(text)


@pytest.mark.filterwarnings("ignore:the run seems to have taught")  # of four colours there is little to learn
def test_without_weights_it_learns_on_the_video_and_keeps_the_run(command: Command) -> None:
    clip("clip.mp4", [60, 60, 60, 60])
    status, printed, errors = command("clip.mp4", "-o", "out.mp4", "--json", "out.json", "--fps", 8)
    assert status == 0, errors
    assert re.search(
        r"^learning from 64 sampled frames of 1 video, without labels: about \d+ (s|minutes)$", printed, re.M
    )
    (run,) = Path("runs").iterdir()
    assert f"reuse it with --weights {run}" in printed
    found = json.loads(Path("out.json").read_text())
    assert found["settings"]["summarizer"] == "transformer"
    reused = command("clip.mp4", "-o", "again.mp4", "--json", "again.json", "--fps", 8, "--weights", run)
    assert reused[0] == 0, reused[2]
    again = json.loads(Path("again.json").read_text())
    assert [shot["score"] for shot in again["shots"]] == pytest.approx(
        [shot["score"] for shot in found["shots"]], abs=1e-4
    )
    loaded = visp.load(run)
    loaded.save_pretrained("shared")
    rebuilt = visp.load("shared", extractor=loaded.extractor)
    assert rebuilt.predict("clip.mp4", fps=8) == pytest.approx(loaded.predict("clip.mp4", fps=8))
    scores = loaded.predict("clip.mp4", fps=8)
    assert scores.shape == (64,)
    summary = loaded.summarize("clip.mp4", "loaded.mp4", fps=8)
    assert summary.selected.tolist() == [n for n, shot in enumerate(found["shots"]) if shot["chosen"]]
    with pytest.raises(ValueError, match="features of another extractor sha256"):
        visp.load(run, extractor=torch.nn.Conv2d(3, 4, 224))
    status, printed, errors = command("clip.mp4", "-o", "third.mp4", "--fps", 8)
    assert (status, "which has learnt already" in printed) == (0, True), errors


def test_too_short_a_video_to_learn_from_says_what_to_do(command: Command) -> None:
    clip("clip.mp4", [40])
    status, _, errors = command("clip.mp4", "-o", "out.mp4")
    assert status == 2
    assert "3 sampled frames are too few to learn from" in errors
    assert "--weights" in errors
    assert not Path("out.mp4").exists()


def test_a_folder_is_summarized_resumed_and_joined_to_a_reel(command: Command) -> None:
    clip("videos/a.mp4")
    clip("videos/sub/b.mp4", [40, 40, 40], (96, 48))
    (Path("videos") / "broken.mp4").write_bytes(b"no video")
    words = ["videos", "-o", "out", *LINEAR, "--seconds", "1.4", "--cuts", ".edl", "--reel", "reel.mp4"]
    status, printed, errors = command(*words)
    assert status == 1
    assert "left out 1 file" in errors
    assert "broken.mp4: cannot be read as a video" in errors
    made = {path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file()}
    both = {f"{name}{ending}" for name in ("a", "sub/b") for ending in ("_summary.mp4", ".html", ".json", ".edl")}
    assert made == both | {"summaries.json"}
    assert "2 summaries in out\n" in printed
    played = probe(Path("reel.mp4"))
    assert (played["video"]["width"], played["video"]["height"]) == (96, 48)
    lengths = [float(probe(Path("out") / name)["video"]["duration"]) for name in ("a_summary.mp4", "sub/b_summary.mp4")]
    assert float(played["video"]["duration"]) == pytest.approx(sum(lengths), abs=0.05)
    assert float(played["audio"]["duration"]) == pytest.approx(sum(lengths), abs=0.05)
    decode_fully(Path("reel.mp4"))
    times = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.mp4")}
    (Path("videos") / "broken.mp4").unlink()
    status, printed, errors = command(*words)
    assert (status, errors) == (0, "")
    assert "2 summaries in out (2 of them from an earlier run)\n" in printed
    assert {path: path.stat().st_mtime_ns for path in times} == times
    Path("out/sub/b.edl").unlink()
    assert "(1 of them from an earlier run)" in command(*words)[1]


def test_an_interrupted_folder_resumes_and_files_of_others_are_not_replaced(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import visp.video.report

    clip("videos/a.mp4", [20, 20])
    clip("videos/b.mp4", [20, 20])
    Path("videos/out").mkdir()
    Path("videos/out/b.json").write_text("mine")
    words = ["videos", "-o", "videos/out", *LINEAR]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(visp.video.report, "write_report", interrupt)
        assert command(*words)[0] == 130
    assert Path("videos/out/a_summary.mp4").exists()
    status, printed, errors = command(*words)
    assert status == 1
    assert "1 summary in videos/out\n" in printed
    assert "b.json exists" in errors
    assert Path("videos/out/b.json").read_text() == "mine"
    assert command(*words, "--overwrite")[0] == 0


def test_a_summary_is_rendered_again_from_its_edited_cuts(command: Command) -> None:
    clip("clip.mp4")
    assert (
        command("clip.mp4", "-o", "a.mp4", *LINEAR, "--seconds", "1.4", "--cuts", "a.csv", "--json", "a.json")[0] == 0
    )
    (start, *_), *_ = [row.split(",") for row in Path("a.csv").read_text().splitlines()]
    Path("a.csv").write_text(f"{start},{float(start) + 0.4},kept\n4,4.5,added\n")
    status, printed, errors = command(
        "clip.mp4", "-o", "b.mp4", "--from-cuts", "a.csv", "--cuts", "b.edl", "--clips", "b"
    )
    assert (status, errors) == (0, "")
    assert printed.endswith("2 cuts\n")
    frames = 12 + 15
    assert len(mean_colours(Path("b.mp4"))) == frames
    assert Path("b.edl").read_text().count("FROM CLIP NAME") == 2
    assert sum(len(mean_colours(path)) for path in sorted(Path("b").iterdir())) == frames
    found = json.loads(Path("a.json").read_text())
    for number, shot in enumerate(found["shots"]):
        shot["chosen"] = number == 1
    Path("a.json").write_text(json.dumps(found))
    assert command("clip.mp4", "-o", "c.mp4", "--from-cuts", "a.json")[0] == 0
    (shot,) = [shot for shot in found["shots"] if shot["chosen"]]
    assert len(mean_colours(Path("c.mp4"))) == shot["last_frame"] - shot["first_frame"] + 1


@pytest.mark.parametrize(("codec", "said"), [("mpeg4", MOVED), ("libx264", r"Copied, but for 0\.\d\d s between")])
def test_copies_say_how_far_each_cut_moved_or_what_was_encoded(command: Command, codec: str, said: str) -> None:
    write_clip("clip.mp4", coloured([50, 50, 50]), codec=codec, sound=np.zeros((1, 5 * RATE), np.float32))
    words = ["--seconds", "1", "--keep", "2.1-3", "--copy", "--json", "a.json", "--kts", "all"]
    status, printed, errors = command("clip.mp4", "-o", "out.mkv", *LINEAR, *words)
    assert (status, errors) == (0, "")
    assert re.search(said, printed)
    found = json.loads(Path("a.json").read_text())
    assert len(mean_colours(Path("out.mkv"))) == round(30 * found["summary_duration"])


def test_storyboard_and_clips_show_the_chosen_shots(command: Command) -> None:
    import av

    clip("clip.mp4")
    words = ["clip.mp4", "-o", "out.mp4", *LINEAR, "--seconds", "3", "--storyboard", "a.png", "--clips", "clips"]
    assert command(*words)[0] == 0
    clips = sorted(Path("clips").iterdir())
    assert [path.name for path in clips] == ["01.mp4", "02.mp4"]
    with av.open("a.png") as container:
        board = next(container.decode(video=0)).to_ndarray(format="rgb24")
    pictures = [board[60:200, left : left + 320].mean(axis=(0, 1)) for left in (12, 344)]
    for picture, path in zip(pictures, clips, strict=True):
        assert np.abs(np.median(mean_colours(path), axis=0) - picture).max() < 12


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["-o", "clip.mp4", "--overwrite"], "is also an input"),
        (["-o", "link.mp4", "--overwrite"], "is also an input"),
        (["-o", "folder.mp4"], "is a folder"),
        (["-o", "out.mp4", "--json", "there.json"], "there.json exists"),
        (["-o", "out.mp4", "--json", "clip.mp4", "--overwrite"], "is also an input"),
        (["-o", "out.mp4", "--report", "out.mp4"], "written twice"),
        (["-o", "out.mp4", "--cuts", "a.edl", "--report", "./a.edl"], "written twice"),
        (["-o", "out.mp4", "--cuts", "none/a.edl"], "there is no folder"),
        (["-o", "out.mp4", "--cuts", "a.doc"], "expected a name that ends in .csv, .edl"),
        (["-o", "out.mp4", "--storyboard", "a.jpg"], "writes a .png"),
        (["-o", "out.mp4", "--json", "pipe", "--overwrite"], "is a pipe"),
        (["-o", "out.mp4", "--clips", "there.json"], "expected a folder"),
        (["-o", "out.mp4", "--clips", "."], "is not empty"),
        (["-o", "out.avi"], "expected a name that ends in .mp4"),
        (["-o", "out.mp4", "--reel", "reel.mp4"], "this is one"),
        (["-o", "out.mp4", "--from-cuts", "there.json", "--report", "a.html"], "--report needs shots"),
    ],
)
def test_outputs_are_refused_before_the_work(command: Command, words: list[str], reason: str) -> None:
    video = clip("clip.mp4", [10])
    before = video.read_bytes()
    Path("link.mp4").symlink_to("clip.mp4")
    Path("folder.mp4").mkdir()
    Path("there.json").write_text("mine")
    os.mkfifo("pipe")
    names = sorted(Path().iterdir())
    weights = [] if "--from-cuts" in words else LINEAR
    status, _, errors = command("clip.mp4", *words, *weights)
    assert status == 2
    assert reason in errors
    assert errors.count("\n") == 1
    assert sorted(Path().iterdir()) == names
    assert (video.read_bytes(), Path("there.json").read_text()) == (before, "mine")


def test_names_reach_the_terminal_escaped(command: Command) -> None:
    clip("a.mp4", [20]).rename("\x1b[31mred\u202e.mp4")
    status, printed, errors = command("\x1b[31mred\u202e.mp4", "-o", "out\x1b[0m.mp4", *LINEAR)
    assert status == 0
    status, _, errors = command("\x1b[31mnone.mp4", "-o", "out.mp4", *LINEAR)
    assert status == 2
    assert not {"\x1b", "\u202e"} & set(printed + errors)


@pytest.mark.parametrize(
    "config", [None, "[", "[]", '{"summarizer": 5}', '{"features": 5}', '{"visp": {"summarizer": "os:abort"}}']
)
def test_what_is_no_folder_of_a_run_is_refused_in_one_line(tmp_path: Path, config: str | None) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match="says what a run trained"):
        visp.load(tmp_path)
    (tmp_path / "config.json").write_text('{"summarizer": "csta"}')
    with pytest.raises(ValueError, match=r"holds no weights\.pt"):
        visp.load(tmp_path)
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="does not say how its features were made"):
        visp.load(tmp_path)
    (tmp_path / "config.json").write_text('{"summarizer": "csta", "features": {"extractor": "os:abort"}}')
    with pytest.raises(ValueError, match="features are those of os:abort: give extractor"):
        visp.load(tmp_path)


def test_a_run_of_a_module_that_code_made_is_loaded_with_it(tmp_path: Path) -> None:
    summarizer = torch.nn.Sequential(torch.nn.Linear(4, 1))
    (tmp_path / "config.json").write_text("{}")
    torch.save(summarizer.state_dict(), tmp_path / "weights.pt")
    images = torch.nn.Conv2d(3, 4, 224)
    with pytest.raises(ValueError, match="does not say which summarizer it trained: give summarizer"):
        visp.load(tmp_path, extractor=images)
    own = torch.nn.Sequential(torch.nn.Linear(4, 1))
    loaded = visp.load(tmp_path, summarizer=own, extractor=images)
    assert loaded.summarizer is own
    assert torch.equal(own.state_dict()["0.weight"], summarizer.state_dict()["0.weight"])
    with pytest.raises(TypeError, match="Sequential has no save_pretrained: derive it from Pretrained"):
        loaded.save_pretrained(tmp_path / "shared")
