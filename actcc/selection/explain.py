"""Why no plan meets all budgets, and how far each budget is from one that can be met."""

from __future__ import annotations

from collections.abc import Mapping

from actcc.errors import InfeasibleError
from actcc.selection.assembly import program_of
from actcc.selection.effort import Effort
from actcc.selection.expansion import Outcome, minimise
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
    effort evenly. A budget whose removal alone leaves no plan has no nearest value and goes
    unmentioned; where that holds for every budget, each quantity's least value without any budget
    is reported instead, and `nearest` is empty.
    """
    with effort.portion(0.75):
        nearest, notes = _relax_each(problem, effort)
    if nearest:
        helpful = [note for key, note in notes.items() if key in nearest]
        message = (
            f"no plan meets all budgets: {'; '.join(helpful)}; "
            f"loosen {'it' if len(helpful) == 1 else 'one of them'} to its nearest value or beyond"
        )
    else:
        _, notes = _relax_each(problem, effort, others=False)
        message = (
            "no plan meets all budgets, whichever one of them is dropped: "
            f"{'; '.join(notes.values())}; "
            "loosen at least two of them"
        )
    return InfeasibleError(message, nearest)


def _relax_each(
    problem: Problem, effort: Effort, *, others: bool = True
) -> tuple[dict[str, int], dict[str, str]]:
    """By budget the least value of its quantity, with or without the others, and in words."""
    nearest: dict[str, int] = {}
    notes: dict[str, str] = {}
    budgets = problem.budgets
    for index, (quantity, limit) in enumerate(budgets.items()):
        held = {q: other for q, other in budgets.items() if q != quantity} if others else {}
        with effort.portion(1.0 / (len(budgets) - index)):
            outcome = minimise(program_of(problem, quantity, held), effort)
        if outcome.value is not None:
            nearest[_KEYS[quantity]] = outcome.value
        notes[_KEYS[quantity]] = _note(quantity, limit, outcome, held)
    return nearest, notes


def _note(quantity: Quantity, limit: int, outcome: Outcome, held: Mapping[Quantity, int]) -> str:
    beside = " with the other budgets" if held else ""
    within = f"{_WORDS[quantity]} <= {_written(quantity, limit)}"
    if outcome.value is None:
        why = "dropping it alone does not help" if outcome.infeasible else "no nearest value found"
        return f"{within} is out of reach{beside} ({why})"
    reached = _written(quantity, outcome.value, upwards=True)
    if outcome.value <= limit:
        return f"{within} can be met by itself (least {reached})"
    kind = "nearest" if outcome.optimal else "reachable in the time given"
    return f"{within} is out of reach{beside} ({kind} {reached})"


def _written(quantity: Quantity, value: int, *, upwards: bool = False) -> str:
    """A value in a unit that leaves a few digits; upwards, so that it is reached if typed in."""
    unit, name = next(
        (scale for scale in _SCALES[quantity] if abs(value) >= scale[0]), _SCALES[quantity][-1]
    )
    if unit == 1:
        return f"{value} {name}"
    hundredths = -(-value * 100 // unit) if upwards else round(value * 100 / unit)
    return f"{hundredths / 100:.2f} {name}"
