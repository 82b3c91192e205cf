"""Multipliers that make the Lagrangian bound large, by a deflected subgradient method.

Steps aim at a level a little above the best bound (Polyak 1969; the level is lowered where it
proves out of reach, Goffin & Kiwiel 1999), along directions that are deflected from the one
before so that they do not zigzag (Camerini, Fratta & Maffioli 1975). All of it is deterministic
and ends after a count of iterations, never by the clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actcc.selection.arrays import Floats, Integers, Program
from actcc.selection.relaxation import Evaluation, Multipliers, Relaxation

_MOST_ITERATIONS = 2000
_FEWEST_ITERATIONS = 200
_WORK = 6e7  # array elements touched: about half a second
_FIRST_LEVEL = 0.05
_PATIENCE = 10
_LEVEL_FACTOR = 0.7
_CLOSE = 1e-8


@dataclass(frozen=True)
class Ascent:
    """Where the search for multipliers ended.

    Attributes:
        multipliers: of the best bound.
        bound: subject to float rounding; `certify` makes it exact.
        chosen: the best plan within all rows that was met on the way; None if none was.
    """

    multipliers: Multipliers
    bound: float
    chosen: Integers | None


def ascend(program: Program, start: Multipliers | None = None) -> Ascent:
    """Search multipliers from a start (zero if not given) until the bound stops to grow."""
    run = _Run(program, start or Multipliers.zero(program))
    for _ in range(_iterations(program)):
        if run.finished():
            break
        run.step()
    return Ascent(run.best.multipliers, run.best.bound, run.chosen)


@dataclass(frozen=True)
class _Point:
    multipliers: Multipliers
    bound: float
    gradient: Multipliers


class _Run:
    """The state of one search."""

    def __init__(self, program: Program, start: Multipliers) -> None:
        self.program = program
        self.relaxation = Relaxation(program)
        self.scale = _scale(program)
        self.chosen: Integers | None = None
        self.value: int | None = None
        self.best = self.here = self._visit(start)
        self.level = max(1.0, _FIRST_LEVEL * float(_spread(program).sum()))
        self.ceiling = float(program.largest_value)
        self.direction: Multipliers | None = None
        self.stalled = 0

    def finished(self) -> bool:
        """Whether the plan found meets the bound, no plan exists, or no step helps."""
        if self.value is not None and self.value <= np.ceil(self.best.bound - 1e-6):
            return True
        if self.best.bound > self.ceiling + 1.0:
            return True
        smallest = max(0.1, _CLOSE * abs(self.best.bound))
        return self.level < smallest or not self.scale.rows.size + self.scale.messages.size

    def step(self) -> None:
        """Move along the deflected gradient towards the level."""
        gradient = self._scaled_gradient()
        direction = _deflect(gradient, self.direction)
        length = _dot(direction, direction)
        if length == 0.0:
            self._lower_level()
            return
        stride = (self.best.bound + self.level - self.here.bound) / length
        self.direction = direction
        multipliers = self.here.multipliers
        rows = multipliers.rows + stride * direction.rows * self.scale.rows
        messages = multipliers.messages + stride * direction.messages * self.scale.messages
        self.here = self._visit(Multipliers(np.maximum(rows, 0.0), messages))
        grown = self.here.bound - self.best.bound
        self.stalled = 0 if grown > 0.05 * self.level else self.stalled + 1
        if grown > 0.0:
            self.best = self.here
        if self.stalled >= _PATIENCE:
            self._lower_level()

    def _lower_level(self) -> None:
        self.level *= _LEVEL_FACTOR
        self.here, self.direction, self.stalled = self.best, None, 0

    def _scaled_gradient(self) -> Multipliers:
        gradient, prices = self.here.gradient, self.here.multipliers.rows
        rows = np.where((prices <= 0.0) & (gradient.rows < 0.0), 0.0, gradient.rows)
        return Multipliers(rows * self.scale.rows, gradient.messages * self.scale.messages)

    def _visit(self, multipliers: Multipliers) -> _Point:
        evaluation = self.relaxation.evaluate(multipliers)
        self._remember(evaluation)
        return _Point(multipliers, evaluation.bound, evaluation.gradient)

    def _remember(self, evaluation: Evaluation) -> None:
        rows = self.program.rows
        within = evaluation.activity <= rows.limit
        if not (within | rows.counts_pairs).all() or not self.program.admits(evaluation.chosen):
            return
        value = self.program.value(evaluation.chosen)
        if self.value is None or value < self.value:
            self.chosen, self.value = evaluation.chosen, value


def _iterations(program: Program) -> int:
    work = program.present.size + program.rows.values.size + 4 * program.pairs.costs.size
    return int(np.clip(_WORK / (4 * work + 1), _FEWEST_ITERATIONS, _MOST_ITERATIONS))


def _dot(first: Multipliers, second: Multipliers) -> float:
    rows = first.rows @ second.rows
    return float(rows + (first.messages * second.messages).sum())


def _deflect(gradient: Multipliers, previous: Multipliers | None) -> Multipliers:
    """The gradient plus as much of the previous direction as makes them orthogonal."""
    if previous is None:
        return gradient
    product = _dot(gradient, previous)
    if product >= 0.0:
        return gradient
    share = -product / _dot(previous, previous)
    direction = Multipliers(
        gradient.rows + share * previous.rows, gradient.messages + share * previous.messages
    )
    # In one dimension the deflection would cancel the gradient.
    if _dot(direction, direction) < 1e-6 * _dot(gradient, gradient):
        return gradient
    return direction


def _spread(program: Program) -> Floats:
    """[sites]; by how much the objective may vary at each site, in its unit."""
    if not program.sites:
        return np.zeros(0)
    objective = program.objective
    most = np.where(program.present, objective, np.iinfo(np.int64).min).max(axis=1)
    least = np.where(program.present, objective, np.iinfo(np.int64).max).min(axis=1)
    spread: Floats = (most - least).astype(np.float64)
    if program.objective_counts_pairs and program.pairs.count:
        pairs = program.pairs
        between = np.abs(pairs.costs).max(axis=(1, 2)).astype(np.float64)
        np.add.at(spread, pairs.site_a, between)
        np.add.at(spread, pairs.site_b, between)
    return spread


def _scale(program: Program) -> Multipliers:
    """Step lengths: multipliers of large rows move little, so that all move at a like pace.

    A row's multiplier is of the size (objective at stake / row at stake), and its gradient
    varies as the row does; their geometric mean makes the curvature alike everywhere.
    """
    rows, pairs = program.rows, program.pairs
    spread = _spread(program)
    floor = max(1.0, float(spread.mean())) * 1e-3 if spread.size else 1.0
    spread = np.maximum(spread, floor)
    asked = np.ptp(rows.values, axis=1).astype(np.float64) if rows.values.size else np.zeros(0)
    row_stake = np.bincount(rows.block_row, weights=asked, minlength=rows.count)
    stake = np.bincount(rows.block_row, weights=spread[rows.block_site], minlength=rows.count)
    scale = np.sqrt(stake) / np.maximum(row_stake, 1.0)
    between = np.ptp(pairs.costs, axis=(1, 2)).astype(np.float64) if pairs.count else np.zeros(0)
    if not program.objective_counts_pairs:
        prices = np.where(rows.counts_pairs, stake / np.maximum(row_stake, 1.0), 0.0)
        between = between * prices.sum()
    widened = np.broadcast_to(
        np.sqrt(between)[None, :, None], (2, pairs.count, pairs.costs.shape[1])
    )
    return Multipliers(scale, np.array(widened))
