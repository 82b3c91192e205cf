"""Squeeze-and-excitation: channels of a tensor weighted by what their means say.

    y = x · g,   g = σ(W₂ · f(W₁ · mean(x)))

(Hu et al. 2018, section 3), found by structure: a product of a tensor with something that has one
number for each of its channels and is computed from its mean over all positions alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from actcc.graph import Graph, Node, Tensor

_MEANS = frozenset({"GlobalAveragePool", "ReduceMean", "AveragePool"})
_MOST_NODES = 24


@dataclass(frozen=True)
class Gate:
    """A squeeze-and-excitation.

    Attributes:
        nodes: names, the mean first and the product last.
        reads: the tensor that is weighted.
        writes: the product.
    """

    nodes: tuple[str, ...]
    reads: str
    writes: str


def find_gates(graph: Graph) -> list[Gate]:
    """All squeeze-and-excitations of a graph, in topological order."""
    found = (_gate(graph, product) for product in graph.nodes("Mul"))
    return [gate for gate in found if gate is not None]


def _gate(graph: Graph, product: Node) -> Gate | None:
    for tensor, weights in (product.inputs, list(reversed(product.inputs))):
        if not _is_one_a_channel(graph, tensor, weights):
            continue
        inside = _computed_from_mean(graph, tensor, weights)
        if inside:
            order = [node.name for node in graph.nodes() if node.name in inside]
            return Gate((*order, product.name), tensor.name, product.outputs[0].name)
    return None


def _is_one_a_channel(graph: Graph, tensor: Tensor, weights: Tensor) -> bool:
    whole, narrow = graph.shape(tensor), graph.shape(weights)
    if whole is None or narrow is None or len(whole) != len(narrow) or len(whole) < 3:
        return False
    sizes = [size for size in narrow[1:] if size != 1]
    return len(sizes) == 1 and sizes[0] in whole[1:] and whole != narrow


def _computed_from_mean(graph: Graph, tensor: Tensor, weights: Tensor) -> set[str]:
    """Nodes that compute `weights` from the mean of `tensor`; empty where there is more to it."""
    found: set[str] = set()
    frontier, means = [weights], 0
    while frontier:
        node = graph.producer(frontier.pop())
        if node is None or node.name in found:
            continue
        found.add(node.name)
        if len(found) > _MOST_NODES:
            return set()
        if node.op in _MEANS and node.inputs[0].name == tensor.name:
            means += _is_over_all_positions(graph, node)
            continue
        frontier += graph.reads(node)
    reached = {name for name in found if graph.node(name).op in _MEANS}
    starts = [t for name in found - reached for t in graph.reads(graph.node(name))]
    loose = [t for t in starts if graph.producer(t) is None and graph.constant(t) is None]
    written = [t for name in found for t in graph.node(name).outputs if not t.is_empty()]
    leaving = [t for t in written if _leaves(graph, t, found, weights)]
    return found if means == 1 == len(reached) and not loose and not leaving else set()


def _leaves(graph: Graph, tensor: Tensor, inside: set[str], weights: Tensor) -> bool:
    """Whether anything but the gate itself reads a tensor of the gate."""
    readers = [reader for reader in graph.readers(tensor) if reader.name not in inside]
    return graph.is_output(tensor) or len(readers) > (1 if tensor is weights else 0)


def _is_over_all_positions(graph: Graph, mean: Node) -> bool:
    shape = graph.shape(mean.outputs[0])
    return shape is not None and math.prod(s for s in shape[1:] if isinstance(s, int)) == max(
        (s for s in shape[1:] if isinstance(s, int)), default=0
    )
