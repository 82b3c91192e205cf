"""The exact search by CP-SAT (OR-tools), on the options that are still in play.

Several workers of one CP-SAT search exchange what they learn when they happen to learn it, and its
deterministic mode (`interleave_search`) synchronises once a unit of deterministic time, which is
some hundred times longer than these searches take. Here each worker is a search of its own with
its own strategy and seed; all are awaited, and the first in order that has a proof counts. So the
answer depends on seed and number of workers, and on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ortools.sat.python import cp_model

from actcc.selection.arrays import Integers, Mask, Program
from actcc.selection.effort import Effort

State = Literal["optimal", "infeasible", "open"]

# What the workers differ in; the first is the best single strategy on knapsack-like cores.
_STRATEGIES: tuple[dict[str, Any], ...] = (
    {"linearization_level": 1},
    {"linearization_level": 2},
    {"search_branching": cp_model.PORTFOLIO_WITH_QUICK_RESTART_SEARCH},
    {"linearization_level": 1, "search_branching": cp_model.PSEUDO_COST_SEARCH},
)


@dataclass(frozen=True)
class Reply:
    """What one round of searches found.

    Attributes:
        state: `optimal` and `infeasible` are proofs, for the options that were in play.
        chosen: [sites]; the best plan found; None if none was.
        bound: of the objective over the options in play; None if nothing is known.
    """

    state: State
    chosen: Integers | None
    bound: int | None


def search_core(
    program: Program,
    present: Mask,
    *,
    lower: int | None,
    upper: int | None,
    hint: Integers | None,
    effort: Effort,
    units: float,
) -> Reply:
    """Minimise a program over some of its options.

    Args:
        present: [sites, options]; at least one a site.
        lower: a proved bound of the objective, added as a cut; None if unknown.
        upper: only plans up to this objective are searched; None for all.
        hint: a plan to start from; its options are present.
        effort: what is spent is deducted.
        units: deterministic units that each worker may spend.
    """
    core = _Core(program, present)
    core.bound_objective(lower, upper)
    if hint is not None:
        core.hint(hint)
    units = min(units, effort.units_left)
    replies = _run(core, effort, units)
    effort.spend(max(spent for _, spent in replies))
    if effort.seconds_left <= 0.0 and any(reply.state == "open" for reply, _ in replies):
        effort.cut_by_clock = True
    return _best([reply for reply, _ in replies], program)


class _Core:
    """The CP-SAT model: one Boolean for each option of each site that still has a choice."""

    def __init__(self, program: Program, present: Mask) -> None:
        self.program = program
        self.present = present
        self.model = cp_model.CpModel()
        self.one = self.model.new_constant(1)
        self.only = present.argmax(axis=1)
        self.fixed = present.sum(axis=1) == 1
        self.variables: dict[int, dict[int, cp_model.IntVar]] = {}
        for site in np.flatnonzero(~self.fixed):
            options = np.flatnonzero(present[site])
            self.variables[int(site)] = {
                int(option): self.model.new_bool_var("") for option in options
            }
            self.model.add_exactly_one(self.variables[int(site)].values())
        self.pair_cost = self._add_pairs()
        self.objective = self._add_rows_and_objective()

    def bound_objective(self, lower: int | None, upper: int | None) -> None:
        """Cut off objectives outside [lower, upper] and minimise within."""
        if lower is not None:
            self.model.add(self.objective >= lower)
        if upper is not None:
            self.model.add(self.objective <= upper)
        self.model.minimize(self.objective)

    def hint(self, chosen: Integers) -> None:
        """Start from a plan."""
        for site, options in self.variables.items():
            for option, variable in options.items():
                self.model.add_hint(variable, int(chosen[site]) == option)

    def choice(self, solver: cp_model.CpSolver) -> Integers:
        """[sites]; the option that the solver chose at each site."""
        chosen: Integers = self.only.astype(np.int64)
        for site, options in self.variables.items():
            chosen[site] = next(
                option for option, variable in options.items() if solver.boolean_value(variable)
            )
        return chosen

    def _linear(
        self, terms: Sequence[tuple[cp_model.IntVar, int]], constant: int
    ) -> cp_model.LinearExpr:
        all_terms = [*terms, (self.one, constant)]
        return cp_model.LinearExpr.weighted_sum(
            [variable for variable, _ in all_terms],
            [coefficient for _, coefficient in all_terms],
        )

    def _figures(self, figures: Integers) -> cp_model.LinearExpr:
        """The sum of [sites, options] figures over the choice."""
        constant = int(figures[self.fixed, self.only[self.fixed]].sum())
        free = [(site, figures[site]) for site in self.variables]
        return self._blocks(free, constant)

    def _blocks(self, free: Sequence[tuple[int, Integers]], constant: int) -> cp_model.LinearExpr:
        terms = [
            (variable, int(values[option]))
            for site, values in free
            for option, variable in self.variables[site].items()
            if values[option]
        ]
        return self._linear(terms, constant)

    def _add_rows_and_objective(self) -> cp_model.LinearExpr:
        rows = self.program.rows
        constants = np.zeros(rows.count, dtype=np.int64)
        settled = np.flatnonzero(self.fixed[rows.block_site])
        picked = rows.values[settled, self.only[rows.block_site[settled]]]
        np.add.at(constants, rows.block_row[settled], picked)
        free: list[list[tuple[int, Integers]]] = [[] for _ in range(rows.count)]
        for block in np.flatnonzero(~self.fixed[rows.block_site]):
            entry = (int(rows.block_site[block]), rows.values[block])
            free[rows.block_row[block]].append(entry)
        peak = self._new_peak() if self.program.quantity == "peak" else None
        for row in range(rows.count):
            total = self._blocks(free[row], int(constants[row] - rows.limit[row]))
            if rows.counts_pairs[row]:
                total = total + self.pair_cost
            if rows.is_memory[row] and peak is not None:
                total = total - peak
            self.model.add(total <= 0)
        if peak is not None:
            return peak
        objective = self._figures(self.program.objective) + self.program.constant
        return objective + self.pair_cost if self.program.objective_counts_pairs else objective

    def _new_peak(self) -> cp_model.IntVar:
        rows = self.program.rows
        reach = int(np.abs(rows.values).max(axis=1, initial=0).sum() + np.abs(rows.limit).sum())
        return self.model.new_int_var(-reach, reach, "peak")

    def _add_pairs(self) -> cp_model.LinearExpr:
        """The pairwise costs; where both sites are open, a Boolean for each meeting of classes.

        The Booleans are tied to the sites by equalities, whose linear relaxation is the local
        polytope: far tighter than one implication a term.
        """
        pairs = self.program.pairs
        terms: list[tuple[cp_model.IntVar, int]] = []
        constant = 0
        for pair in range(pairs.count):
            ends = (
                self._classes(int(pairs.site_a[pair]), pairs.class_a[pair]),
                self._classes(int(pairs.site_b[pair]), pairs.class_b[pair]),
            )
            costs = pairs.costs[pair]
            if len(ends[0]) == 1 and len(ends[1]) == 1:
                constant += int(costs[next(iter(ends[0])), next(iter(ends[1]))])
            else:
                terms += self._meetings(ends, costs)
        return self._linear(terms, constant)

    def _classes(self, site: int, class_of: Integers) -> dict[int, list[cp_model.IntVar]]:
        """The Booleans of each class that is present at a site; none where the site is fixed."""
        found: dict[int, list[cp_model.IntVar]] = {}
        if self.fixed[site]:
            return {int(class_of[self.only[site]]): []}
        for option, variable in self.variables[site].items():
            found.setdefault(int(class_of[option]), []).append(variable)
        return found

    def _meetings(
        self,
        ends: tuple[dict[int, list[cp_model.IntVar]], dict[int, list[cp_model.IntVar]]],
        costs: Integers,
    ) -> list[tuple[cp_model.IntVar, int]]:
        first, second = ends
        if len(second) == 1:
            (met,) = second
            return [(v, int(costs[own, met])) for own, found in first.items() for v in found]
        if len(first) == 1:
            (met,) = first
            return [(v, int(costs[met, own])) for own, found in second.items() for v in found]
        joint = {(a, b): self.model.new_bool_var("") for a in first for b in second}
        for a, found in first.items():
            self.model.add(sum(joint[a, b] for b in second) == sum(found))
        for b, found in second.items():
            self.model.add(sum(joint[a, b] for a in first) == sum(found))
        return [(variable, int(costs[a, b])) for (a, b), variable in joint.items()]


def _run(core: _Core, effort: Effort, units: float) -> list[tuple[Reply, float]]:
    """One search a worker, each to its own end."""
    seeds = [effort.seed + effort.runs * effort.workers + i for i in range(effort.workers)]
    solvers = [cp_model.CpSolver() for _ in seeds]
    with ThreadPoolExecutor(effort.workers) as pool:
        try:
            searches = [
                pool.submit(_search, solver, core, effort.seconds_left, units, worker, seed)
                for worker, (solver, seed) in enumerate(zip(solvers, seeds, strict=True))
            ]
            return [search.result() for search in searches]
        except BaseException:
            for solver in solvers:
                solver.stop_search()
            raise


def _search(
    solver: cp_model.CpSolver,
    core: _Core,
    seconds: float,
    units: float,
    worker: int,
    seed: int,
) -> tuple[Reply, float]:
    parameters = solver.parameters
    parameters.num_workers = 1
    parameters.random_seed = seed % 2**31
    parameters.max_deterministic_time = units
    parameters.max_time_in_seconds = seconds
    # Ctrl-C belongs to Python: CP-SAT would end its search and hide it from the caller.
    parameters.catch_sigint_signal = False
    for name, value in _STRATEGIES[worker % len(_STRATEGIES)].items():
        setattr(parameters, name, value)
    model = core.model.clone()
    status = solver.solve(model)
    spent = float(solver.response_proto.deterministic_time)
    if status == cp_model.MODEL_INVALID:
        raise AssertionError(f"CP-SAT refused the model of the selection: {model.validate()}")
    if status == cp_model.INFEASIBLE:
        return Reply("infeasible", None, None), spent
    if status == cp_model.UNKNOWN:
        return Reply("open", None, None), spent
    state: State = "optimal" if status == cp_model.OPTIMAL else "open"
    bound = math.ceil(solver.best_objective_bound - 0.5)
    return Reply(state, core.choice(solver), bound), spent


def _best(replies: Sequence[Reply], program: Program) -> Reply:
    """The first proof; else the best plan and the best bound of all."""
    for reply in replies:
        if reply.state != "open":
            return reply
    plans = [reply.chosen for reply in replies if reply.chosen is not None]
    bounds = [reply.bound for reply in replies if reply.bound is not None]
    return Reply(
        "open",
        min(plans, key=program.value) if plans else None,
        max(bounds, default=None),
    )
