"""The Lagrangian relaxation: every row and every pairwise cost is priced, sites fall apart.

Rows enter the objective with multipliers >= 0 (Fisher 1981, 2004). A pairwise cost becomes a
sub-problem of its own that meets its two sites through messages, one for each class of options:
the dual decomposition of the local polytope (Wainwright & Jordan 2008, chapter 8; Sontag,
Globerson & Jaakkola 2011). Whatever the multipliers, the sum of the sub-problems' minima bounds
the objective from below. `Relaxation` searches in floats; `certify` repeats the final sum in
integers, so that what is called proved does not hang on rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from actcc.selection.arrays import Floats, Integers, Mask, Program

_BITS = 60
_FINEST = 24


@dataclass(frozen=True)
class Multipliers:
    """Prices of the rows and messages of the pairs.

    Attributes:
        rows: [rows]; in units of the objective per unit of the row, not negative.
        messages: [2, pairs, classes]; in units of the objective, to site a and to site b.
    """

    rows: Floats
    messages: Floats

    @classmethod
    def zero(cls, program: Program) -> Multipliers:
        """The multipliers that ignore all rows and pairs."""
        classes = program.pairs.costs.shape[1]
        return cls(np.zeros(program.rows.count), np.zeros((2, program.pairs.count, classes)))


@dataclass(frozen=True)
class Evaluation:
    """The relaxed problem's answer for some multipliers.

    Attributes:
        bound: of the objective, subject to float rounding.
        chosen: [sites]; the cheapest option of each site under the multipliers.
        activity: [rows]; what `chosen` asks of each row, pairwise costs left out.
        gradient: supergradient of the bound in the multipliers' shapes.
    """

    bound: float
    chosen: Integers
    activity: Floats
    gradient: Multipliers


class Relaxation:
    """The relaxed problem of a program, ready to be evaluated many times."""

    def __init__(self, program: Program) -> None:
        self.program = program
        rows, pairs = program.rows, program.pairs
        width = program.present.shape[1]
        self._slots = program.sites * width
        self._row_slots = (rows.block_site[:, None] * width + np.arange(width)).reshape(-1)
        self._values = rows.values.astype(np.float64)
        self._limit = rows.limit.astype(np.float64)
        self._objective = np.where(program.present, program.objective, np.inf)
        self._sites = np.arange(program.sites)
        self._blocks = np.arange(len(rows.block_site))
        self._pairs = np.arange(pairs.count)
        self._ends = tuple(
            (site, classes, (site[:, None] * width + np.arange(width)).reshape(-1))
            for site, classes in ((pairs.site_a, pairs.class_a), (pairs.site_b, pairs.class_b))
        )
        used = _used_classes(program)
        self._used = used
        self._costs = pairs.costs.astype(np.float64)
        self._unused = ~(used[0][:, :, None] & used[1][:, None, :])

    def evaluate(self, multipliers: Multipliers) -> Evaluation:
        """The bound that the multipliers give, and where it grows."""
        rows = self.program.rows
        prices = multipliers.rows
        charged = self._objective + self._charges(multipliers)
        chosen = charged.argmin(axis=1)
        bound = charged[self._sites, chosen].sum() - prices @ self._limit + self.program.constant
        picked = self._values[self._blocks, chosen[rows.block_site]]
        sums = np.bincount(rows.block_row, weights=picked, minlength=rows.count)
        activity = np.asarray(sums, dtype=np.float64)
        excess = activity - self._limit
        messages = np.zeros_like(multipliers.messages)
        if len(self._pairs):
            minimum, pair_cost, messages = self._meet(multipliers, chosen)
            bound += minimum
            excess = excess + rows.counts_pairs * pair_cost
        return Evaluation(float(bound), chosen, activity, Multipliers(excess, messages))

    def _charges(self, multipliers: Multipliers) -> Floats:
        """[sites, options]; what rows and messages add to each option."""
        prices = multipliers.rows[self.program.rows.block_row]
        weights = (self._values * prices[:, None]).reshape(-1)
        charges = np.bincount(self._row_slots, weights=weights, minlength=self._slots)
        for (_, classes, slots), messages in zip(self._ends, multipliers.messages, strict=True):
            received = messages[self._pairs[:, None], classes].reshape(-1)
            charges = charges + np.bincount(slots, weights=received, minlength=self._slots)
        return np.asarray(charges, dtype=np.float64).reshape(self.program.present.shape)

    def _meet(self, multipliers: Multipliers, chosen: Integers) -> tuple[float, float, Floats]:
        """The pairs' share: its minimum, the pairwise costs at it, the messages' gradient."""
        counts = self.program.rows.counts_pairs
        weight = float(self.program.objective_counts_pairs) + multipliers.rows[counts].sum()
        to_a, to_b = multipliers.messages
        margins = weight * self._costs - to_a[:, :, None] - to_b[:, None, :]
        margins[self._unused] = np.inf
        count, classes = to_a.shape
        flat = margins.reshape(count, -1)
        best = flat.argmin(axis=1)
        gradient = np.zeros_like(multipliers.messages)
        for end, met in enumerate((best // classes, best % classes)):
            site, class_of, _ = self._ends[end]
            gradient[end, self._pairs, class_of[self._pairs, chosen[site]]] += 1.0
            gradient[end, self._pairs, met] -= 1.0
        pair_cost = self._costs.reshape(count, -1)[self._pairs, best].sum()
        return float(flat[self._pairs, best].sum()), float(pair_cost), gradient


@dataclass(frozen=True)
class Certificate:
    """A bound in exact integer arithmetic; figures are scaled by 2**shift.

    Attributes:
        exact: the bound, constant included.
        reduced: [sites, options]; how much the bound grows at least if the option is chosen.
    """

    exact: int
    reduced: Integers
    shift: int

    @property
    def height(self) -> Fraction:
        """The bound before it is rounded up to an integer."""
        return Fraction(self.exact, 1 << self.shift)

    @property
    def bound(self) -> int:
        """The smallest integer objective that the relaxation does not rule out."""
        return _round_up(self.exact, self.shift)

    def allowed(self, objective: int) -> Mask:
        """[sites, options]; options that a plan with at most this objective may hold.

        Fixing by reduced costs: Pisinger 1995, "A minimal algorithm for the multiple-choice
        knapsack problem".
        """
        room = (objective << self.shift) - self.exact
        return np.asarray(self.reduced <= min(room, np.iinfo(np.int64).max - 1))

    def bound_of(self, options: Mask) -> int | None:
        """A bound on plans that hold at least one of the options; None if there is no option."""
        if not options.any():
            return None
        return _round_up(self.exact + int(self.reduced[options].min()), self.shift)


def certify(program: Program, multipliers: Multipliers) -> Certificate:
    """The bound of the multipliers, rounded to binary fractions and then summed without error."""
    shift = _finest_shift(program, multipliers)
    if shift < 0:
        multipliers, shift = Multipliers.zero(program), 0
    rows, pairs = program.rows, program.pairs
    prices = np.rint(multipliers.rows * 2.0**shift).astype(np.int64)
    messages = np.rint(multipliers.messages * 2.0**shift).astype(np.int64)
    charged = program.objective << shift
    np.add.at(charged, rows.block_site, rows.values * prices[rows.block_row][:, None])
    pair = np.arange(pairs.count)[:, None]
    np.add.at(charged, pairs.site_a, messages[0][pair, pairs.class_a])
    np.add.at(charged, pairs.site_b, messages[1][pair, pairs.class_b])
    charged[~program.present] = np.iinfo(np.int64).max
    least = charged.min(axis=1)
    exact = int(least.sum()) - int(prices @ rows.limit) + (program.constant << shift)
    if pairs.count:
        weight = (int(program.objective_counts_pairs) << shift) + prices[rows.counts_pairs].sum()
        margins = weight * pairs.costs - messages[0][:, :, None] - messages[1][:, None, :]
        used = _used_classes(program)
        margins[~(used[0][:, :, None] & used[1][:, None, :])] = np.iinfo(np.int64).max
        exact += int(margins.min(axis=(1, 2)).sum())
    reduced = np.where(program.present, charged - least[:, None], np.iinfo(np.int64).max)
    return Certificate(exact, reduced, shift)


def _finest_shift(program: Program, multipliers: Multipliers) -> int:
    """The largest number of binary places at which no sum of `certify` leaves 64 bits."""
    rows, pairs = program.rows, program.pairs
    asked = np.abs(rows.values).max(axis=1, initial=0).astype(np.float64)
    weight = 1.0 + multipliers.rows[rows.counts_pairs].sum()
    total = (
        np.abs(program.objective).max(axis=1, initial=0).astype(np.float64).sum()
        + abs(program.constant)
        + asked @ (multipliers.rows[rows.block_row] + 1.0)
        + np.abs(rows.limit.astype(np.float64)) @ (multipliers.rows + 1.0)
        + 2.0 * (np.abs(multipliers.messages) + 1.0).sum()
        + weight * np.abs(pairs.costs).max(axis=(1, 2), initial=0).astype(np.float64).sum()
    )
    return min(_FINEST, _BITS - 1 - int(np.ceil(np.log2(total + 1.0))))


def _used_classes(program: Program) -> tuple[Mask, Mask]:
    """[pairs, classes] at both ends; whether an option of the class is still present."""
    pairs = program.pairs
    count, classes = pairs.costs.shape[:2]
    used = []
    for site, class_of in ((pairs.site_a, pairs.class_a), (pairs.site_b, pairs.class_b)):
        mask = np.zeros((count, classes), dtype=np.bool_)
        index, option = np.nonzero(program.present[site])
        mask[index, class_of[index, option]] = True
        used.append(mask)
    return used[0], used[1]


def _round_up(scaled: int, shift: int) -> int:
    return -((-scaled) >> shift)
