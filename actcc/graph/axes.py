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
