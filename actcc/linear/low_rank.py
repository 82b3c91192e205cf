"""Matrices as products of two narrower ones.

Of all W₁·W₂ of rank r, the one closest to W for inputs x with E[x·xᵀ] = C minimises

    E ‖x·W − x·W₁·W₂‖²  =  ‖C^½·(W − W₁·W₂)‖²

It projects onto the r largest principal directions of what x·W gives (reduced-rank regression,
Izenman 1975, section 2); with C = I it is the truncated singular value decomposition (Eckart and
Young 1936).
"""

from __future__ import annotations

import numpy as np

from actcc.graph import Array

# A decomposition takes minutes beyond that.
MOST_DIRECTIONS = 4096


def factors(weights: Array, rank: int, moments: Array | None = None) -> tuple[Array, Array]:
    """W₁ [columns, rank] and W₂ [rank, outputs], float64.

    Args:
        weights: W [columns, outputs], float64.
        moments: C [columns, columns], positive definite; None for the identity.

    Returns:
        Both, one of them of unit vectors, so that the other is as large as the weights are. They
        do not depend on the number of threads.
    """
    from threadpoolctl import threadpool_limits

    # How sums are split among threads changes their last bits.
    with threadpool_limits(1, user_api="blas"):
        return _factors(weights, rank, moments)


def _factors(weights: Array, rank: int, moments: Array | None) -> tuple[Array, Array]:
    columns, outputs = weights.shape
    if outputs <= columns:
        weighted = weights if moments is None else moments @ weights
        directions = _largest(weights.T @ weighted, rank)
        return weights @ directions, directions.T
    if moments is None:
        directions = _largest(weights @ weights.T, rank)
        return directions, directions.T @ weights
    root = np.linalg.cholesky(moments)
    seen = root.T @ weights
    directions = _largest(seen @ seen.T, rank)
    into = np.linalg.solve(root.T, directions)
    sizes = np.linalg.norm(into, axis=0)
    return into / sizes, (directions.T @ seen) * sizes[:, None]


def _largest(symmetric: Array, count: int) -> Array:
    """Eigenvectors of the largest eigenvalues, as columns."""
    vectors: Array = np.linalg.eigh(symmetric)[1]
    return vectors[:, ::-1][:, :count]
