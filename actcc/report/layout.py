"""Layered drawing of a directed acyclic graph, for the picture of the network.

Implements E. R. Gansner, E. Koutsofios, S. C. North and K.-P. Vo, "A technique for drawing directed
graphs", IEEE Transactions on Software Engineering 19 (1993): ranks (section 2), order within a rank
(section 3) and coordinates (section 4). The two problems that they solve by network simplex are
the same linear programs here, solved by GLOP (OR-tools).
"""

from __future__ import annotations

import bisect
import graphlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

Edge: TypeAlias = tuple[int, int]
Point: TypeAlias = tuple[float, float]

_COLUMN_GAP = 16.0
_ROW_GAP = 22.0
_SWEEPS, _SWEEPS_OF_HUGE = 12, 2
# An edge is worth more the more of it is free to be straight (Gansner et al., section 4.2).
_STRAIGHTNESS = (1.0, 2.0, 8.0)
# A graph with more cells is huge: the full effort would take more than about two seconds.
_MOST_CELLS = 5000


@dataclass(frozen=True)
class Size:
    """Of one box, in pixels."""

    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """Where everything goes, in pixels from the upper left corner.

    Attributes:
        centres: of the boxes, in the order in which they were given.
        routes: by edge, the points that it passes through, from box centre to box centre.
    """

    centres: tuple[Point, ...]
    routes: tuple[tuple[Point, ...], ...]
    width: float
    height: float


def layered_layout(sizes: Sequence[Size], edges: Sequence[Edge]) -> Layout:
    """Boxes in rows from top to bottom, so that every edge points down.

    Args:
        sizes: of the boxes.
        edges: pairs of indices into `sizes`, acyclic, each once.
    """
    if not sizes:
        return Layout((), (), 0.0, 0.0)
    cells = _Cells.spread(sizes, edges, _ranks(len(sizes), edges))
    rows = _ordered(cells)
    across = _columns(cells, rows)
    down = _row_centres(cells, rows)
    points = [(across[cell], down[cells.ranks[cell]]) for cell in range(cells.count)]
    last_row = max(cells.heights[cell] for cell in rows[-1])
    return Layout(
        centres=tuple(points[: len(sizes)]),
        routes=tuple(tuple(points[cell] for cell in path) for path in cells.paths),
        width=max(x + cells.widths[cell] / 2 for cell, x in enumerate(across)),
        height=down[-1] + last_row / 2,
    )


def _ranks(count: int, edges: Sequence[Edge]) -> list[int]:
    """The row of each box: edges point down and are as short as can be in total."""
    from ortools.linear_solver import pywraplp

    solver = pywraplp.Solver.CreateSolver("GLOP")
    rows = [solver.NumVar(0.0, float(count), "") for _ in range(count)]
    for tail, head in edges:
        solver.Add(rows[head] - rows[tail] >= 1)
    solver.Minimize(sum(rows[head] - rows[tail] for tail, head in edges) + 1e-3 * sum(rows))
    if solver.Solve() != pywraplp.Solver.OPTIMAL:
        return _depths(count, edges)
    # The constraint matrix is totally unimodular: a corner of the polyhedron is integral.
    found = [round(row.solution_value()) for row in rows]
    return [row - min(found) for row in found]


def _depths(count: int, edges: Sequence[Edge]) -> list[int]:
    """The row of each box by the longest path that leads to it: edges may be long."""
    above: dict[int, list[int]] = {box: [] for box in range(count)}
    for tail, head in edges:
        above[head].append(tail)
    depths = [0] * count
    for box in graphlib.TopologicalSorter(above).static_order():
        depths[box] = max((depths[tail] + 1 for tail in above[box]), default=0)
    return depths


@dataclass(frozen=True)
class _Cells:
    """Boxes, then the places where long edges pass through a row in between.

    Edges of one tail share these: what is read in many rows is one line with branches.

    Attributes:
        paths: by edge, its cells from tail to head.
    """

    boxes: int
    ranks: list[int]
    widths: list[float]
    heights: list[float]
    paths: list[list[int]]

    @classmethod
    def spread(cls, sizes: Sequence[Size], edges: Sequence[Edge], ranks: Sequence[int]) -> _Cells:
        """Cut edges so that each piece goes from one row to the next."""
        all_ranks = list(ranks)
        passages: dict[int, list[int]] = {}
        paths = []
        for tail, head in edges:
            passage = passages.setdefault(tail, [])
            length = ranks[head] - ranks[tail] - 1
            for rank in range(ranks[tail] + 1 + len(passage), ranks[head]):
                passage.append(len(all_ranks))
                all_ranks.append(rank)
            paths.append([tail, *passage[:length], head])
        passing = len(all_ranks) - len(sizes)
        widths = [size.width for size in sizes] + [0.0] * passing
        heights = [size.height for size in sizes] + [0.0] * passing
        return cls(len(sizes), all_ranks, widths, heights, paths)

    @property
    def count(self) -> int:
        """Boxes and places of passage."""
        return len(self.ranks)

    @property
    def pieces(self) -> list[Edge]:
        """Edges from each row to the next, each once."""
        return list(
            dict.fromkeys(piece for path in self.paths for piece in itertools.pairwise(path))
        )


def _ordered(cells: _Cells) -> list[list[int]]:
    """The cells of each row from left to right, with few crossings."""
    above: list[list[int]] = [[] for _ in range(cells.count)]
    below: list[list[int]] = [[] for _ in range(cells.count)]
    for upper, lower in cells.pieces:
        below[upper].append(lower)
        above[lower].append(upper)
    rows: list[list[int]] = [[] for _ in range(max(cells.ranks) + 1)]
    for cell in _depth_first(cells, above, below):
        rows[cells.ranks[cell]].append(cell)
    best, fewest = [list(row) for row in rows], _crossings(rows, below)
    for sweep in range(_SWEEPS if cells.count <= _MOST_CELLS else _SWEEPS_OF_HUGE):
        if fewest == 0:
            break
        towards = above if sweep % 2 == 0 else below
        for row in rows if sweep % 2 == 0 else reversed(rows):
            _sort_by_median(row, rows, cells, towards)
        found = _crossings(rows, below)
        if found < fewest:
            best, fewest = [list(row) for row in rows], found
    return best


def _depth_first(cells: _Cells, above: list[list[int]], below: list[list[int]]) -> list[int]:
    """Branches stay together in the first order."""
    seen: set[int] = set()
    order: list[int] = []
    stack = [cell for cell in reversed(range(cells.count)) if not above[cell]]
    while stack:
        cell = stack.pop()
        if cell not in seen:
            seen.add(cell)
            order.append(cell)
            stack += reversed(below[cell])
    return order


def _sort_by_median(
    row: list[int], rows: list[list[int]], cells: _Cells, towards: list[list[int]]
) -> None:
    """Put each cell at the median of its neighbours in the row before; others keep their place."""
    neighbours = [other for cell in row for other in towards[cell]]
    if not neighbours:
        return
    place = {cell: index for index, cell in enumerate(rows[cells.ranks[neighbours[0]]])}
    medians = {}
    for index, cell in enumerate(row):
        places = sorted(place[other] for other in towards[cell])
        middle = len(places) // 2
        medians[cell] = (places[middle] + places[-1 - middle]) / 2 if places else float(index)
    row.sort(key=lambda cell: medians[cell])


def _crossings(rows: list[list[int]], below: list[list[int]]) -> int:
    total = 0
    for upper, lower in itertools.pairwise(rows):
        place = {cell: index for index, cell in enumerate(lower)}
        ends = [end for cell in upper for end in sorted(place[other] for other in below[cell])]
        below_and_left: list[int] = []
        for end in reversed(ends):
            total += bisect.bisect_left(below_and_left, end)
            bisect.insort(below_and_left, end)
    return total


def _columns(cells: _Cells, rows: list[list[int]]) -> list[float]:
    """The x of each cell: the order is kept, and edges are as straight as can be."""
    if cells.count > _MOST_CELLS:
        return _centred(cells, rows)
    from ortools.linear_solver import pywraplp

    solver = pywraplp.Solver.CreateSolver("GLOP")
    across = [solver.NumVar(w / 2, solver.infinity(), "") for w in cells.widths]
    for row in rows:
        for left, right in itertools.pairwise(row):
            solver.Add(across[right] - across[left] >= _apart(cells, left, right))
    slants = []
    for upper, lower in cells.pieces:
        slant = solver.NumVar(0.0, solver.infinity(), "")
        solver.Add(slant >= across[upper] - across[lower])
        solver.Add(slant >= across[lower] - across[upper])
        slants.append(_STRAIGHTNESS[(upper >= cells.boxes) + (lower >= cells.boxes)] * slant)
    solver.Minimize(sum(slants) + 1e-3 * sum(across))
    if solver.Solve() != pywraplp.Solver.OPTIMAL:
        return _centred(cells, rows)
    return [x.solution_value() for x in across]


def _apart(cells: _Cells, left: int, right: int) -> float:
    return (cells.widths[left] + cells.widths[right]) / 2 + _COLUMN_GAP


def _centred(cells: _Cells, rows: list[list[int]]) -> list[float]:
    """Each row packed and centred: what a huge graph gets, or one without a solution."""
    across = [0.0] * cells.count
    for row in rows:
        x = cells.widths[row[0]] / 2
        across[row[0]] = x
        for left, right in itertools.pairwise(row):
            x += _apart(cells, left, right)
            across[right] = x
    spans = [across[row[-1]] + cells.widths[row[-1]] / 2 for row in rows]
    widest = max(spans)
    for row, span in zip(rows, spans, strict=True):
        for cell in row:
            across[cell] += (widest - span) / 2
    return across


def _row_centres(cells: _Cells, rows: list[list[int]]) -> list[float]:
    centres = []
    top = 0.0
    for row in rows:
        height = max(cells.heights[cell] for cell in row)
        centres.append(top + height / 2)
        top += height + _ROW_GAP
    return centres
