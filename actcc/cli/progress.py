"""Progress on the terminal: a bar for each stage, on stderr."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from actcc.progress import Advance


class ConsoleProgress:
    """Draws stages, and says how long each took."""

    def __init__(self, console: Console, *, drawn: bool) -> None:
        self._console = console
        self._drawn = drawn

    @contextlib.contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Advance]:
        """See `actcc.progress.Progress`."""
        started = time.perf_counter()
        steps = itertools.count()
        if self._drawn and self._console.is_terminal:
            with self._bar(counted=total is not None) as bar:
                task = bar.add_task(title, total=total)
                yield lambda: bar.update(task, completed=next(steps) + 1)
        else:
            yield lambda: _advance(steps)
        if self._drawn:
            spent = time.perf_counter() - started
            count = f" ({next(steps)})" if total is not None else ""
            self._console.print(f"{title}{count} … {spent:.1f} s", style="dim", highlight=False)

    def note(self, line: str) -> None:
        """See `actcc.progress.Progress`."""
        if self._drawn:
            self._console.print(line, highlight=False)

    def _bar(self, *, counted: bool) -> Progress:
        if not counted:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            return Progress(*columns, console=self._console, transient=True)
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )


def console_progress(quiet: bool) -> ConsoleProgress:
    """Progress on stderr, so that stdout stays clean."""
    return ConsoleProgress(Console(stderr=True, markup=False), drawn=not quiet)


def _advance(steps: Iterator[int]) -> None:
    next(steps)
