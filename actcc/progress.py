"""How long stages tell what they do; the command line draws it, everything else stays silent."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

Advance = Callable[[], None]
# The stage that does not count against a time limit.
PRICING = "Pricing candidates"
PRICING_TOGETHER = "Pricing them together"


class Progress(Protocol):
    """Told about stages by the pipeline."""

    def stage(self, title: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """Enter a stage of `total` steps; call the returned function after each."""

    def note(self, line: str) -> None:
        """Something the user wants to know now."""


class Silent:
    """Says nothing."""

    @contextlib.contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Advance]:
        """See `Progress`."""
        yield lambda: None

    def note(self, line: str) -> None:
        """See `Progress`."""


class Timed:
    """Passes everything on, and keeps the time that each stage took.

    Attributes:
        seconds: wall time by stage title.
    """

    def __init__(self, told: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._told = told

    @contextlib.contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Advance]:
        """See `Progress`."""
        started = time.perf_counter()
        try:
            with self._told.stage(title, total) as advance:
                yield advance
        finally:
            spent = time.perf_counter() - started
            self.seconds[title] = self.seconds.get(title, 0.0) + spent

    def note(self, line: str) -> None:
        """See `Progress`."""
        self._told.note(line)
