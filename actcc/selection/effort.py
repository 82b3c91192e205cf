"""How much work a search may still do, counted so that it can be repeated exactly."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

# CP-SAT's deterministic time runs at 0.3 to 0.7 units a second on the cores that were tried. The
# lower rate makes the count, which is reproducible, end the search before the clock does.
UNITS_PER_SECOND = 0.25
_LEAST_UNITS = 0.001


class Effort:
    """The effort left, in CP-SAT's deterministic units a worker, with the clock as a backstop.

    Attributes:
        units_left: deterministic units that each worker may still spend.
        cut_by_clock: whether the clock has ended a search that had units left.
    """

    def __init__(self, *, seed: int, workers: int, time_limit_s: float) -> None:
        self.seed = seed
        self.workers = workers
        self.started = time.monotonic()
        self.deadline = self.started + time_limit_s
        self.units_left = time_limit_s * UNITS_PER_SECOND
        self.cut_by_clock = False
        self.runs = 0

    @property
    def seconds_left(self) -> float:
        return max(0.0, self.deadline - time.monotonic())

    @property
    def seconds_spent(self) -> float:
        return time.monotonic() - self.started

    @property
    def exhausted(self) -> bool:
        """Whether either the units or the seconds have run out."""
        if self.units_left > 0.0 and self.seconds_left <= 0.0:
            self.cut_by_clock = True
        return self.units_left <= 0.0 or self.seconds_left <= 0.0

    def spend(self, units: float) -> None:
        """Deduct units; each run costs a little, so that no search goes on for ever."""
        self.units_left -= max(units, _LEAST_UNITS)
        self.runs += 1

    @contextmanager
    def portion(self, share: float) -> Iterator[None]:
        """Hold back all but a share of the units left for the time of the context."""
        held = (1.0 - share) * self.units_left
        self.units_left -= held
        try:
            yield
        finally:
            self.units_left += held
