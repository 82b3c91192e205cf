"""A TFLite network as plain values, before it is written as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from actcc.graph import Array

INT8_LOW, INT8_HIGH = -128, 127


@dataclass(frozen=True)
class Quantization:
    """real = scale · (stored − zero_point), for a whole tensor or for each index along an axis.

    Attributes:
        axis: of the tensor as it is stored; of no account where there is one scale.
    """

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int = 0

    @property
    def scale(self) -> float:
        """The one scale of a tensor that is quantized as a whole."""
        return self.scales[0]

    @property
    def zero_point(self) -> int:
        """The one zero point of a tensor that is quantized as a whole."""
        return self.zero_points[0]

    @property
    def low(self) -> float:
        """The least value that an int8 element can stand for."""
        return self.scale * (INT8_LOW - self.zero_point)

    @property
    def high(self) -> float:
        """The greatest value that an int8 element can stand for."""
        return self.scale * (INT8_HIGH - self.zero_point)

    def quantize(self, values: Array) -> Array:
        """int8 elements of a tensor that is quantized as a whole."""
        stored = np.round(values / self.scale) + self.zero_point
        clipped: Array = np.clip(stored, INT8_LOW, INT8_HIGH).astype(np.int8)
        return clipped

    def dequantize(self, stored: Array) -> Array:
        """Real values of a tensor that is quantized as a whole."""
        values: Array = (stored.astype(np.float32) - self.zero_point) * np.float32(self.scale)
        return values


def int8_range(low: float, high: float) -> Quantization:
    """Quantization of values from `low` to `high`; 0 is always among them, and exact.

    A range of no width, as of a tensor that is constantly 0, gets one of width 1.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-8:
        high = low + 1.0
    scale = float(np.float32((high - low) / (INT8_HIGH - INT8_LOW)))
    zero_point = int(np.clip(round(INT8_LOW - low / scale), INT8_LOW, INT8_HIGH))
    return Quantization((scale,), (zero_point,))


@dataclass(frozen=True)
class FlatTensor:
    """A tensor as TFLite knows it.

    Attributes:
        name: unique in the network.
        shape: in the order in which it is stored.
        quantization: None for int32 operands, such as axes, that stand for themselves.
        data: int8, int32 or int64 values of a constant; None for what a run computes.
    """

    name: str
    shape: tuple[int, ...]
    quantization: Quantization | None = None
    data: Array | None = None


@dataclass(frozen=True)
class FlatOperator:
    """One TFLite operator.

    Attributes:
        code: name in `BuiltinOperator` of the TFLite schema, such as "CONV_2D".
        inputs: indices of tensors; -1 for one that is left out.
        table: name of its options in the schema, such as "Conv2DOptions"; empty for none.
        options: fields of that table, in the schema's names.
    """

    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    table: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FlatNetwork:
    """A whole TFLite network.

    Attributes:
        inputs, outputs: indices of tensors, in the order of the ONNX graph.
        orders: for each input and output, which ONNX axis lies at each stored position, by name.
        origin: the ONNX tensor that each computed TFLite tensor belongs to, by name.
    """

    tensors: Sequence[FlatTensor]
    operators: Sequence[FlatOperator]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    orders: Mapping[str, tuple[int, ...]]
    origin: Mapping[str, str]
