"""A Transpose of joined feature maps is done on each of them, before they are joined.

    Transpose(Concat(Reshape(Concat(x, y)), …)) = Concat(Reshape(Concat(xᵀ, yᵀ)), …)

Heads of detectors join their maps [1, C, H, W] over channels, flatten each to [1, C, H·W], join
those of all sizes and turn the whole to [1, H·W, C]. A Reshape that merges neighbouring axes keeps
whole runs of them together, so that it changes places with a Transpose, which then moves the runs;
a Concat does anyway. As many elements are moved as before; but kernels in int8 write channels last
(ONNX Runtime's `QLinearConv`), and behind those there is nothing left to move.

Requires: what is in between is read by nothing else; sizes that are known, but for that of the
first axis, which then stays first; a Concat and a Reshape at least.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from actcc.effort import PRECISIONS
from actcc.errors import PassError
from actcc.graph import Array, Graph, Node, Tensor
from actcc.graph.axes import merged_axes
from actcc.graph.operators import ELEMENTWISE, ONNX_DOMAINS
from actcc.graph.shapes import Shape
from actcc.linear import Types, only_read_by, types_in_every_run
from actcc.pass_api import Group, Pass, rewrite
from actcc.site import Candidate, OfferedSite, Refusal, Site
from actcc.targets import Target

_Axes = tuple[int, ...]


@rewrite("transpose-before-join", exact=True)
class TransposeBeforeJoin(Pass):
    """Concat, Reshape, Concat, Transpose  →  Transpose, Concat, Reshape, Concat."""

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """One for each Transpose behind what is joined and flattened."""
        types = types_in_every_run(graph)
        for node in graph.nodes():
            joins = _joins(graph, node, types)
            if {join.node.op for join in joins} == {"Concat", "Reshape"}:
                yield _site(graph, node, joins)

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """The other order."""
        yield Candidate("Transpose before Concat")

    def neighbours(self, graph: Graph, sites: Sequence[OfferedSite]) -> Iterator[Group]:
        """With the layers in int8 whose maps are joined: those of each join, and all."""
        int8 = {site.site.writes: site for site in sites if site.pass_name in PRECISIONS["mixed"]}
        for own in (site for site in sites if site.pass_name == self.name):
            joins = _maps(_joins_of(graph, own.site))
            written = [[name for name in _written(graph, maps) if name in int8] for maps in joins]
            groups = [found for found in written if found]
            if len(groups) > 1:
                groups.append(list(chain.from_iterable(groups)))
            for found in groups:
                members = [*(int8[name] for name in dict.fromkeys(found)), own]  # two may read one
                yield tuple((site, tuple(c.name for c in site.candidates)) for site in members)

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Write the same joins of maps that are turned, the first of them first."""
        joins = _joins_of(graph, site)
        if {join.node.name for join in joins} != set(site.nodes[:-1]):
            raise PassError(
                f"site '{site.id}' was rewritten already; apply a plan to its own model"
            )
        turned: dict[str, Tensor] = {}
        for join in reversed(joins[1:]):
            operands, attributes = _turned(graph, join, turned)
            written = graph.insert(join.node.op, operands, **attributes)
            turned[join.node.outputs[0].name] = written
        operands, attributes = _turned(graph, joins[0], turned)
        graph.replace(site, joins[0].node.op, operands, **attributes)


@dataclass(frozen=True, eq=False)
class _Join:
    """A Concat or Reshape between the maps and a Transpose.

    Attributes:
        behind: by which what it writes is to be transposed.
        before: by which what it reads is, so that it then writes that.
        shape: of what it writes, as it is.
    """

    node: Node
    behind: _Axes
    before: _Axes
    shape: Shape

    @property
    def reads(self) -> Sequence[Tensor]:
        """What is joined or given another shape."""
        tensors: Sequence[Tensor] = self.node.inputs
        return tensors if self.node.op == "Concat" else tensors[:1]


def _joins(
    graph: Graph, transpose: Node, types: Types, among: Collection[str] | None = None
) -> list[_Join]:
    """All joins in front of a Transpose, each behind those that read it; none if it is none.

    Args:
        among: names of nodes that may be joins; all where left out.
    """
    if transpose.op != "Transpose" or transpose.domain not in ONNX_DOMAINS:
        return []
    source = transpose.inputs[0]
    known = types.get(source.name)
    if known is None or known.shape is None:
        return []
    axes = tuple(range(len(known.shape)))
    waiting = [(source, tuple(transpose.attrs.get("perm", axes[::-1])))]
    joins: list[_Join] = []
    for tensor, behind in waiting:
        join = _join(graph, tensor, behind, types)
        if join is not None and (among is None or join.node.name in among):
            joins.append(join)
            waiting += [(read, join.before) for read in join.reads]
    return joins


def _join(graph: Graph, tensor: Tensor, behind: _Axes, types: Types) -> _Join | None:
    """The join that writes a tensor; None where it is no join, or not the Transpose's own."""
    node, known = graph.producer(tensor), types.get(tensor.name)
    if node is None or node.domain not in ONNX_DOMAINS or not only_read_by(graph, tensor):
        return None
    if known is None or not known.shape:
        return None
    if node.op == "Concat":
        return _Join(node, behind, behind, known.shape)
    entering = types.get(node.inputs[0].name) if node.op == "Reshape" else None
    if entering is None or not entering.shape or not _is_fixed(known.shape, behind):
        return None
    runs = merged_axes(entering.shape, known.shape)
    if runs is None:
        return None
    return _Join(node, behind, tuple(chain.from_iterable(runs[a] for a in behind)), known.shape)


def _is_fixed(shape: Shape, behind: _Axes) -> bool:
    """Whether a Reshape can name the sizes in the other order, 0 for a first one that stays."""
    first, *others = [isinstance(size, int) and size > 0 for size in shape]
    stays = behind[0] == 0 and not isinstance(shape[0], int)
    return all(others) and (first or stays)


def _site(graph: Graph, transpose: Node, joins: Sequence[_Join]) -> Site:
    inner = {join.node.name for join in joins}
    nodes = [node.name for node in graph.nodes() if node.name in inner]
    kind = "+".join(dict.fromkeys(node.op for node in (*(j.node for j in joins), transpose)))
    reads = _maps(joins)[0][0].name
    return Site([*nodes, transpose.name], reads, transpose.outputs[0].name, kind)


def _joins_of(graph: Graph, site: Site) -> list[_Join]:
    """Without those that came up since: behind a rewrite in front, or where sizes are bound."""
    return _joins(graph, graph.node(site.nodes[-1]), types_in_every_run(graph), site.nodes)


def _maps(joins: Sequence[_Join]) -> list[list[Tensor]]:
    """What each join reads that no other has written."""
    written = {join.node.outputs[0].name for join in joins}
    found = ([tensor for tensor in join.reads if tensor.name not in written] for join in joins)
    return [maps for maps in found if maps]


def _written(graph: Graph, maps: Sequence[Tensor]) -> Iterator[str]:
    """What layers write: a map, or what the activation reads that writes it."""
    for tensor in maps:
        writer = graph.producer(tensor)
        if writer is not None and writer.op in ELEMENTWISE and len(writer.inputs) == 1:
            yield writer.inputs[0].name
        else:
            yield tensor.name


def _turned(
    graph: Graph, join: _Join, turned: dict[str, Tensor]
) -> tuple[list[Tensor | Array], dict[str, Any]]:
    """Operands and attributes of a join that writes its result transposed."""
    operands: list[Tensor | Array] = []
    for tensor in join.reads:
        known = turned.get(tensor.name)
        operands.append(
            graph.insert("Transpose", [tensor], perm=list(join.before)) if known is None else known
        )
    if join.node.op == "Concat":
        axis = join.node.attrs["axis"] % len(join.behind)
        return operands, {"axis": join.behind.index(axis)}
    sizes = [size if isinstance(size, int) else 0 for size in join.shape]
    return [*operands, np.array([sizes[axis] for axis in join.behind], np.int64)], {}
