"""An exact search that touches few options: bound, fix, solve a core, widen it.

The Lagrangian bound and its reduced costs rank all options; those that are cheap make the core
(Balas & Zemel 1980; for multiple choice knapsacks Pisinger 1995). A plan that is best
within the core is best of all once no option outside can lower the objective; until then the core
grows, and what reduced costs rule out never enters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from actcc.selection.arrays import Integers, Mask, Program
from actcc.selection.ascent import ascend
from actcc.selection.dominance import dominated
from actcc.selection.effort import Effort
from actcc.selection.relaxation import Certificate, Multipliers, certify

_FIRST_CORE = 60  # options beside the cheapest of each site
_GROWTH = 3
_FIRST_SLICE = 0.05  # deterministic units, some tenths of a second
_SLICES_PER_CORE = 3

GoodEnough = Callable[[int, int], bool]


@dataclass(frozen=True)
class Outcome:
    """What a search ended with.

    Attributes:
        chosen: [sites]; None if no plan was found.
        value: objective of `chosen`.
        bound: proved for every plan; None if nothing was proved.
        infeasible: whether it is proved that no plan exists.
        present: [sites, options]; the best plan by both criteria lies within.
    """

    chosen: Integers | None
    value: int | None
    bound: int | None
    infeasible: bool
    present: Mask

    @property
    def optimal(self) -> bool:
        """Whether the plan is proved to be the best."""
        return self.value is not None and self.value == self.bound


def minimise(
    program: Program,
    effort: Effort,
    *,
    hint: Integers | None = None,
    good_enough: GoodEnough = lambda value, bound: False,
) -> Outcome:
    """Minimise a program exactly, or as far as the effort goes.

    Args:
        hint: a plan that may be within all rows.
        good_enough: of (value, bound): whether to stop short of the optimum.
    """
    search = _Search(program.without(dominated(program)), effort)
    for plan in (hint, np.zeros(program.sites, dtype=np.int64)):
        if plan is not None:
            search.offer(plan)
    if program.quantity != "peak":
        search.relax()
        if not search.finished(good_enough):
            search.sharpen()
    search.run(good_enough)
    return Outcome(search.chosen, search.value, search.bound, search.infeasible, search.present)


class _Search:
    """Best plan, bound and options in play; they only ever improve."""

    def __init__(self, program: Program, effort: Effort) -> None:
        self.program = program
        self.present = program.present
        self.effort = effort
        self.chosen: Integers | None = None
        self.value: int | None = None
        self.bound: int | None = None
        self.infeasible = False
        self.certificate: Certificate | None = None

    def offer(self, chosen: Integers) -> None:
        """Take a plan if it is within all rows and better than the one before."""
        if not self.program.admits(chosen):
            return
        value = self.program.value(chosen)
        if self.value is None or value < self.value:
            self.chosen, self.value = chosen, value
            self._fix()

    def relax(self) -> None:
        """Find multipliers; what they prove is kept as bound and reduced costs."""
        ascent = ascend(self.program)
        self._certify(ascent.multipliers)
        if ascent.chosen is not None:
            self.offer(ascent.chosen)
        self._fix()

    def sharpen(self) -> None:
        """Replace the multipliers by those of the linear relaxation where these prove more."""
        # Imported here, like CP-SAT below: OR-tools takes half a second, and many a problem is
        # solved before it is needed.
        from actcc.selection.linear import dual_multipliers

        multipliers = dual_multipliers(self.program.without(~self.present))
        if multipliers is not None:
            self._certify(multipliers)
            self._fix()

    def _certify(self, multipliers: Multipliers) -> None:
        certificate = certify(self.program, multipliers)
        if self.certificate is None or certificate.height > self.certificate.height:
            self.certificate = certificate
        self._raise_bound(certificate.bound)

    def run(self, good_enough: GoodEnough) -> None:
        """Solve cores of growing size until a proof, a good enough plan or the effort's end."""
        size, units, slices = _FIRST_CORE, _FIRST_SLICE, 0
        while not self.finished(good_enough):
            core = self._core(size)
            settled = self._solve(core, units)
            slices += 1
            if settled or slices >= _SLICES_PER_CORE:
                size, slices = size * _GROWTH, 0
            if not settled:
                units *= 2

    def finished(self, good_enough: GoodEnough) -> bool:
        """Whether there is a proof, a good enough plan or no effort left."""
        if self.infeasible:
            return True
        if self.value is None or self.bound is None:
            return self.effort.exhausted
        proved = self.value <= self.bound
        return proved or good_enough(self.value, self.bound) or self.effort.exhausted

    def _solve(self, core: Mask, units: float) -> bool:
        """Search one core; whether it is settled: a proof was found within it."""
        from actcc.selection.cpsat import search_core

        reply = search_core(
            self.program,
            core,
            lower=self.bound,
            upper=self._upper,
            hint=self.chosen,
            effort=self.effort,
            units=units,
        )
        if reply.chosen is not None:
            self.offer(reply.chosen)
        outside = self._bound_outside(core)
        if reply.state == "infeasible" and outside is None and self.value is None:
            self.infeasible = True
        inside = self._upper if reply.state == "infeasible" else reply.bound
        proved = [bound for bound in (inside, outside) if bound is not None]
        if proved and (inside is not None or reply.state == "infeasible"):
            self._raise_bound(min(proved))
        return reply.state != "open"

    @property
    def _upper(self) -> int | None:
        return self.program.cutoff if self.value is None else self.value

    def _core(self, size: int) -> Mask:
        """The options of small reduced cost: the cheapest of each site and `size` more."""
        if self.certificate is None:
            return self.present
        reduced = self.certificate.reduced[self.present]
        count = self.program.sites + size
        if count >= len(reduced):
            return self.present
        threshold = np.partition(reduced, count)[count]
        return np.asarray(self.present & (self.certificate.reduced <= threshold))

    def _bound_outside(self, core: Mask) -> int | None:
        if self.certificate is None:
            return None
        return self.certificate.bound_of(self.present & ~core)

    def _raise_bound(self, bound: int) -> None:
        """Note a bound; one beyond what is wanted proves that there is no plan at all."""
        if self.value is not None:
            bound = min(bound, self.value)
        elif self.program.quantity != "peak" and bound > self.program.largest_value:
            self.infeasible = True
        self.bound = bound if self.bound is None else max(self.bound, bound)

    def _fix(self) -> None:
        """Drop options that no plan within the best objective so far can hold."""
        if self.certificate is not None and self._upper is not None:
            self.present = self.program.present & self.certificate.allowed(self._upper)
