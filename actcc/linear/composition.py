"""One convolution behind another as a single one.

With z = first(x) and y = second(z), along one spatial axis,

    y[o] = Σ_u Σ_t w₂[u]·w₁[t] · x[s₁·s₂·o + s₁·(u·d₂ − b₂) + t·d₁ − b₁] + Σ_u w₂[u]·bias₁ + bias₂

which is a convolution of stride s₁·s₂ with pads (b₁ + s₁·b₂, a₁ + s₁·a₂) whose taps lie
gcd(s₁·d₂, d₁) apart. Groups: the greatest common divisor of both. Channels between them are summed
over (RepVGG, Ding et al. 2021, section 3.3 and Diverse Branch Block, Ding et al. 2021,
section 3.2 are special cases).

At the border the second convolution sees zeros, where the formula has first(x) continued beyond
its outputs. They agree if (i) bias₁ is zero and (ii) kernels of the first that lie beyond its
outputs do not touch the input any more: always with kernels of one tap, never with the usual
padding of k/2.
"""

from __future__ import annotations

import math

import numpy as np

from actcc.graph import Array
from actcc.linear.convolution import Axis, Convolution, Obstacle, Sizes, on_axes, regrouped

_BIAS = "the first layer has a bias and the second pads with zeros, where the bias is missing"
_TOUCHES = "the second layer pads with zeros where the merged kernels would touch the input"


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


def largest_composed(first: Convolution, second: Convolution) -> float:
    """A bound on the magnitude of the composition's weights and bias, without computing it."""
    rows = np.abs(second.weights).reshape(second.outputs, -1).sum(axis=1)
    largest = max(np.abs(first.weights).max(initial=0), np.abs(first.bias).max(initial=0))
    return float((rows * largest + np.abs(second.bias)).max(initial=0))


def composition_obstacle(first: Convolution, second: Convolution, sizes: Sizes) -> str:
    """Why the two do not compose into one convolution exactly; empty where they do.

    Args:
        sizes: of the first one's input along the spatial axes; None where unknown.
    """
    if first.rank != second.rank or first.outputs != second.inputs:
        return "what the first layer writes is not what the second reads"
    for one, two, size in zip(first.axes, second.axes, sizes, strict=True):
        reads_beyond, touches = _border(one, two, size)
        if reads_beyond and first.bias.any():
            return _BIAS
        if touches:
            return _TOUCHES
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
            place = [
                (at * one.stride * two.dilation + within * one.dilation) // axis.dilation
                for at, within, one, two, axis in zip(
                    u, t, first.axes, second.axes, axes, strict=True
                )
            ]
            to, left, right = (..., *place), (..., *u), (..., *t)
            weights[to] += outer[left] @ inner[right]
    taps = tuple(range(3, outer.ndim))
    between = first.bias.reshape(groups, -1, 1)
    bias = (outer.sum(axis=taps) @ between).reshape(-1) + second.bias
    return on_axes(weights.reshape(second.outputs, -1, *shape[3:]), bias, axes, groups)


def _blocks(convolution: Convolution, groups: int) -> Array:
    """Kernels [groups, outputs / groups, inputs / groups, *kernel]."""
    weights = regrouped(convolution, groups).weights
    return weights.reshape(groups, -1, *weights.shape[1:])


def _border(first: Axis, second: Axis, size: int | None) -> tuple[bool, bool]:
    """Whether the second reads beyond what the first writes, and whether kernels of the first
    would touch the input there.
    """
    if size is None:
        before = [
            at
            for tap in range(second.kernel)
            for at in range(tap * second.dilation - second.before, 0, second.stride)
        ]
        outside = bool(before) or second.after > 0
        behind = second.after > 0 and first.after < first.reach
        reaches = first.reach - first.before
        return outside, behind or any(at * first.stride + reaches >= 0 for at in before)
    between = first.outputs(size)
    starts = range(-second.before, second.outputs(between) * second.stride, second.stride)
    read = {
        start + tap * second.dilation
        for start in starts[: second.outputs(between)]
        for tap in range(second.kernel)
    }
    beyond = read - set(range(between))
    touches = any(
        0 <= at * first.stride + tap * first.dilation - first.before < size
        for at in beyond
        for tap in range(first.kernel)
    )
    return bool(beyond), touches
