"""Cells of anchor-free detectors: all positions of maps at a few strides, finest map first."""

from __future__ import annotations

import numpy as np

from actcc.graph import Array

_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (8, 16), (4, 8, 16, 32), (4, 8, 16), (16, 32))


def _sides(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-size[0] // stride), -(-size[1] // stride)


def _count(size: tuple[int, int], strides: tuple[int, ...]) -> int:
    return sum(rows * columns for rows, columns in (_sides(size, stride) for stride in strides))


def cells_per_input(size: tuple[int, int]) -> set[int]:
    """How many cells an input of (height, width) can have: one number for each set of strides."""
    return {_count(size, strides) for strides in _STRIDES}


def cells_of(count: int, size: tuple[int, int]) -> tuple[Array, Array]:
    """Column and row of each of `count` cells [n, 2], and their strides in pixels [n, 1].

    `count` must be one of `cells_per_input`.
    """
    strides = next(strides for strides in _STRIDES if _count(size, strides) == count)
    corners, steps = [], []
    for stride in strides:
        rows, columns = _sides(size, stride)
        row, column = np.divmod(np.arange(rows * columns), columns)
        corners.append(np.stack([column, row], axis=1))
        steps.append(np.full((rows * columns, 1), stride))
    return np.concatenate(corners), np.concatenate(steps)
