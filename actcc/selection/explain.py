"""Why no plan meets all budgets, and how far each budget is from one that can be met."""

from __future__ import annotations

from actcc.errors import InfeasibleError
from actcc.selection.effort import Effort
from actcc.selection.problem import Problem, Quantity

_WORDS: dict[Quantity, str] = {
    "cost": "latency",
    "loss": "accuracy loss",
    "peak": "peak memory",
    "size": "size",
}
_KEYS: dict[Quantity, str] = {
    "cost": "max_cost_ns",
    "loss": "max_loss_ppm",
    "peak": "max_peak_bytes",
    "size": "max_size_bytes",
}
_SCALES: dict[Quantity, tuple[tuple[int, str], ...]] = {
    "cost": ((10**9, "s"), (10**6, "ms"), (10**3, "µs"), (1, "ns")),
    "loss": ((10**4, "%"), (1, "ppm")),
    "peak": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")),
    "size": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")),
}


def infeasible(problem: Problem, effort: Effort) -> InfeasibleError:
    """The error for a problem that no plan solves, with the nearest value of each budget.

    Each budget is dropped in turn and its quantity minimised under the others; all share the
    effort evenly. A budget whose removal alone leaves no plan has no nearest value; where that
    holds for every budget, each quantity's least value without any budget is reported.
    """
    nearest, notes = _relax_each(problem, effort)
    if nearest:
        message = (
            f"no plan meets all budgets: {'; '.join(notes)}; "
            "loosen one of them to its nearest value or beyond"
        )
    else:
        alone, notes = _relax_each(problem, effort, others=False)
        message = (
            f"no plan meets all budgets, whichever one of them is dropped: {'; '.join(notes)}; "
            "loosen at least two of them"
        )
    return InfeasibleError(message, nearest)
