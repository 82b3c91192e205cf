"""`--search cpsat`: the best plan by prediction under an allowance that trials move."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from actcc.errors import InfeasibleError
from actcc.program import within
from actcc.search.space import Chosen, Space
from actcc.selection import Solution, solve
from actcc.site import KEEP
from actcc.trials import Allowance, LatencyAllowance, Refused, Trial, rank

SOLVER_WORKERS = 2  # part of a plan's provenance: CP-SAT's answer may depend on it
_SOLVE_LIMIT_S = 60.0  # by the wall clock, which other work on the machine slows
# What a plan spends at least: drops within the noise may be negative.
_LEAST_SPENT = 0.05
# How much more by prediction is tried, once each, where the first plans do not hold.
_LEAPS = (8.0, 64.0)
_FAILED_BEFORE_A_LEAP = 2


class CpSat:
    """The loop solve → rewrite → verify → tighten; see `actcc.trials`.

    Where the loop ends and trials are left, it goes on with the pass that saves most alone. Losses
    of different passes do not add up in the same way, and plans of one kind of rewrite can be
    better than their predictions say. At last it doubts the plans that bound it: drops are measured
    on few samples, and one that kept the budget but for its confidence was perhaps unlucky.

    Where candidates are priced in groups, as layers in int8 are, and the first plans do not hold,
    it leaps to plans that lose many times more by prediction: what a layer in int8 loses is
    estimated alone and rounded to the nearest, and most of it is made good where many are rounded
    together.
    """

    def __init__(self, space: Space, seen: Sequence[Trial | Refused]) -> None:
        self._space = functools.reduce(Space.sized_by, seen, space)
        self._allowance = _first_allowance(space, seen)
        self._first = self._allowance.value
        self._seen = list(seen)
        self._exhausted = self._allowance.value <= 0
        self._narrowed = False
        self._doubted: list[Trial | Refused] = []
        self._leaps = list(_LEAPS) if space.problem.pairs else []
        self._leaping = False

    def propose(self) -> Chosen | None:
        """See `Strategy`."""
        leap = self._leap()
        if leap is not None:
            return leap
        chosen = self._next()
        while chosen is None and (self._narrow() or self._doubt()):
            chosen = self._next()
        return chosen

    def learn(self, trial: Trial | Refused, *, known: bool) -> None:
        """See `Strategy`."""
        held, spent = self._space.spent(trial)
        if not known:
            self._seen.append(trial)
            self._space = self._space.sized_by(trial)
        if self._leaping:  # it was not the allowance that was tried
            self._leaping = False
            if held:
                self._allowance = self._warm()
            return
        if known and held and self._allowance.value >= self._space.largest_loss:
            self._exhausted = True  # everything that saves time is in the plan already
            return
        self._allowance.learn(held=held, spent=0.0 if known and held else spent)

    def _leap(self) -> Chosen | None:
        """A plan far beyond those that failed; None where one held, or nothing is left to leap."""
        tried = [t for t in self._seen if isinstance(t, Trial) and t.predicted_loss > 0]
        failed = [trial for trial in tried if not self._space.spent(trial)[0]]
        early = len(failed) < _FAILED_BEFORE_A_LEAP or len(failed) < len(tried)
        if early or not self._leaps or not isinstance(self._allowance, Allowance):
            return None
        try:
            chosen = self._solve(self._leaps.pop(0) * self._first)
        except InfeasibleError:
            return None  # the other budgets; the plans that were tried keep them
        self._leaping = True
        return chosen

    def _next(self) -> Chosen | None:
        """The plan for the present allowance; None where its two sides have met."""
        if self._exhausted or self._allowance.settled:
            return None
        try:
            return self._solve(self._allowance.value)
        except InfeasibleError:
            if any(isinstance(trial, Trial) for trial in self._seen):
                return None  # the allowance was tightened past what can be reached
            raise

    def _narrow(self) -> bool:
        """Leave nothing but one pass to choose from; False where there is nothing else."""
        if self._narrowed:
            return False
        self._narrowed = True
        main, before = self._main_pass(), self._allowance
        if main is None or not isinstance(before, Allowance):
            return False
        self._space = self._space.only(main)
        allowance = self._warm()
        if not allowance.low:
            allowance.value = max(allowance.value, before.low)
        self._allowance = allowance
        self._exhausted = False
        return True

    def _doubt(self) -> bool:
        """Forget the plan of least loss that its confidence alone kept from holding."""
        if self._exhausted or not isinstance(self._allowance, Allowance):
            return False
        unlucky = [
            trial
            for trial in self._inside()
            if isinstance(trial, Trial)
            and self._space.is_unlucky(trial)
            and trial.predicted_loss > self._allowance.low
        ]
        if not unlucky:
            return False
        self._doubted.append(min(unlucky, key=lambda trial: trial.predicted_loss))
        self._allowance = self._warm()
        return True

    def _warm(self) -> Allowance:
        return Allowance.warm(self._space.allowed_drop, _known(self._space, self._inside()))

    def _inside(self) -> list[Trial | Refused]:
        """Trials of plans that the space has, without those that were doubted."""
        return [
            trial
            for trial in self._seen
            if self._space.holds(trial.chosen)
            and all(trial is not doubted for doubted in self._doubted)
        ]

    def _main_pass(self) -> str | None:
        """The pass that saves most in the best trial; None where no other loses accuracy there."""
        holding = [t for t in self._seen if isinstance(t, Trial) and t.verdict.holds]
        if not holding:
            return None
        objective, saved = self._space.budget.objective, self._space.saved_quantity
        chosen = min(holding, key=lambda trial: rank(trial.verdict, objective)).chosen
        lossy: dict[str, set[str]] = {}
        for site, name in chosen.items():
            if self._space.problem.options[site][name].loss_ppm > 0:
                lossy.setdefault(self._space.passes[site], set()).add(site)

        def without(found: str) -> int:
            rest = {site: name for site, name in chosen.items() if site not in lossy[found]}
            return self._space.totals(rest).of(saved)

        return max(lossy, key=without) if len(lossy) > 1 else None

    def _solve(self, allowance: float) -> Chosen:
        """The best plan under an allowance.

        Where latency and memory cannot be met within it, the least loss that meets them is tried:
        the measured drop decides, not the predicted one.

        Raises:
            InfeasibleError: no plan meets the budgets.
        """
        space = self._space
        if space.most_accurate:
            return solve_within(space, max_loss=None, max_latency_ns=allowance)
        limit = space.latency_limit_ns
        try:
            return solve_within(space, max_loss=allowance, max_latency_ns=limit)
        except InfeasibleError as error:
            if "max_loss_ppm" not in error.nearest:  # names the user's budgets
                return solve_within(space, max_loss=None, max_latency_ns=limit)
            least = error.nearest["max_loss_ppm"] / 1e6
            if space.predicts_metric and least > space.allowed_drop:
                least = space.allowed_drop
            return solve_within(space, max_loss=least, max_latency_ns=limit)


def solve_within(space: Space, *, max_loss: float | None, max_latency_ns: float | None) -> Chosen:
    """The best plan by prediction within limits on loss, latency, and the space's other budgets.

    Raises:
        InfeasibleError: there is none.
    """
    limited = within(
        space.problem,
        max_loss=max_loss,
        max_latency_ns=max_latency_ns,
        max_peak_bytes=space.peak_limit_bytes,
        max_size_bytes=space.size_limit_bytes,
        objective=space.budget.objective,
    )
    solution: Solution = solve(
        limited, seed=space.seed, workers=SOLVER_WORKERS, time_limit_s=_SOLVE_LIMIT_S
    )
    found = solution.chosen.items()
    return {site: name for site, name in found if name != KEEP and site in space.passes}


def _first_allowance(space: Space, seen: Sequence[Trial | Refused]) -> Allowance | LatencyAllowance:
    limit = space.latency_limit_ns
    if space.most_accurate and limit is not None:
        return LatencyAllowance(limit)
    return Allowance.warm(space.allowed_drop, _known(space, seen))


def _known(space: Space, seen: Sequence[Trial | Refused]) -> list[tuple[float, bool, float]]:
    """Of each trial its predicted loss, whether it held, and the share of the budget it spent."""
    known = []
    for trial in seen:
        if isinstance(trial, Trial):
            held, spent = space.spent(trial)
            known.append((trial.predicted_loss, held, max(spent, _LEAST_SPENT)))
    return known
