"""Between which numbers the elements of a tensor lie, as far as the operators before it say.

Interval arithmetic (Moore 1966) from the nearest bounded functions forward, over real numbers: a
mean of elements in [0, 1] may round to just above 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from types import MappingProxyType

from actcc.graph import Graph, Node, Tensor
from actcc.graph.operators import ONNX_DOMAINS

_DEEPEST = 32  # nodes on the way back; networks bound their tensors every few


@dataclass(frozen=True)
class Range:
    """All elements are at least `low` and at most `high`."""

    low: float = -math.inf
    high: float = math.inf

    def within(self, other: Range) -> bool:
        """Whether no element lies outside the other range."""
        return other.low <= self.low and self.high <= other.high

    def clipped(self, bounds: Range) -> Range:
        """What lies in the range once it is clipped to bounds, ONNX's way: first low, then high."""
        low, high = (min(max(x, bounds.low), bounds.high) for x in (self.low, self.high))
        return Range(low, high)

    def joined(self, other: Range) -> Range:
        """The smallest range with both in it."""
        return Range(min(self.low, other.low), max(self.high, other.high))


UNBOUNDED = Range()

_BOUNDED: Mapping[str, Range] = MappingProxyType(
    {
        "Relu": Range(0.0),
        "Sigmoid": Range(0.0, 1.0),
        "HardSigmoid": Range(0.0, 1.0),
        "Softmax": Range(0.0, 1.0),
        "LogSoftmax": Range(high=0.0),
        "Tanh": Range(-1.0, 1.0),
        "Softsign": Range(-1.0, 1.0),
        "Erf": Range(-1.0, 1.0),
        "Sin": Range(-1.0, 1.0),
        "Cos": Range(-1.0, 1.0),
        "Exp": Range(0.0),
        "Softplus": Range(0.0),
        "Abs": Range(0.0),
        "Sqrt": Range(0.0),
        "ReduceL1": Range(0.0),
        "ReduceL2": Range(0.0),
        "ReduceSumSquare": Range(0.0),
    }
)
# Elements of the first input, or means of them.
_SELECTING = frozenset(
    {
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "MaxPool",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)


def clip_bounds(graph: Graph, node: Node) -> Range | None:
    """What Relu, or Clip with constant bounds, clips its data to; None for other nodes."""
    if node.domain not in ONNX_DOMAINS or node.op not in ("Relu", "Clip"):
        return None
    if node.op == "Relu":
        return Range(0.0)
    low, high = graph.argument(node, "min"), graph.argument(node, "max")
    given = sum(not tensor.is_empty() for tensor in node.inputs[1:])
    if given > (low is not None) + (high is not None):
        return None  # a bound that a run computes
    return Range(
        -math.inf if low is None else float(low), math.inf if high is None else float(high)
    )


class ValueRanges:
    """Ranges of tensors of a graph; exact edits change none, so that they are remembered."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._known: dict[str, Range] = {}

    def of(self, tensor: Tensor, depth: int = _DEEPEST) -> Range:
        """The range of a tensor's elements; unbounded where nothing is known."""
        if tensor.name not in self._known:
            self._known[tensor.name] = self._find(tensor, depth)
        return self._known[tensor.name]

    def _find(self, tensor: Tensor, depth: int) -> Range:
        constant = self._graph.constant(tensor)
        if constant is not None:
            numeric = constant.dtype.kind in "fiu" and constant.size
            return Range(float(constant.min()), float(constant.max())) if numeric else UNBOUNDED
        node = self._graph.producer(tensor)
        if node is None or node.domain not in ONNX_DOMAINS or depth == 0:
            return UNBOUNDED
        if node.op == "MaxPool" and tensor is not node.outputs[0]:
            return UNBOUNDED  # indices

        def of(index: int) -> Range:
            return self.of(node.inputs[index], depth - 1)

        bounds = clip_bounds(self._graph, node)
        if bounds is not None:
            return of(0).clipped(bounds)
        if node.op in _BOUNDED:
            return _BOUNDED[node.op]
        if node.op in _SELECTING or (node.op == "Resize" and _is_nearest(node)):
            return of(0)
        return _combined(node, of)


def _combined(node: Node, of: Callable[[int], Range]) -> Range:
    if node.op == "AveragePool":
        return of(0).joined(Range(0.0, 0.0))  # zeros of the padding count
    if node.op in ("Concat", "Max", "Min"):
        ranges = [of(index) for index in range(len(node.inputs))]
        if node.op == "Concat":
            return reduce(Range.joined, ranges)
        choose = max if node.op == "Max" else min
        return Range(choose(r.low for r in ranges), choose(r.high for r in ranges))
    if node.op == "Add":
        first, second = of(0), of(1)
        return Range(first.low + second.low, first.high + second.high)
    if node.op == "Mul":
        if node.inputs[0] is node.inputs[1]:
            return Range(0.0)
        first, second = of(0), of(1)
        positive = first.low >= 0 and second.low >= 0
        return Range(0.0, _product(first.high, second.high)) if positive else UNBOUNDED
    return UNBOUNDED


def _product(first: float, second: float) -> float:
    return 0.0 if 0.0 in (first, second) else first * second


def _is_nearest(node: Node) -> bool:
    mode = node.attrs.get("mode", "nearest")
    text = mode.decode() if isinstance(mode, bytes) else mode
    transform = node.attrs.get("coordinate_transformation_mode", "")
    cropped = transform in ("tf_crop_and_resize", b"tf_crop_and_resize")
    return text == "nearest" and not cropped
