"""One layer whose weights can be re-fitted, whatever its operator.

Conv, ConvTranspose, Gemm and MatMul are one thing to the repair: groups of matrices that map
*columns* (the inputs under a window) to *outputs*, row by row, where a row is one position of the
output:

    Y[g, row, o] = Σ_c X[g, row, c] · W[g, c, o] + b[g, o]

The columns of a convolution run over the channels of its group, and within each over the taps of
its kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from actcc.graph import Array
from actcc.repair.windows import Window


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer that the repair may re-fit.

    Attributes:
        node: name of the node.
        op: its operator.
        reads: name of the tensor that it maps.
        writes: name of the tensor with its outputs, its bias included.
        weight: name of the tensor with its weights.
        weights: as the node holds them.
        bias: name of its bias, which other nodes may read as well; None where it has none.
        biases: as the node holds them; None where it has none.
        adds: name of the Add that holds the bias of a MatMul; None for all else.
        window: which inputs lie under which output; None for Gemm and MatMul.
        groups: number of groups.
        scale: alpha and beta of a Gemm.
        transposed: transA and transB of a Gemm.
    """

    node: str
    op: str
    reads: str
    writes: str
    weight: str
    weights: Array
    bias: str | None = None
    biases: Array | None = None
    adds: str | None = None
    window: Window | None = None
    groups: int = 1
    scale: tuple[float, float] = (1.0, 1.0)
    transposed: tuple[bool, bool] = (False, False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weights."""
        shape: tuple[int, ...] = self.weights.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the weights."""
        dtype: np.dtype[Any] = self.weights.dtype
        return dtype

    @property
    def outputs(self) -> int:
        """Outputs of one group at one position."""
        if self.window is None:
            return self.shape[0 if self.transposed[1] else 1]
        return self.shape[1] if self.window.transposed else self.shape[0] // self.groups

    @property
    def columns(self) -> int:
        """Inputs of one output."""
        return math.prod(self.shape) // max(self.groups * self.outputs, 1)

    @property
    def matrix(self) -> Array:
        """W: the weights [groups, columns, outputs], float64, made anew."""
        values: Array = self.weights.astype(np.float64)
        if self.window is None:
            values = self.scale[0] * (values.T if self.transposed[1] else values)[None]
        elif not self.window.transposed:
            values = values.reshape(self.groups, self.outputs, -1).transpose(0, 2, 1)
        else:
            taps = values.reshape(self.groups, -1, self.outputs, self.window.taps)
            values = taps.transpose(0, 1, 3, 2).reshape(self.groups, -1, self.outputs)
        return values

    @property
    def offset(self) -> Array:
        """b: the bias [groups, outputs], float64, made anew; zero where there is none."""
        shape = (self.groups, self.outputs)
        if self.biases is None:
            return np.zeros(shape)
        values: Array = np.empty(math.prod(shape))
        values[:] = self.scale[1] * self.biases.astype(np.float64).reshape(-1)
        return values.reshape(shape)

    def tensor(self, matrix: Array) -> Array:
        """Weights as the node holds them, of the node's type: the inverse of `matrix`.

        What a type cannot hold becomes its largest number.
        """
        if self.window is None:
            values = matrix[0] / self.scale[0]
            values = values.T if self.transposed[1] else values
        elif not self.window.transposed:
            values = matrix.transpose(0, 2, 1)
        else:
            shape = (self.groups, -1, self.window.taps, self.outputs)
            values = matrix.reshape(shape).transpose(0, 1, 3, 2)
        return _as_type(values.reshape(self.shape), self.dtype)

    def vector(self, offset: Array) -> Array:
        """Bias as the node holds it, of the node's type: the inverse of `offset`.

        It has the rank of the bias so far, and one entry for each output even where that had one
        for all. What a type cannot hold becomes its largest number.
        """
        values = offset.reshape(-1) / self.scale[1]
        if self.biases is not None and self.biases.ndim:
            values = values.reshape(*self.biases.shape[:-1], -1)
        return _as_type(values, self.dtype)


def _as_type(values: Array, dtype: np.dtype[Any]) -> Array:
    bounds = np.finfo(dtype)
    clipped = np.clip(values, float(bounds.min), float(bounds.max))
    return np.ascontiguousarray(clipped.astype(dtype))


def same_geometry(layer: Layer, other: Layer) -> bool:
    """Whether one layer's weights could stand in the other."""
    return (
        layer.op == other.op
        and layer.shape == other.shape
        and layer.groups == other.groups
        and layer.window == other.window
        and layer.transposed == other.transposed
    )


def rows_of(layer: Layer, values: Array, positions: Array, shape: tuple[int, ...]) -> Array:
    """X: what lies under each output, [groups, rows, columns].

    Args:
        values: the tensor that the layer reads, of one sample.
        positions: flat indices into all axes of the output but that of its channels, in C order.
        shape: of the layer's output.
    """
    if layer.window is not None:
        return layer.window.rows(values, positions, shape, layer.groups)
    across: Array = values.T if layer.transposed[0] else values
    rows: Array = across.reshape(-1, across.shape[-1])[positions]
    return rows[None]


def targets_of(layer: Layer, values: Array, positions: Array) -> Array:
    """Y: the layer's output, or a tensor of its shape, at positions: [groups, rows, outputs]."""
    if layer.window is None:
        rows = values.reshape(-1, values.shape[-1])[positions]
    else:
        size = math.prod(values.shape[2:])
        planes = values.reshape(*values.shape[:2], size)
        batch, place = np.divmod(positions, max(size, 1))
        rows = planes[batch, :, place]
    width = rows.shape[1] // layer.groups
    grouped: Array = rows.reshape(len(positions), layer.groups, width).transpose(1, 0, 2)
    return grouped


def channels_of(layer: Layer, values: Array, chosen: Array | None) -> Array:
    """Some channels of a tensor that the layer reads or writes; None for all."""
    return values if chosen is None else np.take(values, chosen, -1 if layer.window is None else 1)


def count_positions(layer: Layer, shape: tuple[int, ...]) -> int:
    """Positions of an output of that shape; 0 where it has no channels."""
    channels = shape[-1 if layer.window is None else 1]
    return math.prod(shape) // channels if channels else 0
