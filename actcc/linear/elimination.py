"""Which inner units of a block can go: backward elimination by optimal brain surgery.

A layer with the weights W gives H·W for the units H that it reads. Without unit j, and with what
the other units give re-fitted, the least that is lost is

    ‖W[j, :]‖² / (C⁻¹)[j, j],       C = cov(H) + λ·mean(diag cov(H))

after which W and C⁻¹ are those of the units that are left (Hassibi and Stork 1993, section 3, with
the squared error of a layer's output as the loss, as in Frantar and Alistarh 2022, section 4). The
unit of the least loss goes, again and again, so that one order serves all widths: a unit that
others can stand for goes early, however large its weights are (He et al. 2017 select channels by
the same error, one width at a time).
"""

from __future__ import annotations

import numpy as np

from actcc.graph import Array

_RIDGE = 1e-3
# Steps between two updates of whole matrices; within, only a column of each is computed.
_STEPS = 32


def elimination_order(covariance: Array, outgoing: Array, least: int) -> Array:
    """Numbers of the units; from the end, those that go first.

    Args:
        covariance: of the units, float64 [units, units].
        outgoing: weights of what reads them, [units, anything].
        least: units that always stay, which come first in no order of their own.

    Returns:
        [units]; it does not depend on the number of threads.
    """
    from threadpoolctl import threadpool_limits

    # How sums are split among threads changes their last bits, and so which of two equals goes.
    with threadpool_limits(1, user_api="blas"):
        return _order(covariance, outgoing, least)


def _order(covariance: Array, outgoing: Array, least: int) -> Array:
    ridge = _RIDGE * float(covariance.diagonal().mean()) or 1.0
    inverse = np.linalg.inv(covariance + ridge * np.eye(len(covariance)))
    # The losses depend on products of rows alone.
    wide = outgoing.shape[1] > len(outgoing)
    weights = _in_fewer_columns(outgoing) if wide else outgoing.astype(np.float64)
    left = np.arange(len(covariance))
    gone: list[int] = []
    while len(left) > least:
        chosen, inverse, weights = _eliminate(inverse, weights, min(_STEPS, len(left) - least))
        gone += [int(unit) for unit in left[chosen]]
        staying = np.ones(len(left), bool)
        staying[chosen] = False
        left, weights = left[staying], weights[staying]
        inverse = inverse[np.ix_(staying, staying)]
    return np.array([*left, *reversed(gone)], np.int64)


def _in_fewer_columns(rows: Array) -> Array:
    """As many columns as rows, with the same products of rows: R of Rᵀ·Qᵀ."""
    found: Array = np.linalg.qr(rows.T)[1].T
    return found


def _eliminate(inverse: Array, weights: Array, steps: int) -> tuple[list[int], Array, Array]:
    """Some units to go, in order, and both matrices without what those contributed."""
    units = len(inverse)
    columns, factors = np.zeros((units, steps)), np.zeros((units, steps))
    rows = np.zeros((steps, weights.shape[1]))
    diagonal = inverse.diagonal().copy()
    energy = np.einsum("ij,ij->i", weights, weights)
    chosen: list[int] = []
    for step in range(steps):
        with np.errstate(divide="ignore", invalid="ignore"):
            losses = np.maximum(energy, 0.0) / np.maximum(diagonal, np.finfo(np.float64).tiny)
        losses[chosen] = np.inf
        unit = int(np.argmin(losses))
        column = inverse[:, unit] - columns[:, :step] @ columns[unit, :step]
        row = weights[unit] - factors[unit, :step] @ rows[:step]
        factor = column / column[unit]
        products = weights @ row - factors[:, :step] @ (rows[:step] @ row)
        energy += factor * (factor * float(row @ row) - 2 * products)
        diagonal -= column * factor
        columns[:, step] = column / np.sqrt(column[unit])
        factors[:, step], rows[step] = factor, row
        chosen.append(unit)
    return chosen, inverse - columns @ columns.T, weights - factors @ rows
