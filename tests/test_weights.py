from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import visp
from tests.builders import LinearSummarizer
from visp.adapters import adapt_encoder, adapt_summarizer
from visp.summarizers import CSTA, GoogleNet
from visp.weights import (
    CheckpointError,
    load_into,
    load_state,
    own_module,
    read_googlenet,
    read_weights,
    save_safetensors,
    save_state,
)

NUM_DAMAGES = 400


def summarizer() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """Flip a bit, zero or overwrite a stretch, leave out or repeat a stretch, cut the end off, or add to it."""
    data = bytearray(whole)
    at = rng.randrange(len(data))
    size = rng.choice([1, 8, 64, 512])
    match rng.randrange(7):
        case 0:
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            data[at : at + size] = bytes(len(data[at : at + size]))
        case 2:
            data[at : at + size] = rng.randbytes(len(data[at : at + size]))
        case 3:
            del data[at : at + size]
        case 4:
            data[at:at] = data[at : at + size]
        case 5:
            del data[-rng.choice([1, 30, 64, 70, 90, 500]) :]
        case 6:
            data += rng.randbytes(size)
    return bytes(data)


# --- files --------------------------------------------------------------------------------------------------


def test_a_saved_file_is_a_plain_file_of_torch(tmp_path: Path) -> None:
    state = summarizer().state_dict()
    save_state(state, tmp_path / "weights.pt")
    assert same(torch.load(tmp_path / "weights.pt"), state)
    assert same(torch.load(tmp_path / "weights.pt", mmap=True), state)
    assert same(load_state(tmp_path / "weights.pt"), state)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]


@pytest.mark.parametrize("save", [save_state, torch.save], ids=["visp", "torch"])
def test_damaged_files_are_refused(tmp_path: Path, save: Callable[[object, Path], None]) -> None:
    """A file of torch's own has checksums of its parts: what they do not cover may be damaged, but not the weights."""
    state = summarizer().state_dict()
    path = tmp_path / "weights.pt"
    save(state, path)
    whole = path.read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(NUM_DAMAGES):
        data = damaged(whole, rng)
        if data == whole:
            refused += 1
            continue
        path.write_bytes(data)
        try:
            loaded = load_state(path)
        except CheckpointError:
            refused += 1
        else:
            assert same(loaded, state)
    assert refused == NUM_DAMAGES if save is save_state else refused > NUM_DAMAGES / 2


def test_every_damaged_byte_of_a_files_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    save_state({"weight": torch.ones(2)}, path)
    whole = path.read_bytes()
    for at in range(1, 150):
        for data in (whole[:-at], whole[:-at] + bytes([whole[-at] ^ 1]) + whole[len(whole) - at + 1 :]):
            path.write_bytes(data)
            with pytest.raises(CheckpointError, match=r"weights\.pt is not a file of weights that torch can load"):
                load_state(path)


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    state = {"weight": torch.ones(2)}
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, tmp_path / "weights.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(load_state(tmp_path / "weights.pt"), state)


def test_a_file_of_the_format_before_zip_is_read(tmp_path: Path) -> None:
    state = {"weight": torch.ones(2)}
    torch.save(state, tmp_path / "weights.pt", _use_new_zipfile_serialization=False)
    assert same(load_state(tmp_path / "weights.pt"), state)


def test_what_is_no_regular_file_is_refused_without_being_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(CheckpointError, match="is a folder, a pipe or a device"):
            load_state(path)
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        visp.load_weights(summarizer(), tmp_path / "absent.pt")


# --- safetensors and folders -------------------------------------------------------------------------------


def test_safetensors_hold_the_weights_for_other_readers_too(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    module, path = summarizer(), tmp_path / "w.safetensors"
    module[2] = nn.Linear(4, 1)
    module.append(module[0])  # a tied layer
    save_safetensors(module.state_dict(), path, {"config": "{}"})
    with safetensors.safe_open(path, "pt") as file:
        assert same({name: file.get_tensor(name) for name in file.keys()}, module.state_dict())  # noqa: SIM118
        assert file.metadata()["config"] == "{}"
    other = summarizer().append(nn.Linear(6, 4))
    visp.load_weights(other, path)
    assert same(other.state_dict(), module.state_dict())


def test_damaged_safetensors_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    state, path = summarizer().state_dict(), tmp_path / "w.safetensors"
    save_safetensors(state, path, {"config": '{"seed": 0}'})
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(NUM_DAMAGES):
        path.write_bytes(damaged(whole, rng))
        try:
            found = load_state(path)
        except CheckpointError:
            continue
        assert same(found, state)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"0.bias": torch.tensor([1.0, float("nan"), 0, 0])}, "not finite"),
        ({"0.bias": torch.ones(5)}, r"expected \(4,\), got \(5,\)"),
        ({"9.bias": torch.ones(5)}, "unexpected: 9.bias"),
    ],
)
def test_what_safetensors_hold_must_fit(tmp_path: Path, change: dict[str, Tensor], reason: str) -> None:
    pytest.importorskip("safetensors")
    save_safetensors({**summarizer().state_dict(), **change}, tmp_path / "w.safetensors", {})
    with pytest.raises(CheckpointError, match=reason):
        visp.load_weights(summarizer(), tmp_path / "w.safetensors")


def test_without_safetensors_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for act in (load_state, lambda path: save_safetensors({}, path, {})):
        with pytest.raises(ModuleNotFoundError, match=r'pip install "visp\[hub\]"'):
            act(tmp_path / "w.safetensors")


def test_what_the_format_cannot_hold_is_said() -> None:
    pytest.importorskip("safetensors")
    for value in (torch.zeros(1, dtype=torch.complex128), "text"):
        with pytest.raises(ValueError, match="safetensors"):
            save_safetensors({"a": value}, "w.safetensors", {})  # type: ignore[dict-item]


def test_the_folder_of_a_run_stands_for_its_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not the folder of a finished run: it holds no weights\.pt or"):
        visp.load_weights(summarizer(), tmp_path)
    module, other = summarizer(), summarizer()
    save_state(module.state_dict(), tmp_path / "weights.pt")
    visp.load_weights(other, tmp_path)
    assert same(other.state_dict(), module.state_dict())


# --- what weights are wrapped in ----------------------------------------------------------------------------


WRAPPINGS: list[Callable[[dict[str, Tensor]], dict[str, Any]]] = [
    lambda state: {"state_dict": state, "epoch": 3},
    lambda state: {"model": state, "optimizer": {"state": {}}},
    lambda state: {"model_state_dict": {f"module.{name}": value for name, value in state.items()}},
    lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
]


@pytest.mark.parametrize("wrapped", WRAPPINGS)
def test_wrapped_weights_are_unwrapped(wrapped: Callable[[dict[str, Tensor]], dict[str, Any]], tmp_path: Path) -> None:
    state = summarizer().state_dict()
    torch.save(wrapped(state), tmp_path / "weights.pt")
    for weights in (tmp_path / "weights.pt", wrapped(state)):
        module = summarizer()
        visp.load_weights(module, weights)
        assert same(module.state_dict(), state)


def test_names_that_the_module_has_itself_are_no_wrapping() -> None:
    for own in (nn.ModuleDict({"module": nn.Linear(2, 1)}), nn.ModuleDict({"model": nn.Linear(2, 1)})):
        state = {name: torch.ones_like(value) for name, value in own.state_dict().items()}
        visp.load_weights(own, state)
        assert same(own.state_dict(), state)


def test_weights_reach_the_users_module_through_its_adapters() -> None:
    module = summarizer()
    encoder = adapt_encoder(module, hidden_from="1")
    assert own_module(encoder) is module
    state = summarizer().state_dict()
    visp.load_weights(adapt_summarizer(module), state)
    assert same(module.state_dict(), state)


# --- weights that do not fit --------------------------------------------------------------------------------


def refusal(module: nn.Module, state: Mapping[str, Any]) -> str:
    """Return the message, once it is sure that the module is as it was."""
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        visp.load_weights(module, state)
    assert same(module.state_dict(), before)
    return str(caught.value)


def test_problems_are_counted_and_three_of_each_kind_shown() -> None:
    state: dict[str, Tensor] = summarizer().state_dict() | {f"extra.{i}": torch.ones(1) for i in range(5)}
    del state["0.weight"]
    state["2.weight"] = torch.ones(1, 5)
    assert refusal(summarizer(), state).splitlines() == [
        "the state dict does not fit the summarizer: 1 missing, 5 unexpected, 1 shape",
        "  missing: 0.weight",
        "  unexpected: extra.0",
        "  unexpected: extra.1",
        "  unexpected: extra.2",
        "  shape of 2.weight: expected (1, 4), got (1, 5)",
    ]


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("0.weight", torch.full((4, 6), torch.nan), "not finite: 0.weight"),
        ("0.bias", torch.tensor([0, 1, 2, torch.inf]), "not finite: 0.bias"),
        ("1.running_mean", torch.full((4,), torch.nan), "not finite: 1.running_mean"),
        ("0.bias", torch.arange(4), "type of 0.bias: expected float32, got int64"),
        ("0.bias", torch.ones(4, dtype=torch.complex64), "type of 0.bias: expected float32, got complex64"),
        ("1.num_batches_tracked", torch.tensor(3.0), "type of 1.num_batches_tracked: expected int64, got float32"),
        ("0.bias", [0.0, 1.0, 2.0, 3.0], "no tensor: 0.bias"),
    ],
)
def test_values_that_are_no_weights_are_refused(name: str, value: Any, line: str) -> None:
    assert refusal(summarizer(), {**summarizer().state_dict(), name: value}).splitlines()[1:] == [f"  {line}"]


def test_other_precisions_and_infinite_masks_are_taken() -> None:
    class Masked(LinearSummarizer):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))

    state = {name: value.to(torch.bfloat16) for name, value in Masked().state_dict().items()}
    module = Masked()
    visp.load_weights(module, state)
    assert all(torch.equal(value, state[name].float()) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("state", "whose"),
    [
        (CSTA(4, width=64).state_dict(), "CSTA's"),
        (GoogleNet(4, width=64).state_dict(), "those of CSTA's plain GoogleNet variant"),
        (GoogleNet(4, width=64).googlenet.state_dict(), "torchvision's GoogLeNet's"),
        (
            {"module": {}, "optimizer": {}, "step": 3},
            "a checkpoint of a visp run, with the weights in weights.pt beside it",
        ),
    ],
)
def test_weights_of_another_model_are_recognised(state: dict[str, Any], whose: str) -> None:
    assert refusal(summarizer(), state).splitlines()[-1] == f"these look like {whose}"
    assert "look like" not in refusal(summarizer(), {"other": torch.ones(1)})


def test_a_module_may_know_earlier_names_of_its_weights() -> None:
    class Renamed(LinearSummarizer):
        def _load_from_state_dict(self, state: dict[str, Any], *args: Any) -> None:
            for name in [name for name in state if name.startswith("fc.")]:
                state[name.replace("fc.", "score.")] = state.pop(name)
            super()._load_from_state_dict(state, *args)

    module, other = Renamed(seed=1), LinearSummarizer(seed=5)
    visp.load_weights(module, {name.replace("score.", "fc."): value for name, value in other.state_dict().items()})
    assert same(module.state_dict(), other.state_dict())
    assert "missing: score.bias" in refusal(module, {"fc.weight": torch.ones(1, 4)})


def test_googlenet_weights_come_without_their_classifiers() -> None:
    trunk = GoogleNet(4, width=64).googlenet
    state = trunk.state_dict()
    heads = {name: torch.ones(1) for name in ("fc.weight", "aux1.fc1.bias", "aux2.conv.conv.weight")}
    read = read_googlenet({f"module.{name}": value for name, value in (state | heads).items()}, trunk)
    assert same(read, state)
    load_into(trunk, read, "these do not fit")
    assert read_weights({"state_dict": heads}) == heads
