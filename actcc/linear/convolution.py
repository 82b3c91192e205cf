"""A convolution as a value: kernels, where they are laid on the input, and what they are made of.

Along one spatial axis a convolution of kernel k, stride s, dilation d and pads (b, a) computes

    y[o] = Σ_t w[t] · x[o·s + t·d − b],   0 ≤ t < k,   x = 0 outside of 0 … n−1
    o runs from 0 to ⌊(n − 1 + b + a − d·(k − 1)) / s⌋

so that it is described by the places of its taps, −b, d − b, … relative to o·s, and by its
*surplus* b + a − d·(k − 1), from which the number of outputs follows. Two convolutions with the
same stride and surplus have equally many outputs whatever the size of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from actcc.graph import Array

Sizes = Sequence["int | None"]


@dataclass(frozen=True)
class Obstacle:
    """Why something cannot be read as, or merged into, one linear layer: a sentence."""

    reason: str


@dataclass(frozen=True)
class Axis:
    """How a convolution samples one spatial axis.

    Attributes:
        kernel: taps.
        before, after: zeros that are put around the input.
    """

    kernel: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0

    @property
    def reach(self) -> int:
        """Distance from the first tap to the last."""
        return self.dilation * (self.kernel - 1)

    @property
    def surplus(self) -> int:
        """How many more places than the input has elements, at stride 1; may be negative."""
        return self.before + self.after - self.reach

    def outputs(self, size: int) -> int:
        """Number of outputs for an input of that size."""
        return (size - 1 + self.surplus) // self.stride + 1

    def places_of(self, other: Axis) -> slice:
        """Which taps of this axis lie where the taps of `other` lie; they all have to."""
        first = (self.before - other.before) // self.dilation
        step = other.dilation // self.dilation if other.kernel > 1 else 1
        return slice(first, first + step * (other.kernel - 1) + 1, step)


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution with any number of spatial axes.

    Attributes:
        weights: float64 [outputs, inputs / groups, *kernel].
        bias: float64 [outputs].
        strides, dilations: one a spatial axis.
        pads: zeros before each axis, then behind each, as in ONNX.
    """

    weights: Array
    bias: Array
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int = 1

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return self.weights.ndim - 2

    @property
    def inputs(self) -> int:
        """Input channels."""
        return int(self.weights.shape[1]) * self.groups

    @property
    def outputs(self) -> int:
        """Output channels."""
        return int(self.weights.shape[0])

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Its sampling, axis by axis."""
        before, after = self.pads[: self.rank], self.pads[self.rank :]
        kernel = (int(taps) for taps in self.weights.shape[2:])
        columns = zip(kernel, self.strides, self.dilations, before, after, strict=True)
        return tuple(Axis(*column) for column in columns)


def on_axes(weights: Array, bias: Array, axes: Sequence[Axis], groups: int) -> Convolution:
    """A convolution of kernels [outputs, inputs / groups, *kernel] that samples along `axes`."""
    return Convolution(
        weights,
        bias,
        strides=tuple(axis.stride for axis in axes),
        pads=(*(axis.before for axis in axes), *(axis.after for axis in axes)),
        dilations=tuple(axis.dilation for axis in axes),
        groups=groups,
    )


def per_channel(scale: Array, shift: Array, rank: int) -> Convolution:
    """scale · x + shift, channel by channel, as a depthwise convolution with kernels of one tap."""
    weights = np.asarray(scale, np.float64).reshape(-1, 1, *[1] * rank)
    return on_axes(weights, np.asarray(shift, np.float64), [Axis(1)] * rank, len(scale))


def identity(channels: int, rank: int) -> Convolution:
    """x itself, as a depthwise convolution with kernels of one tap."""
    return per_channel(np.ones(channels), np.zeros(channels), rank)


def average(channels: int, axes: Sequence[Axis]) -> Convolution:
    """The mean over windows, padding counted as zeros, as a depthwise convolution."""
    kernel = [axis.kernel for axis in axes]
    weights = np.full((channels, 1, *kernel), 1.0 / float(np.prod(kernel)))
    return on_axes(weights, np.zeros(channels), axes, channels)


def regrouped(convolution: Convolution, groups: int) -> Convolution:
    """The same convolution in fewer groups, with zeros where groups did not meet.

    Args:
        groups: a divisor of the convolution's groups.
    """
    if groups == convolution.groups:
        return convolution
    together = convolution.groups // groups
    outputs, inputs, *kernel = convolution.weights.shape
    outputs //= convolution.groups
    blocks = convolution.weights.reshape(groups, together, outputs, inputs, *kernel)
    wide = np.zeros((groups, together, outputs, together, inputs, *kernel))
    for block in range(together):
        wide[:, block, :, block] = blocks[:, block]
    weights = wide.reshape(convolution.outputs, together * inputs, *kernel)
    return replace(convolution, weights=weights, groups=groups)


def spread(convolution: Convolution, axes: Sequence[Axis]) -> Convolution:
    """The same convolution with larger kernels, which are zero where it had no tap.

    Args:
        axes: of equal strides, with taps wherever the convolution has some.
    """
    weights = np.zeros((*convolution.weights.shape[:2], *(axis.kernel for axis in axes)))
    narrow = convolution.axes
    places = [wide.places_of(own) for wide, own in zip(axes, narrow, strict=True)]
    inside = (slice(None), slice(None), *places)
    weights[inside] = convolution.weights
    return on_axes(weights, convolution.bias, axes, convolution.groups)
