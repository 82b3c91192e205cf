"""Which axes of a tensor go over into which, where it gets another shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

# Operators that keep the elements and their order, and give them another shape.
RESHAPING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


def axis_groups(
    before: Sequence[int], after: Sequence[int]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Axes of more than one element that go over into each other: (0, 1) → (0,) where two merge.

    Both shapes have the same number of elements; where that is 0, no axis goes over into another.
    """
    if 0 in before or 0 in after:
        return []
    groups: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    left = [axis for axis, size in enumerate(before) if size != 1]
    right = [axis for axis, size in enumerate(after) if size != 1]
    while left and right:
        one, other = [left.pop(0)], [right.pop(0)]
        while (a := math.prod(before[i] for i in one)) != (b := math.prod(after[i] for i in other)):
            if a < b:
                one.append(left.pop(0))
            else:
                other.append(right.pop(0))
        groups.append((tuple(one), tuple(other)))
    return groups


def merged_axes(before: Sequence[object], after: Sequence[object]) -> list[tuple[int, ...]] | None:
    """Which neighbouring axes each axis behind a Reshape was; None if one is split or new.

    Args:
        before: may have a first axis of any size.
        after: likewise; all other sizes are numbers.
    """
    runs: list[tuple[int, ...]] = []
    if not isinstance(before[0], int) and not isinstance(after[0], int):
        if _elements(before[1:]) != _elements(after[1:]):
            return None
        runs.append((0,))  # of as many elements, since the others are of as many
    for size in after[len(runs) :]:
        start = runs[-1][-1] + 1 if runs else 0
        end = start + 1
        while end <= len(before) and _elements(before[start:end]) != size:
            end += 1
        if end > len(before) or not isinstance(size, int):
            return None
        runs.append(tuple(range(start, end)))
    rest = range(runs[-1][-1] + 1, len(before))
    if _elements(before[rest.start :]) != 1:
        return None
    runs[-1] += tuple(rest)
    return runs


def _elements(sizes: Sequence[object]) -> int | None:
    """How many elements axes have together; None where one may have any size."""
    known = [size for size in sizes if isinstance(size, int)]
    return math.prod(known) if len(known) == len(sizes) else None


def axis_behind(
    op: str,
    attributes: Mapping[str, Any],
    before: Sequence[object],
    after: Sequence[object],
    axis: int,
) -> int | None:
    """Where an axis of what a node reads stands in what it writes.

    None where the axis is split or merged with others, where a shape that has to be known is not,
    and where the operator is neither Transpose nor one of `RESHAPING`.

    Args:
        before, after: shapes of what the node reads and writes.
    """
    if op == "Transpose":
        permutation = list(attributes.get("perm", range(len(before))[::-1]))
        return permutation.index(axis)
    if op not in RESHAPING:
        return None
    sizes = [[size for size in shape if isinstance(size, int)] for shape in (before, after)]
    known = len(sizes[0]) == len(before) and len(sizes[1]) == len(after)
    if not known or 0 in (*sizes[0], *sizes[1]):
        return None
    groups = axis_groups(*sizes)
    return next((new[0] for old, new in groups if old == (axis,) and len(new) == 1), None)


def moves_unit_axes(shape: Sequence[object], permutation: Sequence[int]) -> bool:
    """Whether transposing moves only axes of one element, so that elements keep their order."""
    kept = [axis for axis in permutation if shape[axis] != 1]
    return kept == sorted(kept)
