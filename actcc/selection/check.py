"""The solver's answer checked again, in plain Python and straight from the problem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actcc.errors import ActccError
from actcc.selection.problem import Option, Problem, Quantity


class ViolationError(ActccError):
    """A plan does not choose one option a site, claims a node twice or exceeds a budget."""


@dataclass(frozen=True)
class Totals:
    """Sums over a plan, bases included; the peak is the largest of the memory steps, 0 if none."""

    cost_ns: int
    loss_ppm: int
    peak_bytes: int
    size_bytes: int

    def of(self, quantity: Quantity) -> int:
        """One of the sums, by the quantity that budgets and objectives know it by."""
        return {
            "cost": self.cost_ns,
            "loss": self.loss_ppm,
            "peak": self.peak_bytes,
            "size": self.size_bytes,
        }[quantity]


def check(problem: Problem, chosen: Mapping[str, str]) -> Totals:
    """The totals of a plan that keeps every rule and budget.

    Raises:
        ViolationError: a site is missing or unknown, an option is unknown, a node is claimed by
            two sites, or a budget is exceeded.
    """
    options = _chosen_options(problem, chosen)
    _check_claims(options)
    totals = total(problem, chosen)
    for quantity, limit in problem.budgets.items():
        reached = totals.of(quantity)
        if reached > limit:
            raise ViolationError(
                f"{quantity} {reached} exceeds its budget {limit} in the plan; "
                "solve again under the same budgets"
            )
    return totals


def total(problem: Problem, chosen: Mapping[str, str]) -> Totals:
    """The totals of a plan, whether or not it keeps the budgets."""
    options = _chosen_options(problem, chosen)
    pairs = sum(
        pair.cost_ns
        for pair in problem.pairs
        if chosen[pair.site_a] == pair.option_a and chosen[pair.site_b] == pair.option_b
    )
    steps = [
        step.base_bytes + sum(size for site, name, size in step.terms if chosen[site] == name)
        for step in problem.memory
    ]
    return Totals(
        cost_ns=int(problem.base_cost_ns + pairs + sum(o.cost_ns for o in options.values())),
        loss_ppm=int(sum(o.loss_ppm for o in options.values())),
        peak_bytes=int(max(steps, default=0)),
        size_bytes=int(problem.base_size_bytes + sum(o.size_bytes for o in options.values())),
    )


def _chosen_options(problem: Problem, chosen: Mapping[str, str]) -> dict[str, Option]:
    for site in chosen:
        if site not in problem.options:
            raise ViolationError(
                f"unknown site '{site}' in the plan; use a plan that was made for this problem"
            )
    found = {}
    for site, options in problem.options.items():
        name = chosen.get(site)
        if name is None or name not in options:
            what = "no option" if name is None else f"unknown option '{name}'"
            raise ViolationError(
                f"{what} at site '{site}' in the plan; choose one of: {', '.join(options)}"
            )
        found[site] = options[name]
    return found


def _check_claims(options: Mapping[str, Option]) -> None:
    claimed: dict[str, str] = {}
    for site, option in options.items():
        for node in sorted(option.claims):
            if node in claimed:
                raise ViolationError(
                    f"node '{node}' is claimed twice, by sites '{claimed[node]}' and '{site}'; "
                    "keep one of the two sites"
                )
            claimed[node] = site
