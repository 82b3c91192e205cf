"""Which way each weight of a layer is rounded: by what the layer's inputs make of the errors.

A weight that is rounded up and one that is rounded down make up for each other where their inputs
go together. With rows X (what the layer reads), H = XᵀX and wanted weights W, columns are rounded
one after the other, and what each one's error does to the output is taken back, as far as it can
be, by those that follow (Frantar et al. 2023, "GPTQ: accurate post-training quantization for
generative pre-trained transformers", section 3; here columns of most energy first, and every group
of a grouped layer by its own H):

    Q_c = round(W_c / s),    W_j ← W_j − (W_c − s·Q_c) · U_cj / U_cc   for j after c,    UᵀU = H⁻¹
"""

from __future__ import annotations

import numpy as np

from actcc.graph import Array

_DAMPING = 0.01
_SMALLEST = 1e-12
_COLUMNS_A_BLOCK = 64


def round_weights(
    gram: Array, weights: Array, steps: Array, highest: int, damping: float = _DAMPING
) -> Array:
    """Weights as whole numbers, float64 [groups, columns, outputs].

    Args:
        gram: XᵀX of each group, [groups, columns, columns].
        weights: that are wanted, [groups, columns, outputs].
        steps: of each output, [groups, outputs]: weight = step · number.
        highest: numbers lie between this and its negative.
        damping: of the Gram matrix, in parts of its mean diagonal.
    """
    columns = gram.shape[1]
    diagonal = np.maximum(np.diagonal(gram, axis1=1, axis2=2), 0)
    order = np.argsort(-diagonal, axis=1, kind="stable")
    back = np.argsort(order, axis=1, kind="stable")
    damped = damping * diagonal.mean(axis=1) + _SMALLEST
    sorted_gram = np.take_along_axis(gram, order[:, :, None], axis=1)
    sorted_gram = np.take_along_axis(sorted_gram, order[:, None, :], axis=2)
    inverse = np.linalg.inv(sorted_gram + damped[:, None, None] * np.eye(columns))
    upper = np.linalg.cholesky(inverse).transpose(0, 2, 1)
    left = np.take_along_axis(weights, order[:, :, None], axis=1) / steps[:, None]
    found = np.empty_like(left)
    for start in range(0, columns, _COLUMNS_A_BLOCK):
        stop = min(start + _COLUMNS_A_BLOCK, columns)
        errors = np.empty((len(left), stop - start, left.shape[2]))
        for column in range(start, stop):
            found[:, column] = np.clip(np.round(left[:, column]), -highest, highest)
            error = (left[:, column] - found[:, column]) / upper[:, column, column, None]
            rest = upper[:, column, column:stop]
            left[:, column:stop] -= rest[:, :, None] * error[:, None]
            errors[:, column - start] = error
        left[:, stop:] -= upper[:, start:stop, stop:].transpose(0, 2, 1) @ errors
    return np.take_along_axis(found, back[:, :, None], axis=1)
