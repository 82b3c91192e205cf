"""Solve a selection problem: both criteria, the re-check, and the error where nothing fits."""

from __future__ import annotations

from dataclasses import replace

from actcc.errors import ActccError
from actcc.selection.arrays import Integers, Program
from actcc.selection.assembly import program_of
from actcc.selection.check import check, total
from actcc.selection.effort import Effort
from actcc.selection.expansion import Outcome, minimise
from actcc.selection.explain import infeasible
from actcc.selection.problem import CRITERIA, Problem, ProblemError, Quantity
from actcc.selection.solution import Solution, relative_gap
from actcc.site import KEEP

_TIE_SHARE = 0.25


class UndecidedError(ActccError):
    """The effort ran out before a plan was found or ruled out."""


def solve(
    problem: Problem,
    *,
    seed: int = 0,
    workers: int = 2,
    time_limit_s: float = 30.0,
    gap_limit: float = 0.0,
) -> Solution:
    """The best plan within the budgets, with a proof of how good it is.

    The same problem, seed and number of workers give the same plan, unless the clock ends the
    search first (`Solution.reproducible` says so). The search is Lagrangian bound, fixing by
    reduced costs and CP-SAT on a growing core; see `expansion`.

    Args:
        seed: of CP-SAT's random choices.
        workers: searches that run side by side, each on one core.
        time_limit_s: seconds for the search; where no plan exists, once more as long for the
            nearest reachable budgets, and where none was found, for one that is within them.
        gap_limit: a proved gap (see `Solution.gap`) at which to stop; 0 for the optimum.

    Raises:
        InfeasibleError: no plan meets all budgets; carries the nearest reachable values.
        UndecidedError: the time ran out before a plan was found.
        ProblemError: workers, time or gap limit make no sense.
    """
    _validate(workers, time_limit_s, gap_limit)
    effort = Effort(seed=seed, workers=workers, time_limit_s=time_limit_s)
    primary, _ = CRITERIA[problem.objective]
    keep = total(problem, {choice.id: KEEP for choice in problem.choices}).of(primary)

    def good_enough(value: int, bound: int) -> bool:
        return relative_gap(value, bound, keep) <= gap_limit

    program = program_of(problem, primary, problem.budgets)
    outcome = minimise(program, effort, good_enough=good_enough)
    if outcome.infeasible:
        raise infeasible(problem, Effort(seed=seed, workers=workers, time_limit_s=time_limit_s))
    if outcome.chosen is None and primary != "cost":
        again = Effort(seed=seed, workers=workers, time_limit_s=time_limit_s)
        outcome = _from_cheapest(problem, program, outcome, again)
    if outcome.chosen is None or outcome.bound is None:
        raise UndecidedError(
            f"no plan was found and none was ruled out within {time_limit_s:g} s for "
            f"{len(problem.choices)} sites; allow more time or loosen a budget"
        )
    return _solution(problem, primary, outcome, effort, keep)


def _from_cheapest(problem: Problem, program: Program, outcome: Outcome, effort: Effort) -> Outcome:
    """An outcome without a plan, with one within the budget of cost: where costs are pairwise, a
    plan that loses little is within it only if much fits together, and is hard to come by.

    Raises:
        InfeasibleError: there is no plan within the budgets at all.
    """
    if outcome.bound is None or "cost" not in problem.budgets:
        return outcome
    cheapest = program_of(problem, "cost", problem.budgets)
    found = minimise(cheapest, effort, good_enough=lambda *_: True)
    if found.infeasible:
        raise infeasible(problem, effort)
    if found.chosen is None or not program.admits(found.chosen):
        return outcome
    return replace(outcome, chosen=found.chosen, value=program.value(found.chosen))


def _solution(
    problem: Problem, primary: Quantity, outcome: Outcome, effort: Effort, keep: int
) -> Solution:
    """The plan after ties are broken, checked against the problem itself."""
    assert outcome.chosen is not None
    assert outcome.bound is not None
    chosen, settled = outcome.chosen, False
    if outcome.optimal:
        chosen, settled = _break_ties(problem, primary, outcome, effort)
    plan = _names(problem, chosen)
    totals = check(problem, plan)
    value = totals.of(primary)
    return Solution(
        chosen=plan,
        cost_ns=totals.cost_ns,
        loss_ppm=totals.loss_ppm,
        peak_bytes=totals.peak_bytes,
        size_bytes=totals.size_bytes,
        objective=problem.objective,
        bound=outcome.bound,
        gap=relative_gap(value, outcome.bound, keep),
        status="optimal" if value == outcome.bound else "feasible",
        ties_settled=settled,
        reproducible=not effort.cut_by_clock,
        workers=effort.workers,
        seed=effort.seed,
        wall_s=effort.seconds_spent,
    )


def _break_ties(
    problem: Problem, primary: Quantity, outcome: Outcome, effort: Effort
) -> tuple[Integers, bool]:
    """Among the plans with the proved objective, the one that is best by the other criterion."""
    assert outcome.chosen is not None
    assert outcome.value is not None
    _, secondary = CRITERIA[problem.objective]
    budgets = {**problem.budgets, primary: outcome.value}
    program = program_of(problem, secondary, budgets).without(~outcome.present)
    with effort.portion(_TIE_SHARE):
        second = minimise(program, effort, hint=outcome.chosen)
    chosen = outcome.chosen if second.chosen is None else second.chosen
    return chosen, second.optimal


def _validate(workers: int, time_limit_s: float, gap_limit: float) -> None:
    limits = (
        ("workers", workers, workers >= 1, "1 or more"),
        ("time_limit_s", time_limit_s, time_limit_s > 0, "more than 0"),
        ("gap_limit", gap_limit, gap_limit >= 0, "0 or more"),
    )
    for name, value, sensible, wanted in limits:
        if not sensible:
            raise ProblemError(f"{name} is {value} in the call of solve; make it {wanted}")


def _names(problem: Problem, chosen: Integers) -> dict[str, str]:
    return {
        choice.id: choice.options[option].name
        for choice, option in zip(problem.choices, chosen, strict=True)
    }
