"""How long stages tell what they do; the command line draws it, everything else stays silent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

Advance = Callable[[], None]


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
