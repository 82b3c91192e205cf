"""Matrices as products of two narrower ones."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from actcc.graph import Array
from actcc.linear import factors

SIZES = [(12, 30), (30, 12)]
RANK = 5


def matrices(columns: int, outputs: int, scale: float = 1.0) -> tuple[Array, Array]:
    """Weights, and second moments of what they map."""
    random = np.random.default_rng(0)
    rows = scale * random.standard_normal((200, columns)) * np.linspace(0.1, 3, columns)
    return random.standard_normal((columns, outputs)), rows.T @ rows / len(rows)


@pytest.mark.parametrize(("columns", "outputs"), SIZES)
@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_what_is_lost_is_the_least_there_can_be(columns: int, outputs: int, scale: float) -> None:
    weights, moments = matrices(columns, outputs, scale)
    root = np.linalg.cholesky(moments).T
    least = np.square(np.linalg.svd(root @ weights)[1][RANK:]).sum()
    into, out = factors(weights, RANK, moments)
    assert np.square(root @ (weights - into @ out)).sum() == pytest.approx(least, rel=1e-9)


@pytest.mark.parametrize(("columns", "outputs"), SIZES)
def test_weights_of_half_precision_hold_them_however_small_what_is_mapped_is(
    columns: int, outputs: int
) -> None:
    weights, moments = matrices(columns, outputs, scale=1e-6)
    for part in factors(weights, RANK, moments):
        assert 0.1 < np.abs(part).max() < 20


def test_they_do_not_depend_on_the_number_of_threads() -> None:
    weights = np.random.default_rng(0).standard_normal((700, 600))
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            found.append(factors(weights, 64))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
