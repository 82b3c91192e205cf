"""Numbers and bias of one layer in int8, from what it reads there and what it gives in float.

With rows X' (what the layer reads in the network in int8), Z (what it gives in floating point) and
g, which cuts off what the next kernel does not read,

    W  = the float weights W₀, or the ridge fit  argmin ‖X'W + b − Z‖²/n + λ·Σ_c d_c·‖W_c − W₀_c‖²
         (d: the diagonal of X'ᵀX'/n, and its mean m: d_c = √(m·m_c)), whichever misses least of
         g(Z) on samples that it was not fitted to
    Q  = W in steps, each rounded with a view to the others (`actcc.quantization.rounding`)
    b  = such that  mean g(X'·sQ + b) = mean g(Z)

The last is bias correction (Nagel et al. 2019, "Data-free quantization through weight equalization
and bias correction", section 4.2), behind the cut: in front of it a mean is mostly made of values
that nothing reads. A shift counts less the more it differs between samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actcc.graph import Array
from actcc.quantization.distribution import Range
from actcc.quantization.rounding import round_weights

_STRENGTH = 1.0
_LEAST_SHARE = 1e-3
_SMALLEST = 1e-12
_SHIFTS = 4
_LEAST_ACTIVE = 0.1


@dataclass(frozen=True)
class FitSteps:
    """Which steps are taken; all of them, unless one measures what each adds.

    Attributes:
        refit: the ridge fit is tried.
        together: weights are rounded with a view to each other, not each to the nearest number.
        bias: is corrected.
    """

    refit: bool = True
    together: bool = True
    bias: bool = True


ALL_STEPS = FitSteps()


@dataclass(frozen=True, eq=False)
class Rows:
    """What a layer reads and is to give at some positions of one sample, float32.

    Attributes:
        inputs: [groups, rows, columns].
        wanted: [groups, rows, outputs].
    """

    inputs: Array
    wanted: Array

    @property
    def is_finite(self) -> bool:
        """Whether all values and the sums of their squares are."""
        with np.errstate(over="ignore", invalid="ignore"):
            squares = [np.vdot(values, values) for values in (self.inputs, self.wanted)]
        return bool(np.isfinite(squares).all())


@dataclass(frozen=True, eq=False)
class Rounding:
    """What a layer's weights and steps are.

    Attributes:
        matrix: float weights [groups, columns, outputs].
        offset: float bias [groups, outputs]; None where the layer in int8 has none.
        steps: of the weights, [groups, outputs].
        highest: of the numbers.
        keeps: what is cut off outside of it.
    """

    matrix: Array
    offset: Array | None
    steps: Array
    highest: int
    keeps: Range


def fit_rounded(
    problem: Rounding, samples: Sequence[Rows], steps: FitSteps = ALL_STEPS
) -> tuple[Array, Array | None]:
    """Whole numbers [groups, columns, outputs], and the bias [groups, outputs].

    Args:
        samples: of the calibration, each with at least one row.
        steps: which are taken.
    """
    half = (len(samples) + 1) // 2
    centred = problem.offset is not None
    pivot = np.stack([rows.inputs.mean(axis=1) for rows in samples]).mean(axis=0)
    parts = [_Sums.of(part, pivot, centred) for part in (samples[:half], samples[half:]) if part]
    whole = parts[0] if len(parts) < 2 else parts[0].plus(parts[1])
    weights = problem.matrix
    if len(parts) > 1 and steps.refit:
        fitted = parts[0].solve(weights)
        missed = [_missed(problem, w, samples[:half], samples[half:]) for w in (weights, fitted)]
        if missed[1] < missed[0]:
            weights = whole.solve(weights)
    if steps.together:
        numbers = round_weights(whole.gram, weights, problem.steps, problem.highest)
    else:
        nearest = np.round(weights / problem.steps[:, None])
        numbers = np.clip(nearest, -problem.highest, problem.highest)
    if problem.offset is None or not steps.bias:
        return numbers, problem.offset
    return numbers, _bias(problem, numbers * problem.steps[:, None], samples)


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums over rows, of which the mean is taken where a bias makes up for it."""

    count: int
    squares: Array
    cross: Array
    inputs: Array
    wanted: Array
    centred: bool

    @classmethod
    def of(cls, samples: Sequence[Rows], pivot: Array, centred: bool) -> _Sums:
        """Of all rows, less a pivot that keeps the squares small."""
        count, sums = 0, [np.zeros(())] * 4
        for rows in samples:
            inputs = rows.inputs - pivot[:, None] if centred else rows.inputs
            turned = inputs.transpose(0, 2, 1)
            added = (
                np.matmul(turned, inputs),
                np.matmul(turned, rows.wanted),
                inputs.sum(axis=1, dtype=np.float64),
                rows.wanted.sum(axis=1, dtype=np.float64),
            )
            sums = [total + part for total, part in zip(sums, added, strict=True)]
            count += inputs.shape[1]
        squares, cross, of_inputs, of_wanted = (np.asarray(s, np.float64) for s in sums)
        return cls(count, squares, cross, of_inputs, of_wanted, centred)

    def plus(self, other: _Sums) -> _Sums:
        return _Sums(
            self.count + other.count,
            self.squares + other.squares,
            self.cross + other.cross,
            self.inputs + other.inputs,
            self.wanted + other.wanted,
            self.centred,
        )

    @property
    def gram(self) -> Array:
        """[groups, columns, columns]"""
        return self._free_of_mean(self.squares, self.inputs)

    def solve(self, anchor: Array) -> Array:
        """The ridge fit, [groups, columns, outputs]."""
        gram = self.gram
        diagonal = np.maximum(np.diagonal(gram, axis1=1, axis2=2), 0)
        mean = np.maximum(diagonal.mean(axis=1, keepdims=True), _SMALLEST)
        ridge = _STRENGTH * np.maximum(np.sqrt(mean * diagonal), _LEAST_SHARE * mean)
        left = gram + ridge[:, :, None] * np.eye(gram.shape[1])
        right = self._free_of_mean(self.cross, self.wanted) - np.matmul(gram, anchor)
        solved: Array = anchor + np.linalg.solve(left, right)
        return solved

    def _free_of_mean(self, products: Array, sums: Array) -> Array:
        result = products / self.count
        if self.centred:
            result = result - (self.inputs / self.count)[:, :, None] * (sums / self.count)[:, None]
        return result


def _missed(
    problem: Rounding, weights: Array, seen: Sequence[Rows], held_out: Sequence[Rows]
) -> float:
    """Of what is read behind the cut, on samples that weights and bias were not fitted to."""
    bias = 0.0 if problem.offset is None else _bias(problem, weights, seen)[:, None]
    low, high = problem.keeps
    total = 0.0
    for rows in held_out:
        given = np.matmul(rows.inputs, weights.astype(np.float32)) + np.float32(bias)
        off = np.clip(given, low, high) - np.clip(rows.wanted, low, high)
        total += float(np.square(off, dtype=np.float64).sum())
    return total


def _bias(problem: Rounding, weights: Array, samples: Sequence[Rows]) -> Array:
    """With which means behind the cut agree, by Newton's method, [groups, outputs]."""
    assert problem.offset is not None
    low, high = problem.keeps
    bias = start = problem.offset
    products = [np.matmul(rows.inputs, weights.astype(np.float32)) for rows in samples]
    wanted = [np.clip(rows.wanted, low, high).mean(axis=1, dtype=np.float64) for rows in samples]
    shifts = np.zeros((len(samples), *start.shape))
    for _ in range(_SHIFTS):
        active = np.zeros(start.shape)
        for index, product in enumerate(products):
            given = product + bias[:, None].astype(np.float32)
            shifts[index] = wanted[index] - np.clip(given, low, high).mean(axis=1, dtype=np.float64)
            active += ((given > low) & (given < high)).mean(axis=1) / len(samples)
        shifts /= np.maximum(active, _LEAST_ACTIVE)
        bias = bias + shifts.mean(axis=0)
    moved = bias - start
    noise = shifts.var(axis=0) / max(len(samples) - 1, 1)
    result: Array = start + moved * (moved**2 / (moved**2 + noise + _SMALLEST**2))
    return result
