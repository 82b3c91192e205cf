"""A fully connected layer directly behind another becomes part of it.

    (x·W₁ + b₁)·W₂ + b₂  =  x·(W₁·W₂) + (b₁·W₂ + b₂)

Gemm, and MatMul with or without an Add behind it. It pays unless the two pass through few channels,
as a low-rank layer does: whether it does is in the price.

Requires: nothing else reads what lies between; constant weights, and biases that are one row. A
chain of three is offered as its two pairs; a second run merges the rest.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from actcc.errors import PassError
from actcc.graph import Graph, Node
from actcc.graph.operators import ONNX_DOMAINS
from actcc.linear import (
    FullyConnected,
    Obstacle,
    Types,
    compose_maps,
    fits,
    fully_connected,
    largest_composed_map,
    only_read_by,
)
from actcc.pass_api import Pass, rewrite
from actcc.site import Candidate, Refusal, Site
from actcc.targets import Target

_PRODUCTS = ("Gemm", "MatMul")


@rewrite("merge-matrix-products", exact=True)
class MergeMatrixProducts(Pass):
    """Gemm or MatMul (Add), Gemm or MatMul (Add)  →  Gemm, or MatMul and Add."""

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """One site for each pair, in topological order, and why others are not offered."""
        types = graph.types
        for node in graph.nodes():
            before = _product_before(graph, node) if _is_product(node) else None
            if before is None:
                continue
            pair = _pair(graph, before, node, types)
            if isinstance(pair, Obstacle):
                yield Refusal(node.outputs[0].name, pair.reason)
                continue
            first, second = pair
            nodes = [*first.nodes, *second.nodes]
            kind = "+".join(member.op for member in nodes)
            yield Site(nodes, first.source, second.result, kind)

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """The one layer."""
        yield Candidate("Gemm" if "Gemm" in site.kind else "MatMul")

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Write the product in the place of both."""
        products = [node for node in map(graph.node, site.nodes) if _is_product(node)]
        pair = _pair(graph, products[0], products[-1], graph.types)
        if isinstance(pair, Obstacle):
            raise PassError(f"site '{site.id}' cannot be merged any more: {pair.reason}")
        first, second = pair
        merged = compose_maps(first.map, second.map)
        if not fits([merged.weights, merged.bias], first.element):
            reason = f"the merged weights would lose digits in {first.element}"
            raise PassError(f"site '{site.id}': {reason}")
        stem = products[-1].inputs[1].name
        operands = [first.source, graph.initializer(stem, merged.weights.astype(first.element))]
        bias = graph.initializer(f"{stem}_bias", merged.bias.astype(first.element))
        if candidate.name == "Gemm":
            graph.replace(site, "Gemm", [*operands, bias])
        elif merged.bias.any():
            graph.replace(site, "Add", [graph.insert("MatMul", operands), bias])
        else:
            graph.replace(site, "MatMul", operands)


def _is_product(node: Node) -> bool:
    return node.op in _PRODUCTS and node.domain in ONNX_DOMAINS


def _product_before(graph: Graph, node: Node) -> Node | None:
    """The Gemm or MatMul that feeds the node, past an Add."""
    writer = graph.producer(node.inputs[0])
    if writer is not None and writer.op == "Add" and writer.domain in ONNX_DOMAINS:
        writers = (graph.producer(tensor) for tensor in writer.inputs)
        return next((found for found in writers if found is not None and _is_product(found)), None)
    return writer if writer is not None and _is_product(writer) else None


def _pair(
    graph: Graph, before: Node, node: Node, types: Types
) -> tuple[FullyConnected, FullyConnected] | Obstacle:
    first, second = (fully_connected(graph, each, types) for each in (before, node))
    if isinstance(first, Obstacle):
        return Obstacle(f"the first layer: {first.reason}")
    if isinstance(second, Obstacle):
        return Obstacle(f"the second layer: {second.reason}")
    if first.result is not second.source:
        return Obstacle("what is added between the two layers is no constant row")
    if not only_read_by(graph, first.result):
        return Obstacle("what the first layer writes is also read elsewhere")
    if first.element != second.element:
        return Obstacle("their weights are of different types")
    if largest_composed_map(first.map, second.map) > float(np.finfo(first.element).max):
        return Obstacle("the merged weights may overflow")
    return first, second
