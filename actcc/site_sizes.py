"""By how much each candidate changes the size of the model's file, without running anything.

A candidate is applied to its site's neighbourhood; what that is larger or smaller for it, the whole
model is. Weights that are read outside the neighbourhood too stay, and so count as they did.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx_graphsurgeon as gs

from actcc.graph import Graph
from actcc.graph.size import model_bytes, weight_sizes
from actcc.neighbourhood import Finish, Neighbourhood, as_it_is, neighbourhoods, neighbouring_nodes
from actcc.pass_api import Pass
from actcc.site import OfferedSite

SiteSizes = Mapping[tuple[str, str], int]
"""Bytes against `keep`, by site id and candidate name."""


def site_sizes(
    graph: Graph,
    sites: Sequence[OfferedSite],
    passes: Sequence[Pass],
    finish: Finish = as_it_is,
) -> SiteSizes:
    """What each candidate adds to the file in bytes; negative where it makes it smaller.

    Candidates that cannot be applied to a part of the graph are left out. Sites of equal structure
    share one answer, unless they read weights that others read too.

    Args:
        finish: what is done to all of the network behind the rewrite of its sites.
    """
    by_id = {offered.id: offered for offered in sites}
    shared = _shared_weights(graph)
    apart = {offered.id for offered in sites if shared and _reads(graph, offered, shared)}
    groups, _ = neighbourhoods(graph, [s for s in sites if s.id not in apart], passes, finish)
    for identity in sorted(apart):
        groups += neighbourhoods(graph, [by_id[identity]], passes, finish)[0]
    return {
        (identity, name): difference
        for group in groups
        for name, difference in _differences(graph, group, shared).items()
        for identity in group.sites
    }


def _differences(graph: Graph, group: Neighbourhood, shared: Collection[str]) -> dict[str, int]:
    """By candidate, for the site whose neighbourhood it is."""
    part = group.query.baseline
    before = model_bytes(part)
    nodes = {node.name for node in part.nodes()}
    kept_outside = {
        name: size
        for name, size in weight_sizes(part).items()
        if name in shared and any(node.name not in nodes for node in graph.consumers(name))
    }
    found: dict[str, int] = {}
    for name, rewritten in group.query.candidates.items():
        left = weight_sizes(rewritten) if kept_outside else {}
        staying = sum(size for weight, size in kept_outside.items() if weight not in left)
        found[name] = model_bytes(rewritten) + staying - before
    return found


def _shared_weights(graph: Graph) -> frozenset[str]:
    """Names of initializers that several nodes read; single numbers weigh nothing."""
    constants = {
        tensor.name: tensor
        for node in graph.nodes()
        for tensor in node.inputs
        if isinstance(tensor, gs.Constant) and len(tensor.outputs) > 1
    }
    return frozenset(
        name
        for name, tensor in constants.items()
        if any(size != 1 for size in tensor.shape) and len(graph.consumers(tensor)) > 1
    )


def _reads(graph: Graph, offered: OfferedSite, shared: Collection[str]) -> bool:
    nodes = (graph.node(name) for name in neighbouring_nodes(graph, offered.site))
    return any(tensor.name in shared for node in nodes for tensor in node.inputs)
