"""How far an activation can move past the nodes around it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from actcc.activations.functions import Activation
from actcc.activations.movement import JOIN, moved_data, moves_data, obstacle
from actcc.graph import Graph, Node, Tensor


@dataclass(frozen=True)
class Way:
    """Nodes that an activation may change places with, the nearest first.

    Attributes:
        elements: how many the activation works on beyond each node; None where it is not known.
        present: how many it works on now.
        ended: why it may not go past the next node that moves data; empty where there is none.
    """

    nodes: tuple[Node, ...]
    elements: tuple[int | None, ...]
    present: int | None
    ended: str

    @property
    def least_work(self) -> int:
        """How many nodes to go past to where there are fewest elements; 0 to stay."""
        known = [size for size in self.elements if size is not None]
        if not known or self.present is None or min(known) >= self.present:
            return 0
        return self.elements.index(min(known)) + 1


def way_behind(graph: Graph, writes: Tensor, function: Activation) -> Way:
    """The way past the nodes that read the activation, each of them its only reader."""
    nodes: list[Node] = []
    tensor, ended = writes, ""
    while moving := [node for node in graph.consumers(tensor) if _takes(node, tensor)]:
        ended = obstacle(graph, moving[0], function) or needed(graph, tensor, [moving[0].name])
        if ended:
            break
        nodes.append(moving[0])
        tensor = moving[0].outputs[0]
    elements = tuple(_elements(graph, node.outputs[:1]) for node in nodes)
    return Way(tuple(nodes), elements, _elements(graph, [writes]), ended)


def way_before(graph: Graph, reads: Tensor, readers: Collection[str], function: Activation) -> Way:
    """The way past the nodes that feed the activation, whose nodes are `readers`."""
    nodes: list[Node] = []
    tensor, ended = reads, ""
    while not nodes or nodes[-1].op != JOIN:
        writer = graph.producer(tensor)
        if writer is None or not moves_data(writer):
            break
        ended = obstacle(graph, writer, function) or needed(graph, tensor, readers)
        if not ended and any(graph.constant(data) is not None for data in moved_data(writer)):
            ended = f"{writer.op} '{writer.name}' also moves a constant"
        if ended:
            break
        nodes.append(writer)
        tensor, readers = writer.inputs[0], [writer.name]
    elements = tuple(_elements(graph, moved_data(node)) for node in nodes)
    return Way(tuple(nodes), elements, _elements(graph, [reads]), ended)


def needed(graph: Graph, tensor: Tensor, readers: Collection[str]) -> str:
    """Why a tensor has to stay: something but the nodes `readers` needs it; empty if not."""
    if graph.is_output(tensor):
        return f"'{tensor.name}' is an output of the graph"
    if graph.is_read_in_subgraph(tensor):
        return f"'{tensor.name}' is read in a subgraph"
    others = [node.name for node in graph.consumers(tensor) if node.name not in readers]
    return f"'{tensor.name}' is read by node '{others[0]}' too" if others else ""


def _takes(node: Node, tensor: Tensor) -> bool:
    """Whether the node moves this tensor, and no other beside it."""
    return moves_data(node) and node.op != JOIN and node.inputs[0] is tensor


def _elements(graph: Graph, tensors: Iterable[Tensor]) -> int | None:
    found = [graph.types.get(tensor.name) for tensor in tensors]
    known = [entry.elements for entry in found if entry is not None and entry.is_static]
    return sum(known) if len(known) == len(found) else None
