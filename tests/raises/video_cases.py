"""Errors of `visp.video` and `visp.plots`."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.raises.case import Case
from tests.video.clips import write_clip
from visp.data import write_h5
from visp.data.synthetic import make_corpus
from visp.utils.files import locked
from visp.video import Extractor, VideoError
from visp.weights import CheckpointError


class Means(nn.Module):
    """An image model: the mean of each channel."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))


class NoVector(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


class NotFinite(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3)) * torch.nan


class FirstChannel(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features[:, 0]


def clip(folder: Path, frames: int = 30) -> Path:
    return write_clip(folder / "clip.mp4", frames, fps=10)


def no_video(folder: Path) -> Path:
    (folder / "text.mp4").write_text("no video")
    return folder / "text.mp4"


def cut_short(folder: Path) -> Path:
    """A Matroska file without its last two thirds."""
    whole = write_clip(folder / "whole.mkv", 90, fps=10).read_bytes()
    (folder / "short.mkv").write_bytes(whole[: len(whole) // 3])
    return folder / "short.mkv"


def without_av(call: Any) -> Any:
    def run(this: Any, folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "av", None)
            call(this, folder)

    return run


SUMMARIZE = "visp.video.summarize_video"


def summarize(this: Any, video: Path, out: Path, **options: Any) -> Any:
    given = {"summarizer": FirstChannel(), "extractor": Means(), **options}
    return this(video, out, **given)


SUMMARIES = [
    Case(SUMMARIZE, FileNotFoundError, r"gone\.mp4",
         lambda this, folder: summarize(this, folder / "gone.mp4", folder / "out.mp4")),
    Case(SUMMARIZE, FileNotFoundError, "nowhere",
         lambda this, folder: summarize(this, clip(folder), folder / "nowhere" / "out.mp4")),
    Case(SUMMARIZE, FileExistsError, r"out\.mp4", lambda this, folder: summarize(
        this, clip(folder), write_clip(folder / "out.mp4", 3))),
    Case(SUMMARIZE, VideoError, r"text\.mp4: cannot be read as a video",
         lambda this, folder: summarize(this, no_video(folder), folder / "out.mp4")),
    Case(SUMMARIZE, VideoError, r"short\.mkv: cut short",
         lambda this, folder: summarize(this, cut_short(folder), folder / "out.mp4")),
    Case(SUMMARIZE, ValueError, "the budget must be .* 0", lambda this, folder: summarize(
        this, clip(folder), folder / "out.mp4", budget=0)),
    Case(SUMMARIZE, ValueError, r"out\.gif: expected a name that ends in",
         lambda this, folder: summarize(this, clip(folder), folder / "out.gif")),
    Case(SUMMARIZE, ValueError, "returned a tensor of shape", lambda this, folder: summarize(
        this, clip(folder), folder / "out.mp4", summarizer=nn.Identity())),
    Case(SUMMARIZE, ModuleNotFoundError, r'pip install "visp\[video\]"', without_av(
        lambda this, folder: summarize(this, no_video(folder), folder / "out.mp4"))),
    Case("visp.video.write_summary", FileNotFoundError, r"gone\.mp4",
         lambda this, folder: this(folder / "gone.mp4", [(0, 1)], folder / "out.mp4")),
    Case("visp.video.write_summary", FileNotFoundError, "nowhere",
         lambda this, folder: this(clip(folder), [(0, 1)], folder / "nowhere" / "out.mp4")),
    Case("visp.video.write_summary", FileExistsError, r"out\.mp4",
         lambda this, folder: this(clip(folder), [(0, 1)], write_clip(folder / "out.mp4", 3))),
    Case("visp.video.write_summary", VideoError, r"text\.mp4: cannot be read as a video",
         lambda this, folder: this(no_video(folder), [(0, 1)], folder / "out.mp4")),
    Case("visp.video.write_summary", VideoError, r"clip\.mp4: has 30 frames, but a shot ends at frame 99",
         lambda this, folder: this(clip(folder), [(0, 99)], folder / "out.mp4")),
    Case("visp.video.write_summary", ValueError, "ascend without overlap",
         lambda this, folder: this(clip(folder), [(5, 9), (0, 3)], folder / "out.mp4")),
    Case("visp.video.write_summary", ValueError, "a positive length in seconds for each of 1 shots",
         lambda this, folder: this(clip(folder), [(0, 3)], folder / "out.mp4", lengths=[1, 2])),
    Case("visp.video.write_summary", ValueError, r"out\.gif: expected a name",
         lambda this, folder: this(clip(folder), [(0, 3)], folder / "out.gif")),
    Case("visp.video.write_summary", ModuleNotFoundError, r'pip install "visp\[video\]"',
         without_av(lambda this, folder: this(no_video(folder), [(0, 1)], folder / "out.mp4"))),
]  # fmt: skip


def while_written(this: Any, folder: Path) -> None:
    with locked(folder / "corpus.h5"):
        this([clip(folder)], folder / "corpus.h5", Means())


def while_written_too(this: Any, folder: Path) -> None:
    (out := this([clip(folder)], folder / "kept", Extractor(Means()))).unlink()
    with locked(out):
        this([folder / "clip.mp4"], folder / "kept", Extractor(Means()))


def existing(folder: Path) -> Path:
    write_h5(folder / "corpus.h5", make_corpus(1, feature_dim=2))
    return folder / "corpus.h5"


def reading(name: str, call: Any) -> list[Case]:
    """The refusals of whatever decodes a whole video."""
    return [
        Case(name, FileNotFoundError, r"gone\.mp4", lambda this, folder: call(this, folder / "gone.mp4")),
        Case(name, VideoError, r"text\.mp4: cannot be read as a video",
             lambda this, folder: call(this, no_video(folder))),
        Case(name, VideoError, r"short\.mkv: cut short", lambda this, folder: call(this, cut_short(folder))),
        Case(name, ValueError, "fps must be a positive number", lambda this, folder: call(this, clip(folder), fps=0)),
        Case(name, ModuleNotFoundError, r'pip install "visp\[video\]"',
             without_av(lambda this, folder: call(this, no_video(folder)))),
    ]  # fmt: skip


EXTRACTION = [
    *reading("visp.video.extract_features", lambda this, path, **options: this(path, Means(), **options)),
    *reading("visp.video.iter_sampled_frames", lambda this, path, **options: list(this(path, **options))),
    Case("visp.video.extract_features", ValueError, "batch_size must be at least 1, got 0",
         lambda this, folder: this(clip(folder), Means(), batch_size=0)),
    Case("visp.video.extract_features", ValueError, r"the extractor NoVector returned \(.*, expected \(",
         lambda this, folder: this(clip(folder), NoVector())),
    Case("visp.video.extract_features", ValueError, "the extractor NotFinite returned values that are not finite",
         lambda this, folder: this(clip(folder), NotFinite())),
    Case("visp.video.Extractor", ValueError, "the extractor NoVector returned",
         lambda this, _: this(NoVector())(torch.zeros(2, 3, 8, 8))),
    Case("visp.video.Extractor", ValueError, "the extractor NotFinite returned values that are not finite",
         lambda this, _: this(NotFinite())(torch.zeros(2, 3, 8, 8))),
    Case("visp.video.Extractor.feature_dim", ValueError, "the extractor NoVector returned",
         lambda this, _: this(Extractor(NoVector()))),
    Case("visp.video.extract_corpus", FileNotFoundError, r"gone\.mp4",
         lambda this, folder: this([folder / "gone.mp4"], folder / "corpus.h5", Means())),
    Case("visp.video.extract_corpus", FileNotFoundError, "nowhere",
         lambda this, folder: this([clip(folder)], folder / "nowhere" / "corpus.h5", Means())),
    Case("visp.video.extract_corpus", FileExistsError, r"corpus\.h5",
         lambda this, folder: this([clip(folder)], existing(folder), Means())),
    Case("visp.video.extract_corpus", BlockingIOError, r"corpus\.h5 is being written by something else", while_written),
    Case("visp.video.extract_corpus", ModuleNotFoundError, r'pip install "visp\[video\]"',
         without_av(lambda this, folder: this([no_video(folder)], folder / "corpus.h5", Means()))),
    Case("visp.video.extract_corpus", VideoError, r"(?s)not one video could be read:.*text\.mp4",
         lambda this, folder: this([no_video(folder)], folder / "corpus.h5", Means())),
    Case("visp.video.extract_corpus", VideoError, "a decoding process died", lambda this, folder: this(
        [clip(folder)], folder / "corpus.h5", Extractor(Means(), preprocess=die), workers=1)),
    Case("visp.video.extract_corpus", ValueError, "kts_frames must be .* 'some'",
         lambda this, folder: this([clip(folder)], folder / "corpus.h5", Means(), kts_frames="some")),
    Case("visp.video.extract_corpus", ValueError, "no file in this folder is named like a video",
         lambda this, folder: this([folder], folder / "c.h5", Means())),
    Case("visp.video.extract_corpus", ValueError, r"clip\.mp4", lambda this, folder: this(
        [clip(folder)], folder / "clip.mp4", Means(), overwrite=True)),
    Case("visp.video.features_of", FileNotFoundError, r"gone\.mp4",
         lambda this, folder: this([folder / "gone.mp4"], folder / "kept", Extractor(Means()))),
    Case("visp.video.features_of", BlockingIOError, "is being written by something else", while_written_too),
    Case("visp.video.features_of", ModuleNotFoundError, r'pip install "visp\[video\]"',
         without_av(lambda this, folder: this([no_video(folder)], folder / "kept", Extractor(Means())))),
    Case("visp.video.features_of", ModuleNotFoundError, r'pip install "visp\[features\]"',
         lambda this, folder: without_the_weights(lambda: this([no_video(folder)], folder / "kept"))),
    Case("visp.video.features_of", VideoError, r"(?s)not one video could be read:.*text\.mp4",
         lambda this, folder: this([no_video(folder)], folder / "kept", Extractor(Means()))),
    Case("visp.video.features_of", ValueError, "fps must be a positive number",
         lambda this, folder: this([clip(folder)], folder / "kept", Extractor(Means()), fps=0)),
    Case("visp.video.features_of", ValueError, "no file in this folder is named like a video",
         lambda this, folder: this([folder], folder / "kept", Extractor(Means()))),
]  # fmt: skip


def die(image: Any) -> Tensor:
    if torch.utils.data.get_worker_info() is not None:
        os._exit(1)
    return torch.zeros(3, 8, 8)


def without_the_weights(call: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        call()


def without_a_network(this: Any, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.hub.get_dir", lambda: str(folder))
        patch.setattr(socket, "getaddrinfo", refuse)
        this("googlenet", "imagenet")


def refuse(*given: Any, **named: Any) -> None:
    raise OSError("no network here")


def make_of(size: int) -> nn.Module:
    return Means()


def make_text() -> str:
    return "text"


EXTRACTORS = [
    Case("visp.video.make_extractor", FileNotFoundError, r"gone\.pth",
         lambda this, folder: this("googlenet", folder / "gone.pth")),
    Case("visp.video.make_extractor", ModuleNotFoundError, r'pip install "visp\[features\]"',
         lambda this, _: without_the_weights(this)),
    Case("visp.video.make_extractor", OSError, "cannot be fetched .*no network here", without_a_network),
    Case("visp.video.make_extractor", ValueError, "the extractor googlenet needs weights",
         lambda this, _: this("googlenet")),
    Case("visp.video.make_extractor", ValueError, "unknown extractor 'vgg'", lambda this, _: this("vgg")),
    Case("visp.video.make_extractor", ValueError, "the extractor 'tests.raises:gone' cannot be found",
         lambda this, _: this("tests.raises:gone")),
    Case("visp.video.make_extractor", CheckpointError, r"the weights of .*other\.pth do not fit",
         lambda this, folder: this(
        "googlenet", saved(folder))),
    Case("visp.video.make_extractor", TypeError, r"is called as make_of\(\)",
         lambda this, _: this("tests.raises.video_cases:make_of")),
    Case("visp.video.make_extractor", TypeError, "returned a str",
         lambda this, _: this("tests.raises.video_cases:make_text")),
    Case("visp.video.GoogLeNetPool5.load_weights", FileNotFoundError, r"gone\.pth",
         lambda this, folder: this(googlenet(), folder / "gone.pth")),
    Case("visp.video.GoogLeNetPool5.load_weights", CheckpointError, r"text\.mp4 is not a file of weights",
         lambda this, folder: this(googlenet(), no_video(folder))),
    Case("visp.video.GoogLeNetPool5.load_weights", CheckpointError, r"the weights of .*other\.pth do not fit",
         lambda this, folder: this(
        googlenet(), saved(folder))),
]  # fmt: skip


def googlenet() -> nn.Module:
    from visp.video import GoogLeNetPool5

    with torch.device("meta"):
        return GoogLeNetPool5()


def saved(folder: Path) -> Path:
    torch.save(nn.Linear(2, 2).state_dict(), folder / "other.pth")
    return folder / "other.pth"


def axes() -> Any:
    from matplotlib.figure import Figure

    return Figure().subplots()


def lines(folder: Path, content: str) -> Path:
    (folder / "metrics.jsonl").write_text(content)
    return folder / "metrics.jsonl"


PLOTS = [
    Case("visp.plots.plot_saliency", ValueError, "one or more rows", lambda this, _: this({}, axes())),
    Case("visp.plots.plot_saliency", ValueError, r"of one length, got lengths \[2, 3\]",
         lambda this, _: this({"a": np.ones(2), "b": np.ones(3)}, axes())),
    Case("visp.plots.read_metrics", FileNotFoundError, r"gone\.jsonl",
         lambda this, folder: this(folder / "gone.jsonl")),
    Case("visp.plots.read_metrics", ValueError, r"metrics\.jsonl: line 1 is not JSON",
         lambda this, folder: this(lines(folder, "text\n{}\n"))),
    Case("visp.plots.plot_metrics", ValueError, "no step has the metric 'tau'; there are",
         lambda this, _: this([{"step": 1, "loss": 1.0}], axes(), key="tau")),
    Case("visp.plots.plot_metrics", ValueError, "smoothing must be .* 1",
         lambda this, _: this([{"step": 1, "info_nce": 1.0}], axes(), smoothing=1)),
    Case("visp.plots.plot_metrics", FileNotFoundError, r"gone\.jsonl",
         lambda this, folder: this(folder / "gone.jsonl", axes())),
    Case("visp.plots.plot_grid", ValueError, r"expected metrics \(1, 2\), .* got shape \(2,\)",
         lambda this, _: this([1, 2], axes(), x="ab", y="c", xlabel="", ylabel="")),
    Case("visp.plots.plot_grid", ValueError, "not all nan",
         lambda this, _: this([[np.nan, np.nan]], axes(), x="ab", y="c", xlabel="", ylabel="")),
]  # fmt: skip

CASES = [*SUMMARIES, *EXTRACTION, *EXTRACTORS, *PLOTS]
