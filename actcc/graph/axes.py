"""Which axes of a tensor go over into which, where it gets another shape."""

from __future__ import annotations

import math
from collections.abc import Sequence


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
