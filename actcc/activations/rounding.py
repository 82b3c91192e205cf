"""An activation together with the roundings in front of it and behind it."""

from __future__ import annotations

from dataclasses import replace

from actcc.activations.recognise import Match
from actcc.graph import Graph
from actcc.graph.pairs import pair_before, pair_behind


def with_rounding(graph: Graph, match: Match) -> Match:
    """The match from the tensor before it is rounded to the result behind its rounding.

        x → [Q → DQ → activation → Q → DQ] → y        Q: QuantizeLinear, DQ: DequantizeLinear

    A pair is left out where something else reads what is between, and where there is none.
    """
    nodes, reads, writes = match.nodes, match.reads, match.writes
    before, behind = pair_before(graph, reads), pair_behind(graph, writes)
    inside = {node.name for node in nodes}
    alone = all(reader.name in inside for reader in graph.consumers(reads))
    if before is not None and alone and not graph.is_output(reads):
        nodes, reads = (*before.nodes, *nodes), before.reads
    if behind is not None:
        nodes, writes = (*nodes, *behind.nodes), behind.writes
    return replace(match, nodes=nodes, reads=reads, writes=writes)
