"""Live bytes of a network's feature maps in int8, by the rules of `actcc.memory`."""

from __future__ import annotations

from actcc.activations import Match, find_activations
from actcc.backends.ethos_u.network import FlatNetwork
from actcc.graph import Graph
from actcc.memory import MemoryProfile, peak_memory


def live_memory(graph: Graph, network: FlatNetwork) -> MemoryProfile:
    """Live bytes at each node; activations run as one, and with the operator they fuse into.

    Raises:
        PricingError: a tensor has no static shape.
    """
    matches = find_activations(graph)
    written = {network.origin[tensor.name] for tensor in network.tensors if tensor.data is None}
    scratch: dict[str, int] = {}
    by_writer = {match.writes.name: match for match in matches}
    for tensor in network.tensors:
        owner = by_writer.get(network.origin.get(tensor.name, ""))
        if owner is not None and tensor.name != owner.writes.name:
            size = 1
            for dimension in tensor.shape:
                size *= dimension
            last = owner.nodes[-1].name
            scratch[last] = max(scratch.get(last, 0), size)
    groups = [_group(graph, match, written) for match in matches]
    return peak_memory(graph, 1, [group for group in groups if len(group) > 1], scratch)


def _group(graph: Graph, match: Match, written: set[str]) -> tuple[str, ...]:
    names = tuple(node.name for node in match.nodes)
    producer = graph.producer(match.reads)
    # What an activation reads is not in the network where it fused into the operator before it.
    fused = producer is not None and match.reads.name not in written
    return (producer.name, *names) if fused and producer is not None else names
