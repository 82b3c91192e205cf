"""From a selection problem to the arrays that the solvers work on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np

from actcc.selection.arrays import Integers, Mask, Pairs, Program, Rows
from actcc.selection.problem import MemoryStep, Option, Problem, Quantity


def program_of(problem: Problem, quantity: Quantity, budgets: Mapping[Quantity, int]) -> Program:
    """The arrays that minimise one quantity of a problem under the given budgets.

    A budget on the minimised quantity itself becomes the cutoff. Rows that no choice can break
    are left out.
    """
    widest = max((len(choice.options) for choice in problem.choices), default=1)
    present = np.zeros((len(problem.choices), widest), dtype=np.bool_)
    for site, choice in enumerate(problem.choices):
        present[site, : len(choice.options)] = True
    cost = _figures(problem, present, lambda option: option.cost_ns)
    loss = _figures(problem, present, lambda option: option.loss_ppm)
    size = _figures(problem, present, lambda option: option.size_bytes)
    pairs = _pairs(problem, present)
    limits = {other: limit for other, limit in budgets.items() if other != quantity}
    rows = _RowCollection(present)
    if "loss" in limits:
        rows.add(_blocks(loss), limits["loss"])
    if "size" in limits:
        rows.add(_blocks(size), limits["size"] - problem.base_size_bytes)
    if "cost" in limits:
        rows.add(_blocks(cost), limits["cost"] - problem.base_cost_ns, pairs=pairs)
    if "peak" in limits or quantity == "peak":
        for step in problem.memory or (MemoryStep("none", 0),):
            blocks = _memory_blocks(problem, step, widest)
            rows.add(blocks, limits.get("peak", 0) - step.base_bytes, memory=True)
    for blocks in _claim_blocks(problem, widest):
        rows.add(blocks, 1)
    constant = {"cost": problem.base_cost_ns, "size": problem.base_size_bytes}.get(quantity, 0)
    return Program(
        present=present,
        cost=cost,
        loss=loss,
        size=size,
        rows=rows.stack(drop_slack=quantity != "peak"),
        pairs=pairs,
        quantity=quantity,
        constant=int(constant),
        cutoff=budgets.get(quantity),
    )


_Blocks = dict[int, Integers]


class _RowCollection:
    """Rows as they are found, before they are stacked into arrays."""

    def __init__(self, present: Mask) -> None:
        self.present = present
        self.found: list[tuple[_Blocks, int, Pairs | None, bool]] = []

    def add(
        self, blocks: _Blocks, limit: int, *, pairs: Pairs | None = None, memory: bool = False
    ) -> None:
        """One row: its coefficients by site, and the pairwise costs if they add to it."""
        self.found.append((blocks, int(limit), pairs, memory))

    def stack(self, *, drop_slack: bool) -> Rows:
        """All rows; without those that hold whatever is chosen, if so wished."""
        kept = [row for row in self.found if not (drop_slack and self._holds_always(row))]
        block_row = [index for index, row in enumerate(kept) for _ in row[0]]
        block_site = [site for row in kept for site in row[0]]
        values = [value for row in kept for value in row[0].values()]
        width = self.present.shape[1]
        return Rows(
            limit=np.array([row[1] for row in kept], dtype=np.int64),
            counts_pairs=np.array([row[2] is not None for row in kept], dtype=np.bool_),
            is_memory=np.array([row[3] for row in kept], dtype=np.bool_),
            block_row=np.array(block_row, dtype=np.int64),
            block_site=np.array(block_site, dtype=np.int64),
            values=np.array(values, dtype=np.int64).reshape(-1, width),
        )

    def _holds_always(self, row: tuple[_Blocks, int, Pairs | None, bool]) -> bool:
        blocks, limit, pairs, _ = row
        most = sum(int(value[self.present[site]].max()) for site, value in blocks.items())
        if pairs is not None:
            most += int(pairs.costs.max(axis=(1, 2), initial=0).sum())
        return most <= limit


def _figures(problem: Problem, present: Mask, figure: Callable[[Option], int]) -> Integers:
    values = np.zeros(present.shape, dtype=np.int64)
    for site, choice in enumerate(problem.choices):
        values[site, : len(choice.options)] = [figure(option) for option in choice.options]
    return values


def _blocks(figures: Integers) -> _Blocks:
    return {int(site): figures[site] for site in np.flatnonzero(figures.any(axis=1))}


def _memory_blocks(problem: Problem, step: MemoryStep, width: int) -> _Blocks:
    blocks: _Blocks = {}
    for site, option, size in step.terms:
        index, position = _position(problem, site, option)
        blocks.setdefault(index, np.zeros(width, dtype=np.int64))[position] += size
    return blocks


def _claim_blocks(problem: Problem, width: int) -> list[_Blocks]:
    """One row a node that several sites claim; nodes with the same claimants share a row."""
    claimants: defaultdict[str, set[tuple[int, int]]] = defaultdict(set)
    for site, choice in enumerate(problem.choices):
        for position, option in enumerate(choice.options):
            for node in option.claims:
                claimants[node].add((site, position))
    rows = []
    for claims in sorted({tuple(sorted(found)) for found in claimants.values()}):
        if len({site for site, _ in claims}) > 1:
            blocks: _Blocks = {}
            for site, position in claims:
                blocks.setdefault(site, np.zeros(width, dtype=np.int64))[position] = 1
            rows.append(blocks)
    return rows


def _position(problem: Problem, site: str, option: str) -> tuple[int, int]:
    index, options = problem.positions[site]
    return index, options[option]


def _pairs(problem: Problem, present: Mask) -> Pairs:
    width = present.shape[1]
    matrices: dict[tuple[int, int], Integers] = {}
    for term in problem.pairs:
        first = _position(problem, term.site_a, term.option_a)
        second = _position(problem, term.site_b, term.option_b)
        (a, option_a), (b, option_b) = sorted((first, second))
        matrix = matrices.setdefault((a, b), np.zeros((width, width), dtype=np.int64))
        matrix[option_a, option_b] += term.cost_ns
    grouped = [
        _group(matrix[: present[a].sum(), : present[b].sum()])
        for (a, b), matrix in matrices.items()
    ]
    count = len(grouped)
    classes = max((max(costs.shape) for costs, _, _ in grouped), default=1)
    pairs = Pairs(
        site_a=np.array([a for a, _ in matrices], dtype=np.int64),
        site_b=np.array([b for _, b in matrices], dtype=np.int64),
        class_a=np.zeros((count, width), dtype=np.int64),
        class_b=np.zeros((count, width), dtype=np.int64),
        costs=np.zeros((count, classes, classes), dtype=np.int64),
        used_a=np.zeros((count, classes), dtype=np.bool_),
        used_b=np.zeros((count, classes), dtype=np.bool_),
    )
    for index, (costs, class_a, class_b) in enumerate(grouped):
        pairs.class_a[index, : len(class_a)] = class_a
        pairs.class_b[index, : len(class_b)] = class_b
        pairs.costs[index, : costs.shape[0], : costs.shape[1]] = costs
        pairs.used_a[index, : costs.shape[0]] = True
        pairs.used_b[index, : costs.shape[1]] = True
    return pairs


def _group(matrix: Integers) -> tuple[Integers, Integers, Integers]:
    """Options with equal rows (columns) of pairwise costs, merged: costs and both class maps."""
    rows, class_a = np.unique(matrix, axis=0, return_inverse=True)
    costs, class_b = np.unique(rows, axis=1, return_inverse=True)
    return costs, class_a.reshape(-1), class_b.reshape(-1)
