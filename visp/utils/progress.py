"""A progress bar for a terminal, and sparse plain lines for a log."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

SECONDS = 30.0
"""Time between two lines in a log."""


class Bar(tqdm):  # type: ignore[misc]
    """tqdm's bar on a terminal; elsewhere one plain line every half minute, and one at the end if it stays.

    Args:
        **options: As for tqdm; the bar is written to stderr.
    """

    disable: bool

    def __init__(self, **options: Any) -> None:
        self.plain = not sys.stderr.isatty()
        self._is_new = True
        if self.plain:  # ncols=0 leaves the bar away
            times = {"mininterval": SECONDS, "maxinterval": SECONDS, "miniters": 1}
            options |= {"ncols": 0, "dynamic_ncols": False, **times}
        super().__init__(**options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show how far it is; a log is spared the bar's beginning and what erases it."""
        if not self.plain:
            super().display(msg, pos)
        elif not self._is_new and msg is None:
            print(self, file=self.fp, flush=True)
        self._is_new = False

    def close(self) -> None:
        """Take the bar away, or leave its last line."""
        if not self.plain or self.disable:
            super().close()
            return
        self.disable = True
        stays = self.pos == 0 if self.leave is None else self.leave
        self._decr_instances(self)
        if stays:
            self.display()
