from __future__ import annotations

import io

import pytest

from visp.utils import progress
from visp.utils.progress import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, file: io.StringIO, **options: object) -> str:
    monkeypatch.setattr("sys.stderr", file)
    with Bar(file=file, total=3, desc="work", **options) as bar:
        for _ in range(3):
            bar.update()
    return file.getvalue()


def test_a_terminal_sees_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\r" in shown(monkeypatch, Terminal(), ascii=True, ncols=60)


def test_a_log_of_short_work_has_its_end_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, io.StringIO())
    assert text.count("\n") == 1
    assert "work: 100%" in text
    assert "3/3" in text
    assert not set(text) & set("\r\x1b|")


def test_a_log_of_long_work_has_a_line_per_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    assert [line.split()[2] for line in shown(monkeypatch, io.StringIO()).splitlines()][:3] == ["1/3", "2/3", "3/3"]


def test_a_bar_that_does_not_stay_leaves_nothing_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, io.StringIO(), leave=False) == ""


def test_a_bar_that_is_off_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, io.StringIO(), disable=True) == ""
    assert shown(monkeypatch, Terminal(), disable=True) == ""


def test_a_bar_in_a_log_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    shown(monkeypatch, io.StringIO())
    assert not Bar._instances
