"""A summarizer for programs without visp: ``.pt2`` of ``torch.export``, ``.onnx`` for ONNX Runtime and others."""

from __future__ import annotations

import copy
import importlib.util
import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visp.adapters import AdaptedSummarizer
from visp.calls import run_summarizer
from visp.utils.files import check_outputs, one_line, replacing, shown

FORMATS = (".pt2", ".onnx")
TRACED_FRAMES = 203  # so many that no map of a CNN has a side of 1, which an export would keep for every length
CLOSE = 1e-3
"""Largest difference of logits, relative to the largest logit where that is above 1."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: The file.
        feature_dim: d, dimension of a frame's features.
        fewest_frames: Smallest number of frames T that it takes, and from which on it was compared with the module.
        difference: Largest absolute difference between its logits and the module's, at three lengths.
    """

    path: Path
    feature_dim: int
    fewest_frames: int
    difference: float


def export_summarizer(
    summarizer: nn.Module,
    path: str | os.PathLike[str],
    *,
    feature_dim: int | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write a summarizer as a graph that runs without visp: frames (T, d) in, logits (T,) out, for any T.

    The input is called ``frames`` and the output ``logits``; scores are their sigmoid. A standardization that the
    summarizer carries is part of the graph. What was written is read back and compared with the module, which stays
    as it is, at three lengths. ``CSTA`` and ``GoogleNet`` take 46 frames or more: below, their CNN's map has one row,
    which torch cannot trace together with more.

    Args:
        summarizer: Maps frames (T, d) to logits (T,); exported in evaluation mode, for the CPU and in float32.
        path: The file to write; ``.pt2`` makes one for ``torch.export.load``, ``.onnx`` one for ONNX Runtime.
        feature_dim: d; the summarizer's ``feature_dim`` if not given.
        overwrite: Replaces an existing file.

    Returns:
        The file, and from how many frames on it agrees with the module.

    Raises:
        ValueError: If the path ends otherwise, d is not known, the summarizer is an adapter's, cannot be traced or its
            trace is for one length only, or what was written gives other logits.
        ImportError: If torch is older than 2.6, or the packages that ``.onnx`` needs are not installed.
        FileExistsError: If the file exists and ``overwrite`` is false.
    """
    target = Path(path)
    if target.suffix not in FORMATS:
        raise ValueError(f"{shown(target)}: expected a name that ends in {' or '.join(FORMATS)}")
    if feature_dim is None:
        feature_dim = getattr(summarizer, "feature_dim", None)
    if not isinstance(feature_dim, int) or feature_dim < 1:
        raise ValueError(f"{type(summarizer).__name__} does not say its feature_dim: expected one of at least 1")
    if isinstance(summarizer, AdaptedSummarizer):
        name = type(summarizer.module).__name__
        raise ValueError(
            f"the adapter looks at values and cannot be traced: give torch.export.export the {name} itself"
        )
    _require(target.suffix)
    check_outputs(target, overwrite=overwrite)
    module = copy.deepcopy(summarizer).cpu().float().eval()
    program, fewest = _traced(module, feature_dim)
    data = _onnx(program) if target.suffix == ".onnx" else _pt2(program)
    run = _onnx_session(data) if target.suffix == ".onnx" else _pt2_module(data)
    difference = max(_difference(module, run, length, feature_dim) for length in (fewest, 97, 2 * TRACED_FRAMES))
    with replacing(target) as file:
        file.write(data)
    return Exported(target, feature_dim, fewest, difference)


def _require(suffix: str) -> None:
    if not hasattr(torch.export.Dim, "AUTO"):
        raise ImportError(f"an export for every number of frames needs torch 2.6 or newer, this is {torch.__version__}")
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if suffix == ".onnx" and missing:
        raise ImportError(f'.onnx needs {", ".join(missing)}: pip install "visp[export]"')


def _traced(module: nn.Module, feature_dim: int) -> tuple[Any, int]:
    """Trace a module for every T, and return the program and the smallest T that it takes."""
    frames = _frames(TRACED_FRAMES, feature_dim)
    shapes = ({0: torch.export.Dim.AUTO},)
    with _quiet():
        run_summarizer(module, frames.clone())
        try:
            program = torch.export.export(module, (frames,), dynamic_shapes=shapes, strict=False)
        except Exception as error:  # torch lets out errors of many kinds
            raise ValueError(f"{type(module).__name__} cannot be traced: {one_line(error)}") from error
    name = program.graph_signature.user_inputs[0]
    length = next(node for node in program.graph.nodes if node.name == name).meta["val"].shape[0]
    bounds = None if isinstance(length, int) else program.range_constraints.get(length.node.expr)
    if bounds is None:
        raise ValueError(
            f"{type(module).__name__} can be traced for {length} frames only: something in it makes a plain number of "
            "T, as len(frames) does; frames.shape[0] does not"
        )
    return program, int(bounds.lower)


def _pt2(program: Any) -> bytes:
    file = io.BytesIO()
    with _quiet():
        torch.export.save(program, file)
    return file.getvalue()


def _pt2_module(data: bytes) -> Callable[[Tensor], Tensor]:
    with _quiet():
        module: Callable[[Tensor], Tensor] = torch.export.load(io.BytesIO(data)).module()
    return module


def _onnx(program: Any) -> bytes:
    with _quiet():
        made = torch.onnx.export(program, input_names=["frames"], output_names=["logits"], dynamo=True, verbose=False)
    assert made is not None, "without a file to write, the program is returned"
    data: bytes = made.model_proto.SerializeToString()
    return data


def _onnx_session(data: bytes) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return lambda frames: torch.from_numpy(session.run(None, {"frames": frames.numpy()})[0])


def _difference(module: nn.Module, run: Callable[[Tensor], Tensor], length: int, feature_dim: int) -> float:
    frames = _frames(length, feature_dim)
    with torch.no_grad():
        expected, got = module(frames.clone()), run(frames.clone())
    if got.shape != expected.shape:
        raise ValueError(f"the export gave {tuple(got.shape)} for {length} frames, expected {tuple(expected.shape)}")
    difference = float((got - expected).abs().max())
    if not difference <= CLOSE * max(1.0, float(expected.abs().max())):
        raise ValueError(f"the export's logits of {length} frames differ from the module's by {difference:.2g}")
    return difference


def _frames(length: int, feature_dim: int) -> Tensor:
    return torch.randn(length, feature_dim, generator=torch.Generator().manual_seed(0))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's warnings about its own insides to itself."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        yield
