"""Step 2, ridge reconstruction: a layer re-fitted to give wanted outputs.

With rows X (what the layer reads in the rewritten network) and targets Y, both centred,

    W = argmin ‖X·W − Y‖² / n + λ·Σ_c √(m·m_c)·‖W_c − W₀_c‖²,     b = mean(Y) − mean(X)·W

where m_c is the diagonal of XᵀX / n, m its mean, and W₀ the anchor (layer-wise calibration: Hubara
et al. 2021, section 3.1; the bias alone: Nagel et al. 2019, section 4.2). Each group of a grouped
layer is a system of its own, so a depthwise layer has many small ones. A column that is constant
keeps the anchor's weight: its penalty is never zero. A strong λ matters: a few dozen images have
few independent rows in the deep layers, and what is fitted to them alone is lost on others.

The anchor are the original weights, times a factor for each input channel: the slope of the
regression of what the channel was in the original network on what it is now. With it a layer whose
inputs have been scaled starts from where it was.
"""

from __future__ import annotations

import numpy as np

from actcc.graph import Array

_SMALLEST = 1e-12
_LEAST_SHARE = 1e-3
_LARGEST_SLOPE = 10.0
# Of a mean's square: less variance than that is what rounding makes of a constant.
_ROUNDING = 1e-10
_BLOCK_BYTES = 512 << 10
_LEAST_BLOCK = 256


class NormalEquations:
    """XᵀX of rows, inverted once for all right-hand sides.

    Sums over rows are made in blocks that fit the processor's cache, each in float32 and together
    in float64. Rows are held free of their mean: of a column that hardly varies around a large one
    the square of the mean would leave no digit of its variance.

    Args:
        rows: [groups, rows, columns], float32.
        strength: λ.

    Attributes:
        count: number of rows.
        blocks: of rows.
    """

    def __init__(self, rows: Array, strength: float) -> None:
        self.count = rows.shape[1]
        self._mean = rows.mean(axis=1, dtype=np.float64)
        self._pivot = self._mean.astype(np.float32)
        self._rows = rows - self._pivot[:, None]
        self._rest = self._mean - self._pivot
        step = max(_BLOCK_BYTES // (4 * rows.shape[0] * rows.shape[2]), _LEAST_BLOCK)
        self.blocks = [slice(at, at + step) for at in range(0, self.count, step)]
        columns = rows.shape[2]
        gram = np.zeros((rows.shape[0], columns, columns))
        for block in self.blocks:
            gram += self.cross(self._rows[:, block], block)
        self._gram = gram / self.count - self._rest[:, :, None] * self._rest[:, None, :]
        diagonal = np.maximum(np.diagonal(self._gram, axis1=1, axis2=2), 0)
        mean = np.maximum(diagonal.mean(axis=1, keepdims=True), _SMALLEST)
        ridge = strength * np.maximum(np.sqrt(mean * diagonal), _LEAST_SHARE * mean)
        self._inverse = np.linalg.inv(self._gram + ridge[:, :, None] * np.eye(columns))

    def solve(self, targets: Array, anchor: Array) -> tuple[Array, Array]:
        """Weights [groups, columns, outputs] near the anchor, and bias [groups, outputs].

        Args:
            targets: [groups, rows, outputs].
        """
        cross = np.zeros(anchor.shape)
        for block in self.blocks:
            cross += self.cross(targets[:, block], block)
        return self.solve_sums(cross, targets.sum(axis=1, dtype=np.float64), anchor)

    def solve_sums(self, cross: Array, targets: Array, anchor: Array) -> tuple[Array, Array]:
        """The same from sums over rows: of `cross`, and of the targets [groups, outputs]."""
        mean = targets / self.count
        centred = cross / self.count - self._rest[:, :, None] * mean[:, None, :]
        weights = anchor + np.matmul(self._inverse, centred - np.matmul(self._gram, anchor))
        return weights, mean - np.einsum("gc,gco->go", self._mean, weights)

    def cross(self, values: Array, block: slice) -> Array:
        """Columns, free of their mean, times values of a block of rows.

        Returns:
            float32 [groups, columns, outputs].
        """
        return np.asarray(np.matmul(self._rows[:, block].transpose(0, 2, 1), values))

    def outputs(self, weights: Array, bias: Array, block: slice = slice(None)) -> Array:
        """What the layer gives for rows: float32 [groups, rows, outputs]."""
        given = np.matmul(self._rows[:, block], weights.astype(np.float32))
        offset = bias + np.einsum("gc,gco->go", self._pivot, weights)
        given += offset.astype(np.float32)[:, None]
        return np.asarray(given)


def input_slopes(rows: Array, original: Array, taps: int) -> Array:
    """Slope of the regression of what each input was on what it is: [groups, columns].

    Args:
        rows, original: [groups, rows, columns] of the rewritten and the original network.
        taps: columns of one input channel, which share one slope.
    """
    shape = (rows.shape[0], -1, taps)
    mean = rows.mean(axis=1, dtype=np.float64)
    original_mean = original.mean(axis=1, dtype=np.float64)
    count = rows.shape[1]
    products = np.einsum("gnc,gnc->gc", rows, original, dtype=np.float64)
    squares = np.einsum("gnc,gnc->gc", rows, rows, dtype=np.float64)
    covariance, variance = products / count - mean * original_mean, squares / count - mean**2
    together = variance.reshape(shape).sum(axis=2)
    known = together > _SMALLEST + _ROUNDING * (mean**2).reshape(shape).sum(axis=2)
    slopes = covariance.reshape(shape).sum(axis=2) / np.where(known, together, 1.0)
    slopes = np.clip(np.where(known, slopes, 1.0), -_LARGEST_SLOPE, _LARGEST_SLOPE)
    return np.repeat(slopes, taps, axis=1).astype(np.float64)


def output_slopes(given: Array, wanted: Array) -> Array:
    """Slope of the regression of what each output is to be on what it is: [groups, 1, outputs].

    Args:
        given, wanted: [groups, rows, outputs].
    """
    centred = given - given.mean(axis=1, keepdims=True)
    variance = np.square(centred, dtype=np.float64).mean(axis=1)
    covariance = np.einsum("gno,gno->go", centred, wanted, dtype=np.float64) / given.shape[1]
    known = variance > _SMALLEST + _ROUNDING * given.mean(axis=1, dtype=np.float64) ** 2
    slopes = np.where(known, covariance / np.where(known, variance, 1.0), 1.0)
    return np.clip(slopes, -_LARGEST_SLOPE, _LARGEST_SLOPE)[:, None].astype(np.float64)
