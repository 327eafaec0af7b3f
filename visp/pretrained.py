"""``save_pretrained`` and ``from_pretrained``: a module as a folder of ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

from torch import nn
from typing_extensions import Self

from visp._version import __version__
from visp.inputs import carried
from visp.utils.files import parse_json, read_text, replacing, shown
from visp.weights import CheckpointError, load_weights, save_safetensors, save_standardization

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


class Pretrained:
    """Gives a module ``save_pretrained`` and ``from_pretrained`` on local folders; list it before ``nn.Module``.

    ``config.json`` holds what the class was given, which must be plain values, and under ``visp`` where the weights
    come from. ``huggingface_hub`` reads and writes the same form; it fetches such folders and uploads them.

    Attributes:
        factory_name: Name of a built-in summarizer in :mod:`visp.factory`.
    """

    factory_name: ClassVar[str | None] = None
    _arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make the object and remember what it was given."""
        module = super().__new__(cls)
        given = inspect.signature(cls.__init__).bind_partial(module, *args, **kwargs)
        given.apply_defaults()
        object.__setattr__(module, "_arguments", dict(list(given.arguments.items())[1:]))
        return module

    def save_pretrained(self, folder: str | os.PathLike[str], *, features: Mapping[str, str] | None = None) -> None:
        """Write the weights and what makes them of use.

        Args:
            folder: Where to; made if need be, and files of these names in it are replaced.
            features: How the features were made that the module was trained on, such as ``Extractor.provenance``.

        Raises:
            ModuleNotFoundError: If safetensors is not installed.
            ValueError: If the module holds something that the format does not know.
        """
        path, module = Path(folder), cast("nn.Module", self)
        name = type(self).__dict__.get("factory_name")  # not inherited: a class derived from a built-in one is another
        origin = {"version": __version__, "summarizer": name, "features": dict(features or {})}
        config = json.dumps({**self._arguments, "visp": origin}, indent=2) + "\n"
        path.mkdir(parents=True, exist_ok=True)
        save_safetensors(module.state_dict(), path / _WEIGHTS, {"config": config})
        save_standardization(carried(module), path / _WEIGHTS)
        with replacing(path / _CONFIG) as file:
            file.write(config.encode())

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], **arguments: Any) -> Self:
        """Make a module of this class from a folder, in evaluation mode.

        Args:
            folder: A local folder that ``save_pretrained`` wrote.
            arguments: Of the class, in place of those in the folder.

        Raises:
            FileNotFoundError: If there is no such folder.
            CheckpointError: If it holds no ``config.json`` or no weights, or they do not fit.
            ModuleNotFoundError: If safetensors is not installed.
        """
        path = Path(folder)
        if not path.is_dir():
            raise FileNotFoundError(
                f"{shown(path)}: expected a local folder; huggingface_hub.snapshot_download fetches one and returns it"
            )
        try:
            known = parse_json(read_text(path / _CONFIG))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{shown(path)}: holds no {_CONFIG} of a module") from error
        if not isinstance(known, dict):
            raise CheckpointError(f"{shown(path / _CONFIG)}: expected an object, got a {type(known).__name__}")
        names = inspect.signature(cls.__init__).parameters
        module = cls(**{name: value for name, value in known.items() if name in names} | arguments)
        load_weights(cast("nn.Module", module), path / _WEIGHTS)
        cast("nn.Module", module).eval()
        return module
