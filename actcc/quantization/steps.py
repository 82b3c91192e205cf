"""The scale and zero point of a range, in the type in which a model stores its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from actcc.graph import Array, Graph, Node
from actcc.graph.pairs import QUANTIZE, StoredAs, stored_as
from actcc.quantization.distribution import Range

HIGHEST = 255
_NO_WIDTH = 1e-8
_SIGNED = "int8"
# What is stored as 0 where uint8 stores 0.
STORED: Mapping[str, int] = MappingProxyType({"uint8": 0, _SIGNED: -128})


@dataclass(frozen=True)
class Step:
    """real = scale · (uint8 − zero point); for int8, `STORED` is added to the zero point."""

    scale: float
    zero_point: int

    @classmethod
    def of(cls, values: Range) -> Step:
        """The step for values in a range, to which 0 is added; 0 is exact.

        A range of no width, of a tensor that was always 0, gets one of width 1.
        """
        low, high = min(values[0], 0.0), max(values[1], 0.0)
        if high - low < _NO_WIDTH:
            high = low + 1.0
        scale = float(np.float32((high - low) / HIGHEST))
        return cls(scale, int(np.clip(round(-low / scale), 0, HIGHEST)))

    @classmethod
    def read(cls, graph: Graph, node: Node) -> Step | None:
        """What a QuantizeLinear or DequantizeLinear says; None where that is not one constant."""
        constants = [graph.constant(tensor) for tensor in node.inputs[1:3]]
        if len(constants) < 2 or any(c is None or c.size != 1 for c in constants):
            return None
        scale, zero_point = (np.asarray(constant).reshape(()) for constant in constants)
        return cls(float(scale), int(zero_point))

    @property
    def constants(self) -> list[Array]:
        """Operands of QuantizeLinear and DequantizeLinear."""
        return [np.array(self.scale, np.float32), np.array(self.zero_point, np.uint8)]

    @property
    def range(self) -> Range:
        """The least and the greatest value that is stored."""
        return -self.zero_point * self.scale, (HIGHEST - self.zero_point) * self.scale


def step_for(values: Range, like: StoredAs, *, symmetric: bool) -> StoredAs:
    """How values of a range are stored in the type of others; the range is widened to hold 0.

    Args:
        like: one scale, of a type of `STORED`.
        symmetric: int8 has the zero point 0.
    """
    name = like.zero_point.dtype.name
    if symmetric and name == _SIGNED:
        width = max(abs(values[0]), abs(values[1]))
        step, zero_point = Step.of((0.0, 255 / 127 * width)).scale, 0
    else:
        found = Step.of(values)
        step, zero_point = found.scale, found.zero_point + STORED[name]
    scale = np.full(like.scale.shape, step, like.scale.dtype)
    return StoredAs(scale, np.full(like.zero_point.shape, zero_point, like.zero_point.dtype))


def is_symmetric(graph: Graph) -> bool:
    """Whether all that a network stores in int8 as it runs has the zero point 0."""
    kinds = [stored_as(graph, node) for node in graph.nodes(QUANTIZE)]
    return all(not kind.zero_point.any() for kind in kinds if kind and _is_signed(kind))


def _is_signed(kind: StoredAs) -> bool:
    return str(kind.zero_point.dtype) == _SIGNED
