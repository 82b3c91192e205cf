"""Step 1, affine fit: let a new activation track the old one before anything else is fitted.

For each channel, over quantiles z of its own pre-activation in the original network with their
masses as weights,

    (a, b, α) = argmin  Var( f(z) − α·g(a·z + b) ) + κ·Mean( f(z) − α·g(a·z + b) )²

a and b are folded into the layer that produces z: W ← a·W, bias ← a·bias + b. The factor α and the
constant that the outputs are off by are absorbed by the layers that read the activation, when they
are fitted in their turn (Nagel et al. 2019, section 4.1, scale between layers like this). Where
nothing absorbs them, α = 1 and κ = 1.

κ is not zero where something does: at the border of a padded convolution the padding stays zero
while the activation is off by a constant, which no bias makes good. For ReLU, whose values are
never below zero, an offset is worth more than that costs, and κ is zero.

a is found on a grid that puts the knee of g at quantiles of z, beyond both ends of them (where g
is nearly linear) and at zero, then refined around the best point; negative a let a rising function
follow a falling one. α follows from a and b by regression.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actcc.activations import Activation
from actcc.graph import Array

# Quantiles lie closer towards the ends: what is rare and large decides most outputs.
_QUANTILES = 48
_TAILS = 4.5
_KNEES_EVERY = 12
_BEYOND = (0.5, 1.5, 4.0)
_SCALES = (0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0, -0.5, -1.0)
_SCALES_WITHOUT_GAIN = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.85, 1.0, 1.15, -0.1, -0.3)
_REFINEMENTS = 2
_FIRST_STEP = 0.12
_STEP_SHRINKS = 3.0
_STEPS = (-1.0, -0.5, 0.0, 0.5, 1.0)
_GAINS = (0.1, 10.0)
_OFFSET_COST = 0.02


@dataclass(frozen=True)
class AffineFit:
    """Scale a, shift b and gain α of each channel, float32 [channels]."""

    scale: Array
    shift: Array
    gain: Array


def affine_fit(
    before: Activation,
    after: Activation,
    pre_activation: Array,
    *,
    gain_is_free: bool,
    offset_is_free: bool,
) -> AffineFit:
    """How `after` tracks `before` best on each channel.

    Args:
        pre_activation: [rows, channels], finite, of the original network.
        gain_is_free: whether α may differ from 1.
        offset_is_free: whether κ may be below 1.
    """
    cost = 0.0 if after.name == "Relu" else _OFFSET_COST
    cost = cost if offset_is_free else 1.0
    search = _Search(before, after, pre_activation, gain_is_free, cost)
    search.coarse(_SCALES if gain_is_free else _SCALES_WITHOUT_GAIN)
    step = _FIRST_STEP
    for _ in range(_REFINEMENTS):
        search.refine(step)
        step /= _STEP_SHRINKS
    return AffineFit(search.scale, search.shift, search.gain)


class _Search:
    """The best point so far of each channel."""

    def __init__(
        self,
        before: Activation,
        after: Activation,
        pre_activation: Array,
        gain_is_free: bool,
        offset_cost: float,
    ) -> None:
        edges = 0.5 * (1 + np.tanh(np.linspace(-_TAILS, _TAILS, _QUANTILES + 1)))
        edges[0], edges[-1] = 0, 1
        self._mass = np.diff(edges).astype(np.float32)
        middles = (edges[1:] + edges[:-1]) / 2
        ordered = np.sort(np.ascontiguousarray(pre_activation.T, np.float32), axis=1)
        self._z = ordered[:, (middles * len(pre_activation)).astype(int)]
        self._after, self._gain_is_free, self._offset_cost = after, gain_is_free, offset_cost
        self._target = before(self._z)
        self._centred = self._target - (self._target @ self._mass)[:, None]
        variance = (self._z**2) @ self._mass - (self._z @ self._mass) ** 2
        self._spread = np.sqrt(np.maximum(variance, 1e-24))
        channels = len(self._z)
        self.scale = np.ones(channels, np.float32)
        self.shift = np.zeros(channels, np.float32)
        self._error, self.gain = self._measure(self.scale, self.shift)

    def coarse(self, scales: tuple[float, ...]) -> None:
        """Try every scale with the knee at every place."""
        steps = np.array(_BEYOND, np.float32)[:, None] * self._spread
        ends = (self._z[:, 0] - steps, self._z[:, -1] + steps, 0 * self._z[:, :1].T)
        knees = np.concatenate([self._z[:, ::_KNEES_EVERY].T, *ends])
        for scale in scales:
            self._try(np.full_like(knees, scale), -scale * knees)

    def refine(self, step: float) -> None:
        """Try points around the best."""
        along = step * np.array(_STEPS, np.float32)[:, None] * self._spread
        scale, shift = self.scale, self.shift
        for across in _STEPS:
            stretched = scale * np.float32(1 + across * step)
            self._try(np.broadcast_to(stretched, along.shape), shift + along)

    def _try(self, scales: Array, shifts: Array) -> None:
        """Take the best of some points [points, channels] where it is better than the best."""
        errors, gains = self._measure(scales, shifts)
        best = np.argmin(np.where(np.isfinite(errors), errors, np.inf), axis=0)[None]
        error, scale, shift, gain = (
            np.take_along_axis(values, best, axis=0)[0]
            for values in (errors, scales, shifts, gains)
        )
        better = error < self._error * (1 - 1e-6)
        self.scale = np.where(better, scale, self.scale).astype(np.float32)
        self.shift = np.where(better, shift, self.shift).astype(np.float32)
        self.gain = np.where(better, gain, self.gain).astype(np.float32)
        self._error = np.where(better, error, self._error)

    def _measure(self, scale: Array, shift: Array) -> tuple[Array, Array]:
        """Error and gain at points [..., channels]."""
        values = self._after(scale[..., None] * self._z + shift[..., None])
        gain = np.ones_like(scale)
        if self._gain_is_free:
            centred = values - (values @ self._mass)[..., None]
            variance = (centred**2) @ self._mass
            slope = ((centred * self._centred) @ self._mass) / np.maximum(variance, 1e-12)
            known = (variance > 1e-12) & np.isfinite(slope)
            gain = np.where(known, np.clip(slope, *_GAINS), 1).astype(np.float32)
        off = self._target - gain[..., None] * values
        mean = off @ self._mass
        return (off**2) @ self._mass - (1 - self._offset_cost) * mean**2, gain
