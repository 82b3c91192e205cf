"""Where axes go when a tensor gets another shape."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from actcc.graph.axes import axis_behind, merged_axes, moves_unit_axes


@pytest.mark.parametrize(
    ("op", "before", "after", "axis", "behind"),
    [
        ("Reshape", (2, 3, 4, 5), (2, 3, 20), 1, 1),
        ("Reshape", (2, 3, 4, 5), (2, 3, 20), 2, None),
        ("Reshape", (2, 12), (2, 3, 4), 1, None),
        ("Flatten", (1, 7, 1, 1), (1, 7), 1, 1),
        ("Unsqueeze", (6, 7), (6, 1, 7), 1, 2),
        ("Reshape", ("N", 7, 1), ("N", 7), 1, None),
        ("Reshape", (0, 7), (7, 0), 1, None),
        ("Reshape", (1, 7), (7, 1), 0, None),
        ("Transpose", ("N", 7, 1), (1, 7, "N"), 0, 2),
        ("Relu", (6, 7), (6, 7), 1, None),
    ],
)
def test_an_axis_is_followed_while_it_is_kept_whole(
    op: str, before: tuple[object, ...], after: tuple[object, ...], axis: int, behind: int | None
) -> None:
    assert axis_behind(op, {}, before, after, axis) == behind


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 3, 4, 1), (2, 3, 4, 5), (1, 1, 1, 1)])
def test_axes_of_one_element_are_moved_without_moving_elements(shape: tuple[int, ...]) -> None:
    elements = np.arange(np.prod(shape)).reshape(shape)
    for permutation in itertools.permutations(range(4)):
        in_order = np.array_equal(np.transpose(elements, permutation).ravel(), elements.ravel())
        assert moves_unit_axes(shape, permutation) == in_order


@pytest.mark.parametrize(
    ("before", "after", "runs"),
    [
        ((1, 4, 6, 8), (1, 4, 48), [(0,), (1,), (2, 3)]),
        ((2, 3, 4), (24,), [(0, 1, 2)]),
        ((1, 1, 4, 1), (1, 4), [(0,), (1, 2, 3)]),
        ((4, 1), (4, 1), [(0,), (1,)]),
        (("n", 4, 6), ("n", 24), [(0,), (1, 2)]),
        (("n", 4, 6), (None, 24), [(0,), (1, 2)]),
        ((1, 8, 6), (1, 2, 4, 6), None),
        ((6, 4), (4, 6), None),
        (("n", 4, 6), (None, 12), None),
        (("n", 4, 6), (1, 24), None),
        (("n", "h", 6), ("n", 24), None),
        ((2, "h", 3, 4), (None, 3, 4), None),
        ((1, 8, 6), (1, 8, 6, 1), None),
        ((1,), (1, 1), None),
    ],
)
def test_axes_that_a_reshape_merges(
    before: tuple[object, ...], after: tuple[object, ...], runs: list[tuple[int, ...]] | None
) -> None:
    assert merged_axes(before, after) == runs
