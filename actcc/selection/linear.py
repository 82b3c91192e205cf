"""Multipliers from the linear relaxation, solved by GLOP (OR-tools' simplex).

The Lagrangian bound at its best equals the linear relaxation (Geoffrion 1974: each
sub-problem has the integrality property), and the relaxation's dual values are the multipliers
that attain it. With a few rows `ascent` gets there by itself; with many claims, memory steps or
pairs the simplex is both faster and exact. Only the multipliers are taken from it: the bound is
summed anew in integers by `certify`, so numerical trouble costs quality, never correctness.
"""

from __future__ import annotations

import numpy as np
from ortools.linear_solver import pywraplp

from actcc.selection.arrays import Integers, Mask, Program
from actcc.selection.relaxation import Multipliers

_UNITS = 2.0  # deterministic units of GLOP: some seconds


def dual_multipliers(program: Program) -> Multipliers | None:
    """The multipliers of the best Lagrangian bound; None if GLOP finds no optimum in its limit."""
    model = _LinearModel(program)
    if model.solver.Solve() != pywraplp.Solver.OPTIMAL:
        return None
    return model.multipliers()


class _LinearModel:
    """One variable an option and one a meeting of classes; both between 0 and 1."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.solver = pywraplp.Solver.CreateSolver("GLOP")
        self.solver.SetSolverSpecificParametersAsString(f"max_deterministic_time: {_UNITS}")
        self.solver.Objective().SetMinimization()
        self.options = self._add_options()
        self.rows = self._add_rows()
        self.messages = [self._add_pair(pair) for pair in range(program.pairs.count)]

    def multipliers(self) -> Multipliers:
        """The dual values after the solve."""
        found = Multipliers.zero(self.program)
        for row, constraint in enumerate(self.rows):
            found.rows[row] = max(0.0, -constraint.dual_value())
        for pair, ends in enumerate(self.messages):
            for end, by_class in enumerate(ends):
                for class_of, constraint in by_class.items():
                    found.messages[end, pair, class_of] = constraint.dual_value()
        return found

    def _add_options(self) -> dict[tuple[int, int], pywraplp.Variable]:
        variables = {}
        for site in range(self.program.sites):
            exactly_one = self.solver.Constraint(1.0, 1.0)
            for option in np.flatnonzero(self.program.present[site]):
                cost = float(self.program.objective[site, option])
                variables[site, int(option)] = self._add_variable(cost)
                exactly_one.SetCoefficient(variables[site, int(option)], 1.0)
        return variables

    def _add_variable(self, cost: float) -> pywraplp.Variable:
        variable = self.solver.NumVar(0.0, self.solver.infinity(), "")
        self.solver.Objective().SetCoefficient(variable, cost)
        return variable

    def _add_rows(self) -> list[pywraplp.Constraint]:
        rows = self.program.rows
        infinity = self.solver.infinity()
        added = [self.solver.Constraint(-infinity, float(limit)) for limit in rows.limit]
        blocks = zip(rows.block_row, rows.block_site, rows.values, strict=True)
        for row, site, values in blocks:
            for option in np.flatnonzero(self.program.present[site] & (values != 0)):
                variable = self.options[int(site), int(option)]
                added[row].SetCoefficient(variable, float(values[option]))
        return added

    def _add_pair(self, pair: int) -> tuple[dict[int, pywraplp.Constraint], ...]:
        """Meetings of classes, tied to both sites; by end and class the constraints that do it."""
        pairs = self.program.pairs
        charged = [self.rows[row] for row in np.flatnonzero(self.program.rows.counts_pairs)]
        first = self._add_end(int(pairs.site_a[pair]), pairs.class_a[pair])
        second = self._add_end(int(pairs.site_b[pair]), pairs.class_b[pair])
        for a, tied_a in first.items():
            for b, tied_b in second.items():
                cost = float(pairs.costs[pair, a, b])
                meeting = self._add_variable(cost * self.program.objective_counts_pairs)
                tied_a.SetCoefficient(meeting, 1.0)
                tied_b.SetCoefficient(meeting, 1.0)
                for row in charged:
                    row.SetCoefficient(meeting, cost)
        return first, second

    def _add_end(self, site: int, class_of: Integers) -> dict[int, pywraplp.Constraint]:
        tied: dict[int, pywraplp.Constraint] = {}
        present: Mask = self.program.present[site]
        for option in np.flatnonzero(present):
            own = int(class_of[option])
            if own not in tied:
                tied[own] = self.solver.Constraint(0.0, 0.0)
            tied[own].SetCoefficient(self.options[site, int(option)], -1.0)
        return tied
