"""Where a network is cut into the spans that are fitted one after another.

A *segment* is a run of nodes that PyTorch can execute; a node outside the table of operators ends
it. A *block* is a part of a segment with a handful of layers, cut where the fewest tensors are
live, so that what is fitted to the original's activations nearly determines what comes behind.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from actcc.graph import Graph
from actcc.repair.layers import Layer

LEAST_LAYERS = 6
MOST_LAYERS = 12


@dataclass(frozen=True)
class Span:
    """Consecutive nodes of the rewritten network.

    Attributes:
        nodes: their names, in topological order.
        reads: tensors that come from outside, constants left out.
        writes: tensors that the span's nodes write.
        leaving: those of them that are read behind the span or leave the network.
        layers: layers of the span whose weights are free.
    """

    nodes: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    leaving: tuple[str, ...]
    layers: tuple[Layer, ...]


def segments(
    graph: Graph, layers: Mapping[str, Layer], untranslatable: Collection[str]
) -> list[Span]:
    """The longest runs of nodes that can be executed; those without a free layer are left out.

    Args:
        layers: by the name of what they write.
    """
    runs: list[list[str]] = [[]]
    for node in graph.nodes():
        if node.name in untranslatable:
            runs.append([])
        else:
            runs[-1].append(node.name)
    spans = [make_span(graph, run, layers) for run in runs if run]
    return [span for span in spans if span.layers]


def blocks(graph: Graph, segment: Span, layers: Mapping[str, Layer]) -> list[Span]:
    """The segment in blocks of at least `LEAST_LAYERS` layers, where it has that many."""
    live = _live_after(graph, segment.nodes)
    free = {layer.adds or layer.node for layer in segment.layers}
    cuts, best, count, left = [0], 0, 0, len(free)
    for index, name in enumerate(segment.nodes):
        count += name in free
        left -= name in free
        ends = count >= MOST_LAYERS or left < LEAST_LAYERS
        allowed = count >= LEAST_LAYERS and left >= LEAST_LAYERS
        if allowed and (best <= cuts[-1] or live[index] <= live[best - 1]):
            best = index + 1
        if ends and best > cuts[-1]:
            cuts.append(best)
            count = sum(n in free for n in segment.nodes[best : index + 1])
    cuts.append(len(segment.nodes))
    parts = [segment.nodes[low:high] for low, high in itertools.pairwise(cuts)]
    return [make_span(graph, part, layers) for part in parts]


def make_span(graph: Graph, nodes: Sequence[str], layers: Mapping[str, Layer]) -> Span:
    """A span of the given nodes, which are in topological order."""
    inside = set(nodes)
    members = [graph.node(name) for name in nodes]
    writes = [t.name for node in members for t in node.outputs if not t.is_empty()]
    written = set(writes)
    reads = dict.fromkeys(
        tensor.name
        for node in members
        for tensor in node.inputs
        if not tensor.is_empty() and tensor.name not in written and graph.constant(tensor) is None
    )
    leaving = [
        name
        for name in writes
        if graph.is_output(name) or any(r.name not in inside for r in graph.readers(name))
    ]
    free = tuple(layers[name] for name in writes if name in layers)
    return Span(tuple(nodes), tuple(reads), tuple(writes), tuple(leaving), free)


def shares(graph: Graph, spans: Sequence[Span]) -> list[float]:
    """The part of the time that each span is to have; they sum to one.

    Half of it goes by layers, half by the size of the activations: an early block of large ones
    takes longer for a step, and all others stand on it.
    """
    layers = [len(span.layers) + 1e-6 for span in spans]
    sizes = [_size(graph, span) for span in spans]
    parts = zip(layers, sizes, strict=True)
    return [0.5 * count / sum(layers) + 0.5 * size / sum(sizes) for count, size in parts]


def _size(graph: Graph, span: Span) -> int:
    """Values that the span writes, and one more."""
    shapes = [graph.shape(name) or () for name in span.writes]
    return 1 + sum(math.prod(d for d in shape if isinstance(d, int)) for shape in shapes)


def _live_after(graph: Graph, nodes: Sequence[str]) -> list[int]:
    """How many tensors that a run of nodes writes are still read, behind each node of it."""
    last: dict[str, int] = {}
    for index, name in enumerate(nodes):
        for tensor in graph.node(name).inputs:
            last[tensor.name] = index
    live: set[str] = set()
    counts = []
    for index, name in enumerate(nodes):
        live.update(str(t.name) for t in graph.node(name).outputs if t.name in last)
        live = {tensor for tensor in live if last[tensor] > index}
        counts.append(len(live))
    return counts
