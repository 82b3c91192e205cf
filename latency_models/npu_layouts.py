"""Which feature maps lie in the host's layout because bricks do not fit them.

Vela 5.2, scheduler.cpp, UpdateSchedulerTensor: all that write and read a feature map in bricks see
the same columns and channels, and no part of it starts within a brick.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from actcc.graph import Graph, Node
from actcc.graph.axes import axis_groups
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
        orders: the axes of each tensor as they lie in memory.
    """

    def __init__(
        self,
        graph: Graph,
        roots: Mapping[str, str],
        read: Mapping[str, str],
        written: Mapping[str, str],
        orders: Mapping[str, tuple[int, ...]],
    ) -> None:
        self._graph = graph
        self._roots = roots
        self._read = read
        self._written = written
        self._orders = orders

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
        if (axis,) != self._orders[join.outputs[0].name][-1:]:
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
        return plane(shape, self._orders[name]) if shape else None

    def _shape(self, name: str) -> list[int]:
        return _sizes(self._graph, name)


def stored_orders(graph: Graph) -> dict[str, tuple[int, ...]]:
    """The axes of each tensor as they lie in memory, the innermost one last.

    Images have their channels innermost, other tensors lie as they are. A Transpose moves nothing
    but gives the axes other names; a Reshape splits and merges axes where they lie.
    """
    found: dict[str, tuple[int, ...]] = {}
    for tensor in graph.inputs:
        rank = len(_sizes(graph, tensor.name))
        found[tensor.name] = _channels_last(rank) if rank == _IMAGE else tuple(range(rank))
    for node in graph.nodes():
        for tensor in node.outputs:
            found[tensor.name] = _order(graph, node, tensor.name, found)
    return found


def _order(
    graph: Graph, node: Node, written: str, known: Mapping[str, tuple[int, ...]]
) -> tuple[int, ...]:
    after = _sizes(graph, written)
    rank = len(after)
    if node.op in _PLANES and rank > 2:
        return _channels_last(rank)
    source = next((tensor.name for tensor in node.inputs if tensor.name in known), None)
    if source is None or not known[source]:
        return tuple(range(rank))
    order, before = known[source], _sizes(graph, source)
    if node.op == "Transpose":
        permutation = list(node.attrs.get("perm") or reversed(range(rank)))
        return tuple(permutation.index(axis) for axis in order)
    if len(order) == rank and node.op not in _RESHAPING:
        return order
    if math.prod(before) != math.prod(after):
        return _without_reduced(graph, node, order, rank)
    return _reshaped(order, before, after)


def _reshaped(
    order: tuple[int, ...], before: Sequence[int], after: Sequence[int]
) -> tuple[int, ...]:
    groups = sorted(
        axis_groups(before, after), key=lambda group: min(order.index(axis) for axis in group[0])
    )
    moved = [axis for _, group in groups for axis in group]
    wide = tuple(axis for axis in _channels_last(len(after)) if after[axis] != 1)
    if len(after) == _IMAGE and wide == tuple(moved):
        return _channels_last(len(after))
    if moved == sorted(moved):
        return tuple(range(len(after)))
    return (*(axis for axis, size in enumerate(after) if size == 1), *moved)


def _without_reduced(
    graph: Graph, node: Node, order: tuple[int, ...], rank: int
) -> tuple[int, ...]:
    """The order without the axes that a reduction or a Gather of one slice removes."""
    axes = graph.argument(node, "axis" if node.op == "Gather" else "axes", ())
    reduced = {int(axis) % len(order) for axis in np.atleast_1d(axes)}
    kept = [axis for axis in order if axis not in reduced]
    if len(kept) != rank:
        return tuple(range(rank))
    return tuple(sorted(kept).index(axis) for axis in kept)


def _channels_last(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank), 1) if rank > 1 else tuple(range(rank))


def _sizes(graph: Graph, name: str) -> list[int]:
    found = graph.types.get(name)
    if found is None or not found.is_static:
        return []
    return [size for size in found.shape or () if isinstance(size, int)]
