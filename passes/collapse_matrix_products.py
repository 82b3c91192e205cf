"""The two fully connected layers of an MLP, and the activation between them, as one.

    f(x·W₁ + b₁)·W₂ + b₂   →   x·W + b,   W = W₁·W₂,  b = b₁·W₂ + b₂

The activation is dropped (Layer Folding, Ben Dror et al. 2022, applied to Linear, GELU, Linear).
What is written is fitted by the repair to what the MLP gave. Approximate, bound by the budget; in
a wide MLP one layer of few inputs and outputs is far cheaper than two of many inner units.

Requires: constant weights, biases that are one row, and that nothing else reads what lies between.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from actcc.blocks import find_chains
from actcc.errors import PassError
from actcc.graph import Graph
from actcc.linear import FullyConnected, Obstacle, compose_maps, fits, fully_connected
from actcc.pass_api import Pass, rewrite
from actcc.site import Candidate, Fact, Refusal, Site
from actcc.targets import Target

_PRODUCTS = ("Gemm", "MatMul")


@rewrite("collapse-matrix-products")
class CollapseMatrixProducts(Pass):
    """Linear, activation, Linear  →  Linear."""

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
                nodes = [*first.nodes, *second.nodes[: second.own]]
                facts: dict[str, Fact] = {"first": first.layer, "second": second.layer}
                kind = f"{first.op}, {second.op}"
                yield Site(nodes, first.reads, second.gives, kind, facts)

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """One layer."""
        yield Candidate("one layer")

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Write the product of the weights."""
        pair = _pair(graph, str(site.facts["first"]), str(site.facts["second"]))
        if isinstance(pair, Obstacle):
            raise PassError(f"site '{site.id}' cannot be rewritten any more: {pair.reason}")
        _merge(graph, site, *pair)


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
