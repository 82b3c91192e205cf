"""Convolutions of the same input, added: one convolution.

    Σᵢ (Wᵢ ∗ x + bᵢ)  =  (Σᵢ Wᵢ) ∗ x + Σᵢ bᵢ

once all kernels have the same taps: each is laid, with zeros around and between its own, into the
smallest kernel that has them all (RepVGG, Ding et al. 2021, section 3.3, where a kernel of one tap
goes to the centre of one of 3×3). Strides have to be equal, and the numbers of outputs; pads need
not be written alike. Groups: those that all have in common.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from actcc.linear.convolution import Axis, Convolution, Obstacle, Sizes, regrouped, spread


def common_axis(axes: Sequence[Axis], size: int | None) -> Axis | Obstacle:
    """The smallest sampling with the taps of all; `size` is the input's, None where unknown."""
    if len({axis.stride for axis in axes}) > 1:
        return Obstacle("their strides differ")
    surpluses = {axis.surplus for axis in axes}
    if len(surpluses) > 1 and (size is None or len({axis.outputs(size) for axis in axes}) > 1):
        return Obstacle("their outputs differ in size, or may")
    before = max(axis.before for axis in axes)
    last = max(axis.reach - axis.before for axis in axes)
    spaced = [axis.dilation for axis in axes if axis.kernel > 1]
    step = math.gcd(*spaced, *(before - axis.before for axis in axes)) or 1
    return Axis(
        kernel=(last + before) // step + 1,
        stride=axes[0].stride,
        dilation=step,
        before=before,
        after=max(surpluses) + last,
    )


def add(convolutions: Sequence[Convolution], sizes: Sizes) -> Convolution | Obstacle:
    """The sum of convolutions of one input, in double precision.

    Args:
        sizes: of the input along the spatial axes; None where unknown.
    """
    first = convolutions[0]
    if any(other.rank != first.rank or other.inputs != first.inputs for other in convolutions):
        return Obstacle("they read different channels")
    if any(other.outputs != first.outputs for other in convolutions):
        return Obstacle("they write different numbers of channels")
    axes: list[Axis] = []
    for own, size in zip(
        zip(*(each.axes for each in convolutions), strict=True), sizes, strict=True
    ):
        axis = common_axis(own, size)
        if isinstance(axis, Obstacle):
            return axis
        axes.append(axis)
    groups = math.gcd(*(each.groups for each in convolutions))
    alike = [spread(regrouped(each, groups), axes) for each in convolutions]
    weights = np.sum([each.weights for each in alike], axis=0)
    bias = np.sum([each.bias for each in alike], axis=0)
    return replace(alike[0], weights=weights, bias=bias)


def added_weights(convolutions: Sequence[Convolution], sizes: Sizes) -> int:
    """How many weights the sum of convolutions that can be added has, without computing it."""
    groups = math.gcd(*(each.groups for each in convolutions))
    taps = 1
    for own, size in zip(
        zip(*(each.axes for each in convolutions), strict=True), sizes, strict=True
    ):
        axis = common_axis(own, size)
        taps *= 0 if isinstance(axis, Obstacle) else axis.kernel
    return convolutions[0].inputs // groups * convolutions[0].outputs * taps
