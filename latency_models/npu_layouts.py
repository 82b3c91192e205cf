"""Which feature maps lie in the host's layout because bricks do not fit them.

Vela 5.2, scheduler.cpp, UpdateSchedulerTensor: all that write and read a feature map in bricks see
the same columns and channels, and no part of it starts within a brick.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from actcc.graph import Graph, Node
from actcc.latency_models.npu_maps import deepened, plane
from actcc.latency_models.npu_program import Operation
from actcc.latency_models.npu_settings import NpuSettings


class Layouts:
    """Finds the feature maps in the host's layout.

    Args:
        roots: feature maps by the name of what a free node makes of them.
        read, written: the feature map that a part is read of, or written to, by the part's name.
        channels_last: feature maps whose last axis is that of the channels.
    """

    def __init__(
        self,
        graph: Graph,
        roots: Mapping[str, str],
        read: Mapping[str, str],
        written: Mapping[str, str],
        channels_last: Collection[str],
    ) -> None:
        self._graph = graph
        self._roots = roots
        self._read = read
        self._written = written
        self._channels_last = channels_last

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
        rank = len(shapes[0])
        last = join.outputs[0].name in self._channels_last
        axis = int(join.attrs.get("axis", 1)) % rank
        if axis != (rank - 1 if last or rank < 2 else 1):
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
        return plane(shape, channels_last=name in self._channels_last) if shape else None

    def _shape(self, name: str) -> list[int]:
        found = self._graph.types.get(name)
        if found is None or not found.is_static:
            return []
        return [size for size in found.shape or () if isinstance(size, int)]
