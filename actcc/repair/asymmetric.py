"""Step 2 where an activation stands behind the layer: fit what comes out of it.

With wanted outputs t and present pre-activations p = X·W + b, for each channel

    c  = mean( t − g(p) )                                  the offset, where it is free
    z* = argmin ( g(z) − (t − c) )² + ρ·( z − p )²         element by element
    W, b = ridge fit of the layer to z*, with the anchor that it always has

in turn, each step prolonged by a share of the one before it (Zhang et al. 2016, section 3.2,
asymmetric non-linear reconstruction). All channels share one inverted Gram matrix, so a round costs
two products with the rows. For ReLU z* is known: its two branches, z ≥ 0 and z < 0, have a minimum
each, and the smaller is taken. For other functions one Newton step from p is tried, and the step as
though g were the identity, which leads out of where g is flat. Each output keeps the round in which
it was best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actcc.activations import Activation
from actcc.graph import Array
from actcc.repair.ridge import NormalEquations

PENALTY = 0.3
_MOMENTUM = 0.6
_DIFFERENCE = 1e-3


def asymmetric_fit(
    equations: NormalEquations,
    after: Activation,
    wanted: Array,
    added: Array | float,
    start: tuple[Array, Array],
    anchor: Array,
    *,
    rounds: int,
    offset_is_free: bool,
) -> tuple[Array, Array]:
    """Weights and bias whose activations come closest to the wanted ones.

    Args:
        wanted: t [groups, rows, outputs].
        added: what is added to the layer's outputs before the activation.
        start: weights [groups, columns, outputs] and bias [groups, outputs].
        anchor: weights that the ridge holds on to.
    """
    pull = _relu_target if after.name == "Relu" else _general_target
    weights, bias = start
    best_weights, best_bias = start
    best = np.full(bias.shape, np.inf)
    before = start
    offset = _offset(equations, after, wanted, added, start) * offset_is_free
    for turn in range(rounds + 1):
        sums = _Sums.empty(weights)
        last = turn == rounds
        for block in equations.blocks:
            ahead = added if isinstance(added, float) else added[:, block]
            present = equations.outputs(weights, bias, block) + ahead
            off = wanted[:, block] - after(present)
            sums.count(off)
            if not last:
                target = pull(after, present, wanted[:, block] - offset[:, None]) - ahead
                sums.cross += equations.cross(target, block)
                sums.target += target.sum(axis=1, dtype=np.float64)
        mean = sums.off / equations.count * offset_is_free
        error = sums.square / equations.count - mean**2
        better = error < best
        best = np.where(better, error, best)
        best_weights = np.where(better[:, None], weights, best_weights)
        best_bias = np.where(better, bias, best_bias)
        if not last:
            solved = equations.solve_sums(sums.cross, sums.target, anchor)
            prolonged = [
                new + _MOMENTUM * (new - old) for new, old in zip(solved, before, strict=True)
            ]
            before, (weights, bias) = solved, prolonged
            offset = mean.astype(np.float32)
    return best_weights, best_bias


@dataclass
class _Sums:
    """Sums over rows: of what is missed, its square, the targets, and columns times targets."""

    off: Array
    square: Array
    target: Array
    cross: Array

    @classmethod
    def empty(cls, weights: Array) -> _Sums:
        groups, _, outputs = weights.shape
        off, square, target = np.zeros((3, groups, outputs))
        return cls(off, square, target, np.zeros(weights.shape))

    def count(self, off: Array) -> None:
        self.off += off.sum(axis=1, dtype=np.float64)
        self.square += np.einsum("gno,gno->go", off, off, dtype=np.float64)


def _offset(
    equations: NormalEquations,
    after: Activation,
    wanted: Array,
    added: Array | float,
    start: tuple[Array, Array],
) -> Array:
    """What activations are off by at the start, on the first rows: float32 [groups, outputs]."""
    block = equations.blocks[0]
    ahead = added if isinstance(added, float) else added[:, block]
    off = wanted[:, block] - after(equations.outputs(*start, block) + ahead)
    return np.asarray(off.mean(axis=1))


def _relu_target(after: Activation, present: Array, wanted: Array) -> Array:
    """argmin (max(z, 0) − t)² + ρ·(z − p)²."""
    above = np.maximum((wanted + PENALTY * present) / (1 + PENALTY), 0)
    below = np.minimum(present, 0)
    cost_above = (above - wanted) ** 2 + PENALTY * (above - present) ** 2
    cost_below = wanted**2 + PENALTY * (below - present) ** 2
    return np.where(cost_above < cost_below, above, below)


def _general_target(after: Activation, present: Array, wanted: Array) -> Array:
    """The best of p itself, a Newton step, and the step as though g were the identity."""
    values = after(present)
    slope = (after(present + _DIFFERENCE) - after(present - _DIFFERENCE)) / (2 * _DIFFERENCE)
    best, cost = present, (values - wanted) ** 2
    newton = present + slope * (wanted - values) / (slope * slope + PENALTY)
    identity = (wanted + PENALTY * present) / (1 + PENALTY)
    for place in (newton, identity):
        found = (after(place) - wanted) ** 2 + PENALTY * (place - present) ** 2
        best, cost = np.where(found < cost, place, best), np.minimum(found, cost)
    return best
