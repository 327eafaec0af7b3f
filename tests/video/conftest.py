"""Fixtures of the tests of videos."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of three clips of coloured shots."""
    from tests.video.clips import coloured, write_clip

    path = tmp_path / "videos"
    path.mkdir()
    for number, lengths in enumerate([[30, 40], [45], [20, 30, 40]], start=1):
        write_clip(path / f"clip{number}.mp4", coloured(lengths))
    return path
