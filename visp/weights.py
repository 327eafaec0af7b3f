"""Files of weights: written whole with a hash, read without running code, and loaded only where they fit."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import pickle
import stat
import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from visp.adapters import AdaptedEncoder, AdaptedSummarizer
from visp.inputs import Standardization, beside, carry
from visp.utils.files import one_line, replacing, shown, unfinished

NAMES_SHOWN = 3

_MARK = b"visp-sha256:"
_COMMENT_SIZE = len(_MARK) + 64
_ZIP_END_SIZE = 22  # without the comment

_IN_A_FOLDER = ("weights.pt", "weights.safetensors", "model.safetensors")
_SAFE = ".safetensors"
_SAFE_HASH = "visp_sha256"

_WRAPPINGS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile

_GOOGLENET_CLASSIFIERS = ("fc.", "aux1.", "aux2.")

_KNOWN = (
    ("CSTA's", ("CLS", "key_embedding.weight", "value_embedding.weight")),
    ("those of CSTA's plain GoogleNet variant", ("CLS", "key_embedding.weight")),
    ("torchvision's GoogLeNet's", ("conv1.conv.weight", "inception3a.branch1.conv.weight")),
    ("a torchvision ResNet's", ("conv1.weight", "layer1.0.conv1.weight")),
    ("PGL-SUM's", ("linear_2.weight",)),
    ("DSNet's", ("fc_cls.weight",)),
    ("VASNet's or MSVA's", ("kd.weight",)),
    ("a checkpoint of a visp run, with the weights in weights.pt beside it", ("module", "optimizer", "step")),
)


class CheckpointError(ValueError):
    """A file that should be a checkpoint or weights is not one, is damaged, or belongs to something else."""


def save_state(state: object, path: str | os.PathLike[str]) -> None:
    """Save tensors and plain values with ``torch.save``, atomically, and with a hash.

    The SHA-256 of the file's other bytes stands in its zip comment, where ``torch.load`` does not look.

    Args:
        state: State dicts, numbers, strings, lists and dicts of them.
        path: Where to; an older file there is replaced at once or not at all.
    """
    with unfinished(Path(path)) as temporary, temporary.open("w+b") as file:
        torch.save(state, file)
        file.seek(-2, os.SEEK_END)
        file.write(struct.pack("<H", _COMMENT_SIZE) + _MARK)
        file.write(_sha256(file, file.tell()))
        file.flush()
        os.fsync(file.fileno())


def weights_file(path: str | os.PathLike[str]) -> Path:
    """Return the file of weights that a path means: itself, or of the folder of a run, the one in it.

    Raises:
        CheckpointError: If a folder holds none.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for name in _IN_A_FOLDER:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(f"{shown(path)} is not the folder of a finished run: it holds no {' or '.join(_IN_A_FOLDER)}")


def load_state(path: str | os.PathLike[str], *, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Load a dict of tensors and plain values with ``weights_only=True``: no code in the file is run.

    A file written by :func:`save_state` must have the hash that it carries; another zip file of torch, the checksums
    of its parts. A file whose name ends in ``.safetensors`` is one of that format; if :func:`save_safetensors` wrote
    it, it must have its hash.

    Args:
        path: The file.
        map_location: Device of the tensors.

    Returns:
        The saved dict.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is no regular file, is damaged, cannot be loaded or holds no dict.
        ModuleNotFoundError: If it is of the format safetensors, and that is not installed.
    """
    name = shown(path)
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise CheckpointError(f"{name} is not a file of weights: it is a folder, a pipe or a device")
    safe = Path(path).suffix.lower() == _SAFE
    if safe:
        _require_safetensors()
    try:
        if safe:
            return {name: value.to(map_location) for name, value in _read_safetensors(Path(path)).items()}
        with Path(path).open("rb") as file:
            _check_whole(file)
            file.seek(0)
            state = torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:
        what = "of the format safetensors" if safe else "that torch can load"
        raise CheckpointError(f"{name} is not a file of weights {what}: {_reason(error)}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{name} holds a {type(state).__name__}, expected a state dict")
    return state


def save_standardization(change: Standardization | None, weights: Path) -> None:
    """Save beside a file of weights the standardization that the summarizer carries, or that it carries none."""
    kept = beside(weights)
    if change is None:
        kept.unlink(missing_ok=True)
    else:
        save_state({name: value.cpu() for name, value in change._asdict().items()}, kept)


def save_safetensors(state: Mapping[str, Tensor], path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
    """Save a state dict in the format safetensors, atomically, and with a hash in its metadata.

    Args:
        state: Tensors by name; those that share memory are written apart.
        path: Where to; an older file there is replaced at once or not at all.
        metadata: More texts for the file's metadata.

    Raises:
        ModuleNotFoundError: If safetensors is not installed.
        ValueError: If something is no tensor, or of a kind that the format does not know.
    """
    _require_safetensors()
    from safetensors.torch import save

    if others := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"the format safetensors holds tensors alone, and {others[0]} is none")
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    texts = {"format": "pt", **metadata}
    try:
        data = save(tensors, {**texts, _SAFE_HASH: _safe_hash(tensors, texts)})
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"the format safetensors cannot hold it: {error}") from error
    with replacing(Path(path)) as file:
        file.write(data)


def has_safetensors() -> bool:
    """Return whether the format safetensors can be written and read, as the extra ``hub`` brings it."""
    return importlib.util.find_spec("safetensors") is not None


def read_weights(
    weights: str | os.PathLike[str] | Mapping[str, Any], module: nn.Module | None = None
) -> dict[str, Tensor]:
    """Read a state dict, out of what it may be wrapped in.

    That is a dict with the state dict under ``state_dict``, ``model_state_dict`` or ``model``, and, where the module is
    given and has no such names, the prefixes ``module.`` and ``_orig_mod.`` on every name.

    Args:
        weights: A file, the folder of a run, or what a file holds.
        module: What the weights are for.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: As in :func:`load_state`.
    """
    state: Mapping[str, Any] = weights if isinstance(weights, Mapping) else load_state(weights_file(weights))
    for key in _WRAPPINGS:
        if isinstance(state.get(key), Mapping) and not any(isinstance(value, Tensor) for value in state.values()):
            state = state[key]
    own = [] if module is None else list(module.state_dict())
    while own and state and (prefix := next((one for one in _PREFIXES if _all_start(state, one)), None)):
        if any(name.startswith(prefix) for name in own):
            break
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return dict(state)


def read_googlenet(weights: str | os.PathLike[str] | Mapping[str, Tensor], trunk: nn.Module) -> dict[str, Tensor]:
    """Read torchvision's GoogLeNet weights for a trunk without classifiers; those in the file are left out.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: As in :func:`load_state`.
    """
    state = read_weights(weights, trunk)
    return {name: value for name, value in state.items() if not name.startswith(_GOOGLENET_CLASSIFIERS)}


def own_module(module: nn.Module) -> nn.Module:
    """Return the user's module, whatever it was wrapped in for training: an adapter, DDP, torch.compile."""
    wrappers: tuple[tuple[type[nn.Module], Callable[[Any], nn.Module]], ...] = (
        (AdaptedSummarizer, lambda wrapper: wrapper.module),
        (AdaptedEncoder, lambda wrapper: wrapper.module),
        (nn.parallel.DistributedDataParallel, lambda wrapper: wrapper.module),
        (torch._dynamo.eval_frame.OptimizedModule, lambda wrapper: wrapper._orig_mod),
    )
    for kind, unwrap in wrappers:
        if isinstance(module, kind):
            return own_module(unwrap(module))
    return module


def own_state_dict(summarizer: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of the user's module, under its own keys."""
    return dict(own_module(summarizer).state_dict())


def load_weights(summarizer: nn.Module, weights: str | os.PathLike[str] | Mapping[str, Tensor]) -> None:
    """Load weights such as ``weights.pt`` of a run into a summarizer, in place.

    If a file ``weights.standardization.pt`` lies beside ``weights.pt``, the summarizer standardizes its inputs with it.

    Args:
        summarizer: The user's module, or what it is wrapped in.
        weights: A file, the folder of a run, or a state dict under the module's own keys; see :func:`read_weights` for
            what they may be wrapped in.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: As in :func:`load_state` and :func:`load_into`.
    """
    module = own_module(summarizer)
    source = "the state dict" if isinstance(weights, Mapping) else weights
    load_into(module, read_weights(weights, module), f"{source} does not fit the summarizer")
    if not isinstance(weights, Mapping):
        kept = beside(weights_file(weights))
        carry(summarizer, Standardization(**load_state(kept)) if kept.exists() else None)


def load_into(module: nn.Module, state: Mapping[str, Tensor], refusal: str) -> None:
    """Load a state dict into a module, in place; a refused one leaves the weights as they were.

    Args:
        module: Takes the weights.
        state: Weights under the module's names.
        refusal: How the message starts if they do not fit.

    Raises:
        CheckpointError: If a name is missing or unexpected, a shape differs, real numbers stand where whole or complex
            ones are expected or the other way round, a value is NaN, or a parameter's value is infinite. The message
            counts them, shows the first three of each kind, and says whose weights these look like.
    """
    own = module.state_dict()
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    before = {name: value.clone() for name, value in own.items() if isinstance(value, Tensor)}
    pairs = [(name, own[name], value) for name, value in state.items() if isinstance(own.get(name), Tensor)]
    tensors = [(name, ours, theirs) for name, ours, theirs in pairs if isinstance(theirs, Tensor)]
    problems = {
        "no tensor": [name for name, _, theirs in pairs if not isinstance(theirs, Tensor)],
        "shape of": [
            f"{name}: expected {tuple(ours.shape)}, got {tuple(theirs.shape)}"
            for name, ours, theirs in tensors
            if ours.shape != theirs.shape
        ],
        "type of": [
            f"{name}: expected {_dtype(ours)}, got {_dtype(theirs)}"
            for name, ours, theirs in tensors
            if _kind(ours) != _kind(theirs)
        ],
        "not finite": [
            name
            for name, _, theirs in tensors
            if bool(theirs.isnan().any()) or (name in parameters and not theirs.isfinite().all())
        ],
    }
    missing, unexpected = [name for name in own if name not in state], [name for name in state if name not in own]
    if not any(problems.values()):
        try:
            result = module.load_state_dict(state, strict=False)  # its hooks may know other names
            missing, unexpected = result.missing_keys, result.unexpected_keys
        except (RuntimeError, TypeError, AttributeError) as error:
            _restore(module, before)
            raise CheckpointError(f"{refusal}: {one_line(error)}") from error
    problems = {"missing": missing, "unexpected": unexpected, **problems}
    if any(problems.values()):
        _restore(module, before)
        raise CheckpointError(f"{refusal}: {_listed(problems)}{_guess(own, state)}")


def state_hash(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a state dict: its tensors' names, shapes, types and values."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load

    data = path.read_bytes()
    tensors: dict[str, Tensor] = load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    texts = dict(header.get("__metadata__", {}))
    kept = texts.pop(_SAFE_HASH, None)
    if kept is not None and kept != _safe_hash(tensors, texts):
        raise CheckpointError("it is damaged; its SHA-256 is not the one that it carries")
    return tensors


def _safe_hash(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    return hashlib.sha256(f"{state_hash(tensors)} {json.dumps(texts, sort_keys=True)}".encode()).hexdigest()


def _require_safetensors() -> None:
    if not has_safetensors():
        raise ModuleNotFoundError('.safetensors needs safetensors: pip install "visp[hub]"', name="safetensors")


def _reason(error: Exception) -> str:
    """Return torch's reason in one line, without its advice to load the file unsafely."""
    _, advice, reason = str(error).partition("WeightsUnpickler error: ")
    if isinstance(error, pickle.UnpicklingError) and not advice:
        return "it holds something else than tensors and plain values, or is damaged"
    return one_line(ValueError((reason or str(error)).strip().partition("\n")[0] or type(error).__name__))


def _check_whole(file: BinaryIO) -> None:
    """Refuse a zip file whose bytes are not those that were written; the error says why."""
    is_zip = file.read(4) == b"PK\x03\x04"
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _COMMENT_SIZE))
    end = file.read()
    if end.startswith(_MARK):
        if _sha256(file, size - 64) != end[-64:]:
            raise CheckpointError("it is damaged; its SHA-256 is not the one that it carries")
    elif is_zip:
        if not end[-_ZIP_END_SIZE:].startswith(b"PK\x05\x06") or end[-2:] != bytes(2):  # torch writes no comment
            raise CheckpointError("it is damaged; its end is not where it was")
        with zipfile.ZipFile(file) as archive:
            has_checksums = any(part.CRC for part in archive.infolist())  # torch can be told to write none
            if has_checksums and (damaged := archive.testzip()):
                raise CheckpointError(f"it is damaged; the checksum of its part {damaged} is another")


def _sha256(file: BinaryIO, size: int) -> bytes:
    """Return the SHA-256 of the first ``size`` bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    file.seek(0)
    while size and (chunk := file.read(min(size, 1 << 20))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest().encode()


def _all_start(state: Mapping[str, Any], prefix: str) -> bool:
    return all(isinstance(name, str) and name.startswith(prefix) for name in state)


def _restore(module: nn.Module, before: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name in before:
                value.copy_(before[name])


def _kind(value: Tensor) -> str:
    return "real" if value.is_floating_point() else "complex" if value.is_complex() else "whole"


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _listed(problems: Mapping[str, list[str]]) -> str:
    """Count the problems of each kind, and show the first of each, one a line."""
    counts = ", ".join(f"{len(names)} {kind.removesuffix(' of')}" for kind, names in problems.items() if names)
    first = [(kind, name) for kind, names in problems.items() for name in names[:NAMES_SHOWN]]
    return "\n  ".join([counts, *(f"{kind}{' ' if kind.endswith(' of') else ': '}{name}" for kind, name in first)])


def _guess(own: Iterable[str], state: Iterable[str]) -> str:
    """Say whose weights these look like, if it is not the module that refuses them."""
    ours, theirs = set(own), {name.removeprefix("module.") for name in state if isinstance(name, str)}
    for whose, names in _KNOWN:
        if theirs.issuperset(names) and not ours.issuperset(names):
            return f"\nthese look like {whose}"
    return ""
