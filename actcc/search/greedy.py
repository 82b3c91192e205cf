"""`--search greedy`: sites by what is saved for a unit of loss, added in chunks, with backing off.

What is saved is time, or bytes where size is the objective.

Sites are taken in the order in which the linear relaxation of the multiple-choice knapsack takes
them (Kellerer, Pferschy & Pisinger 2004, section 11.2): along the convex hull of each site's
options, the steepest saving first. A chunk whose trial breaks the budget is halved; a single step
that breaks it is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from actcc.search.space import Chosen, Space
from actcc.selection import Option
from actcc.selection.problem import Quantity
from actcc.site import KEEP
from actcc.trials import Refused, Trial


@dataclass(frozen=True)
class Step:
    """One site to its next option.

    Attributes:
        ratio: nanoseconds or bytes saved for each part per million of loss; infinite if it loses
            nothing.
    """

    site: str
    option: str
    ratio: float

    @property
    def wish(self) -> tuple[str, str]:
        """What is asked of the plan."""
        return self.site, self.option


class Greedy:
    """Adds steps as long as the measured budget holds."""

    def __init__(self, space: Space, seen: Sequence[Trial | Refused]) -> None:
        self._space = space
        ordered = steps(space)
        free = sum(math.isinf(step.ratio) for step in ordered)
        self._accepted = ordered[:free]
        self._left = ordered[free:]
        self._chunk = max(1, len(self._left) // 2)

    def propose(self) -> Chosen | None:
        """See `Strategy`; what was seen before needs no place here, since it costs no trial."""
        if not self._left:
            return None
        taken = [*self._accepted, *self._left[: self._chunk]]
        return self._space.without_conflicts(step.wish for step in taken)

    def learn(self, trial: Trial | Refused, *, known: bool) -> None:
        """See `Strategy`."""
        within, _ = self._space.spent(trial)
        # Where accuracy is the objective, steps are added until the latency is reached.
        enough = within if self._space.most_accurate else not within
        if not enough:
            self._accepted += self._left[: self._chunk]
            self._left = self._left[self._chunk :]
        elif self._chunk > 1:
            self._chunk //= 2
        else:
            self._left = self._left[1:]


def steps(space: Space) -> list[Step]:
    """Every step along the hull of every site, the steepest first."""
    found = [
        Step(site, option.name, ratio)
        for site, options in space.savings.items()
        for option, ratio in _hull(options, space.saved_quantity)
    ]
    return sorted(found, key=lambda step: -step.ratio)  # stable: ties stay in topological order


def _hull(options: Sequence[Option], saved: Quantity) -> list[tuple[Option, float]]:
    """The options on the lower convex hull of (loss, what is saved) behind `keep`, with slopes."""
    reached = Option(KEEP, 0, 0)
    hull: list[tuple[Option, float]] = []
    while True:
        better = [option for option in options if option.of(saved) < reached.of(saved)]
        if not better:
            return hull
        slopes = {option.name: _slope(reached, option, saved) for option in better}
        steepest = max(better, key=lambda option: (slopes[option.name], -option.of(saved)))
        hull.append((steepest, slopes[steepest.name]))
        reached = steepest


def _slope(before: Option, after: Option, saved: Quantity) -> float:
    loss = after.loss_ppm - before.loss_ppm
    return (before.of(saved) - after.of(saved)) / loss if loss > 0 else math.inf
