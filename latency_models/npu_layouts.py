"""Which feature maps lie in the host's layout because bricks do not fit them.

Vela 5.2, scheduler.cpp, UpdateSchedulerTensor: all that write and read a feature map in bricks see
the same columns and channels, and no part of it starts within a brick.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from actcc.graph import Graph, Node
from actcc.latency_models.npu_maps import deepened, plane
from actcc.latency_models.npu_program import Operation
from actcc.latency_models.npu_settings import NpuSettings

_IMAGE = 4  # axes
_PLANES = frozenset({"Conv", "ConvTranspose", "ConvInteger", "QLinearConv"})
_RESHAPING = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


class Layouts:
    """Finds the feature maps in the host's layout.

    Args:
        roots: feature maps by the name of what a free node makes of them.
        read, written: the feature map that a part is read of, or written to, by the part's name.
        innermost: the axis that is innermost on the device, by tensor.
    """

    def __init__(
        self,
        graph: Graph,
        roots: Mapping[str, str],
        read: Mapping[str, str],
        written: Mapping[str, str],
        innermost: Mapping[str, int],
    ) -> None:
        self._graph = graph
        self._roots = roots
        self._read = read
        self._written = written
        self._innermost = innermost

    def linear(self, operations: Sequence[Operation], settings: NpuSettings) -> frozenset[str]:
        """Names of the feature maps, and of their parts."""
        found: set[str] = set()
        for node in self._graph.nodes():
            found.update(self._read_otherwise(node))
            if settings.operators.get(node.op) == "join" and self._starts_within(node, settings):
                found.update(tensor.name for tensor in node.outputs)
        found.update(
            whole for part, whole in self._read.items() if self._row(part) != self._row(whole)
        )
        parts = {**self._read, **self._written}
        for operation in operations:
            seen = {*operation.reads, *operation.writes}
            if operation.elementwise and not seen & set(parts) and self._is_deepened(operation):
                found |= seen
        pending = list(found)
        while pending:
            name = pending.pop()
            more = {part for part, whole in parts.items() if name in (part, whole)}
            more |= {parts[name]} if name in parts else set()
            pending += more - found
            found |= more
        return frozenset(found)

    def _read_otherwise(self, node: Node) -> Iterator[str]:
        """Feature maps that the node reads with other columns or channels."""
        for tensor in node.inputs:
            root = self._roots.get(tensor.name)
            if root is not None and self._row(root) != self._row(tensor.name):
                yield root

    def _starts_within(self, join: Node, settings: NpuSettings) -> bool:
        """Whether an operand starts at a channel that is no multiple of a brick's."""
        shapes = [self._shape(tensor.name) for tensor in join.inputs]
        if not all(shapes):
            return False
        axis = int(join.attrs.get("axis", 1)) % len(shapes[0])
        if axis != self._innermost[join.outputs[0].name]:
            return False
        lengths = [shape[axis] for shape in shapes[:-1]]
        return any(length % settings.blocks.stored_channels for length in lengths)

    def _is_deepened(self, operation: Operation) -> bool:
        shapes = {self._plane(name) for name in (*operation.reads, *operation.writes)}
        if len(shapes) != 1:
            return False
        (shape,) = shapes
        return shape is not None and deepened(*shape) != shape

    def _row(self, name: str) -> tuple[int, int] | None:
        found = self._plane(name)
        return None if found is None else found[1:]

    def _plane(self, name: str) -> tuple[int, int, int] | None:
        shape = self._shape(name)
        return plane(shape, self._innermost[name]) if shape else None

    def _shape(self, name: str) -> list[int]:
        return _sizes(self._graph, name)


def innermost_axes(graph: Graph) -> dict[str, int]:
    """The axis of each tensor that is innermost on the device.

    Images have their channels innermost, other tensors their last axis. A Transpose moves nothing
    but gives the axes other names, and a Reshape keeps an axis that it does not touch.
    """
    found: dict[str, int] = {}
    for tensor in graph.inputs:
        rank = _rank(graph, tensor.name)
        found[tensor.name] = 1 if rank == _IMAGE else max(rank - 1, 0)
    for node in graph.nodes():
        for tensor in node.outputs:
            found[tensor.name] = _innermost(graph, node, tensor.name, found)
    return found


def _innermost(graph: Graph, node: Node, written: str, known: Mapping[str, int]) -> int:
    rank = _rank(graph, written)
    if node.op in _PLANES and rank > 2:
        return 1
    source = next((tensor.name for tensor in node.inputs if tensor.name in known), None)
    if source is not None:
        axis, before = known[source], _rank(graph, source)
        if node.op == "Transpose":
            permutation = list(node.attrs.get("perm") or reversed(range(rank)))
            return permutation.index(axis)
        if node.op in _RESHAPING:
            kept = _kept_axis(_sizes(graph, source), _sizes(graph, written), axis)
            return max(rank - 1, 0) if kept is None else kept
        if before == rank:
            return axis
    return max(rank - 1, 0)


def _kept_axis(before: Sequence[int], after: Sequence[int], axis: int) -> int | None:
    """Where an axis is behind a Reshape, if as many elements are on either side of it."""
    ahead = math.prod(before[:axis])
    places = [
        place
        for place, size in enumerate(after)
        if size == before[axis] and math.prod(after[:place]) == ahead
    ]
    return places[0] if places and before else None


def _rank(graph: Graph, name: str) -> int:
    return len(_sizes(graph, name))


def _sizes(graph: Graph, name: str) -> list[int]:
    found = graph.types.get(name)
    if found is None or not found.is_static:
        return []
    return [size for size in found.shape or () if isinstance(size, int)]
