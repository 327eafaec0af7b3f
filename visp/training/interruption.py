"""Ctrl-C and SIGTERM end a run between two steps, so that what it saves is whole."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """While it is entered, Ctrl-C and SIGTERM wait for the end of a step; a second one does not.

    Ctrl-C then raises KeyboardInterrupt, SIGTERM raises SystemExit(143). Only the main thread can do this; signals
    that are ignored stay so, and what handled them before does so again afterwards.

    Args:
        agree: Makes one signal number, 0 for none, of what each of several processes received; None for one process.

    Attributes:
        torn: Whether an error came out of the middle of a step.
    """

    def __init__(self, agree: Callable[[int], int] | None = None) -> None:
        self.torn = False
        self._agree = agree
        self._received = 0
        self._before: dict[int, Any] = {}
        self._unraisable: Callable[[UnraisableHookArgs], Any] | None = None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if handler not in (None, signal.SIG_IGN):
                    self._before[number] = signal.signal(number, self._receive)
            self._unraisable, report = sys.unraisablehook, sys.unraisablehook

            def report_others(unraisable: UnraisableHookArgs) -> None:
                # A signal may arrive where nothing can be raised, as in a finalizer; the next step then ends the run.
                if not (self._received and issubclass(unraisable.exc_type, KeyboardInterrupt | SystemExit)):
                    report(unraisable)

            sys.unraisablehook = report_others
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._unraisable is not None:
            sys.unraisablehook = self._unraisable

    @contextmanager
    def step(self) -> Iterator[None]:
        """Hold signals back until the block has ended, then raise what came."""
        self.torn = True
        yield
        self.torn = False
        _raise(self._received if self._agree is None else self._agree(self._received))

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again, self._received = bool(self._received), number
        # Several processes must leave after the same step, or those that stay wait for the others.
        if again or not (self.torn or self._agree is not None):
            _raise(number)


def leave_signals_alone(worker: int) -> None:
    """Undo :class:`Interruption` in a worker that was forked from a run."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if number:
        raise SystemExit(128 + number)
