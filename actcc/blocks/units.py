"""Inner units of a block: channels that its layers hand on and nobody else sees.

    dense layer → activation → (depthwise layer → activation → …) dense layer

The middle of an inverted residual or of a bottleneck, the hidden layer of an MLP, what one
convolution of a stack hands to the next. A unit is made by one row of the first layer's weights,
goes through depthwise layers and activations by itself, and is read by one column of the last
layer's; so it can be left out without a change to any other. A squeeze-and-excitation on the way
has a column of its first layer and a row of its last one for each unit; there the others do change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from actcc.blocks.chains import Chain, Link, find_chains
from actcc.blocks.gates import Gate, find_gates
from actcc.blocks.kinds import LayerShape, layer_shape
from actcc.graph import Graph
from actcc.graph.operators import ONNX_DOMAINS
from actcc.linear.linear_layer import linear_layer
from actcc.site import Refusal

_PRODUCTS = ("Gemm", "MatMul")
# Their constants are axes.
_SHAPES = frozenset({"ReduceMean", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class InnerUnits:
    """Layers that hand units on.

    Attributes:
        links: the dense layer that makes the units, depthwise ones, and the dense one that reads
            them.
        shapes: of those layers.
        gates: of each squeeze-and-excitation on the way, the first layer and the last.
    """

    links: Chain
    shapes: tuple[LayerShape, ...]
    gates: tuple[tuple[Link, Link], ...] = ()

    @property
    def count(self) -> int:
        """Number of units."""
        return self.shapes[0].outputs


def find_inner_units(graph: Graph) -> Iterator[InnerUnits | Refusal]:
    """All of a graph in topological order, and why some have to stay as they are.

    Layers with nothing between them are left out: they are one layer.
    """
    chains = find_chains(graph)
    walk = _Walk(graph, chains)
    for chain in chains:
        shapes = [layer_shape(graph, link) for link in chain]
        for start in range(len(chain) - 1):
            found = _from(chain[start:], shapes[start:])
            if found is None or all(link.is_bare for link in found.links[:-1]):
                continue
            checked = walk.checked(found)
            if isinstance(checked, str):
                yield Refusal(found.links[-1].gives, checked)
            else:
                yield checked


def _from(links: Chain, shapes: Sequence[LayerShape | None]) -> InnerUnits | None:
    """The units that the first of some links makes; None where it is not dense, or none reads."""
    known: list[LayerShape] = []
    for shape in shapes:
        if shape is None:
            return None
        known.append(shape)
        dense = shape.groups == 1
        if len(known) > 1 and dense:
            return InnerUnits(tuple(links[: len(known)]), tuple(known))
        if dense != (len(known) == 1) or not (dense or shape.is_depthwise):
            return None
    return None


class _Walk:
    """Looks at what stands behind layers."""

    def __init__(self, graph: Graph, chains: Iterable[Chain]) -> None:
        self._graph = graph
        self._links = {link.layer: link for chain in chains for link in chain}
        self._gates = {gate.nodes[-1]: gate for gate in find_gates(graph)}

    def checked(self, found: InnerUnits) -> InnerUnits | str:
        """The units with their gates, or why they have to stay."""
        if any(shape.inputs != found.count for shape in found.shapes[1:]):
            return "a depthwise layer makes several channels of one"
        if len({link.op in _PRODUCTS for link in found.links}) > 1:
            return "the units are no channels of a convolution for one layer, and are for another"
        gates: list[tuple[Link, Link]] = []
        for link in found.links:
            problem = _of_layer(self._graph, link)
            if problem:
                return problem
        for link in found.links[:-1]:
            behind = set(link.nodes[link.own :])
            for gate in [self._gates[name] for name in link.nodes if name in self._gates]:
                layers = self._layers_of(gate, found.count)
                if isinstance(layers, str):
                    return layers
                gates.append(layers)
                behind -= set(gate.nodes)
            problem = self._behind(name for name in link.nodes if name in behind)
            if problem:
                return problem
        return replace(found, gates=tuple(gates))

    def _layers_of(self, gate: Gate, units: int) -> tuple[Link, Link] | str:
        """The two layers of a squeeze-and-excitation, or why its units have to stay."""
        where = f"the squeeze-and-excitation of '{gate.reads}'"
        links = [self._links[name] for name in gate.nodes if name in self._links]
        shapes = [layer_shape(self._graph, link) for link in links]
        if len(links) != 2 or shapes[0] is None or shapes[1] is None:
            return f"{where} has {len(links)} layers, not two"
        first, last = shapes[0], shapes[1]
        dense = first.groups == last.groups == 1
        if not dense or first.inputs != units or last.outputs != units:
            return f"the layers of {where} do not map the units"
        problems = [_of_layer(self._graph, link) for link in links]
        own = {name for link in links for name in link.nodes[: link.own]}
        others = [name for name in gate.nodes if name not in own]
        problems.append(self._behind([n for n in others if self._graph.node(n).op not in _SHAPES]))
        return next((problem for problem in problems if problem), "") or (links[0], links[1])

    def _behind(self, names: Iterable[str]) -> str:
        """Why nodes between layers need all of the units."""
        for name in names:
            node = self._graph.node(name)
            if node.op in ("QuantizeLinear", "DequantizeLinear"):
                return "the layers are inside QDQ: their scales were calibrated for these weights"
            if node.domain not in ONNX_DOMAINS:
                return f"what shape '{node.op}' of domain '{node.domain}' gives is not inferred"
            constants = [self._graph.constant(tensor) for tensor in node.inputs]
            if any(values is not None and values.size > 1 for values in constants):
                return f"{node.op} '{name}' has numbers of its own for each unit"
        return ""


def _of_layer(graph: Graph, link: Link) -> str:
    node = graph.node(link.layer)
    layer = linear_layer(graph, node)
    if isinstance(layer, str):
        return layer
    readers = [other for other in graph.consumers(node.inputs[1]) if other.name != node.name]
    if readers:
        return f"the weights of '{node.name}' are shared with '{readers[0].name}'"
    return "it transposes its input" if node.attrs.get("transA", 0) else ""
