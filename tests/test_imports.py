"""What an import brings along, each in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import visp


def run(code: str) -> str:
    paths = [str(Path(visp.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def brought_by(code: str) -> set[str]:
    names: list[str] = json.loads(run(f"{code}\nimport json, sys; print(json.dumps(list(sys.modules)))"))
    return {name.split(".")[0] for name in names}


def test_eval_imports_no_torch() -> None:
    brought = brought_by("import visp.eval; visp.eval.f_score([1, 0], [[1, 0]], 'mean')")
    assert "numpy" in brought
    assert brought.isdisjoint({"torch", "h5py", "tqdm", "matplotlib"})


def test_the_package_alone_imports_next_to_nothing() -> None:
    assert brought_by("import visp; visp.__version__").isdisjoint({"torch", "numpy", "scipy", "h5py", "matplotlib"})


def test_the_pretrainer_imports_neither_files_nor_figures() -> None:
    brought = brought_by("import visp; visp.ViSPPretrainer")
    assert "torch" in brought
    assert brought.isdisjoint({"h5py", "scipy", "matplotlib"})


def test_pretraining_does_not_wait_for_scipy() -> None:
    brought = brought_by("import visp; visp.pretrain")
    assert "h5py" in brought
    assert brought.isdisjoint({"scipy", "matplotlib"})


def test_the_command_line_says_its_version_without_torch() -> None:
    code = "from visp.cli import main\ntry:\n    main(['--version'])\nexcept SystemExit:\n    pass\n"
    names = run(f"{code}\nimport sys; print('torch' in sys.modules)").split()
    assert names == ["visp", visp.__version__, "False"]


def test_training_and_the_demo_import_no_matplotlib() -> None:
    assert "matplotlib" not in brought_by("import visp.cli.demonstration, visp.plots; visp.pretrain")


@pytest.mark.parametrize("name", visp.__all__)
def test_a_public_name_resolves(name: str) -> None:
    assert getattr(visp, name) is not None


def test_public_names_are_listed_once() -> None:
    homes = [name for names in visp._HOMES.values() for name in names]
    assert sorted(visp.__all__) == sorted([*homes, *visp._SUBMODULES, "__version__"])
    assert dir(visp) == sorted(visp.__all__)


def test_an_unknown_attribute_is_named() -> None:
    with pytest.raises(AttributeError, match="module 'visp' has no attribute 'nothing'"):
        visp.nothing  # noqa: B018


def test_star_import_brings_every_public_name() -> None:
    namespace: dict[str, object] = {}
    exec("from visp import *", namespace)
    assert namespace.keys() >= set(visp.__all__)
