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
    """
    columns, outputs = weights.shape
    root = None if moments is None else np.linalg.cholesky(moments)
    seen = weights if root is None else root.T @ weights
    if outputs <= columns:
        directions = _largest(seen.T @ seen, rank)
        return weights @ directions, directions.T
    directions = _largest(seen @ seen.T, rank)
    into = directions if root is None else np.linalg.solve(root.T, directions)
    return into, directions.T @ seen


def _largest(symmetric: Array, count: int) -> Array:
    """Eigenvectors of the largest eigenvalues, as columns."""
    vectors: Array = np.linalg.eigh(symmetric)[1]
    return vectors[:, ::-1][:, :count]
