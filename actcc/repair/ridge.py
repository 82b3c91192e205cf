"""Step 2, ridge reconstruction: a layer re-fitted to give wanted outputs.

With rows X (what the layer reads in the rewritten network) and targets Y, both centred,

    W = argmin ‖X·W − Y‖² / n + λ·m·‖W − W₀‖²,     b = mean(Y) − mean(X)·W

where m is the mean diagonal of XᵀX / n and W₀ where the fit starts from (layer-wise calibration:
Hubara et al. 2021, section 3.1; the bias alone: Nagel et al. 2019, section 4.2). Each group of a
grouped layer is a system of its own, so a depthwise layer has many small ones. A column that is
constant, or a multiple of another, keeps the weight it starts from: λ·m is never zero.

W₀ are the original weights, times a factor for each input channel: the slope of the regression of
what the channel was in the original network on what it is now. With it a layer whose inputs have
been scaled starts from where it was.
"""

from __future__ import annotations

import numpy as np

from actcc.graph import Array

_SMALLEST = 1e-12
_LARGEST_SLOPE = 10.0


class NormalEquations:
    """XᵀX of rows, inverted once for all right-hand sides.

    Args:
        rows: [groups, rows, columns], float32.
        strength: λ.
    """

    def __init__(self, rows: Array, strength: float) -> None:
        self._rows, self._count = rows, rows.shape[1]
        self._transposed = rows.transpose(0, 2, 1)
        self._mean = rows.mean(axis=1, dtype=np.float64)
        gram = np.matmul(self._transposed, rows).astype(np.float64) / self._count
        self._gram = gram - self._mean[:, :, None] * self._mean[:, None, :]
        columns = self._gram.shape[1]
        ridge = strength * np.trace(self._gram, axis1=1, axis2=2) / columns
        ridge = np.maximum(ridge, _SMALLEST)[:, None, None]
        self._inverse = np.linalg.inv(self._gram + ridge * np.eye(columns))

    def solve(self, targets: Array, start: Array) -> tuple[Array, Array]:
        """Weights [groups, columns, outputs] near `start`, and bias [groups, outputs].

        Args:
            targets: [groups, rows, outputs].
        """
        mean = targets.mean(axis=1, dtype=np.float64)
        cross = np.matmul(self._transposed, targets).astype(np.float64) / self._count
        cross -= self._mean[:, :, None] * mean[:, None, :]
        weights = start + np.matmul(self._inverse, cross - np.matmul(self._gram, start))
        return weights, mean - np.einsum("gc,gco->go", self._mean, weights)

    def outputs(self, weights: Array, bias: Array) -> Array:
        """What the layer gives for the rows: float32 [groups, rows, outputs]."""
        given = np.matmul(self._rows, weights.astype(np.float32))
        return np.asarray(given + bias.astype(np.float32)[:, None])


def input_slopes(rows: Array, original: Array, taps: int) -> Array:
    """Slope of the regression of what each input was on what it is: [groups, columns].

    Args:
        rows, original: [groups, rows, columns] of the rewritten and the original network.
        taps: columns of one input channel, which share one slope.
    """
    shape = (rows.shape[0], -1, taps)
    mean, original_mean = rows.mean(axis=1), original.mean(axis=1)
    covariance = np.einsum("gnc,gnc->gc", rows, original) / rows.shape[1] - mean * original_mean
    variance = np.einsum("gnc,gnc->gc", rows, rows) / rows.shape[1] - mean**2
    together = variance.reshape(shape).sum(axis=2)
    known = together > _SMALLEST + 1e-6 * (mean**2).reshape(shape).sum(axis=2)
    slopes = covariance.reshape(shape).sum(axis=2) / np.where(known, together, 1.0)
    slopes = np.clip(np.where(known, slopes, 1.0), -_LARGEST_SLOPE, _LARGEST_SLOPE)
    return np.repeat(slopes, taps, axis=1).astype(np.float64)
