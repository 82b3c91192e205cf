"""How the values of a tensor are distributed, and the int8 range that loses the least of them.

A range that takes in every value leaves few steps for the most of them where a few lie far out. The
range of least error weighs what is cut off against what is rounded (Banner et al. 2019, "Post
training 4-bit quantization of convolutional networks", section 2; here from the distribution itself
and at 8 bits). Where one activation alone reads the tensor, the error is the one behind it, so that
what the activation cuts off or flattens takes no steps:

    error = Σ_{v outside} (f(bound) − f(v))² + step²/12 · Σ_{v inside, v ≠ 0} f′(v)²
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from actcc.graph import Array

Range = tuple[float, float]

# Of a float32, these bits say sign, exponent and the first five digits behind the point: bins of
# about 3 % of their value, whatever the values are.
_DROPPED_BITS = 18
_BINS = 1 << (32 - _DROPPED_BITS)
_SHARES = np.concatenate([2.0 ** (-np.arange(56) / 8), [0.0]])
_RELATIVE_STEP = 0.01
_STEPS = 255


def _bin_centres() -> Array:
    first = np.arange(_BINS, dtype=np.uint32) << np.uint32(_DROPPED_BITS)
    centres: Array = (
        (first + np.uint32(1 << (_DROPPED_BITS - 1))).view(np.float32).astype(np.float64)
    )
    centres[[0, _BINS // 2]] = 0.0
    return centres


@dataclass
class Distribution:
    """How often values were seen; of float32 precision."""

    _counts: Array = field(default_factory=lambda: np.zeros(_BINS))
    _low: float = np.inf
    _high: float = -np.inf

    def add(self, values: Array, weights: Array | None = None) -> None:
        """Count finite values, each by its weight, which is broadcast; None for 1."""
        bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32)
        counted = None if weights is None else np.broadcast_to(weights, values.shape).reshape(-1)
        self._counts += np.bincount(bits >> np.uint32(_DROPPED_BITS), counted, _BINS)
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))

    def through(self, function: Callable[[Array], Array]) -> Distribution:
        """How the values of a function of these values are distributed."""
        used = np.flatnonzero(self._counts)
        found = Distribution()
        with np.errstate(invalid="ignore"):
            values = np.clip(_bin_centres()[used], self._low, self._high)
        ends = np.array(self.extremes)
        found.add(function(np.concatenate([values, ends])), np.append(self._counts[used], [0, 0]))
        return found

    @property
    def extremes(self) -> Range:
        """The least and the greatest value."""
        return self._low, self._high

    def best_range(self, function: Callable[[Array], Array] | None = None) -> Range:
        """The range of least error, 0 included.

        Args:
            function: what alone reads the values; None where the values themselves count.
        """
        read = function or (lambda values: values)
        used = np.flatnonzero(self._counts)
        with np.errstate(invalid="ignore"):
            values = np.clip(_bin_centres()[used], self._low, self._high)
        counts = self._counts[used]
        step = np.maximum(np.abs(values), 1e-6) * _RELATIVE_STEP
        slopes = (read(values + step) - read(values - step)) / (2 * step)
        rounded = np.where(values == 0, 0.0, counts * slopes**2)
        lows, highs = min(self._low, 0.0) * _SHARES, max(self._high, 0.0) * _SHARES
        below = values[None] < lows[:, None]
        above = values[None] > highs[:, None]
        seen = read(values)
        cut_low = (below * counts * (read(lows)[:, None] - seen) ** 2).sum(axis=1)
        cut_high = (above * counts * (read(highs)[:, None] - seen) ** 2).sum(axis=1)
        inside = rounded.sum() - (below @ rounded)[:, None] - (above @ rounded)[None]
        steps = (highs[None] - lows[:, None]) / _STEPS
        error = cut_low[:, None] + cut_high[None] + steps**2 / 12 * inside
        low, high = np.unravel_index(np.argmin(error), error.shape)
        return float(lows[low]), float(highs[high])
