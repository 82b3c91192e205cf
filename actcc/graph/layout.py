"""Regions of a graph whose tensors are all in one layout, and what another layout would save.

A node belongs to a region if it computes the same, element by element, in any layout: element-wise
operators, Concat, quantization by tensor, and reductions that keep their axes. What such a region
reads and writes is moved by Transposes, or could be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from actcc.graph.axes import RESHAPING, moves_unit_axes
from actcc.graph.graph import Graph
from actcc.graph.operators import ELEMENTWISE, ONNX_DOMAINS, REDUCTIONS
from actcc.graph.shapes import Shape
from actcc.graph.view import Array, Node, Tensor

_QUANTIZATION = ("QuantizeLinear", "DequantizeLinear")
Permutation = tuple[int, ...]


@dataclass(frozen=True)
class Region:
    """Nodes whose tensors are in one layout and could be in the one before a Transpose.

    Attributes:
        permutation: from the other layout into this one.
        nodes: in topological order.
        tensors: those in this layout that nodes of the region read or write.
        entering: those of them that nodes outside write.
    """

    permutation: Permutation
    nodes: tuple[Node, ...]
    tensors: tuple[Tensor, ...]
    entering: tuple[Tensor, ...]

    def readers_outside(self, graph: Graph, tensor: Tensor) -> list[Node]:
        """Nodes outside the region that read a tensor of it."""
        inside = {id(node) for node in self.nodes}
        return [node for node in graph.consumers(tensor) if id(node) not in inside]


def region_around(graph: Graph, start: Tensor, permutation: Permutation) -> Region:
    """All nodes that are joined to a tensor by tensors of its layout.

    Args:
        permutation: by which the tensor's layout comes from the other.
    """
    inside: dict[int, Node] = {}
    tensors, waiting = {id(start): start}, [start]
    while waiting:
        tensor = waiting.pop()
        for node in (*tensor.inputs, *graph.consumers(tensor)):
            if id(node) in inside or not _is_free(graph, node, permutation):
                continue
            inside[id(node)] = node
            for joined in (*node.inputs, *node.outputs):
                if has_layout(graph, joined) and id(joined) not in tensors:
                    tensors[id(joined)] = joined
                    waiting.append(joined)
    nodes = tuple(node for node in graph.nodes() if id(node) in inside)
    written = {id(tensor) for node in nodes for tensor in node.outputs}
    entering = tuple(t for name, t in tensors.items() if name not in written)
    return Region(permutation, nodes, tuple(tensors.values()), entering)


def saving(graph: Graph, region: Region) -> tuple[int, int]:
    """Elements that no longer move, and Transposes that go, if the region has the other layout.

    Less than (0, 0) where it would cost; (0, 0) where nothing changes, where a Transpose would have
    to be added on a tensor of unknown size, and where the region reduces its last axis, which is a
    normalization that runtimes know over the last axis only. Tensors of unknown size count as
    Transposes and not as elements.
    """
    back = inverse(region.permutation)
    entering = {id(tensor) for tensor in region.entering}
    elements = transposes = 0
    for tensor in region.tensors:
        outside = region.readers_outside(graph, tensor)
        if any(_reduces_last(graph, reader) for reader in outside):
            return (0, 0)
        size = _moved_elements(graph, tensor, region.permutation)
        cancelling = sum(moves_by(graph, reader, back) for reader in outside)
        named = graph.is_output(tensor) or graph.is_read_in_subgraph(tensor)
        kept = named or cancelling < len(outside)
        change = cancelling
        if id(tensor) in entering:
            writer = graph.producer(tensor)
            cancels = writer is not None and moves_by(graph, writer, region.permutation)
            change += int(not kept) if cancels else -1
        elif kept:
            change -= 1
        if change < 0 and size is None:
            return (0, 0)
        elements, transposes = elements + change * (size or 0), transposes + change
    return elements, transposes


def permutation_of(graph: Graph, node: Node) -> Permutation | None:
    """By what a node may transpose; a Reshape from channels-first to channels-last, if anything."""
    if node.domain not in ONNX_DOMAINS or node.op not in (*RESHAPING, "Transpose"):
        return None
    before, after = graph.shape(node.inputs[0]), graph.shape(node.outputs[0])
    if before is None or after is None or len(before) != len(after) or len(before) < 2:
        return None
    rank = len(before)
    if node.op == "Transpose":
        return tuple(node.attrs.get("perm", range(rank)[::-1]))
    return (0, *range(2, rank), 1)


def moves_by(graph: Graph, node: Node, permutation: Permutation) -> bool:
    """Whether a node transposes by the permutation, or reshapes to the same result."""
    own = permutation_of(graph, node)
    if own is None or len(own) != len(permutation):
        return False
    before, after = _sizes(graph.shape(node.inputs[0])), _sizes(graph.shape(node.outputs[0]))
    if node.op == "Transpose":
        if own == permutation:
            return True
        if before is None or not moves_unit_axes(before, own):
            return False
    if before is None or after != [before[axis] for axis in permutation]:
        return False
    return moves_unit_axes(before, permutation)


def inverse(permutation: Permutation) -> Permutation:
    """The permutation that undoes one."""
    return tuple(permutation.index(axis) for axis in range(len(permutation)))


def has_layout(graph: Graph, tensor: Tensor) -> bool:
    """Whether a tensor is computed and has axes."""
    if tensor.is_empty() or graph.constant(tensor) is not None:
        return False
    return graph.shape(tensor) != ()


def _is_free(graph: Graph, node: Node, permutation: Permutation) -> bool:
    """Whether a node computes the same in any layout, and its result needs no name."""
    if node.domain not in ONNX_DOMAINS or len(node.outputs) != 1:
        return False
    written = node.outputs[0]
    if graph.is_output(written) or graph.is_read_in_subgraph(written):
        return False
    shapes = [graph.shape(t) for t in (*node.inputs, written) if has_layout(graph, t)]
    rank = len(permutation)
    if any(shape is None or len(shape) != rank for shape in shapes):
        return False
    given = [tensor for tensor in node.inputs[1:] if not tensor.is_empty()]
    constants = [value for tensor in node.inputs if (value := _value(graph, tensor)) is not None]
    if node.op in REDUCTIONS:
        kept = node.attrs.get("keepdims", 1) == 1 and len(constants) == len(given)
        return kept and not _reduces_last(graph, node)
    if node.op in _QUANTIZATION:
        return len(constants) == len(given) and all(value.size == 1 for value in constants)
    fits = all(value.ndim <= rank for value in constants)
    return fits and (node.op in ELEMENTWISE or node.op == "Concat")


def reduced_axes(graph: Graph, node: Node) -> list[int]:
    """The axes that a reduction names; none where it reduces all."""
    given = graph.argument(node, "axes")
    if given is None:
        return []
    return [int(axis) for axis in (given if hasattr(given, "__iter__") else [given])]


def _reduces_last(graph: Graph, node: Node) -> bool:
    """Whether a reduction names the last axis alone."""
    shape = graph.shape(node.inputs[0]) if node.op in REDUCTIONS else None
    if shape is None:
        return False
    return [axis % len(shape) for axis in reduced_axes(graph, node)] == [len(shape) - 1]


def _moved_elements(graph: Graph, tensor: Tensor, permutation: Permutation) -> int | None:
    """How many elements a Transpose of the tensor moves; None where its size is unknown."""
    sizes = _sizes(graph.shape(tensor))
    if sizes is None:
        return None
    before = [sizes[axis] for axis in inverse(permutation)]
    return 0 if moves_unit_axes(before, permutation) else math.prod(sizes)


def _sizes(shape: Shape | None) -> Sequence[int] | None:
    sizes = [size for size in shape or () if isinstance(size, int)]
    return sizes if shape is not None and len(sizes) == len(shape) else None


def _value(graph: Graph, tensor: Tensor) -> Array | None:
    return None if tensor.is_empty() else graph.constant(tensor)
