"""A site with the layers around it: what a candidate is repaired with before its loss is estimated.

A whole plan is repaired from its inputs to its outputs. One site alone is repaired where it is: the
layer that feeds it, and the layers that read it, on what the original network gives them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from actcc.graph import Array, Graph, Node, extract
from actcc.graph.operators import CONTRACTIONS
from actcc.neighbourhood import neighbouring_nodes
from actcc.site import OfferedSite

# Of all samples together: a few layers on their own inputs need fewer than a whole network.
_ROWS = 1024
_ROUNDS = 3


def site_part(graph: Graph, offered: OfferedSite, *, repairs: bool) -> Graph:
    """The nodes that a candidate of a site changes, as a graph of its own.

    Args:
        repairs: with those of the layers around it that can be cut out with it.
    """
    alone = set(offered.site.nodes)
    if repairs:
        around = _that_can_be_cut_out(graph, neighbouring_nodes(graph, offered.site))
        if alone <= around and any(graph.node(name).op in CONTRACTIONS for name in around):
            return extract(graph, around, static=False)
    return extract(graph, alone)


def repaired_part(original: Graph, rewritten: Graph, feeds: Sequence[Mapping[str, Array]]) -> Graph:
    """A rewritten part with its weights re-fitted; as it is where it has no layer.

    Raises:
        ActccError: the part cannot be run.
    """
    from actcc.repair import Steps, repair

    if not any(node.op in CONTRACTIONS for node in original.nodes()):
        return rewritten
    steps = Steps(rounds=_ROUNDS, least_rows=_ROWS)
    return repair(original, rewritten, feeds, steps=steps, threads=1).graph


def _that_can_be_cut_out(graph: Graph, names: set[str]) -> set[str]:
    """Of these nodes, those that read nothing that comes of the others past nodes outside."""
    while True:
        behind: set[str] = set()
        for node in graph.nodes():
            if node.name not in names and _reads_from(graph, node, names | behind):
                behind.add(node.name)
        late = {name for name in names if _reads_from(graph, graph.node(name), behind)}
        if not late:
            return names
        names = names - late


def _reads_from(graph: Graph, node: Node, names: set[str]) -> bool:
    writers = (graph.producer(tensor) for tensor in graph.reads(node))
    return any(writer is not None and writer.name in names for writer in writers)
