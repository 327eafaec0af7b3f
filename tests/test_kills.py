"""Commands that are killed at moments of a fixed seed; benchmarks/kills.py does the same at any size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
@pytest.mark.parametrize("command", ["finetune", "features"])
def test_a_killed_command_ends_as_an_undisturbed_one(command: str) -> None:
    if command == "features":
        pytest.importorskip("av")
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / "kills.py"), "--kills", "3", "--commands", command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ", 0 problems;" in ended.stdout
