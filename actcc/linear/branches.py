"""Sums of several terms, and each term as a function of a tensor through linear nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from actcc.graph import Graph, Node, Tensor
from actcc.graph.operators import ONNX_DOMAINS
from actcc.linear.composition import compose, composed_weights
from actcc.linear.convolution import Convolution, Obstacle
from actcc.linear.linear_layer import only_read_by
from actcc.linear.reading import Types, convolution_of, is_convolution, spatial_sizes

LARGER = "one convolution would have more weights than those it is made of"
_SUMS = ("Add", "Sum")


@dataclass(frozen=True, eq=False)
class Branch:
    """A term of a sum as a function of `source`, through `nodes`, first to last."""

    term: Tensor
    source: Tensor
    nodes: tuple[Node, ...]

    @property
    def layers(self) -> tuple[Node, ...]:
        """Its Conv nodes."""
        return tuple(node for node in self.nodes if node.op == "Conv")


def is_sum(node: Node) -> bool:
    """Whether the node adds its inputs."""
    return node.op in _SUMS and node.domain in ONNX_DOMAINS


def is_whole_sum(graph: Graph, node: Node) -> bool:
    """Whether the node is a sum that is not itself a term of another."""
    written = node.outputs[0]
    return is_sum(node) and not (only_read_by(graph, written) and is_sum(written.outputs[0]))


def terms_of(graph: Graph, node: Node) -> tuple[list[Node], list[Tensor]]:
    """The sums that end in `node`, itself first, and what they add."""
    sums, terms, left = [node], [], list(node.inputs)
    while left:
        tensor = left.pop(0)
        writer = graph.producer(tensor)
        if writer is not None and is_sum(writer) and only_read_by(graph, tensor):
            sums.append(writer)
            left = [*writer.inputs, *left]
        else:
            terms.append(tensor)
    return sums, terms


def parallel_branches(graph: Graph, terms: Sequence[Tensor]) -> list[list[Branch]]:
    """Branches of one source, where there are several and one of them has a Conv."""
    by_source: dict[str, list[Branch]] = {}
    for term in terms:
        for branch in _ways_back(graph, term):
            by_source.setdefault(branch.source.name, []).append(branch)
    return [
        branches
        for branches in by_source.values()
        if len(branches) > 1 and any(branch.layers for branch in branches)
    ]


def _ways_back(graph: Graph, term: Tensor) -> Iterator[Branch]:
    branch = Branch(term, term, ())
    yield branch
    while only_read_by(graph, branch.source):
        writer = graph.producer(branch.source)
        if writer is None or not is_convolution(writer):
            return
        branch = Branch(term, writer.inputs[0], (writer, *branch.nodes))
        yield branch


def branch_weights(graph: Graph, branch: Branch) -> int:
    """How many weights its Conv nodes have."""
    constants = (graph.constant(node.inputs[1]) for node in branch.layers)
    return sum(weights.size for weights in constants if weights is not None)


def branch_convolution(graph: Graph, branch: Branch, types: Types) -> Convolution | Obstacle:
    """The nodes of a branch that has some, as one convolution with no more weights than theirs."""
    total: Convolution | None = None
    allowed = branch_weights(graph, branch)
    for node in branch.nodes:
        found = convolution_of(graph, node, types)
        if total is not None and isinstance(found, Convolution):
            if allowed and composed_weights(total, found) > allowed:
                return Obstacle(LARGER)
            found = compose(total, found, spatial_sizes(branch.source, found.rank, types))
        if isinstance(found, Obstacle):
            return found
        total = found
    return Obstacle("no node lies on this branch") if total is None else total
