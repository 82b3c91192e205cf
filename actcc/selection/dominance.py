"""Options that no best plan needs (Sinha & Zoltners 1979, integer dominance).

An option is dominated by another of its site that costs no more, loses no more and asks no more
of any row: claims, budgets, memory steps. With pairwise costs it must not cost more whatever the
neighbours choose. Of equal options the first stays, so the answer does not depend on chance.
"""

from __future__ import annotations

import numpy as np

from actcc.selection.arrays import Integers, Mask, Pairs, Program


def dominated(program: Program) -> Mask:
    """Which options can be left out without losing a plan that is best in both criteria.

    Returns:
        [sites, options]; True where another option of the site is at least as good.
    """
    better = _no_worse(program.loss) & _no_worse(program.objective)
    cost = program.cost
    dearer = _dearest_difference(program.pairs, cost.shape)
    better &= cost[:, :, None] + dearer <= cost[:, None, :]
    _restrict_to_rows(better, program)
    better &= program.present[:, :, None] & program.present[:, None, :]
    width = cost.shape[1]
    earlier = np.arange(width)[:, None] < np.arange(width)[None, :]
    removes = better & (~better.transpose(0, 2, 1) | earlier)
    return np.asarray(removes.any(axis=1))


def _no_worse(figures: Integers) -> Mask:
    """[sites, better, worse]; whether the first option's figure is at most the second's."""
    return np.asarray(figures[:, :, None] <= figures[:, None, :])


def _dearest_difference(pairs: Pairs, shape: tuple[int, ...]) -> Integers:
    """[sites, option, other]: by how much pairwise costs of the option may exceed the other's."""
    dearer = np.zeros((shape[0], shape[1], shape[1]), dtype=np.int64)
    for pair in range(pairs.count):
        costs = pairs.costs[pair][pairs.used_a[pair]][:, pairs.used_b[pair]]
        ends = (
            (pairs.site_a[pair], pairs.class_a[pair], costs),
            (pairs.site_b[pair], pairs.class_b[pair], costs.T),
        )
        for site, classes, matrix in ends:
            between = (matrix[:, None, :] - matrix[None, :, :]).max(axis=2)
            dearer[site] += between[classes[:, None], classes[None, :]]
    return dearer


def _restrict_to_rows(better: Mask, program: Program) -> None:
    rows = program.rows
    if not len(rows.block_site):
        return
    order = np.argsort(rows.block_site, kind="stable")
    sites, starts = np.unique(rows.block_site[order], return_index=True)
    asks_no_more = _no_worse(rows.values[order])
    better[sites] &= np.logical_and.reduceat(asks_no_more, starts, axis=0)
