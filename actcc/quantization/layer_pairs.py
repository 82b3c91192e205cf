"""Two layers with a feature map between them that nothing else reads.

    first → f → second        f: an activation, or nothing

The channels of that feature map may be scaled in the first layer and scaled back in the second
wherever f(s·x) = s·f(x) for s > 0 (Nagel et al. 2019, "Data-free quantization through weight
equalization and bias correction", section 4.1). Relu6 and Clip bound all channels alike, and would
need a bound for each; what an activation rounds inside has steps that do not grow with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from actcc.activations import Match, find_activations
from actcc.graph import Graph
from actcc.linear import only_read_by

HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "PRelu"})
"""Activations with f(s·x) = s·f(x) for s > 0."""
_LAYERS = frozenset({"Conv", "Gemm"})


@dataclass(frozen=True, eq=False)
class Pair:
    """Two layers of one operator, and what is between them.

    Attributes:
        first, second: names of the nodes.
        activation: between them; None where there is none.
        between: name of what the second reads.
    """

    first: str
    second: str
    activation: Match | None
    between: str


def find_pairs(graph: Graph, activations: Collection[str] = HOMOGENEOUS) -> Iterator[Pair]:
    """Pairs with one of some activations or none between them, in order of their first layers.

    Of the weights nothing is said.
    """
    matches = {
        match.reads.name: match
        for match in find_activations(graph)
        if match.activation.name in activations and not match.rounds and _reads_alone(graph, match)
    }
    for node in graph.nodes():
        if node.op not in _LAYERS:
            continue
        written = node.outputs[0]
        match = matches.get(written.name)
        between = written if match is None else match.writes
        if not only_read_by(graph, between):
            continue
        (reader,) = graph.consumers(between)
        if reader.op == node.op and reader.inputs[0] is between:
            yield Pair(node.name, reader.name, match, between.name)


def _reads_alone(graph: Graph, match: Match) -> bool:
    """Whether nobody else knows what an activation reads."""
    named = graph.is_output(match.reads) or graph.is_read_in_subgraph(match.reads)
    inside = {node.name for node in match.nodes}
    return not named and {node.name for node in graph.consumers(match.reads)} <= inside
