"""Transposes that cancel around element-wise operators are removed (channels-last exports).

    f(x, …)ᵀ = f(xᵀ, …ᵀ)    so    Transpose⁻¹(f(Transpose(x), …)) = f(x, …)

For each Transpose by P, the region: all element-wise nodes that are joined to it by tensors in its
layout (`actcc.graph.layout`). The region is computed in the layout before the Transpose, if that
saves more than it costs (elements that are moved, then nodes):

1. a tensor that enters by a Transpose by P, or leaves by one by P⁻¹, no longer needs it;
2. any other tensor that enters or leaves gets one;
3. constants are transposed, scalars stay; reductions that keep their axes, and Concat, are
   element-wise but for the axes that they name.

A Reshape, or Transpose, that moves none but axes of one element (the [1, C, 1, 1] behind a squeeze)
counts as a Transpose either way.

Requires: tensors of known rank, all of the Transpose's own; known sizes where a Transpose is added;
no output of the graph is written inside. Left as they are: normalizations over the last axis
written out, which runtimes know as a whole only there.
"""

from __future__ import annotations

import numpy as np

from actcc.graph import Array, Graph, Node, Tensor
from actcc.graph.layout import (
    Permutation,
    Region,
    inverse,
    moves_by,
    permutation_of,
    reduced_axes,
    region_around,
    saving,
)
from actcc.graph.operators import REDUCTIONS
from actcc.pass_api import NormalizingPass
from actcc.site import Site


class CancelTransposes(NormalizingPass):
    """Transpose, element-wise nodes, Transpose back  →  the element-wise nodes."""

    name = "cancel-transposes"

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        """The graph itself, and how many Transposes were removed."""
        removed, around = 0, 0
        while (sweep := self._sweep(graph)) is not None:
            removed, around = removed + sweep[0], around + sweep[1]
        if removed > 0:
            return graph, [f"removed {removed} Transpose or Reshape around {around} other nodes"]
        return graph, [f"moved Transposes past {around} nodes to less to move"] if around else []

    def _sweep(self, graph: Graph) -> tuple[int, int] | None:
        """Rewrite regions until each was seen once; how many Transposes went around how many nodes.

        None where no region paid. One that is rewritten can make another pay, so that there is a
        sweep after it; each takes away elements that are moved, or Transposes.
        """
        removed, around = 0, 0
        changed = False
        seen: set[str] = set()
        while (found := _next_region(graph, seen)) is not None:
            region, transposes = found
            with graph.marking(self.name, region.tensors[0].name, "transposed"):
                _rewrite(graph, region)
            removed, around, changed = removed + transposes, around + len(region.nodes), True
        return (removed, around) if changed else None


def _next_region(graph: Graph, seen: set[str]) -> tuple[Region, int] | None:
    """The next region that pays and how many nodes fewer there will be; `seen` is added to."""
    for node in graph.nodes():
        permutation = None if node.name in seen else permutation_of(graph, node)
        if permutation is None:
            continue
        seen.add(node.name)
        region = region_around(graph, node.outputs[0], permutation)
        gain = saving(graph, region)
        if gain > (0, 0):
            return region, gain[1]
    return None


def _rewrite(graph: Graph, region: Region) -> None:
    """Compute the region in the other layout."""
    back = inverse(region.permutation)
    uses = [(tensor, region.readers_outside(graph, tensor)) for tensor in region.tensors]
    going = [node for _, readers in uses for node in readers if moves_by(graph, node, back)]
    new = {id(tensor): _entered(graph, tensor, region.permutation) for tensor in region.entering}
    for node in region.nodes:
        new[id(node.outputs[0])] = _copy(graph, node, region.permutation, new)
    gone, entering = {id(node) for node in going}, {id(tensor) for tensor in region.entering}
    for tensor, readers in uses:
        rest = [node for node in readers if id(node) not in gone]
        if rest and id(tensor) not in entering:
            again = graph.insert(
                "Transpose", [new[id(tensor)]], perm=list(region.permutation), name=tensor.name
            )
            graph.redirect(rest, tensor, again)
        graph.redirect([n for n in readers if id(n) in gone], tensor, new[id(tensor)])
    # Only now, when all that is new is read: what goes takes along what nothing reads.
    for node in going:
        if node.outputs:
            graph.bypass(Site([node], node.inputs[0], node.outputs[0]), node.inputs[0])
    graph.prune()


def _entered(graph: Graph, tensor: Tensor, permutation: Permutation) -> Tensor:
    """A tensor that enters the region, in the other layout."""
    writer = graph.producer(tensor)
    if writer is not None and moves_by(graph, writer, permutation):
        source: Tensor = writer.inputs[0]
        return source
    return graph.insert("Transpose", [tensor], perm=list(inverse(permutation)), name=tensor.name)


def _copy(graph: Graph, node: Node, permutation: Permutation, new: dict[int, Tensor]) -> Tensor:
    """A node in the other layout."""
    operands: list[Tensor | Array] = []
    for tensor in node.inputs:
        moved = new.get(id(tensor))
        operands.append(_constant(graph, tensor, permutation) if moved is None else moved)
    attributes, rank = dict(node.attrs), len(permutation)
    if node.op == "Concat":
        attributes["axis"] = permutation[attributes["axis"] % rank]
    elif node.op in REDUCTIONS and (named := reduced_axes(graph, node)):
        axes = sorted(permutation[axis % rank] for axis in named)
        if len(node.inputs) > 1:
            operands[1] = np.asarray(axes, np.int64)
        else:
            attributes["axes"] = axes
    return graph.insert(node.op, operands, name=node.outputs[0].name, **attributes)


def _constant(graph: Graph, tensor: Tensor, permutation: Permutation) -> Tensor | Array:
    """A constant operand in the other layout; scalars as they are."""
    values = None if tensor.is_empty() else graph.constant(tensor)
    if values is None or values.size == 1:
        return tensor
    whole = values.reshape((1,) * (len(permutation) - values.ndim) + values.shape)
    return np.transpose(whole, inverse(permutation))
