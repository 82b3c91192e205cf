"""A residual branch, or a layer that could as well do nothing, removed.

    x + branch(x)  →  x
    layer(x)       →  x        as many channels as before, at the same places

Approximate. Networks with residuals behave like ensembles of shallower ones, and many of their
branches add little (Veit et al. 2016, section 4); pruned together with activations they keep merged
kernels small (LayerMerge, Kim et al. 2024, section 3). The layers behind are fitted to make up for
what is gone.

Requires: nothing outside reads what the branch computes; shapes that are known and equal. Depthwise
layers stay: without them nothing passes from one position to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from actcc.blocks import find_chains
from actcc.graph import Graph, Node, Tensor
from actcc.pass_api import Pass, rewrite
from actcc.site import Candidate, Refusal, Site
from actcc.targets import Target

_MOST_NODES = 64


@rewrite("prune-branch")
class PruneBranch(Pass):
    """Residual branch, or layer of equal width  →  nothing."""

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """One site a residual branch, then one a layer of equal width."""
        yield from _branches(graph)
        for chain in find_chains(graph):
            for link in chain:
                layer = graph.node(link.layer)
                weights = graph.constant(layer.inputs[1])
                grouped = layer.attrs.get("group", 1) > 1
                if weights is None or grouped or link.op == "ConvTranspose":
                    continue
                if _is_same(graph, link.reads, link.gives):
                    nodes = link.nodes[: link.own]
                    yield Site(nodes, link.reads, link.gives, f"{link.op} of equal width")

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """Nothing."""
        yield Candidate("Identity")

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Let the readers read what the branch or the layer read."""
        graph.bypass(site, site.reads)


def _branches(graph: Graph) -> Iterator[Site | Refusal]:
    for join in graph.nodes("Add"):
        for start, end in (join.inputs, list(reversed(join.inputs))):
            if graph.constant(start) is not None or not _is_same(graph, start.name, end.name):
                continue
            branch = _nodes_between(graph, start, end, join)
            if branch:
                nodes = [node.name for node in graph.nodes() if node.name in branch]
                written = join.outputs[0].name
                yield Site([*nodes, join.name], start.name, written, "residual branch")
                break


def _nodes_between(graph: Graph, start: Tensor, end: Tensor, join: Node) -> set[str]:
    """Names of the nodes that compute `end` from `start` for the join alone; or none."""
    found: set[str] = set()
    frontier, meets = [end], False
    while frontier:
        tensor = frontier.pop()
        if tensor.name == start.name:
            meets = True
            continue
        node = graph.producer(tensor)
        if node is None or len(found) > _MOST_NODES:
            return set()
        if node.name not in found:
            found.add(node.name)
            frontier += [t for t in graph.reads(node) if graph.constant(t) is None]
    inside = {*found, join.name}
    written = [t for name in found for t in graph.node(name).outputs if not t.is_empty()]
    alone = all(
        not graph.is_output(t) and all(reader.name in inside for reader in graph.readers(t))
        for t in written
    )
    return found if meets and alone else set()


def _is_same(graph: Graph, tensor: str, other: str) -> bool:
    """Whether both have the same known shape and type."""
    shape = graph.shape(tensor)
    known = shape is not None and None not in shape and shape == graph.shape(other)
    return known and graph.dtype(tensor) == graph.dtype(other)
