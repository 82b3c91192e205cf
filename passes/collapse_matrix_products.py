"""The two fully connected layers of an MLP, and the activation between them, as one; or narrower.

    f(x·W₁ + b₁)·W₂ + b₂   →   x·W + b,                        W = W₁·W₂
                           →   f(x·W₁[:, J] + b₁[J])·W₂[J, :] + b₂

The first drops the activation (Layer Folding, Ben Dror et al. 2022, applied to Linear, GELU,
Linear). The second keeps it and removes inner units: those whose weights are small on both sides,
‖W₁[:, j]‖·‖W₂[j, :]‖ (the magnitude of a path; Han et al. 2015, section 3, prune by magnitude).
What is written is fitted by the repair to what the MLP gave. Approximate, bound by the budget; in
a wide MLP one layer of few inputs and outputs is far cheaper than two of many inner units.

Requires: constant weights, biases that are one row, and that nothing else reads what lies between;
the second also that all units have the same activation, and no gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

import numpy as np

from actcc.blocks import Link, find_chains
from actcc.errors import PassError
from actcc.graph import Array, Graph
from actcc.linear import FullyConnected, Obstacle, compose_maps, fits, fully_connected
from actcc.pass_api import Pass, rewrite
from actcc.site import Candidate, Fact, Refusal, Site
from actcc.targets import Target

_PRODUCTS = ("Gemm", "MatMul")
_NARROWER: Mapping[str, float] = {"half the width": 0.5, "a quarter of the width": 0.25}
_LEAST_WIDTH = 8


@rewrite("collapse-matrix-products")
class CollapseMatrixProducts(Pass):
    """Linear, activation, Linear  →  Linear, or the same with fewer units between."""

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """One site for each two layers with an activation between them."""
        for chain in find_chains(graph):
            for first, second in pairwise(chain):
                if first.op not in _PRODUCTS or second.op not in _PRODUCTS or first.is_bare:
                    continue
                pair = _pair(graph, first.layer, second.layer)
                if isinstance(pair, Obstacle):
                    yield Refusal(second.gives, pair.reason)
                    continue
                if [layer.result.name for layer in pair] != [first.gives, second.gives]:
                    yield Refusal(second.gives, "what is added to a product is no constant row")
                    continue
                width = len(pair[1].map.weights)
                nodes = [*first.nodes, *second.nodes[: second.own]]
                facts: dict[str, Fact] = {
                    "first": first.layer,
                    "second": second.layer,
                    "width": width,
                    "alike": _treats_units_alike(first),
                }
                kind = f"{first.op}, {second.op}"
                yield Site(nodes, first.reads, second.gives, kind, facts)

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """One layer, and the MLP with fewer inner units."""
        yield Candidate("one layer")
        for name, share in _NARROWER.items():
            if site.facts["alike"] and int(site.facts["width"]) * share >= _LEAST_WIDTH:
                yield Candidate(name)

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Write the product of the weights, or keep the heaviest inner units."""
        pair = _pair(graph, str(site.facts["first"]), str(site.facts["second"]))
        if isinstance(pair, Obstacle):
            raise PassError(f"site '{site.id}' cannot be rewritten any more: {pair.reason}")
        if candidate.name in _NARROWER:
            _narrow(graph, *pair, _NARROWER[candidate.name])
        else:
            _merge(graph, site, *pair)


def _treats_units_alike(link: Link) -> bool:
    """Whether what stands behind a layer has no numbers of its own for each unit."""
    return not link.gated and link.activation is not None and link.activation.name != "PRelu"


def _pair(
    graph: Graph, first: str, second: str
) -> tuple[FullyConnected, FullyConnected] | Obstacle:
    types = graph.types
    found = [fully_connected(graph, graph.node(name), types) for name in (first, second)]
    one, two = found
    if isinstance(one, Obstacle):
        return one
    if isinstance(two, Obstacle):
        return two
    if one.element != two.element:
        return Obstacle("their weights are of different types")
    return one, two


def _merge(graph: Graph, site: Site, first: FullyConnected, second: FullyConnected) -> None:
    merged = compose_maps(first.map, second.map)
    if not fits([merged.weights, merged.bias], first.element):
        raise PassError(
            f"site '{site.id}': the composed weights overflow or lose digits in {first.element}"
        )
    weights = graph.initializer(f"{site.writes}_weight", merged.weights.astype(first.element))
    bias = graph.initializer(f"{site.writes}_bias", merged.bias.astype(first.element))
    if second.is_gemm:
        graph.replace(site, "Gemm", [first.source, weights, bias])
    else:
        graph.replace(site, "Add", [graph.insert("MatMul", [first.source, weights]), bias])


def _narrow(graph: Graph, first: FullyConnected, second: FullyConnected, share: float) -> None:
    into, out = first.map.weights, second.map.weights
    importance = np.linalg.norm(into, axis=0) * np.linalg.norm(out, axis=1)
    count = int(len(importance) * share)
    chosen = np.sort(np.argsort(-importance, kind="stable")[:count])
    for layer, axis in ((first, 1), (second, 0)):
        for name, index, values in _operands(graph, layer, chosen, axis):
            graph.set_input(graph.node(name), index, values)


def _operands(
    graph: Graph, layer: FullyConnected, chosen: Array, axis: int
) -> Iterator[tuple[str, int, Array]]:
    """By node and place among its inputs: weights and biases of the chosen inner units alone.

    Args:
        axis: of [inputs, outputs], which of them the units are.
    """
    product = layer.nodes[0]
    transposed = bool(product.attrs.get("transB", 0))
    for node in layer.nodes:
        for index, tensor in enumerate(node.inputs):
            values = graph.constant(tensor)
            if values is None:
                continue
            if node is product and index == 1:
                yield (
                    node.name,
                    index,
                    np.take(values, chosen, axis=1 - axis if transposed else axis),
                )
            elif axis == 1 and values.size > 1:
                yield node.name, index, np.take(values, chosen, axis=-1)
