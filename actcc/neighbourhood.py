"""A site's neighbourhood: the smallest part of the graph in which its price is its real price.

An activation costs what it costs behind its convolution and before its readers: there it fuses,
runs in place, or forces a change of layout. The neighbourhood of a site is therefore the site, the
layers that feed it back to the nearest heavy operator, and the layers that read it, on to the next
heavy operator where only views and element-wise work lie between. (Measured on ONNX Runtime: with
direct readers alone the sum of single prices was up to twice the difference of the whole model.)

What decides how those layers run comes with them: weights and sizes that are computed from
constants, and the quantize and dequantize nodes around them, without which an int8 layer would be
priced in floating point. (Measured on ONNX Runtime: without them a ReLU plan of an int8 classifier
was predicted at 1.10×, and ran at 2.17×.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from actcc.errors import ActccError, ModelError
from actcc.graph import Graph, Interface, Node, Tensor, extract, structure_hash, verify
from actcc.graph.operators import HEAVY
from actcc.pass_api import Pass, apply_pass
from actcc.prices import PriceQuery, Unpriced
from actcc.site import OfferedSite, Site

# A walk towards the inputs ends at heavy operators. One towards the outputs ends here as well:
# beyond a junction another branch is priced too.
_JUNCTIONS = frozenset(
    {"Add", "AveragePool", "Concat", "GlobalAveragePool", "MaxPool", "Resize", "Split"}
)
_STEPS = 3
Finish = Callable[[Graph], Graph]
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_QUANTIZATION = frozenset({_QUANTIZE, _DEQUANTIZE})


def as_it_is(graph: Graph) -> Graph:
    """The graph itself, finished."""
    return graph


@dataclass(frozen=True)
class Neighbourhood:
    """A query for one structure, and the sites that share it.

    Attributes:
        query: baseline and candidates as graphs.
        sites: ids of sites with equal structure; one price serves them all.
        failed: candidates that could not be applied here, with the reason.
    """

    query: PriceQuery
    sites: tuple[str, ...]
    failed: Mapping[str, Unpriced]


def neighbourhoods(
    graph: Graph,
    sites: Sequence[OfferedSite],
    passes: Sequence[Pass],
    finish: Finish = as_it_is,
) -> tuple[list[Neighbourhood], dict[str, Unpriced]]:
    """Neighbourhoods grouped by equal structure, and the sites that have none, with the reason.

    Args:
        finish: what is done to all of the network behind the rewrite of its sites.
    """
    by_name = {found.name: found for found in passes}
    groups: dict[tuple[str, str], tuple[OfferedSite, Graph, list[str]]] = {}
    failed: dict[str, Unpriced] = {}
    constants = constant_nodes(graph)
    for offered in sites:
        try:
            part = extract(graph, neighbouring_nodes(graph, offered.site, constants))
        except ModelError as error:
            failed[offered.id] = Unpriced(str(error))
            continue
        # Equal structure is equal cost only for the same rewrite of the same place in it.
        names = [node.name for node in part.nodes()]
        place = str([names.index(name) for name in offered.site.nodes])
        offers = [offered.pass_name, place, *(c.name for c in offered.candidates)]
        key = (structure_hash(part), "|".join(offers))
        groups.setdefault(key, (offered, part, []))[2].append(offered.id)
    found: list[Neighbourhood] = []
    for offered, part, members in groups.values():
        rewrite = by_name[offered.pass_name]
        try:
            found.append(_with_candidates(part, offered, rewrite, tuple(members), finish))
        except ActccError as error:
            failed.update(dict.fromkeys(members, Unpriced(str(error))))
    return found, failed


def _with_candidates(
    part: Graph, offered: OfferedSite, found: Pass, members: tuple[str, ...], finish: Finish
) -> Neighbourhood:
    """Raises ActccError where the part as it is cannot be finished."""
    baseline = finish(part)
    graphs: dict[str, Graph] = {}
    failed: dict[str, Unpriced] = {}
    for candidate in offered.candidates:
        rewritten = part.copy()
        try:
            with rewritten.marking(found.name, offered.site.writes, candidate.name):
                apply_pass(found, rewritten, offered.site, candidate)
            verify(rewritten, Interface.of(part), [found.name])
            graphs[candidate.name] = finish(rewritten)
        except ActccError as error:
            failed[candidate.name] = Unpriced(f"cannot be applied here: {error}")
    return Neighbourhood(PriceQuery(baseline, graphs), members, failed)


def neighbouring_nodes(
    graph: Graph, site: Site, constants: Collection[str] | None = None
) -> set[str]:
    """Names of the nodes of a site's neighbourhood.

    Args:
        constants: from `constant_nodes`, for callers that ask for many sites.
    """
    names = set(site.nodes)
    frontier = [tensor for name in site.nodes for tensor in graph.node(name).inputs]
    for _ in range(_STEPS):
        frontier = [t for tensor in frontier for t in _step_back(graph, tensor, names)]
    written = [tensor for name in site.nodes for tensor in graph.node(name).outputs]
    frontier = [tensor for tensor in written if not tensor.is_empty()]
    for _ in range(_STEPS):
        frontier = [t for tensor in frontier for t in _step_on(graph, tensor, names)]
    _add_what_comes_with(graph, names, constant_nodes(graph) if constants is None else constants)
    return names & {node.name for node in graph.nodes()}


def _step_back(graph: Graph, tensor: Tensor, names: set[str]) -> list[Tensor]:
    writer = None if tensor.is_empty() else graph.producer(tensor)
    if writer is None or writer.name in names or not _can_be_priced(graph, writer):
        return []
    names.add(writer.name)
    if writer.op in _QUANTIZATION:  # part of the layers on its two sides, and no step
        return _step_back(graph, writer.inputs[0], names)
    return [] if writer.op in HEAVY else list(writer.inputs)


def _step_on(graph: Graph, tensor: Tensor, names: set[str]) -> list[Tensor]:
    behind: list[Tensor] = []
    for reader in graph.consumers(tensor):
        if reader.name in names or not _can_be_priced(graph, reader):
            continue
        names.add(reader.name)
        if reader.op in _QUANTIZATION:
            behind += _step_on(graph, reader.outputs[0], names)
        elif reader.op not in HEAVY and reader.op not in _JUNCTIONS:
            behind += [t for t in reader.outputs if not t.is_empty()]
    return behind


def _add_what_comes_with(graph: Graph, names: set[str], constants: Collection[str]) -> None:
    """Constants that are computed, dequantized inputs and quantized outputs of the nodes."""
    waiting = sorted(names)
    while waiting:
        node = graph.node(waiting.pop())
        beside: list[Node] = []
        for tensor in node.inputs:
            writer = None if tensor.is_empty() else graph.producer(tensor)
            if writer is not None and (writer.op == _DEQUANTIZE or writer.name in constants):
                beside.append(writer)
        if node.op not in _QUANTIZATION:
            beside += [r for t in node.outputs for r in graph.consumers(t) if r.op == _QUANTIZE]
        for found in beside:
            if found.name not in names and _can_be_priced(graph, found):
                names.add(found.name)
                waiting.append(found.name)


def constant_nodes(graph: Graph) -> frozenset[str]:
    """Names of the nodes that compute from constants alone."""
    found: set[str] = set()
    computed: set[int] = set()

    def is_constant(tensor: Tensor) -> bool:
        return tensor.is_empty() or isinstance(tensor, gs.Constant) or id(tensor) in computed

    for node in graph.nodes():
        if not holds_subgraph(node) and all(is_constant(tensor) for tensor in node.inputs):
            found.add(node.name)
            computed.update(id(tensor) for tensor in node.outputs)
    return frozenset(found)


def _can_be_priced(graph: Graph, node: Node) -> bool:
    """Whether what a node takes does not depend on data; a neighbourhood ends before it if so."""
    if holds_subgraph(node):
        return False
    computed = [t for t in (*node.inputs, *node.outputs) if not isinstance(t, gs.Constant)]
    types = [graph.types.get(tensor.name) for tensor in computed if not tensor.is_empty()]
    return all(found is not None and found.is_static for found in types)


def holds_subgraph(node: Node) -> bool:
    """Whether a node runs a subgraph (If, Loop, Scan)."""
    return any(hasattr(value, "nodes") for value in node.attrs.values())
