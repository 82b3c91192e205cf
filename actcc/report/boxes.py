"""The boxes of the network's picture: fused groups of nodes, and what flows between them.

A box is a heavy operator with the element-wise work behind it, as a runtime would fuse it; pooling,
joints and other operators that change what flows stand by themselves. Groups are only joined where
nothing else can flow between them, so that the boxes stay acyclic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from actcc.graph import Graph, Node, Shape, Tensor
from actcc.graph.operators import HEAVY
from actcc.plan import SitePlan
from actcc.site import KEEP

# These read one thing, and yet are landmarks of their own.
_LANDMARKS = frozenset(
    {
        "AveragePool", "Concat", "GlobalAveragePool", "GlobalMaxPool", "If", "Loop", "MaxPool",
        "ReduceMax", "ReduceMean", "Resize", "Scan", "Softmax", "Split", "TopK", "Upsample",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Box:
    """One fused group, or an input or output of the model.

    Attributes:
        title: "Conv 3×3 · 64", or the tensor's name.
        rest: operators beside the title's that belong to no site, in order.
        nodes: names; none for inputs and outputs.
        sites: indices into the plan's sites.
        shape: of what leaves it; None where it is unknown.
    """

    title: str
    rest: tuple[str, ...]
    nodes: tuple[str, ...]
    sites: tuple[int, ...]
    shape: Shape | None


@dataclass(frozen=True)
class Network:
    """Boxes in topological order.

    Attributes:
        edges: pairs of indices into `boxes`, each once.
        absent: number of sites whose nodes are not in this graph.
    """

    boxes: tuple[Box, ...]
    edges: tuple[tuple[int, int], ...]
    absent: int


def draw_boxes(graph: Graph, sites: Sequence[SitePlan]) -> Network:
    """Group the nodes of the main graph.

    Args:
        graph: the one in which the sites were found, or the model as it was given; a site that
            cannot be found by its nodes is looked for by the tensor that it writes.
    """
    nodes = [node for node in graph.nodes() if node.op != "Constant"]
    items: list[Node | Tensor] = [*graph.inputs, *nodes, *graph.outputs]
    places = _places(nodes, sites, first=len(graph.inputs))
    groups = _Groups(items, list(_flows(nodes, graph)))
    for place in places:
        groups.join(place)
    groups.fuse()
    members = groups.members()
    sites_of: dict[int, list[int]] = {}
    for index, (site, place) in enumerate(zip(sites, places, strict=True)):
        # Of what could become of a whole block, only what did.
        if site.chosen == KEEP and not groups.is_light(place):
            continue
        for item in place:
            sites_of.setdefault(item, []).append(index)
    number = {item: index for index, group in enumerate(members) for item in group}
    edges = {(number[tail], number[head]) for tail, head in groups.flows}
    return Network(
        tuple(
            _box(graph, [items[i] for i in group], [sites_of.get(i, []) for i in group])
            for group in members
        ),
        tuple(sorted((tail, head) for tail, head in edges if tail != head)),
        sum(not place for place in places),
    )


def _places(nodes: Sequence[Node], sites: Sequence[SitePlan], first: int) -> list[frozenset[int]]:
    """By site, the indices of its nodes; none where it is not in the graph."""
    by_name = {node.name: first + index for index, node in enumerate(nodes)}
    writer = {t.name: first + index for index, node in enumerate(nodes) for t in node.outputs}
    places = []
    for site in sites:
        found = {by_name[name] for name in site.nodes if name in by_name}
        if len(found) < len(site.nodes):
            written = site.id.partition(":")[2]
            found = {writer[written]} if written in writer else set()
        places.append(frozenset(found))
    return places


def _flows(nodes: Sequence[Node], graph: Graph) -> Iterator[tuple[int, int]]:
    """Pairs of indices into inputs, nodes and outputs: what is written, and who reads it."""
    writer: dict[str, int] = {tensor.name: index for index, tensor in enumerate(graph.inputs)}
    first = len(graph.inputs)
    for index, node in enumerate(nodes, first):
        for name in _read_by(node):
            if name in writer:
                yield writer[name], index
        writer.update((tensor.name, index) for tensor in node.outputs if tensor.name)
    for index, tensor in enumerate(graph.outputs, first + len(nodes)):
        if tensor.name in writer:
            yield writer[tensor.name], index


def _read_by(node: Node) -> Iterator[str]:
    """Names of the tensors that a node reads, those read inside its subgraphs included."""
    yield from (tensor.name for tensor in node.inputs if tensor.name)
    for value in node.attrs.values():
        for inner in getattr(value, "nodes", ()):
            yield from _read_by(inner)


class _Groups:
    """Which item is in which group; groups are only ever joined."""

    def __init__(self, items: Sequence[Node | Tensor], flows: Sequence[tuple[int, int]]) -> None:
        self.items = items
        self.flows = flows
        self._members = {index: [index] for index in range(len(items))}
        self._group = list(range(len(items)))
        self._reads: list[set[int]] = [set() for _ in items]
        self._read_by: list[set[int]] = [set() for _ in items]
        for tail, head in flows:
            self._reads[head].add(tail)
            self._read_by[tail].add(head)

    def members(self) -> list[list[int]]:
        """The items of each group, groups in topological order."""
        order: list[int] = []
        waiting = {group: len(self._reads[group]) for group in self._members}
        ready = [group for group, count in waiting.items() if not count]
        while ready:
            order.append(ready.pop(0))
            for reader in sorted(self._read_by[order[-1]]):
                waiting[reader] -= 1
                if not waiting[reader]:
                    ready.append(reader)
        return [sorted(self._members[group]) for group in order]

    def join(self, place: Iterable[int]) -> None:
        """Make one group of a site's nodes, unless it is a whole block or not all of one piece."""
        groups = sorted({self._group[item] for item in place})
        if len(groups) < 2 or not self._light(groups) or self._leaves_and_returns(groups):
            return
        for group in groups[1:]:
            self._merge(groups[0], group)

    def fuse(self) -> None:
        """Join what reads one group only, and is all that reads it."""
        for group in sorted(self._members):
            if not isinstance(self.items[group], gs.Node):
                continue
            readers = self._read_by[group]
            if not self._reads[group]:  # computed from constants
                nodes = [reader for reader in readers if isinstance(self.items[reader], gs.Node)]
                if len(readers) == len(nodes) == 1:
                    self._merge(nodes[0], group)
            elif self._light([group]):
                for source in sorted(self._reads[group]):
                    if self._all_between(source, group):
                        for other in sorted(self._reads[group] - {source}):
                            self._merge(source, other)
                        self._merge(source, group)
                        break

    def _all_between(self, source: int, group: int) -> bool:
        """Whether `group` reads only `source` and what `source` alone feeds, and nobody else does:
        x → Relu, or x → Sigmoid, x · Sigmoid.
        """
        others = self._reads[group] - {source}
        return (
            isinstance(self.items[source], gs.Node)
            and self._read_by[source] == {group, *others}
            and self._light(others)
            and all(self._reads[o] == {source} and self._read_by[o] == {group} for o in others)
        )

    def is_light(self, place: Iterable[int]) -> bool:
        """Whether items are element-wise work alone."""
        items = (self.items[item] for item in place)
        operators = {item.op for item in items if isinstance(item, gs.Node)}
        return operators.isdisjoint(HEAVY | _LANDMARKS)

    def _light(self, groups: Iterable[int]) -> bool:
        return self.is_light(item for group in groups for item in self._members[group])

    def _leaves_and_returns(self, groups: Sequence[int]) -> bool:
        inside = set(groups)
        outside = {reader for group in groups for reader in self._read_by[group]} - inside
        reached: set[int] = set()
        last = max(item for group in groups for item in self._members[group])
        while outside:
            group = outside.pop()
            if group in inside:
                return True
            if group not in reached and group < last:
                reached.add(group)
                outside |= self._read_by[group]
        return False

    def _merge(self, into: int, group: int) -> None:
        for reader in self._read_by[group]:
            self._reads[reader].discard(group)
            self._reads[reader].add(into)
        for source in self._reads[group]:
            self._read_by[source].discard(group)
            self._read_by[source].add(into)
        self._reads[into] |= self._reads[group]
        self._read_by[into] |= self._read_by[group]
        self._reads[into] -= {into, group}
        self._read_by[into] -= {into, group}
        moved = self._members.pop(group)
        self._members[into] += moved
        for item in moved:
            self._group[item] = into


def _box(graph: Graph, items: Sequence[Node | Tensor], sites_of: Sequence[Sequence[int]]) -> Box:
    if not isinstance(items[0], gs.Node):
        return Box(items[0].name, (), (), (), graph.shape(items[0]))
    nodes = [item for item in items if isinstance(item, gs.Node)]
    free = [node for node, sites in zip(nodes, sites_of, strict=True) if not sites]
    anchor = next((node for node in nodes if node.op in HEAVY), next(iter(free), None))
    return Box(
        title="" if anchor is None else _title(graph, anchor),
        rest=tuple(node.op for node in free if node is not anchor),
        nodes=tuple(node.name for node in nodes),
        sites=tuple(sorted({site for sites in sites_of for site in sites})),
        shape=graph.shape(nodes[-1].outputs[0]) if nodes[-1].outputs else None,
    )


def _title(graph: Graph, node: Node) -> str:
    if node.op not in HEAVY:
        return str(node.op)
    written = graph.shape(node.outputs[0]) or ()
    if node.op in ("Gemm", "MatMul"):
        return f"{node.op} · {written[-1]}" if written else str(node.op)
    weight = graph.shape(node.inputs[3 if node.op == "QLinearConv" else 1])
    if weight is None or len(weight) < 3 or len(written) < 2:
        return str(node.op)
    depthwise = node.attrs.get("group", 1) > 1 and weight[1] == 1
    steps = {*node.attrs.get("strides", (1,))}
    stride = f" /{max(steps)}" if steps != {1} else ""
    kernel = "×".join(str(side) for side in weight[2:])
    return f"{'DW' if depthwise else ''}{node.op} {kernel}{stride} · {written[1]}"
