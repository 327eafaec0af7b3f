"""Features: GoogLeNet's as the field has them, any other model's, and the h5 file of a folder."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("av")

from tests.video.clips import Image, write_clip
from visp.data import read_record, validate_h5
from visp.eval import check_shots
from visp.video import Extractor, GoogLeNetPool5, VideoError, extract_corpus, extract_features, make_extractor
from visp.video.extractors import normalised, resize_and_crop
from visp.weights import state_hash


class Colour(nn.Module):
    """(B, 3, H, W) images to their mean colours, of norm 1; counts the batches that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))
        self.calls = 0
        self.stop_at: int | None = None

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        return nn.functional.normalize(images.mean(dim=(2, 3)) @ self.weight + 0.01, dim=1)


def small(image: Image) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image[::8, ::8])).permute(2, 0, 1).float() / 255


def colour_extractor(stop_at: int | None = None) -> Extractor:
    """Extract colours; the model's calls are counted from here on."""
    model = Colour()
    extractor = Extractor(model, preprocess=small, preprocessing="every 8th pixel")
    assert extractor.feature_dim == 3
    model.calls, model.stop_at = 0, stop_at
    return extractor


def make_colour_extractor() -> Extractor:
    return colour_extractor()


def torchvision() -> Any:
    """Import torchvision; its wheel expects a CUDA torch, and beside a CPU one lacks two operators."""
    pytest.importorskip("PIL")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs torchvision")
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torchvision.library = library  # type: ignore[attr-defined]  # operators live as long as it does
        return importlib.import_module("torchvision")


def test_googlenet_features_equal_torchvisions_trunk_with_the_same_weights(tmp_path: Path) -> None:
    vision = torchvision()
    from PIL import Image as Picture

    torch.manual_seed(0)
    reference = vision.models.googlenet(weights=None, aux_logits=True, init_weights=False, transform_input=True)
    for name, value in reference.named_buffers():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2)
    torch.save(reference.state_dict(), tmp_path / "googlenet.pth")
    extractor = make_extractor("googlenet", tmp_path / "googlenet.pth")
    # The published extractors run the children up to the dropout, which leaves out transform_input.
    trunk = nn.Sequential(
        *[m for name, m in reference.named_children() if name not in ("aux1", "aux2", "dropout", "fc")]
    )
    trunk.eval()
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (3, 12, 16, 3), dtype=np.uint8)
    images = [np.array(Picture.fromarray(block).resize((400, 300), Picture.Resampling.BICUBIC)) for block in blocks]
    transforms = vision.transforms
    prepare = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    expected_input = torch.stack([prepare(Picture.fromarray(image)) for image in images])
    ours = torch.stack([resize_and_crop(image) for image in images])
    assert (normalised(ours) - expected_input).abs().max() <= 1.01 / 255 / 0.224  # one grey level
    with torch.no_grad():
        pooled = trunk(expected_input).flatten(1)
    expected = (pooled / pooled.norm(dim=1, keepdim=True)).numpy()
    np.testing.assert_allclose(extractor(expected_input), expected, atol=1e-6)
    np.testing.assert_allclose(extractor(ours), expected, atol=2e-4)
    assert extractor(ours).shape == (3, 1024)


@pytest.mark.parametrize("size", [(360, 640), (90, 160), (64, 36), (361, 641), (224, 224), (600, 256)])
def test_frames_are_prepared_as_pillow_does(size: tuple[int, int]) -> None:
    Picture = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(1)
    coarse = Picture.fromarray(rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8))
    image = np.array(coarse.resize(size[::-1], Picture.Resampling.BICUBIC))
    short = min(size)
    height, width = (256 * side // short for side in size)
    resized = np.array(Picture.fromarray(image).resize((width, height), Picture.Resampling.BILINEAR))
    top, left = round((height - 224) / 2), round((width - 224) / 2)
    expected = resized[top : top + 224, left : left + 224].transpose(2, 0, 1)
    difference = np.abs(resize_and_crop(image).numpy().astype(int) - expected)
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.03


def test_random_googlenet_is_always_the_same_and_leaves_the_random_state(tmp_path: Path) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = make_extractor(weights="random"), make_extractor(weights="random")
    assert torch.equal(torch.get_rng_state(), state)
    assert first.provenance == second.provenance
    assert first.provenance["extractor_weights"] == "random"
    features = extract_features(write_clip(tmp_path / "clip.mp4", 31), first)
    assert features.features.shape == (3, 1024)
    np.testing.assert_allclose(np.linalg.norm(features.features, axis=1), 1, rtol=1e-5)


def test_without_weights_googlenet_says_what_to_pass() -> None:
    with pytest.raises(ValueError, match=r"'imagenet' fetches.*googlenet-1378be20\.pth.*'random'"):
        make_extractor("googlenet")


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    torch.save({"conv1.conv.weight": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights\.pth do not fit: (.|\n)*missing: conv1"):
        make_extractor("googlenet", tmp_path / "weights.pth")
    with pytest.raises(FileNotFoundError):
        make_extractor("googlenet", tmp_path / "none.pth")


def test_the_hash_tells_weights_apart() -> None:
    model = nn.Linear(2, 2)
    before = state_hash(model.state_dict())
    assert before == state_hash(model.state_dict())
    nn.init.constant_(model.bias, 9)
    assert before != state_hash(model.state_dict())


def test_any_image_model_extracts(tmp_path: Path) -> None:
    norm = nn.BatchNorm2d(5)
    model = nn.Sequential(nn.Conv2d(3, 5, 7, stride=7), norm, nn.AdaptiveAvgPool2d(1))
    video = extract_features(write_clip(tmp_path / "clip.mp4", 40), model, fps=10, batch_size=4)
    assert video.features.shape == (14, 5)
    assert video.picks.tolist() == list(range(0, 40, 3))
    assert model.training
    assert norm.num_batches_tracked == 0


def test_batches_do_not_change_the_features(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 50)
    one, many = (extract_features(clip, colour_extractor(), fps=10, batch_size=size) for size in (1, 7))
    np.testing.assert_allclose(one.features, many.features, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        nn.Flatten(0),
        nn.Conv2d(3, 2, 3),
        nn.Sequential(nn.Flatten(), nn.Linear(150528, 2), nn.Threshold(9e9, float("nan"))),
    ],
)
def test_a_model_that_is_no_extractor_is_refused(tmp_path: Path, model: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"returned .*(expected \(2, d\)|not finite)"):
        extract_features(write_clip(tmp_path / "clip.mp4", 20), model)


def test_a_factory_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = make_extractor("tests.video.test_features:make_colour_extractor")
    assert extractor.feature_dim == 3
    assert extractor.provenance["extractor_weights"] == "as the factory made them"
    torch.save({"weight": torch.zeros(3, 3)}, tmp_path / "zeros.pt")
    loaded = make_extractor("tests.video.test_features:make_colour_extractor", tmp_path / "zeros.pt")
    assert loaded.provenance["extractor_weights"] == "zeros.pt"
    assert loaded.provenance["extractor_sha256"] != extractor.provenance["extractor_sha256"]
    for name in ("nothing", "no_such_module:f", "tests.video.test_features:no_such_factory"):
        with pytest.raises(ValueError, match="extractor"):
            make_extractor(name)
    with pytest.raises(TypeError, match=r"returned a float, expected a torch\.nn\.Module"):
        make_extractor("random:random")


def test_a_folder_becomes_an_h5_file_of_the_field(tmp_path: Path, folder: Path) -> None:
    (folder / "notes.txt").write_text("not looked at")
    out = tmp_path / "corpus.h5"
    corpus = extract_corpus([folder], out, colour_extractor())
    assert corpus.videos == {f"video_{i}": f"clip{i}.mp4" for i in (1, 2, 3)}
    assert corpus.left_out == {}
    summary = validate_h5(out)
    assert summary.lengths == {"video_1": 5, "video_2": 3, "video_3": 6}
    assert summary.provenance["extractor"] == "Colour"
    assert summary.provenance["sampling_rate"] == "2 fps"
    record = read_record(out, "video_3")
    assert record.n_frames == 90
    assert record.picks is not None
    assert record.picks.tolist() == [0, 15, 30, 45, 60, 75]
    assert record.video_name == "clip3.mp4"
    assert record.change_points is not None
    check_shots(record.change_points, 90)
    assert record.n_frame_per_seg is not None
    assert record.n_frame_per_seg.sum() == 90
    assert record.provenance["frame_rate"] == "30"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.h5", "videos"]


def test_kts_at_every_frame_cuts_where_the_shots_change(tmp_path: Path, folder: Path) -> None:
    shots = {}
    for kts_frames in ("sampled", "all"):
        out = tmp_path / f"{kts_frames}.h5"
        extract_corpus([folder / "clip3.mp4"], out, colour_extractor(), kts_frames=kts_frames)
        record = read_record(out, "video_1")
        assert record.picks is not None
        assert record.change_points is not None
        assert record.picks.tolist() == [0, 15, 30, 45, 60, 75]
        shots[kts_frames] = record.change_points.tolist()
    assert shots["all"] == [[0, 19], [20, 49], [50, 89]]
    with pytest.raises(ValueError, match="kts_frames must be 'sampled' or 'all'"):
        extract_corpus([folder], tmp_path / "x.h5", colour_extractor(), kts_frames="some")  # type: ignore[arg-type]


def test_of_50_clips_two_are_left_out_with_their_reasons(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    made = [write_clip(tmp_path / f"{i}.mp4", 16 + i, options={"movflags": "+faststart"}) for i in range(4)]
    long = write_clip(tmp_path / "long.mp4", 60, options={"movflags": "+faststart"})
    for number in range(47):
        shutil.copy(made[number % 4], folder / f"clip{number:02d}.mp4")
    shutil.copy(made[0], folder / "concat:$(rm -rf ~)\n'; drop.mp4")
    (folder / "cut.mp4").write_bytes(long.read_bytes()[: long.stat().st_size // 2])
    (folder / "text.mp4").write_text("this is not a video\n" * 50)
    out = tmp_path / "corpus.h5"
    corpus = extract_corpus([folder], out, colour_extractor())
    assert len(corpus.videos) == 48
    assert set(corpus.left_out) == {"cut.mp4", "text.mp4"}
    assert "cut short" in corpus.left_out["cut.mp4"]
    assert "cannot be read as a video" in corpus.left_out["text.mp4"]
    assert all(reason.isprintable() for reason in corpus.left_out.values())
    summary = validate_h5(out)
    assert len(summary.keys) == 48
    assert "concat:$(rm -rf ~)\n'; drop.mp4" in corpus.videos.values()


def test_workers_make_the_same_file(tmp_path: Path, folder: Path) -> None:
    (folder / "broken.mp4").write_bytes(b"broken")
    for workers in (0, 2):
        corpus = extract_corpus([folder], tmp_path / f"{workers}.h5", colour_extractor(), workers=workers)
        assert list(corpus.left_out) == ["broken.mp4"]
    for key in ("video_2", "video_3", "video_4"):
        ours, theirs = (read_record(tmp_path / f"{workers}.h5", key) for workers in (0, 2))
        np.testing.assert_array_equal(ours.features, theirs.features)
        assert ours.video_name == theirs.video_name


def test_an_interrupted_run_goes_on_with_the_videos_that_are_missing(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "corpus.h5"
    with pytest.raises(KeyboardInterrupt):
        extract_corpus([folder], out, colour_extractor(stop_at=3), batch_size=32)
    assert not out.exists()
    extractor = colour_extractor()
    corpus = extract_corpus([folder], out, extractor, batch_size=32)
    assert corpus.resumed == 2
    assert extractor.model.calls == 1
    extract_corpus([folder], tmp_path / "whole.h5", colour_extractor())
    for key in validate_h5(out).keys:
        np.testing.assert_array_equal(read_record(out, key).features, read_record(tmp_path / "whole.h5", key).features)


def test_parts_of_other_settings_or_files_are_not_taken(tmp_path: Path, folder: Path) -> None:
    (folder / "broken.mp4").write_bytes(b"broken")
    out = tmp_path / "corpus.h5"
    extract_corpus([folder], out, colour_extractor())
    (folder / "broken.mp4").unlink()
    write_clip(folder / "clip1.mp4", 60)
    corpus = extract_corpus([folder], out, colour_extractor(), overwrite=True)
    assert corpus.resumed == 2
    assert corpus.videos["video_1"] == "clip1.mp4"
    assert extract_corpus([folder], out, colour_extractor(), fps=4, overwrite=True).resumed == 0


def test_where_no_video_can_be_read_there_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"broken")
    with pytest.raises(VideoError, match=r"not one video could be read:\n.*a\.mp4: cannot be read"):
        extract_corpus([tmp_path / "a.mp4"], tmp_path / "corpus.h5", colour_extractor())
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_inputs_that_cannot_be_are_refused(tmp_path: Path, folder: Path) -> None:
    extractor = colour_extractor()
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        extract_corpus([tmp_path / "none"], tmp_path / "corpus.h5", extractor)
    with pytest.raises(ValueError, match="no video is given"):
        extract_corpus([], tmp_path / "corpus.h5", extractor)
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        extract_corpus([tmp_path / "pipe.mp4"], tmp_path / "corpus.h5", extractor)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no file in this folder is named like a video"):
        extract_corpus([tmp_path / "empty"], tmp_path / "corpus.h5", extractor)
    with pytest.raises(ValueError, match=r"two videos are named 'clip1\.mp4'"):
        extract_corpus([folder, folder / "clip1.mp4"], tmp_path / "corpus.h5", extractor)
    (tmp_path / "corpus.h5").write_bytes(b"kept")
    with pytest.raises(FileExistsError, match="overwrite"):
        extract_corpus([folder], tmp_path / "corpus.h5", extractor)
    assert extractor.model.calls == 0


def test_processes_share_a_folder(tmp_path: Path, folder: Path) -> None:
    (folder / "broken.mp4").write_bytes(b"broken")
    out = tmp_path / "corpus.h5"
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from tests.video.test_features import colour_extractor\n"
        "from visp.video import extract_corpus\n"
        "extractor = colour_extractor()\n"
        "corpus = extract_corpus([sys.argv[1]], sys.argv[2], extractor, batch_size=32)\n"
        "print(len(corpus.videos), list(corpus.left_out), extractor.model.calls)\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).parents[2]
    shared = {
        **os.environ,
        "PYTHONPATH": str(root),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder), str(out)],
            env={**shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert printed == ["3 ['broken.mp4'] 1", "3 ['broken.mp4'] 2"]
    assert len(validate_h5(out).keys) == 3


def test_the_trunks_own_names_are_torchvisions() -> None:
    names = set(GoogLeNetPool5().googlenet.state_dict())
    assert {"conv1.conv.weight", "inception5b.branch4.1.bn.running_var"} <= names
