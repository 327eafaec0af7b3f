"""A summarizer written as a graph gives the logits of the module, for any number of frames."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import visp
from tests.builders import LinearSummarizer, normal
from visp.cli import main
from visp.data.synthetic import make_corpus
from visp.inputs import Standardization, carry
from visp.weights import save_state

pytestmark = pytest.mark.skipif(not hasattr(torch.export.Dim, "AUTO"), reason="needs torch 2.6")

MODELS: dict[str, Callable[[], nn.Module]] = {
    "transformer": lambda: visp.summarizers.Transformer(8, width=16),
    "csta": lambda: visp.summarizers.CSTA(8, width=64),
    "googlenet": lambda: visp.summarizers.GoogleNet(8, width=64),
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def pt2(path: Path) -> Callable[[Tensor], Tensor]:
    module: Callable[[Tensor], Tensor] = torch.export.load(path).module()
    return module


def onnx(path: Path) -> Callable[[Tensor], Tensor]:
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    assert [each.name for each in session.get_inputs()] == ["frames"]
    return lambda frames: torch.from_numpy(session.run(["logits"], {"frames": frames.numpy()})[0])


needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs the extra export",
)


@pytest.mark.parametrize(("name", "fewest"), [("transformer", 2), ("csta", 46)])
def test_a_pt2_gives_the_logits_of_the_module_at_every_length(name: str, fewest: int, tmp_path: Path) -> None:
    module = MODELS[name]().train()
    made = visp.export_summarizer(module, tmp_path / "model.pt2")
    assert module.training
    assert made.fewest_frames == fewest
    module.eval()
    exported = pt2(made.path)
    for length in (fewest, fewest + 1, 120, 555):
        frames = normal(length, 8, seed=length)
        torch.testing.assert_close(exported(frames), module(frames), atol=1e-5, rtol=1e-5)


@needs_onnx
@pytest.mark.parametrize(("name", "fewest"), [("transformer", 2), ("csta", 14), ("googlenet", 14)])
def test_an_onnx_gives_the_logits_of_the_module_at_every_length(name: str, fewest: int, tmp_path: Path) -> None:
    module = MODELS[name]().eval()
    exported = onnx(visp.export_summarizer(module, tmp_path / "model.onnx").path)
    for length in (fewest, fewest + 1, 45, 46, 120, 555):
        frames = normal(length, 8, seed=length)
        torch.testing.assert_close(exported(frames), module(frames), atol=1e-4, rtol=1e-4)


def test_a_standardization_that_the_summarizer_carries_is_in_the_graph(tmp_path: Path) -> None:
    module = LinearSummarizer(size=8)
    carry(module, Standardization(normal(8, seed=5), torch.tensor(2.5)))
    made = visp.export_summarizer(module, tmp_path / "model.pt2", feature_dim=8)
    frames = normal(9, 8, seed=3)
    expected = (frames - normal(8, seed=5)) / 2.5 @ module.score.weight[0] + module.score.bias
    torch.testing.assert_close(pt2(made.path)(frames), expected)


class OneLength(LinearSummarizer):
    def forward(self, frames: Tensor) -> Tensor:
        return super().forward(frames) + torch.ones(len(frames))


class DependsOnValues(LinearSummarizer):
    def forward(self, frames: Tensor) -> Tensor:
        logits = super().forward(frames)
        return logits if float(frames.sum()) > 0 else -logits


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (OneLength(size=8), {"feature_dim": 8}, r"OneLength can be traced for 203 frames only: .* len\(frames\)"),
        (DependsOnValues(size=8), {"feature_dim": 8}, "DependsOnValues cannot be traced"),
        (
            visp.adapt_summarizer(LinearSummarizer(size=8)),
            {"feature_dim": 8},
            "cannot be traced: give torch.export.export the LinearSummarizer itself",
        ),
        (LinearSummarizer(size=8), {}, "LinearSummarizer does not say its feature_dim"),
        (LinearSummarizer(size=8), {"feature_dim": 0}, "expected one of at least 1"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    module: nn.Module, options: dict[str, int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        visp.export_summarizer(module, tmp_path / "model.pt2", **options)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_trace_that_gives_other_logits_is_not_written(tmp_path: Path) -> None:
    class Drawn(LinearSummarizer):
        def forward(self, frames: Tensor) -> Tensor:
            return super().forward(frames) + torch.rand(frames.shape[0])

    with pytest.raises(ValueError, match="the export's logits of 2 frames differ"):
        visp.export_summarizer(Drawn(size=8), tmp_path / "model.pt2", feature_dim=8)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_and_an_existing_file_are_refused(tmp_path: Path) -> None:
    module = LinearSummarizer(size=8)
    with pytest.raises(ValueError, match=r"expected a name that ends in \.pt2 or \.onnx"):
        visp.export_summarizer(module, tmp_path / "model.h5", feature_dim=8)
    (tmp_path / "model.pt2").touch()
    with pytest.raises(FileExistsError):
        visp.export_summarizer(module, tmp_path / "model.pt2", feature_dim=8)


def test_a_missing_extra_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'needs onnx, onnxscript, onnxruntime: pip install "visp\[export\]"'):
        visp.export_summarizer(LinearSummarizer(size=8), tmp_path / "model.onnx", feature_dim=8)


def test_an_older_torch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.export.Dim, "AUTO")
    with pytest.raises(ImportError, match=r"needs torch 2\.6 or newer"):
        visp.export_summarizer(LinearSummarizer(size=8), tmp_path / "model.pt2", feature_dim=8)


def test_the_command_exports_a_run_and_a_file_of_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = visp.data.InMemoryDataset(make_corpus(4, feature_dim=8, num_shots=2))
    module = visp.summarizers.Transformer(8, width=16)
    pretrainer = visp.ViSPPretrainer(module, visp.encoders.AttentionPoolEncoder(8), contrast="windows")
    config = {"summarizer": "transformer", "width": 16}
    visp.pretrain(pretrainer, corpus, epochs=1, out_dir=tmp_path / "run", progress=False, config=config)
    assert main(["export", str(tmp_path / "run"), "-o", str(tmp_path / "run.pt2")]) == 0
    assert "frames (T, 8) to logits (T,), T >= 2" in capsys.readouterr().out
    save_state(module.state_dict(), tmp_path / "weights.pt")
    flags = ["--summarizer", "transformer", "--width", "16"]
    assert main(["export", str(tmp_path / "weights.pt"), "-o", str(tmp_path / "file.pt2"), *flags]) == 0
    frames = normal(12, 8)
    for name in ("run.pt2", "file.pt2"):
        torch.testing.assert_close(pt2(tmp_path / name)(frames), module(frames), atol=1e-5, rtol=1e-5)
    assert main(["export", str(tmp_path / "run"), "-o", str(tmp_path / "run.pt2")]) == 2
    assert "run.pt2 exists; give --overwrite to replace it" in capsys.readouterr().err
