"""An activation on the other side of nodes that only move data, or take the largest element.

    MaxPool(f(x))   = f(MaxPool(x))        f non-decreasing
    D(f(x))         = f(D(x))              D: Slice, nearest Resize, Reshape, Transpose, …
    Concat(f(x), …) = f(Concat(x, …))

Exact; which nodes, and what each requires, is in `actcc.activations.movement`. A move is offered

1. *behind* the nodes that read the activation, where they leave fewer elements (MaxPool with a
   stride, Slice);
2. behind a Concat whose inputs all end in the same function, where at least two of those
   activations stand alone: one is left;
3. *before* the nodes that feed it, where a layer comes before them that it can fuse with (on at
   least one branch of a Concat), or where there are fewer elements (Resize).

It goes past several nodes at once, and in its new place may be written in any of its spellings.
Each tensor on the way is read by the next node alone and does not leave the graph. Inside
quantize/dequantize pairs nothing moves: scales were calibrated for the order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from actcc.activations import Activation
from actcc.activations.movement import JOIN, moved_data, moves_data
from actcc.activations.spellings import Spelling, spellings_of, write
from actcc.activations.ways import Way, needed, way_before, way_behind
from actcc.errors import PassError
from actcc.graph import Graph, Node, Tensor
from actcc.graph.operators import CONTRACTIONS
from actcc.pass_api import Pass, rewrite
from actcc.passes.swap_activation import activation_sites, function_of, spelled
from actcc.site import Candidate, Refusal, Site
from actcc.targets import Target

# Layers that targets run an activation with; whether the one at hand does so is in the price.
_FUSING = CONTRACTIONS | {"Add", "Mul"}
_BEHIND, _BEFORE = "behind", "before"
_QUANTIZED = "activation inside QDQ: its scales were calibrated for this order"
_SLOPES = "PRelu has a slope for each channel, which keeps its place"


@rewrite("move-activation", exact=True)
class MoveActivation(Pass):
    """Activation  →  the same one behind or before pooling, joins, slices, changes of layout."""

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """One site for each way in which an activation can move, and why others cannot."""
        found = [entry for entry in activation_sites(graph) if isinstance(entry, Site)]
        for site in found:
            yield from _moves_behind(graph, site)
            yield from _moves_before(graph, site)
        writers = {site.writes: site for site in found}
        for join in graph.nodes(JOIN):
            if all(tensor.name in writers for tensor in join.inputs):
                yield _gathered(graph, join, [writers[tensor.name] for tensor in join.inputs])

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """The function in each of its spellings, in its new place."""
        contrib = bool(target.settings.get("contrib_operators", False))
        element, opset = str(site.facts["dtype"]), int(site.facts["opset"])
        for name, function, spelling in _spellings(site):
            problem = spelling.obstacle(function, opset, element, contrib)
            yield Refusal(name, problem) if problem else Candidate(name, computes=str(function))

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Move the data first, then write the function into the gaps that this leaves."""
        for name, function, spelling in _spellings(site):
            if name == candidate.name:
                behind = str(site.facts["place"]).startswith(_BEHIND)
                for gap in (_gaps_behind if behind else _gaps_before)(graph, site):
                    write(graph, gap, function, spelling, str(site.facts["dtype"]))
                return
        raise PassError(
            f"site '{site.id}' has no candidate '{candidate.name}'; was the plan made with "
            "another version of actcc?"
        )


def _function(site: Site) -> Activation | None:
    return function_of({key: value for key, value in site.facts.items() if key != "place"})


def _spellings(site: Site) -> Iterator[tuple[str, Activation, Spelling]]:
    """The site's function in each spelling, with the candidate's name."""
    function = _function(site)
    if function is not None:
        for spelling in spellings_of(function):
            yield f"{spelled(function, spelling)} {site.facts['place']}", function, spelling


# -------------------------------------------------------------------- where to


def _moves_behind(graph: Graph, site: Site) -> Iterator[Site | Refusal]:
    function = _function(site) or Activation("PRelu")
    way = way_behind(graph, graph.tensor(site.writes), function)
    if not way.least_work:
        yield from _refused(site, _BEHIND, way, "there are no fewer elements there")
        return
    path = way.nodes[: way.least_work]
    place = f"{_BEHIND} {path[-1].op}"
    if site.facts["quantized"]:
        yield Refusal(f"{site.writes} {place}", _QUANTIZED)
        return
    kind = "+".join([site.kind, *(node.op for node in path)])
    facts = {**site.facts, "place": place}
    yield Site([*site.nodes, *path], site.reads, path[-1].outputs[0], kind, facts)


def _moves_before(graph: Graph, site: Site) -> Iterator[Site | Refusal]:
    function = _function(site) or Activation("PRelu")
    way = way_before(graph, graph.tensor(site.reads), site.nodes, function)
    count = len(way.nodes) if _reaches_layer(graph, way) else way.least_work
    if not count:
        reason = "there are no fewer elements there, and no layer that it could fuse with"
        yield from _refused(site, _BEFORE, way, reason)
        return
    path = way.nodes[count - 1 :: -1]
    place = f"{_BEFORE} {path[0].op}"
    if site.facts["quantized"]:
        yield Refusal(f"{site.writes} {place}", _QUANTIZED)
        return
    kind = "+".join([*(node.op for node in path), site.kind])
    facts = {**site.facts, "place": place}
    yield Site([*path, *site.nodes], moved_data(path[0])[0], site.writes, kind, facts)


def _refused(site: Site, place: str, way: Way, no_gain: str) -> Iterator[Refusal]:
    """Why the activation stays; nothing where no node around it moves data."""
    if way.nodes or way.ended:
        beyond = f" {way.nodes[-1].op}" if way.nodes else ""
        yield Refusal(f"{site.writes} {place}{beyond}", way.ended or no_gain)


def _reaches_layer(graph: Graph, way: Way) -> bool:
    if not way.nodes:
        return False
    first = way.nodes[-1]
    return any(
        layer.op in _FUSING and not needed(graph, tensor, [first.name])
        for tensor in moved_data(first)
        if (layer := graph.producer(tensor)) is not None
    )


def _gathered(graph: Graph, join: Node, sites: Sequence[Site]) -> Site | Refusal:
    """One activation behind a Concat for those of all its inputs."""
    written = join.outputs[0]
    subject = f"{written.name} {_BEHIND} {JOIN}"
    functions = {_function(site) for site in sites}
    layers = [graph.producer(site.reads) for site in sites]
    alone = sum(layer is None or layer.op not in _FUSING for layer in layers)
    kept = [reason for tensor in join.inputs if (reason := needed(graph, tensor, [join.name]))]
    if None in functions:
        return Refusal(subject, _SLOPES)
    if len(functions) > 1:
        return Refusal(subject, f"the branches of '{join.name}' end in different functions")
    if kept:
        return Refusal(subject, kept[0])
    if any(site.facts["quantized"] for site in sites):
        return Refusal(subject, _QUANTIZED)
    if alone < 2:
        return Refusal(subject, "there it could not fuse with the layers of the branches")
    facts = {**sites[0].facts, "place": f"{_BEHIND} {JOIN}"}
    nodes = [name for site in dict.fromkeys(sites) for name in site.nodes]
    return Site([*nodes, join], sites[0].reads, written, f"{sites[0].kind}+{JOIN}", facts)


# -------------------------------------------------------------------- rewriting


def _gaps_behind(graph: Graph, site: Site) -> list[Site]:
    """Let the path move what the activation reads; an Identity takes the activation's place."""
    path = _path(graph, site)
    data = [_source(graph, tensor, site) for tensor in moved_data(path[0])]
    (moved,) = _moved(graph, path, data)
    return [_gap(graph, moved, graph.replace(site, "Identity", [moved]))]


def _gaps_before(graph: Graph, site: Site) -> list[Site]:
    """An Identity before the path for each tensor that it moves, and nothing behind it."""
    *path, last = _path(graph, site)
    names = [tensor.name for tensor in moved_data(path[0] if path else last)]
    gaps = {name: graph.insert("Identity", [name]) for name in dict.fromkeys(names)}
    data = _moved(graph, path, [gaps[name] for name in names])
    graph.replace(site, last.op, [*data, *last.inputs[len(data) :]], **last.attrs)
    return [_gap(graph, graph.tensor(name), gap) for name, gap in gaps.items()]


def _path(graph: Graph, site: Site) -> list[Node]:
    """The nodes of a site that move data, in topological order."""
    names = set(site.nodes)
    return [node for node in graph.nodes() if node.name in names and moves_data(node)]


def _moved(graph: Graph, path: Sequence[Node], data: list[Tensor]) -> list[Tensor]:
    """What the path makes of other data; its own nodes stay as they are."""
    for node in path:
        data = [graph.insert(node.op, [*data, *node.inputs[len(data) :]], **node.attrs)]
    return data


def _source(graph: Graph, tensor: Tensor, site: Site) -> Tensor:
    """What the activation that writes `tensor` reads."""
    writer = graph.producer(tensor)
    while writer is not None and writer.name in site.nodes:
        read = [t for t in writer.inputs if not t.is_empty() and graph.constant(t) is None]
        tensor = read[0]
        writer = graph.producer(tensor)
    return tensor


def _gap(graph: Graph, reads: Tensor, writes: Tensor) -> Site:
    identity = graph.producer(writes)
    if identity is None:
        raise PassError(f"nothing writes '{writes.name}'; the site was rewritten already")
    return Site([identity], reads, writes)
