from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import visp
from tests.side_summarizers import sided_records
from visp import cli
from visp.cli.estimate import seconds_per_step
from visp.cli.options import CommandParser
from visp.data import VideoRecord, make_splits, write_h5, write_splits
from visp.data.synthetic import write_corpus
from visp.factory import make_encoder, make_summarizer
from visp.registry import SAMPLERS

DIM = 8

MODELS = """
import time

import torch
from torch import nn


class Linear(nn.Module):
    def __init__(self, feature_dim):
        super().__init__()
        self.score = nn.Linear(feature_dim, 1)

    def forward(self, frames):
        return self.score(frames).squeeze(-1)


class Positional(Linear):
    def __init__(self, dim):
        super().__init__(dim)


class WrongShape(Linear):
    def forward(self, frames):
        return self.score(frames)


class NoGradient(Linear):
    def forward(self, frames):
        return super().forward(frames).detach()


class Slow(Linear):
    def forward(self, frames):
        time.sleep(0.02)
        return super().forward(frames)


class Mean(nn.Module):
    def __init__(self, feature_dim):
        super().__init__()
        self.embed = nn.Linear(feature_dim, 4)

    def forward(self, frames):
        return self.embed(frames).mean(dim=0)


def no_module(feature_dim):
    return "a string"
"""

Visp = Callable[..., "Outcome"]


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with data.h5 and a module of models that the command line can import."""
    write_corpus(tmp_path / "data.h5", num_videos=8, feature_dim=DIM, num_shots=3, shot_length=(1, 2))
    (tmp_path / "toy_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "toy_models", raising=False)
    return tmp_path


@pytest.fixture
def run_visp(here: Path, capsys: pytest.CaptureFixture[str]) -> Visp:
    """Run the command line in this process: an exception that it lets through fails the test."""

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = cli.main(list(arguments))
        return Outcome(code, *capsys.readouterr())

    return run


def quick(*more: str) -> list[str]:
    """Arguments of a run that takes a moment."""
    return ["pretrain", "--data", "data.h5", "--summarizer", "toy_models:Linear", "--epochs", "1", *more]


def subprocess_environment(folder: Path) -> dict[str, str]:
    paths = [str(folder), str(Path(visp.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def in_subprocess(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "visp", *arguments],
        cwd=folder,
        env=subprocess_environment(folder),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def folder_contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def record(number: int, features: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> VideoRecord:
    return VideoRecord(name=f"video_{number}", features=features)


def assert_refused(outcome: Outcome, message: str) -> None:
    assert outcome.code == 2
    bar = re.compile(r"\d+/\d+ \[")
    told = [line for line in outcome.err.splitlines() if line and not bar.search(line)]
    assert told[0].startswith("visp pretrain: ")
    assert re.search(message, "\n".join(told)), told
    assert "Traceback" not in outcome.err


# --- what works ---------------------------------------------------------------------------------------------


def test_pretrain_from_end_to_end(here: Path) -> None:
    done = in_subprocess(here, *quick("--epochs", "3", "--out", "run"))
    assert done.returncode == 0, done.stderr
    assert "8 videos" in done.stdout
    assert "step 3: InfoNCE" in done.stdout
    assert f"the summarizer's weights: {Path('run') / 'weights.pt'}" in done.stdout
    assert "keep=" in done.stderr  # the progress bar
    documented = ["checkpoint.pt", "config.json", "metrics.jsonl", "weights.pt", "weights.safetensors"]
    assert sorted(folder_contents(here / "run")) == documented
    metrics = [json.loads(line) for line in (here / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics] == [1, 2, 3]
    assert set(metrics[0]) >= {"info_nce", "mi_lower_bound", "keep_ratio"}
    assert list(torch.load(here / "run" / "weights.pt", weights_only=True)) == ["score.weight", "score.bias"]


def test_an_error_in_a_process_of_its_own_is_one_line(here: Path) -> None:
    done = in_subprocess(here, "pretrain", "--data", "none.h5")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "visp pretrain: none.h5: no such file\n"


def test_version(here: Path) -> None:
    done = in_subprocess(here, "--version")
    assert (done.returncode, done.stdout) == (0, f"visp {visp.__version__}\n")


OPTION_SETS = [
    ["--sampler", "gumbel_softmax", "--gradient-flow", "marginalization", "--temperature", "0.7"],
    ["--sampler", "sigmoid", "--gradient-flow", "straight_through", "--hard-negatives"],
    ["--sampler", "concrete", "--gradient-flow", "gating", "--size-target", "0.5", "--binary-weight", "0.1"],
    ["--size-weight", "0.2", "--stride", "2", "--batch-size", "16", "--lr", "0.01", "--seed", "3"],
    [
        "--encoder",
        "toy_models:Mean",
        "--precision",
        "bf16",
        "--no-recompute",
        "--workers",
        "0",
        "--device",
        "cpu",
    ],
    ["--encoder", "attention", "--precision", "fp16", "--no-standardize", "--recompute"],
    ["--schedule", "cosine", "--ema-decay", "0.9", "--bucket-by-length", "--index", "index.json"],
    ["--segment-length", "3"],
]


@pytest.mark.parametrize("options", OPTION_SETS, ids=" ".join)
def test_options_run(here: Path, run_visp: Visp, options: list[str]) -> None:
    outcome = run_visp(*quick("--out", "run", *options))
    assert outcome.code == 0, outcome.err
    assert (here / "run" / "weights.pt").exists()


@pytest.mark.filterwarnings("ignore")
def test_side_inputs_reach_a_summarizer_that_reads_them(here: Path, run_visp: Visp) -> None:
    write_h5(here / "sided.h5", sided_records())
    write_splits(here / "splits.json", make_splits([f"video_{i}" for i in range(1, 9)], folds=2))
    labels = ["--splits", "splits.json", "--fold", "0", "--benchmark", "summe"]
    read = ["--data", "sided.h5", "--with", "change_points", "audio=frames"]
    model = ["--summarizer", "tests.side_summarizers:Reader"]
    for command in (
        ["pretrain", *read, *model, "--epochs", "2", "--out", "run"],
        ["study", "controls", "run", "--identification-steps", "0"],
        ["finetune", *read, *model, *labels, "--epochs", "1", "--out", "tuned"],
        ["evaluate", *read, *model, *labels, "--weights", "tuned/weights.pt"],
    ):
        outcome = run_visp(*command)
        assert outcome.code == 0, outcome.err
    outcome = run_visp("pretrain", "--data", "sided.h5", "--with", "audio", *model)
    assert outcome.code == 2
    assert "audio: shape" in outcome.err


def test_every_option_is_tried() -> None:
    given = {word for options in OPTION_SETS for word in options if word.startswith("--")}
    known = set(re.findall(r"--[a-z-]+", _help("pretrain")))
    elsewhere = {
        "--help",
        "--data",
        "--summarizer",
        "--epochs",
        "--out",
        "--resume",
        "--imagenet",
        "--standardize",
        "--tensorboard",
        "--weights",
        "--similarity",
        "--contrast",
        "--window",
        "--window-weight",
        "--crop",
        "--weight-decay",
        "--clip-grad-norm",
        "--warmup-steps",
        "--checkpoint-seconds",
        "--worker-timeout",
        "--objective",
        "--pseudo-share",
        "--width",
        "--controls",
        "--no-controls",
        "--isolate",
        "--with",
    }
    assert known - given == elsewhere


def test_help_shows_no_default_that_says_nothing() -> None:
    for command in ("pretrain", "finetune", "evaluate", "crossval", "demo"):
        assert "(default: None)" not in " ".join(_help(command).split()), command


@pytest.mark.filterwarnings("ignore:the run seems to have taught:visp.training.CollapseWarning")
def test_the_library_gives_the_weights_of_the_command(here: Path, run_visp: Visp) -> None:
    command = [
        "pretrain",
        "--data",
        "data.h5",
        "--summarizer",
        "toy_models:Linear",
        "--epochs",
        "30",
        "--out",
        "command",
    ]
    assert run_visp(*command).code == 0
    videos = visp.data.VideoDataset("data.h5")
    torch.manual_seed(0)
    summarizer = make_summarizer("toy_models:Linear", videos.feature_dim)
    encoder = visp.encoders.AttentionPoolEncoder(videos.feature_dim)
    visp.pretrain(
        visp.ViSPPretrainer(summarizer, encoder, seed=0), videos, epochs=30, out_dir="library", progress=False
    )
    weights = torch.load("command/weights.pt", weights_only=True), torch.load("library/weights.pt", weights_only=True)
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())
    assert (here / "command/metrics.jsonl").read_bytes() == (here / "library/metrics.jsonl").read_bytes()


def test_a_sampler_of_ones_own_is_one_line_in_the_registry(run_visp: Visp, monkeypatch: pytest.MonkeyPatch) -> None:
    class Halved(visp.SigmoidSampler):
        pass

    monkeypatch.setitem(SAMPLERS, "halved", Halved)
    assert run_visp(*quick("--sampler", "halved", "--out", "run")).code == 0
    assert "Halved" in json.loads(Path("run/config.json").read_text())["sampler"]


def test_the_folder_of_a_run_whose_first_step_failed_does_not_block_the_next(here: Path, run_visp: Visp) -> None:
    assert run_visp(*quick("--summarizer", "toy_models:NoGradient", "--out", "run")).code == 2
    assert (here / "run").exists()
    assert run_visp(*quick("--out", "run")).code == 0


def test_a_run_that_starts_from_weights_takes_features_as_they_are(here: Path, run_visp: Visp) -> None:
    built_in = ["--summarizer", "csta", "--width", "64", "--encoder", "toy_models:Mean", "--lr", "0"]
    for more in (["--out", "first", "--seed", "1"], ["--out", "second", "--weights", "first/weights.pt"]):
        outcome = run_visp(*quick(*built_in, *more))
        assert outcome.code == 0, outcome.err
    first, second = (torch.load(here / run / "weights.pt", weights_only=True) for run in ("first", "second"))
    for name, _ in visp.summarizers.CSTA(DIM, width=64).named_parameters():
        assert torch.equal(first[name], second[name]), name
    settings = [json.loads((here / run / "config.json").read_text())["standardize"] for run in ("first", "second")]
    assert settings == [True, False]


def test_weights_of_another_model_are_refused(here: Path, run_visp: Visp) -> None:
    torch.save({"other": torch.zeros(1)}, here / "other.pt")
    assert_refused(run_visp(*quick("--weights", "other.pt")), r"other\.pt does not fit the summarizer")


def test_a_batch_that_does_not_fit_into_memory_is_recomputed_and_that_is_said(
    run_visp: Visp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visp.training.memory.memory_of", lambda device: 2**20)
    built_in = ["--summarizer", "csta", "--width", "64", "--encoder", "toy_models:Mean"]
    assert "are recomputed; recompute=False keeps them" in run_visp(*quick("--out", "run", *built_in)).err
    kept = run_visp(*quick("--out", "kept", *built_in, "--no-recompute"))
    assert kept.code == 0
    assert "recomputed" not in kept.err


def _help(command: str) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    return said.getvalue()


def test_an_unknown_option_exits_with_2(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([*quick(), "--sampling", "concrete"])
    assert caught.value.code == 2
    assert "unrecognized arguments: --sampling" in capsys.readouterr().err


def test_the_config_records_the_command_line(here: Path, run_visp: Visp) -> None:
    run_visp(*quick("--out", "run", "--seed", "3", "--size-target", "0.4"))
    config = json.loads((here / "run" / "config.json").read_text())
    assert config["command_line"].items() >= {"seed": 3, "size_target": 0.4, "summarizer": "toy_models:Linear"}.items()
    assert config["visp_version"] == visp.__version__


def test_the_seed_makes_a_run_repeatable(here: Path, run_visp: Visp) -> None:
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        torch.manual_seed(len(name) + int(seed))
        run_visp(*quick("--out", name, "--seed", seed))
    first, second, other = ((here / name / "metrics.jsonl").read_bytes() for name in "abc")
    assert first == second != other


def test_the_default_folder_is_under_runs(here: Path, run_visp: Visp) -> None:
    outcome = run_visp(*quick())
    (folder,) = (here / "runs").iterdir()
    assert re.fullmatch(r"pretrain-\d{8}-\d{6}", folder.name)
    assert str(Path("runs") / folder.name / "weights.pt") in outcome.out


def test_resume_goes_on_and_then_has_nothing_to_do(here: Path, run_visp: Visp) -> None:
    run_visp(*quick("--out", "run"))
    more = run_visp(*quick("--out", "run", "--resume", "--epochs", "4"))
    assert (more.code, more.out.count("step 4: InfoNCE")) == (0, 1)
    again = run_visp(*quick("--out", "run", "--resume", "--epochs", "4"))
    assert (again.code, again.out.count("step 4: nothing left to do")) == (0, 1)


def test_several_files_are_one_corpus(here: Path, run_visp: Visp) -> None:
    write_corpus(here / "more.h5", num_videos=3, feature_dim=DIM, num_shots=2, shot_length=(1, 2))
    outcome = run_visp(*quick("--data", "data.h5", "more.h5", "--out", "run"))
    assert outcome.code == 0
    assert "11 videos" in outcome.out


def test_a_small_batch_warns_in_one_line(here: Path) -> None:
    done = in_subprocess(here, *quick("--batch-size", "4", "--out", "run"))
    assert done.returncode == 0
    warned = [line for line in done.stderr.replace("\r", "\n").splitlines() if "visp: warning: a batch of 4" in line]
    assert len(warned) == 1


INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from visp.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_an_interrupt_ends_with_130_and_the_run_goes_on(here: Path, run_visp: Visp) -> None:
    slow = ["pretrain", "--data", "data.h5", "--summarizer", "toy_models:Slow", "--no-controls", "--out", "run"]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *slow, "--epochs", "1000"],
        cwd=here,
        env=subprocess_environment(here),
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics, deadline = here / "run" / "metrics.jsonl", time.monotonic() + 60
    while not metrics.exists() or metrics.read_text().count("\n") < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "visp pretrain: interrupted; resume with --out run --resume"
    assert "Traceback" not in err
    assert run_visp(*slow, "--epochs", "3", "--resume").code == 0
    assert metrics.read_text().count("\n") == 3


def test_csta_weights_load_into_the_plain_model(here: Path, run_visp: Visp) -> None:
    """The one slow test here: the published width, through the command line's defaults."""
    outcome = run_visp("pretrain", "--data", "data.h5", "--summarizer", "csta", "--epochs", "1", "--out", "run")
    assert outcome.code == 0, outcome.err
    plain = visp.summarizers.CSTA(feature_dim=DIM)
    plain.load_state_dict(torch.load(here / "run" / "weights.pt", weights_only=True), strict=True)


@pytest.mark.skipif("VISP_TEST_DATA" not in os.environ, reason="VISP_TEST_DATA names no folder of h5 files")
def test_one_epoch_on_real_features(here: Path, run_visp: Visp) -> None:
    files = sorted(Path(os.environ["VISP_TEST_DATA"]).glob("*.h5"))
    options = ["--stride", "40", "--width", "64", "--precision", "bf16", "--epochs", "1", "--out", "run"]
    outcome = run_visp("pretrain", "--data", *map(str, files), *options)
    assert outcome.code == 0, outcome.err
    metrics = json.loads((here / "run" / "metrics.jsonl").read_text())
    assert 0 < metrics["keep_ratio"] < 1


# --- models by name -----------------------------------------------------------------------------------------


def test_built_in_models_by_name() -> None:
    assert isinstance(make_summarizer("csta", DIM, width=64), visp.summarizers.CSTA)
    assert isinstance(make_summarizer("googlenet", DIM, width=64), visp.summarizers.GoogleNet)
    assert isinstance(make_summarizer("transformer", DIM, width=64), visp.summarizers.Transformer)
    assert isinstance(make_encoder("attention", DIM), visp.encoders.AttentionPoolEncoder)


def test_a_built_in_model_has_its_own_width_by_default() -> None:
    assert make_summarizer("transformer", DIM).embedding.out_features == 128  # type: ignore[union-attr]


def test_a_width_for_a_factory_of_the_users_own_is_refused() -> None:
    with pytest.raises(ValueError, match=r"width=64 is for the built-in summarizers: let torch\.nn:Identity choose"):
        make_summarizer("torch.nn:Identity", DIM, width=64)


@pytest.mark.parametrize(("name", "pooling"), [("csta", "attention"), ("csta-literal", "cls")])
def test_a_csta_encoder_has_no_classifier(name: str, pooling: str) -> None:
    encoder = make_encoder(name, DIM, width=64)
    assert isinstance(encoder, visp.summarizers.CSTAEncoder)
    assert encoder.pooling == pooling
    assert [key for key in encoder.state_dict() if key.startswith(("linear1", "linear2"))] == []


# --- bad input ----------------------------------------------------------------------------------------------


def test_a_missing_file_is_refused(run_visp: Visp) -> None:
    assert_refused(run_visp(*quick("--data", "none.h5")), "none.h5: no such file$")


def test_a_truncated_file_is_refused(here: Path, run_visp: Visp) -> None:
    whole = (here / "data.h5").read_bytes()
    (here / "cut.h5").write_bytes(whole[: len(whole) // 2])
    assert_refused(run_visp(*quick("--data", "cut.h5")), r"cut\.h5: not a readable HDF5 file \(truncated\?\)")


def test_nan_features_are_refused(here: Path, run_visp: Visp) -> None:
    features = np.ones((3, DIM), dtype=np.float32)
    features[1, 2] = np.nan
    write_h5(here / "nan.h5", [record(1, features), record(2, np.ones((3, DIM), dtype=np.float32))])
    assert_refused(run_visp(*quick("--data", "nan.h5")), r"nan\.h5: 1 problem\n  video_1/features: .*")


def test_an_empty_video_is_refused(here: Path, run_visp: Visp) -> None:
    write_h5(here / "empty.h5", [record(1, np.ones((0, DIM), dtype=np.float32))])
    assert_refused(run_visp(*quick("--data", "empty.h5")), "video_1/features: an empty video$")


def test_a_group_without_features_is_refused(here: Path, run_visp: Visp) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(here / "data.h5", "a") as file:
        del file["video_3/features"]
    assert_refused(run_visp(*quick()), "video_3: no 'features'$")


def test_feature_dimensions_that_disagree_are_refused(here: Path, run_visp: Visp) -> None:
    write_h5(here / "wide.h5", [record(1, np.ones((3, 9), dtype=np.float32))])
    outcome = run_visp(*quick("--data", "data.h5", "wide.h5"))
    assert_refused(outcome, r"disagree: data\.h5 has d = 8, wide\.h5 has d = 9$")


def test_a_single_video_is_refused(here: Path, run_visp: Visp) -> None:
    write_h5(here / "one.h5", [record(1, np.ones((3, DIM), dtype=np.float32))])
    assert_refused(run_visp(*quick("--data", "one.h5", "--contrast", "videos")), "expected at least 2, got 1$")


def test_a_folder_that_is_not_empty_is_refused_and_kept(here: Path, run_visp: Visp) -> None:
    run_visp(*quick("--out", "run"))
    before = folder_contents(here / "run")
    assert_refused(run_visp(*quick("--out", "run")), "run is not empty; resume the run in it, or choose another")
    assert folder_contents(here / "run") == before


def test_resume_without_a_folder_is_refused(here: Path, run_visp: Visp) -> None:
    assert_refused(run_visp(*quick("--resume")), "--resume needs --out")
    assert not (here / "runs").exists()


def test_size_weight_and_size_target_together_are_refused(run_visp: Visp, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_visp(*quick("--size-weight", "1", "--size-target", "0.3"))
    assert "argument --size-target: not allowed with argument --size-weight" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", "unknown summarizer 'resnet': expected csta, googlenet, transformer or package.module:factory"),
        ("no_such_module:make", "'no_such_module:make' cannot be found: No module named 'no_such_module'"),
        ("toy_models:none", "'toy_models:none' cannot be found: module 'toy_models' has no attribute 'none'"),
        (
            "toy_models:Positional",
            r"toy_models:Positional is called as Positional\(feature_dim=8\): missing a required",
        ),
        ("toy_models:no_module", "toy_models:no_module returned a str, expected a torch.nn.Module"),
        ("toy_models:WrongShape", r"WrongShape returned .*expected logits \(T,\) with T = \d+"),
        ("toy_models:NoGradient", "NoGradient returned logits without a gradient"),
    ],
)
def test_a_summarizer_that_is_none_is_refused(run_visp: Visp, name: str, message: str) -> None:
    assert_refused(run_visp(*quick("--summarizer", name, "--out", "run")), message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", "unknown encoder 'resnet': expected attention, csta, csta-literal or package.module:factory"),
        ("toy_models:Linear", "Linear returned .*these look like logits, not an embedding"),
    ],
)
def test_an_encoder_that_is_none_is_refused(run_visp: Visp, name: str, message: str) -> None:
    assert_refused(run_visp(*quick("--encoder", name, "--out", "run")), message)


def test_a_device_that_is_none_is_refused(run_visp: Visp) -> None:
    assert_refused(run_visp(*quick("--device", "abacus")), "--device abacus cannot be used: ")


def text(path: Path) -> None:
    path.write_text("not weights\n")


def other_weights(path: Path) -> None:
    torch.save(nn.Linear(2, 1).state_dict(), path)


@pytest.mark.parametrize("make", [text, other_weights])
def test_imagenet_weights_that_are_none_are_refused(here: Path, run_visp: Visp, make: Callable[[Path], None]) -> None:
    make(here / "weights.pth")
    outcome = run_visp(*quick("--encoder", "csta", "--imagenet", "weights.pth", "--out", "run"))
    assert_refused(outcome, r"weights\.pth is not a file of weights|these weights do not fit GoogLeNetTrunk")
    assert not (here / "run").exists()


def test_imagenet_weights_need_a_built_in_model(run_visp: Visp) -> None:
    assert_refused(run_visp(*quick("--imagenet", "weights.pth")), "--imagenet needs a built-in summarizer or encoder")


def test_a_missing_imagenet_file_is_refused(run_visp: Visp) -> None:
    assert_refused(run_visp(*quick("--encoder", "csta", "--imagenet", "none.pth")), r"none\.pth")


def test_a_checkpoint_that_is_none_is_refused_and_kept(here: Path, run_visp: Visp) -> None:
    (here / "run").mkdir()
    text(here / "run" / "checkpoint.pt")
    outcome = run_visp(*quick("--out", "run", "--resume"))
    assert_refused(outcome, r"checkpoint\.pt is not a file of weights that torch can load")
    assert (here / "run" / "checkpoint.pt").read_text() == "not weights\n"


def test_resume_with_other_settings_is_refused(run_visp: Visp) -> None:
    run_visp(*quick("--out", "run"))
    outcome = run_visp(*quick("--out", "run", "--resume", "--lr", "0.1"))
    assert_refused(outcome, r"other settings: lr was 0\.001 and is 0\.1$")


def test_a_factory_in_the_current_folder_is_found_by_the_installed_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models_of_this_folder.py").write_text(
        "import torch\n\n\ndef make(feature_dim):\n    return torch.nn.Linear(feature_dim, 1)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])  # as a console script has it
    assert isinstance(make_summarizer("models_of_this_folder:make", 3), torch.nn.Linear)


def test_the_baseline_on_pseudo_summaries_runs_from_the_command_line(here: Path, run_visp: Visp) -> None:
    outcome = run_visp(*quick("--objective", "pseudo-summaries", "--out", "run"))
    assert outcome.code == 0, outcome.err
    last = json.loads((here / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"loss", "keep_ratio"} <= set(last)
    assert "info_nce" not in last


def test_the_width_of_a_built_in_summarizer_is_chosen(here: Path, run_visp: Visp) -> None:
    command = ["pretrain", "--data", "data.h5", "--summarizer", "transformer", "--epochs", "1", "--no-controls"]
    assert run_visp(*command, "--width", "32", "--out", "run").code == 0
    weights = torch.load(here / "run" / "weights.pt", weights_only=True)
    assert weights["embedding.weight"].shape == (32, DIM)


def test_options_of_the_objective_are_refused_for_the_baseline(here: Path, run_visp: Visp) -> None:
    outcome = run_visp(*quick("--objective", "pseudo-summaries", "--contrast", "videos"))
    assert_refused(outcome, "--contrast: of --objective visp, not of pseudo-summaries")


def test_the_time_that_a_run_takes_is_said_before_it_starts(here: Path, run_visp: Visp) -> None:
    outcome = run_visp(*quick("--out", "run", "--epochs", "2"))
    assert re.search(r"\d+ steps of about [\d.e-]+ s: about \d+ ", outcome.out)


def test_the_controls_refuse_a_run_of_the_baseline(here: Path, run_visp: Visp) -> None:
    assert run_visp(*quick("--objective", "pseudo-summaries", "--out", "run")).code == 0
    outcome = run_visp("study", "controls", "run")
    assert outcome.code == 2
    assert "is of a run of --objective pseudo-summaries" in outcome.err


def commands_of(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    kinds = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    below = [command for kind in kinds for command in kind.choices.values()]
    return [parser, *(each for command in below for each in commands_of(command))]


def test_no_argument_takes_the_place_of_what_runs_the_command() -> None:
    for command in commands_of(cli.make_parser()):
        if isinstance(command, CommandParser) and command.fill is not None:
            command.fill(command)
        assert {"run", "goes_on_with"}.isdisjoint(action.dest for action in command._actions), command.prog


def test_a_misspelt_flag_is_answered_by_the_command_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--data", "data.h5", "--batchsize", "1"])
    err = capsys.readouterr().err
    assert err.startswith("usage: visp pretrain")
    assert err.endswith("unrecognized arguments: --batchsize 1; did you mean --batch-size?\n")


def test_an_existing_file_is_refused_with_the_flag_that_replaces_it(run_visp: Visp) -> None:
    assert run_visp("convert", "data.h5", "-o", "made.h5").code == 0
    outcome = run_visp("convert", "data.h5", "-o", "made.h5")
    assert outcome[::2] == (2, "visp convert: made.h5 exists; give --overwrite to replace it\n")


@pytest.mark.parametrize(
    "command",
    [
        ["summarize", "nothing.mp4", "-o", "out.mp4"],
        ["pretrain", "--data", "nothing.h5"],
        ["evaluate", "--data", "data.h5", "--benchmark", "summe", "--weights", "nothing.pt"],
        ["export", "nothing.pt", "-o", "out.pt2"],
        ["features", "nothing.mp4", "-o", "out.h5", "--extractor-weights", "random"],
    ],
    ids=lambda command: command[0],
)
def test_a_missing_file_is_named_in_one_form(run_visp: Visp, command: list[str]) -> None:
    outcome = run_visp(*command)
    assert outcome.code == 2
    assert re.fullmatch(rf"visp {command[0]}: nothing\.\w+: no such file( or folder)?\n", outcome.err)


def test_the_estimate_is_that_of_the_precision(here: Path) -> None:
    seen = []

    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, videos: list[torch.Tensor]) -> Timed:
            seen.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
            return Timed(self.weight * 1)

    for precision in ("float32", "bf16"):
        seconds_per_step(Asks(), [torch.ones(2, 3)], 1, precision)
    assert seen == [None, None, torch.bfloat16, torch.bfloat16]


class Timed(NamedTuple):
    loss: torch.Tensor
