"""What the rewritten network is compared with the original by: tensors of the same name.

*Features* are what layers read: errors there are what the layers behind must live with. They are
compared free of each channel's mean, since the next layer's bias absorbs that.

*Outputs* are traced back through joins and reshapes to what they are made of: probabilities behind
a Sigmoid or Softmax, and plain values. Where a Concat joins them at one position (a detector's
boxes, objectness and classes), what is said of a position counts by how sure the original is of
the rest that is said there: a box where nothing is seen is noise.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from actcc.graph import Graph
from actcc.repair.layers import Layer

Kind: TypeAlias = Literal["sigmoid", "softmax", "value"]
_JOINING = frozenset(
    {"Cast", "Concat", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)


@dataclass(frozen=True)
class Feature:
    """A tensor inside the network.

    Attributes:
        axis: where its channels are.
    """

    name: str
    axis: int


@dataclass(frozen=True)
class Leaf:
    """A tensor that an output is made of.

    Attributes:
        axis: over which a Softmax sums to one.
    """

    name: str
    kind: Kind
    axis: int = -1


@dataclass(frozen=True)
class OutputGroup:
    """Leaves that speak of the same positions.

    Attributes:
        axis: along which they are joined.
    """

    leaves: tuple[Leaf, ...]
    axis: int = 1


def shared_tensors(original: Graph, rewritten: Graph) -> frozenset[str]:
    """Names of float tensors that both networks compute, with the same shape."""
    computed = [
        {t.name for node in graph.nodes() for t in node.outputs if not t.is_empty()}
        for graph in (original, rewritten)
    ]
    return frozenset(
        name
        for name in computed[0] & computed[1]
        if original.shape(name) == rewritten.shape(name) and _is_float(rewritten, name)
    )


def features(layers: Collection[Layer], shared: Collection[str]) -> tuple[Feature, ...]:
    """What the layers read, each once, in topological order."""
    found: dict[str, Feature] = {}
    for layer in layers:
        if layer.reads in shared and layer.reads not in found:
            found[layer.reads] = Feature(layer.reads, input_axis(layer))
    return tuple(found.values())


def input_axis(layer: Layer) -> int:
    """Where the channels are that a layer reads."""
    if layer.window is not None:
        return 1
    return 0 if layer.transposed[0] else -1


def output_groups(original: Graph, shared: Collection[str]) -> tuple[OutputGroup, ...]:
    """What the original's outputs are made of, as far as both networks compute it."""
    groups: dict[tuple[str, ...], OutputGroup] = {}
    for output in original.outputs:
        for group in _groups(original, str(output.name), shared):
            groups.setdefault(tuple(leaf.name for leaf in group.leaves), group)
    return tuple(groups.values())


def _groups(graph: Graph, name: str, shared: Collection[str]) -> list[OutputGroup]:
    node = graph.producer(name)
    sources = []
    if node is not None and node.op in _JOINING:
        sources = [t.name for t in node.inputs if graph.constant(t) is None]
    if node is None or not sources or not set(sources) <= set(shared):
        return [OutputGroup((_leaf(graph, name),))] if name in shared else []
    leaves = tuple(_leaf(graph, source) for source in sources)
    if node.op == "Concat" and any(leaf.kind != "value" for leaf in leaves):
        return [OutputGroup(leaves, int(node.attrs["axis"]))]
    return [group for source in sources for group in _groups(graph, source, shared)]


def _leaf(graph: Graph, name: str) -> Leaf:
    node = graph.producer(name)
    if node is not None and node.op == "Sigmoid":
        return Leaf(name, "sigmoid")
    if node is not None and node.op == "Softmax":
        return Leaf(name, "softmax", int(node.attrs.get("axis", -1 if graph.opset >= 13 else 1)))
    return Leaf(name, "value")


def _is_float(graph: Graph, name: str) -> bool:
    dtype: np.dtype[np.generic] | None = graph.dtype(name)
    return dtype is not None and dtype.kind == "f"


def leaf_names(groups: Collection[OutputGroup]) -> tuple[str, ...]:
    """Names of all leaves."""
    return tuple(leaf.name for group in groups for leaf in group.leaves)


def within(groups: Collection[OutputGroup], names: Collection[str]) -> tuple[OutputGroup, ...]:
    """The groups all of whose leaves are among `names`."""
    return tuple(g for g in groups if {leaf.name for leaf in g.leaves} <= set(names))
