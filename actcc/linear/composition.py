"""One convolution behind another as a single one.

With z = first(x) and y = second(z), along one spatial axis,

    y[o] = Σ_u Σ_t w₂[u] · w₁[t] · x[s₁·s₂·o + s₁·(u·d₂ − b₂) + t·d₁ − b₁]  +  Σ_u w₂[u] · bias₁ + bias₂

which is a convolution of stride s₁·s₂ with pads (b₁ + s₁·b₂, a₁ + s₁·a₂) whose taps lie gcd(s₁·d₂, d₁)
apart. Groups: those that both have in common, their greatest common divisor; channels between them
are summed over (RepVGG, Ding et al. 2021, section 3.3 and Diverse Branch Block, Ding et al. 2021,
section 3.2 are special cases).

At the border the second convolution sees zeros, where the formula has first(x) continued beyond its
outputs. They agree if (i) bias₁ is zero and (ii) kernels of the first that lie beyond its outputs do
not touch the input any more: always with kernels of one tap, never with the usual padding of k/2.
"""

from __future__ import annotations

import math

import numpy as np

from actcc.graph import Array
from actcc.linear.convolution import Axis, Convolution, Obstacle, Sizes, on_axes, regrouped

_BIAS = "the first layer has a bias and the second pads with zeros, where the bias is missing"
_BORDER = "the second layer pads with zeros where the merged kernels would touch the input"


def composed_axis(first: Axis, second: Axis) -> Axis:
    """How the composition samples one axis."""
    step = math.gcd(
        first.stride * second.dilation if second.kernel > 1 else 0,
        first.dilation if first.kernel > 1 else 0,
    )
    step = step or 1
    return Axis(
        kernel=(first.reach + first.stride * second.reach) // step + 1,
        stride=first.stride * second.stride,
        dilation=step,
        before=first.before + first.stride * second.before,
        after=first.after + first.stride * second.after,
    )


def composed_weights(first: Convolution, second: Convolution) -> int:
    """How many weights the composition has, without computing it."""
    groups = math.gcd(first.groups, second.groups)
    axes = (composed_axis(*pair) for pair in zip(first.axes, second.axes, strict=True))
    taps = math.prod(axis.kernel for axis in axes)
    return first.inputs // groups * second.outputs * taps


def composition_obstacle(first: Convolution, second: Convolution, sizes: Sizes) -> str:
    """Why the two do not compose into one convolution exactly; empty where they do.

    Args:
        sizes: of the first one's input along the spatial axes; None where unknown.
    """
    if first.rank != second.rank or first.outputs != second.inputs:
        return "what the first layer writes is not what the second reads"
    for one, two, size in zip(first.axes, second.axes, sizes, strict=True):
        before, behind = two.before > 0, _reads_behind(one, two, size)
        if (before or behind) and first.bias.any():
            return _BIAS
        if before and one.reach - one.before - one.stride >= 0:
            return _BORDER
        if behind and _touches_behind(one, size):
            return _BORDER
    return ""


def compose(first: Convolution, second: Convolution, sizes: Sizes) -> Convolution | Obstacle:
    """second(first(x)) as one convolution, in double precision.

    Args:
        sizes: of the first one's input along the spatial axes; None where unknown.
    """
    problem = composition_obstacle(first, second, sizes)
    return Obstacle(problem) if problem else composition_inside(first, second)


def composition_inside(first: Convolution, second: Convolution) -> Convolution:
    """second(first(x)) as one convolution that is right away from the border.

    At the border it is exact only where `composition_obstacle` is empty.
    """
    axes = [composed_axis(*pair) for pair in zip(first.axes, second.axes, strict=True)]
    groups = math.gcd(first.groups, second.groups)
    inner, outer = _blocks(first, groups), _blocks(second, groups)
    shape = (*outer.shape[:2], inner.shape[2], *(axis.kernel for axis in axes))
    weights = np.zeros(shape)
    for u in np.ndindex(*second.weights.shape[2:]):
        for t in np.ndindex(*first.weights.shape[2:]):
            place = tuple(
                (at * one.stride * two.dilation + within * one.dilation) // axis.dilation
                for at, within, one, two, axis in zip(
                    u, t, first.axes, second.axes, axes, strict=True
                )
            )
            weights[(..., *place)] += outer[(..., *u)] @ inner[(..., *t)]
    taps = tuple(range(3, outer.ndim))
    between = first.bias.reshape(groups, -1, 1)
    bias = (outer.sum(axis=taps) @ between).reshape(-1) + second.bias
    return on_axes(weights.reshape(second.outputs, -1, *shape[3:]), bias, axes, groups)


def _blocks(convolution: Convolution, groups: int) -> Array:
    """Kernels [groups, outputs / groups, inputs / groups, *kernel]."""
    weights = regrouped(convolution, groups).weights
    return weights.reshape(groups, -1, *weights.shape[1:])


def _reads_behind(first: Axis, second: Axis, size: int | None) -> bool:
    """Whether the second one's last kernel reaches the zeros behind what the first writes."""
    if second.after == 0 or size is None:
        return second.after > 0
    between = first.outputs(size)
    last = (second.outputs(between) - 1) * second.stride - second.before + second.reach
    return last >= between


def _touches_behind(first: Axis, size: int | None) -> bool:
    """Whether the kernel that would follow the first one's last output touches the input."""
    if size is None:
        return first.after < first.reach
    return first.outputs(size) * first.stride - first.before < size
