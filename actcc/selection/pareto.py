"""The trade-off between latency and accuracy: the fastest plan at each of several loss budgets."""

from __future__ import annotations

from dataclasses import replace

from actcc.selection.problem import Problem, ProblemError
from actcc.selection.solution import Solution
from actcc.selection.solver import solve


def pareto(
    problem: Problem,
    points: int,
    *,
    seed: int = 0,
    workers: int = 2,
    time_limit_s: float = 30.0,
    gap_limit: float = 0.0,
) -> list[Solution]:
    """Plans of which none is both as fast and as accurate as another.

    The loss budget is swept in even steps from the least loss that the other budgets allow to the
    loss of the fastest plan, or to the problem's own loss budget if that is smaller.

    Args:
        points: loss budgets to solve for, at least 2; equal plans are returned once.
        time_limit_s: for each of them; the other arguments are those of `solve`.

    Returns:
        By growing loss and falling cost, each solved for the objective `latency`.

    Raises:
        InfeasibleError: no plan meets the budgets.
        UndecidedError: the time ran out before a plan was found.
        ProblemError: fewer than two points.
    """
    if points < 2:
        raise ProblemError(
            f"{points} points make no front in the call of pareto; ask for two or more"
        )

    def solved(changed: Problem) -> Solution:
        return solve(
            changed, seed=seed, workers=workers, time_limit_s=time_limit_s, gap_limit=gap_limit
        )

    fastest = solved(replace(problem, objective="latency"))
    least = solved(replace(problem, objective="accuracy")).loss_ppm
    span = fastest.loss_ppm - least
    budgets = sorted({least + span * step // (points - 1) for step in range(points - 1)})
    found = [
        solved(replace(problem, objective="latency", max_loss_ppm=budget)) for budget in budgets
    ]
    return _undominated([*found, fastest])


def _undominated(solutions: list[Solution]) -> list[Solution]:
    front: list[Solution] = []
    for solution in sorted(solutions, key=lambda one: (one.loss_ppm, one.cost_ns)):
        if not front or solution.cost_ns < front[-1].cost_ns:
            front.append(solution)
    return front
