from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest

from visp.cli import info, main

PYPROJECT = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")


def test_it_states_the_versions_that_are_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    for name in ("torch", "numpy", "h5py"):
        assert f"{name} {importlib.metadata.version(name)}" in shown
    assert "CPU: " in shown


def test_a_missing_extra_is_named_with_the_line_that_brings_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(info, "find_spec", lambda module: None if module == "av" else object())
    main(["info"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith('[video] missing av: pip install "av') for line in lines)
    assert not any(line.startswith("[plot] missing") for line in lines)


def test_every_extra_for_users_and_all_its_packages_are_looked_for() -> None:
    declared = {
        name: set(re.findall(r'"([\w-]+)', packages))
        for name, packages in re.findall(r"^(\w+) = \[(.*?)\]$", PYPROJECT.split("[project.optional-")[1], re.M | re.S)
    }
    assert {name: set(packages) for name, packages in info._EXTRAS.items()} == {
        name: packages for name, packages in declared.items() if name in info._EXTRAS
    }
    assert declared.keys() - {"include", "visp", "docs", "test", "dev", "select", "ignore"} == info._EXTRAS.keys()
