"""A graph cut into layers: what toolchains run as one, each as a small graph of its own.

A layer is an operator with the element-wise work and the views behind it that read nothing but the
layer itself. Whether a node belongs to a layer follows from its producers alone, so a rewrite in
one place leaves all other layers as they are, and equal layers have equal structure hashes.
"""

from __future__ import annotations

from collections.abc import Collection

from actcc.errors import PricingError
from actcc.graph.extract import extract
from actcc.graph.graph import Graph
from actcc.graph.operators import HEAVY
from actcc.graph.view import Node

# Read the whole plane or several tensors, and are a pass over memory of their own.
_APART = frozenset(
    {
        "AveragePool",
        "Concat",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "MaxPool",
        "Pad",
        "ReduceMean",
        "ReduceSum",
        "Resize",
        "Slice",
        "Softmax",
        "Split",
        "Upsample",
    }
)
STARTS = HEAVY | _APART


def layer_nodes(graph: Graph) -> list[frozenset[str]]:
    """Names of the nodes of each layer, in topological order of their first nodes.

    What follows from constants alone is no layer: it is computed when the model is loaded.
    """
    fed = {tensor.name for tensor in graph.inputs}
    layer_of: dict[str, int] = {}
    layers: list[set[str]] = []
    for node in graph.nodes():
        reads = [t.name for t in node.inputs if not t.is_empty() and t.name in fed]
        if not reads and not _is_source(node):
            continue
        fed.update(t.name for t in node.outputs if not t.is_empty())
        before = {layer_of.get(name) for name in reads}
        (index,) = before if len(before) == 1 else (None,)
        if index is None or node.op in STARTS:
            index = len(layers)
            layers.append(set())
        layers[index].add(node.name)
        layer_of.update((t.name, index) for t in node.outputs if not t.is_empty())
    return [frozenset(layer) for layer in layers]


def layers(graph: Graph) -> list[Graph]:
    """Each layer as a graph of its own, in order; weights are shared with `graph`.

    Raises:
        PricingError: a node holds a subgraph, whose cost depends on data.
        ModelError: a shape is not static.
    """
    for node in graph.nodes():
        if any(hasattr(value, "nodes") for value in node.attrs.values()):
            raise PricingError(
                f"node '{node.name}' ({node.op}) holds a subgraph, whose cost depends on the data; "
                "measure this model on the device, or remove the control flow"
            )
    found = layer_nodes(graph)
    placed = frozenset[str]().union(*found)
    return [extract(graph, nodes | _constant_part(graph, nodes, placed)) for nodes in found]


def whole_layers(graph: Graph, nodes: Collection[str]) -> set[str]:
    """Names of all nodes of the layers that hold at least one of the given nodes."""
    wanted = set(nodes)
    touched = (layer for layer in layer_nodes(graph) if layer & wanted)
    return wanted.union(*touched)


def _constant_part(graph: Graph, nodes: Collection[str], placed: Collection[str]) -> set[str]:
    """Names of the nodes in no layer that compute what the given nodes read."""
    found: set[str] = set()
    pending = list(nodes)
    while pending:
        for tensor in graph.node(pending.pop()).inputs:
            for writer in tensor.inputs:
                if writer.name not in placed and writer.name not in found:
                    found.add(writer.name)
                    pending.append(writer.name)
    return found


def _is_source(node: Node) -> bool:
    """Whether a node makes values of its own, as the random operators do."""
    return str(node.op).startswith("Random")
