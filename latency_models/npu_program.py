"""A graph as an NPU runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actcc.graph.macs import Contraction

HOST = "host"


@dataclass(frozen=True)
class Operation:
    """What the device runs as one.

    Attributes:
        name: of its first node.
        op: ONNX operators or activations, joined by "+" where they fused.
        kind: class of operator in the profile, or `HOST`.
        nodes: names of the nodes that it computes.
        reads, writes: feature maps in memory, by the name that they had when they were written.
        work: multiply-accumulates, where there are any.
        window: elements of a pooling window, or of a row that Softmax runs over.
        activation: the one that its results go through on the way to memory, "" for none.
        lookup: whether they go through a table.
        elementwise: whether each result takes one element of each operand.
        binary: whether it has two operands, scalars among them.
        constants: shapes of the constant operands of an element-wise operation that are no single
            numbers, with as many axes as the result has.
    """

    name: str
    op: str
    kind: str
    nodes: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    work: Contraction | None = None
    window: int = 1
    activation: str = ""
    lookup: bool = False
    elementwise: bool = False
    binary: bool = True
    constants: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Program:
    """A graph as an NPU runs it.

    Attributes:
        operations: in topological order; what is free is not among them.
        scratch: elements that a node needs for itself, by node name, where one node is run as
            several passes.
        outputs: feature maps that leave the network, by the name that they had when they were
            written.
        orders: the axes of each tensor as they lie in memory, the innermost one last.
        parts: the feature map that a part is read of or written to, by the part's name.
        linear: feature maps that lie in the host's layout.
    """

    operations: tuple[Operation, ...]
    scratch: Mapping[str, int]
    outputs: frozenset[str]
    orders: Mapping[str, tuple[int, ...]]
    parts: Mapping[str, str]
    linear: frozenset[str]

    @property
    def fused(self) -> list[tuple[str, ...]]:
        """Groups of nodes that run as one."""
        return [op.nodes for op in self.operations if len(op.nodes) > 1]
