"""Inner units of a block: channels that its layers hand on and nobody else sees.

    dense layer → activation → (depthwise layer → activation → …) dense layer

The middle of an inverted residual or of a bottleneck, the hidden layer of an MLP, what one
convolution of a stack hands to the next. A unit is made by one row of the first layer's weights,
goes through depthwise layers and activations by itself, and is read by one column of the last
layer's; so it can be left out without a change to any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from actcc.blocks.chains import Chain, Link, find_chains
from actcc.blocks.kinds import LayerShape, layer_shape
from actcc.graph import Graph
from actcc.graph.operators import ONNX_DOMAINS
from actcc.linear.linear_layer import linear_layer
from actcc.site import Refusal

_PRODUCTS = ("Gemm", "MatMul")


@dataclass(frozen=True)
class InnerUnits:
    """Layers that hand units on.

    Attributes:
        links: the dense layer that makes the units, depthwise ones, and the dense one that reads
            them.
        shapes: of those layers.
    """

    links: Chain
    shapes: tuple[LayerShape, ...]

    @property
    def count(self) -> int:
        """Number of units."""
        return self.shapes[0].outputs


def find_inner_units(graph: Graph) -> Iterator[InnerUnits | Refusal]:
    """All of a graph in topological order, and why some have to stay as they are.

    Layers with nothing between them are left out: they are one layer.
    """
    for chain in find_chains(graph):
        shapes = [layer_shape(graph, link) for link in chain]
        for start in range(len(chain) - 1):
            found = _from(chain[start:], shapes[start:])
            if found is None or all(link.is_bare for link in found.links[:-1]):
                continue
            problem = _obstacle(graph, found)
            yield Refusal(found.links[-1].gives, problem) if problem else found


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


def _obstacle(graph: Graph, found: InnerUnits) -> str:
    """Why the units have to stay; empty where some can go."""
    for link in found.links:
        problem = _of_layer(graph, link)
        if problem:
            return problem
    for link in found.links[:-1]:
        problem = _behind(graph, link)
        if problem:
            return problem
    if len({link.op in _PRODUCTS for link in found.links}) > 1:
        return "the units are no channels of a convolution for one layer, and are for another"
    if any(shape.inputs != found.count for shape in found.shapes[1:]):
        return "a depthwise layer makes several channels of one"
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


def _behind(graph: Graph, link: Link) -> str:
    """Why what stands behind a layer needs all of its units."""
    if link.gated:
        return f"the squeeze-and-excitation behind '{link.layer}' has layers of its own for them"
    for name in link.nodes[link.own :]:
        node = graph.node(name)
        if node.op in ("QuantizeLinear", "DequantizeLinear"):
            return "the layers are inside QDQ: their scales were calibrated for these weights"
        if node.domain not in ONNX_DOMAINS:
            return f"what shape '{node.op}' of domain '{node.domain}' gives is not inferred"
        sizes = [values.size for t in node.inputs if (values := graph.constant(t)) is not None]
        if any(size > 1 for size in sizes):
            return f"{node.op} '{name}' has numbers of its own for each unit"
    return ""
