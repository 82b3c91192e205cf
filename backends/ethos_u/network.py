"""A TFLite network as plain values, before it is written as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from actcc.graph import Array
from actcc.quantization.steps import STORED, Step

INT8_LOW, INT8_HIGH = -128, 127
INT16_LOW, INT16_HIGH = -32768, 32767


@dataclass(frozen=True)
class Quantization:
    """real = scale · (stored − zero_point), for a whole tensor or for each index along an axis.

    Attributes:
        axis: of the tensor as it is stored; of no account where there is one scale.
        wide: whether elements are int16, not int8.
    """

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int = 0
    wide: bool = False

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
        """The least value that an element can stand for."""
        return self.scale * (self._ends[0] - self.zero_point)

    @property
    def high(self) -> float:
        """The greatest value that an element can stand for."""
        return self.scale * (self._ends[1] - self.zero_point)

    def quantize(self, values: Array) -> Array:
        """Elements of a tensor that is quantized as a whole."""
        stored = np.round(values / self.scale) + self.zero_point
        element = np.int16 if self.wide else np.int8
        clipped: Array = np.clip(stored, *self._ends).astype(element)
        return clipped

    def dequantize(self, stored: Array) -> Array:
        """Real values of a tensor that is quantized as a whole."""
        values: Array = (stored.astype(np.float32) - self.zero_point) * np.float32(self.scale)
        return values

    @property
    def _ends(self) -> tuple[int, int]:
        return (INT16_LOW, INT16_HIGH) if self.wide else (INT8_LOW, INT8_HIGH)


def int16_range(low: float, high: float) -> Quantization:
    """Quantization of values from `low` to `high` in int16, whose zero point TFLite fixes at 0."""
    largest = max(-low, high, 1e-8)
    return Quantization((float(np.float32(largest / INT16_HIGH)),), (0,), wide=True)


def int8_range(low: float, high: float) -> Quantization:
    """Quantization of values from `low` to `high`; 0 is always among them, and exact.

    A range of no width, as of a tensor that is constantly 0, gets one of width 1.
    """
    step = Step.of((low, high))
    return Quantization((step.scale,), (step.zero_point + STORED["int8"],))


@dataclass(frozen=True)
class FlatTensor:
    """A tensor as TFLite knows it.

    Attributes:
        name: unique in the network.
        shape: in the order in which it is stored.
        quantization: None for int32 operands, such as axes, that stand for themselves.
        data: int8, int16, int32 or int64 values of a constant; None for what a run computes.
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
