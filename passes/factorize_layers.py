"""A layer as two with few channels between them; two linear layers through fewer channels.

    W ∗ x + b              →   W₂ · (W₁ ∗ x) + b        W ≈ W₂·W₁, of rank r
    W₂ · (W₁ ∗ x + b₁) + b₂  →   the same with r channels between

A k×k convolution becomes k×k to r channels and 1×1 (Zhang et al. 2016, section 3.1), a fully
connected layer two of them (Sainath et al. 2013). Where weights have to come from slow memory, as
those of a classifier, the two are that much faster as they are smaller. Starts from the singular
value decomposition of W; the repair takes the r directions in which what the layer gives on
calibration data varies most. Approximate, bound by the budget.

Requires: constant weights in one group; fewer products than before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from actcc.blocks import Link, find_chains
from actcc.errors import PassError
from actcc.graph import Array, Graph
from actcc.linear import (
    MOST_DIRECTIONS,
    Axis,
    Convolution,
    FullyConnected,
    Obstacle,
    Types,
    as_operands,
    compose_maps,
    composition_inside,
    convolution_of,
    element_of,
    factors,
    fully_connected,
    on_axes,
    types_in_every_run,
)
from actcc.pass_api import Pass, rewrite
from actcc.site import Candidate, Fact, Refusal, Site
from actcc.targets import Target

# Of the rank at which nothing is gained.
_SHARES = (0.7, 0.55, 0.4)
_SHARES_OF_PAIRS = (0.85, 0.7, 0.55)
# Devices compute channels in groups of as many.
_GRANULE = 16
_LEAST_RANK = 32
# The repair sums products of any two of them.
_MOST_COLUMNS = 8192
_GEMM_WITHOUT_BIAS = 11

_Layer = Convolution | FullyConnected


@rewrite("factorize-layers")
class FactorizeLayers(Pass):
    """Layer  →  two of low rank; two linear layers  →  the same with fewer channels between."""

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """One site for each layer, then one for each two with nothing between."""
        types = types_in_every_run(graph)
        for chain in find_chains(graph):
            for link in chain:
                yield from _site(graph, [link], types)
            for first, second in pairwise(chain):
                if first.is_bare and len(first.nodes) == first.own:
                    yield from _site(graph, [first, second], types)

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """Some ranks below that at which nothing is gained."""
        for rank in str(site.facts["ranks"]).split():
            yield Candidate(f"rank {rank}")

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Write the two layers of the best approximation of that rank."""
        types = types_in_every_run(graph)
        names = str(site.facts["layers"]).split("\n")
        parts = _parts(graph, names, types)
        if isinstance(parts, Obstacle):
            raise PassError(f"site '{site.id}' cannot be rewritten any more: {parts.reason}")
        found = _whole(parts)
        rank = int(candidate.name.removeprefix("rank "))
        if isinstance(found, Convolution):
            _write_convolutions(graph, site, found, rank)
        else:
            _write_products(graph, site, found, rank)


def _site(graph: Graph, links: Sequence[Link], types: Types) -> Iterator[Site | Refusal]:
    last = links[-1]
    subject = last.gives if len(links) == 1 else f"{last.gives} ({len(links)} layers)"
    names = [link.layer for link in links]
    parts = _parts(graph, names, types)
    if isinstance(parts, Obstacle):
        yield Refusal(subject, parts.reason)
        return
    nodes = [name for link in links for name in link.nodes[: link.own]]
    if _nodes_of_products(parts) not in ([], nodes):
        yield Refusal(subject, "what is added to a product is no constant row")
        return
    columns, width = _matrix(parts[0]).shape
    outputs = _matrix(parts[-1]).shape[1]
    if min(columns, outputs) > MOST_DIRECTIONS or columns > _MOST_COLUMNS:
        yield Refusal(subject, f"{columns} × {outputs} weights are too many to decompose")
        return
    shares, limit = _SHARES, columns * outputs / (columns + outputs)
    if len(links) > 1:
        shares, limit = _SHARES_OF_PAIRS, min(width, columns, outputs)
    ranks = {round(limit * share / _GRANULE) * _GRANULE for share in shares}
    offered = sorted((rank for rank in ranks if _LEAST_RANK <= rank < limit), reverse=True)
    if not offered:
        yield Refusal(subject, f"it gets smaller only below rank {limit:.0f}, which is too little")
        return
    facts: dict[str, Fact] = {
        "layers": "\n".join(names),
        "ranks": " ".join(str(rank) for rank in offered),
    }
    yield Site(nodes, links[0].reads, last.gives, ", ".join(k.op for k in links), facts, subject)


def _parts(graph: Graph, names: Sequence[str], types: Types) -> list[_Layer] | Obstacle:
    """One layer, or two of a kind of which the second maps each position by itself."""
    found: list[_Layer] = []
    for name in names:
        layer = _layer(graph, name, types)
        if isinstance(layer, Obstacle):
            return layer
        found.append(layer)
    last = found[-1]
    if isinstance(found[0], Convolution) != isinstance(last, Convolution):
        return Obstacle("layers of two kinds")
    if len(found) > 1 and isinstance(last, Convolution) and not _is_pointwise(last):
        return Obstacle("the second layer maps several positions")
    return found


def _whole(parts: Sequence[_Layer]) -> _Layer:
    """The composition of the parts, as one map."""
    first, last = parts[0], parts[-1]
    if len(parts) == 1:
        return last
    if isinstance(first, Convolution) and isinstance(last, Convolution):
        return composition_inside(first, last)
    assert isinstance(first, FullyConnected)
    assert isinstance(last, FullyConnected)
    return replace(last, source=first.source, map=compose_maps(first.map, last.map))


def _nodes_of_products(parts: Sequence[_Layer]) -> list[str]:
    """Names of the nodes of fully connected layers; none for convolutions."""
    products = [part for part in parts if isinstance(part, FullyConnected)]
    return [node.name for part in products for node in part.nodes]


def _layer(graph: Graph, name: str, types: Types) -> _Layer | Obstacle:
    node = graph.node(name)
    if node.op in ("Gemm", "MatMul"):
        return fully_connected(graph, node, types)
    if node.op != "Conv":
        return Obstacle(f"it is a {node.op}")
    found = convolution_of(graph, node, types)
    if isinstance(found, Convolution) and found.groups > 1:
        return Obstacle("it has groups")
    return found


def _is_pointwise(layer: Convolution) -> bool:
    return layer.weights[0, 0].size == 1 and not any(layer.pads) and set(layer.strides) <= {1}


def _matrix(layer: _Layer) -> Array:
    """Weights [columns, outputs]."""
    if isinstance(layer, FullyConnected):
        return layer.map.weights
    rows: Array = layer.weights.reshape(layer.outputs, -1).T
    return rows


def _write_convolutions(graph: Graph, site: Site, layer: Convolution, rank: int) -> None:
    into, out = factors(_matrix(layer), rank)
    element = element_of(graph, graph.node(str(site.facts["layers"]).split("\n")[-1]))
    kernel = layer.weights.shape[1:]
    first = on_axes(into.T.reshape(rank, *kernel), np.zeros(rank), layer.axes, groups=1)
    wide = out.T.reshape(layer.outputs, rank, *[1] * layer.rank)
    second = on_axes(wide, layer.bias, [Axis(1)] * layer.rank, groups=1)
    source = graph.tensor(site.reads)
    inputs, attributes = as_operands(graph, first, source, element, f"{site.writes}_into")
    between = graph.insert("Conv", inputs, **attributes)
    inputs, attributes = as_operands(graph, second, between, element, f"{site.writes}_out")
    graph.replace(site, "Conv", inputs, **attributes)


def _write_products(graph: Graph, site: Site, layer: FullyConnected, rank: int) -> None:
    into, out = (part.astype(layer.element) for part in factors(layer.map.weights, rank))
    bias = graph.initializer(f"{site.writes}_bias", layer.map.bias.astype(layer.element))
    first = graph.initializer(f"{site.writes}_into", into)
    second = graph.initializer(f"{site.writes}_out", out)
    gemm = layer.is_gemm and graph.opset >= _GEMM_WITHOUT_BIAS
    between = graph.insert("Gemm" if gemm else "MatMul", [layer.source, first])
    if gemm:
        graph.replace(site, "Gemm", [between, second, bias])
    else:
        graph.replace(site, "Add", [graph.insert("MatMul", [between, second]), bias])
