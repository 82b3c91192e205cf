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
        repairs: with the layers around it, where all of them together can be cut out.
    """
    alone = set(offered.site.nodes)
    if repairs:
        around = neighbouring_nodes(graph, offered.site)
        layers = any(graph.node(name).op in CONTRACTIONS for name in around)
        if layers and _can_be_cut_out(graph, around):
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


def _can_be_cut_out(graph: Graph, names: set[str]) -> bool:
    """Whether nothing that the nodes read depends on what they write, past other nodes."""
    behind: set[str] = set()
    for node in graph.nodes():
        outside = node.name not in names
        if outside and (_reads_from(graph, node, names) or _reads_from(graph, node, behind)):
            behind.add(node.name)
    inside = [graph.node(name) for name in names]
    return not any(_reads_from(graph, node, behind) for node in inside)


def _reads_from(graph: Graph, node: Node, names: set[str]) -> bool:
    writers = (graph.producer(tensor) for tensor in graph.reads(node))
    return any(writer is not None and writer.name in names for writer in writers)
