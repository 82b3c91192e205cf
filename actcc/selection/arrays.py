"""The selection problem as integer arrays: one objective, rows of limits, pairwise costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from actcc.selection.problem import Quantity

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """Constraints: sum of blocks + pair weight · pairwise cost <= limit, row by row.

    A block holds the coefficients of one row at one site.

    Attributes:
        limit: [rows].
        counts_pairs: [rows]; whether the pairwise costs add to the row.
        is_memory: [rows]; whether the row is a step of the schedule.
        block_row, block_site: [blocks].
        values: [blocks, options].
    """

    limit: Integers
    counts_pairs: Mask
    is_memory: Mask
    block_row: Integers
    block_site: Integers
    values: Integers

    @property
    def count(self) -> int:
        return len(self.limit)

    def activity(self, chosen: Integers) -> Integers:
        """What each row's blocks sum up to under a choice, without pairwise costs; [rows]."""
        picked = self.values[np.arange(len(self.block_site)), chosen[self.block_site]]
        sums = np.zeros(self.count, dtype=np.int64)
        np.add.at(sums, self.block_row, picked)
        return sums


@dataclass(frozen=True)
class Pairs:
    """Pairwise costs between sites, by classes of options that meet the neighbour alike.

    Attributes:
        site_a, site_b: [pairs].
        class_a, class_b: [pairs, options]; the class of each option.
        costs: [pairs, classes, classes]; in ns.
        used_a, used_b: [pairs, classes]; whether the class has an option.
    """

    site_a: Integers
    site_b: Integers
    class_a: Integers
    class_b: Integers
    costs: Integers
    used_a: Mask
    used_b: Mask

    @property
    def count(self) -> int:
        return len(self.site_a)

    def cost(self, chosen: Integers) -> int:
        """The sum of pairwise costs under a choice, in ns."""
        pair = np.arange(self.count)
        a = self.class_a[pair, chosen[self.site_a]]
        b = self.class_b[pair, chosen[self.site_b]]
        return int(self.costs[pair, a, b].sum())


@dataclass(frozen=True)
class Program:
    """Minimise objective + pairwise costs over one option a site, subject to the rows.

    Attributes:
        present: [sites, options]; sites with fewer options than the widest are padded.
        cost, loss, size: [sites, options] in ns, ppm and bytes.
        rows, pairs: see there.
        quantity: what is minimised; for `peak` the limits of memory rows give way to a maximum.
        constant: added to the objective.
        cutoff: only objectives up to it are wanted; None if all are.
    """

    present: Mask
    cost: Integers
    loss: Integers
    size: Integers
    rows: Rows
    pairs: Pairs
    quantity: Quantity
    constant: int
    cutoff: int | None

    @cached_property
    def objective(self) -> Integers:
        """[sites, options]; zero where the peak is minimised."""
        figures = {"cost": self.cost, "loss": self.loss, "size": self.size}
        return figures.get(self.quantity, np.zeros_like(self.cost))

    @property
    def objective_counts_pairs(self) -> bool:
        return self.quantity == "cost"

    @property
    def sites(self) -> int:
        return int(self.present.shape[0])

    @cached_property
    def largest_value(self) -> int:
        """No choice that is wanted has a larger objective; where it is not the peak."""
        most = np.where(self.present, self.objective, np.iinfo(np.int64).min).max(axis=1)
        pairs = self.pairs.costs.max(axis=(1, 2), initial=0).sum()
        largest = int(most.sum()) + self.constant + self.objective_counts_pairs * int(pairs)
        return largest if self.cutoff is None else min(largest, self.cutoff)

    def without(self, removed: Mask) -> Program:
        """The same program without some options."""
        return replace(self, present=self.present & ~removed)

    def value(self, chosen: Integers) -> int:
        """The objective of a choice, constant included."""
        if self.quantity == "peak":
            excess = self.rows.activity(chosen) - self.rows.limit
            return int(excess[self.rows.is_memory].max())
        picked = self.objective[np.arange(self.sites), chosen].sum()
        pairs = self.pairs.cost(chosen) if self.objective_counts_pairs else 0
        return int(picked) + pairs + self.constant

    def admits(self, chosen: Integers) -> bool:
        """Whether a choice keeps all rows and the cutoff."""
        activity = self.rows.activity(chosen)
        if self.rows.counts_pairs.any():
            activity = activity + self.rows.counts_pairs * self.pairs.cost(chosen)
        within = activity <= self.rows.limit
        if self.quantity == "peak":
            within = within | self.rows.is_memory
        if not within.all():
            return False
        return self.cutoff is None or self.value(chosen) <= self.cutoff
