"""QuantizeLinear with the DequantizeLinear behind it: a tensor rounded to an integer's steps.

    x → QuantizeLinear → DequantizeLinear → x, rounded        both with the same scale, zero point

Where each is read by the next alone, the two are one thing, which says in which precision runtimes
compute what lies around it, and what is there otherwise is there without them too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actcc.graph.operators import ONNX_DOMAINS
from actcc.graph.view import Array, Node, Tensor, View

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
QUANTIZATION = frozenset({QUANTIZE, DEQUANTIZE})
_MARGIN = 0.25  # of a step; all that rounds to the last step lies within half of one


@dataclass(frozen=True, eq=False)
class Pair:
    """The two nodes of a rounding."""

    quantize: Node
    dequantize: Node

    @property
    def nodes(self) -> tuple[Node, Node]:
        """Both in order."""
        return self.quantize, self.dequantize

    @property
    def reads(self) -> Tensor:
        """What is rounded."""
        return self.quantize.inputs[0]

    @property
    def writes(self) -> Tensor:
        """The rounded tensor."""
        return self.dequantize.outputs[0]


@dataclass(frozen=True, eq=False)
class StoredAs:
    """How real values are stored: real = scale · (stored − zero point).

    Attributes:
        scale: one number, or one for each index of an axis.
        zero_point: of the type that is stored, of the shape of the scale.
    """

    scale: Array
    zero_point: Array

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the greatest number that is stored."""
        bounds = np.iinfo(self.zero_point.dtype)
        return int(bounds.min), int(bounds.max)

    @property
    def range(self) -> tuple[Array, Array]:
        """The least and the greatest value that is stored, float64, of the shape of the scale."""
        scale, zero_point = self.scale.astype(np.float64), self.zero_point.astype(np.float64)
        least, greatest = self.limits
        return (least - zero_point) * scale, (greatest - zero_point) * scale

    @property
    def is_whole(self) -> bool:
        """Whether one scale is for the whole tensor."""
        return self.scale.size == 1

    def cuts_off(self, low: float, high: float) -> bool:
        """Whether what lies outside the bounds is stored as the bounds are, however a runtime
        rounds: the least and greatest number that are stored lie inside, but for a quarter step.
        """
        margin = _MARGIN * self.scale.astype(np.float64)
        least, greatest = self.range
        fits = (margin > 0) & (low <= least + margin) & (high >= greatest - margin)
        return bool(fits.all())

    def same(self, other: StoredAs) -> bool:
        """Whether the same number means the same value."""
        kinds = self.zero_point.dtype == other.zero_point.dtype
        return (
            kinds
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )


def stored_as(graph: View, node: Node) -> StoredAs | None:
    """What the operands of a QuantizeLinear or DequantizeLinear say.

    None where they are not constant, or the type is no integer that numpy knows.
    """
    scale = graph.constant(node.inputs[1])
    if scale is None or scale.dtype.kind != "f":
        return None
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        zero_point = graph.constant(node.inputs[2])
    else:
        stored = node.outputs[0] if node.op == QUANTIZE else node.inputs[0]
        dtype = graph.dtype(stored)
        zero_point = None if dtype is None else np.zeros(scale.shape, dtype)
    if zero_point is None or zero_point.dtype.kind not in "iu":
        return None
    return StoredAs(scale, zero_point)


def stored_constant(graph: View, tensor: Tensor) -> tuple[Array, StoredAs] | None:
    """Integers that are read as real values, and how; None where a tensor is no such constant."""
    writer = None if tensor.is_empty() else graph.producer(tensor)
    if writer is None or writer.op != DEQUANTIZE:
        return None
    stored, kind = graph.constant(writer.inputs[0]), stored_as(graph, writer)
    return None if stored is None or kind is None else (stored, kind)


def pair_of(graph: View, quantize: Node) -> Pair | None:
    """The pair that a QuantizeLinear begins, with one scale; None where it begins none.

    Nodes of other domains are none: they hold types that those of ONNX do not.
    """
    stored = quantize.outputs[0]
    readers = graph.consumers(stored)
    if len(readers) != 1 or readers[0].op != DEQUANTIZE or graph.is_output(stored):
        return None
    if graph.is_read_in_subgraph(stored) or quantize.op != QUANTIZE:
        return None
    if not all(node.domain in ONNX_DOMAINS for node in (quantize, readers[0])):
        return None
    before, behind = stored_as(graph, quantize), stored_as(graph, readers[0])
    if before is None or behind is None or not before.is_whole or not before.same(behind):
        return None
    return Pair(quantize, readers[0])


def pair_behind(graph: View, tensor: Tensor) -> Pair | None:
    """The pair that alone reads a tensor."""
    readers = graph.consumers(tensor)
    if len(readers) != 1 or graph.is_output(tensor) or graph.is_read_in_subgraph(tensor):
        return None
    alone = readers[0].op == QUANTIZE and readers[0].inputs[0] is tensor
    return pair_of(graph, readers[0]) if alone else None


def pair_before(graph: View, tensor: Tensor) -> Pair | None:
    """The pair that writes a tensor."""
    dequantize = graph.producer(tensor)
    if dequantize is None or dequantize.op != DEQUANTIZE:
        return None
    quantize = graph.producer(dequantize.inputs[0])
    return pair_of(graph, quantize) if quantize is not None else None
