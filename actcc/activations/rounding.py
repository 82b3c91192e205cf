"""An activation together with the roundings in front of it and behind it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from actcc.activations.functions import Activation
from actcc.activations.recognise import Match
from actcc.graph import Graph
from actcc.graph.operators import CONTRACTIONS
from actcc.graph.pairs import QUANTIZE, pair_before, pair_behind, stored_as


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


def cut_off_by_rounding(graph: Graph) -> Iterator[Match]:
    """The ReLU that a rounding behind a layer stands for: one that stores no negative number."""
    for node in graph.nodes():
        pair = pair_behind(graph, node.outputs[0]) if node.op in CONTRACTIONS else None
        kind = None if pair is None else stored_as(graph, pair.quantize)
        known = None if pair is None else graph.types.get(pair.writes.name)
        if pair is None or kind is None or known is None or not kind.cuts_off(0.0, math.inf):
            continue
        relu = Activation("Relu")
        yield Match(relu, QUANTIZE, pair.nodes, pair.reads, pair.writes, known.element, True)
