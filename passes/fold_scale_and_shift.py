"""Products and sums with constants become part of the layers behind which or before which they are.

    Add, Sub, Mul, Div, Neg with a constant:  y = s · x + t

1. behind a layer:  s · (W·x + b) + t  =  (s·W)·x + (s·b + t);
2. before layers:   W·(s·x + t) + b  =  (W·s)·x + (b + W·t), in all layers that read y;
3. before layers of which one pads with zeros (or has no bias): t cannot go into the weights, s can:
   W·(s·x + t) + b  =  (W·s)·(x + t/s) + b, and one Add is left of two nodes or more.

s and t have one value or one for each channel. Several such nodes in a row are taken as one. In 1,
Transpose and Reshape may stand between, if they keep the channels on an axis of their own. What s
and t do to the weights of Conv, ConvTranspose, Gemm and MatMul: `actcc.linear.linear_layer`.

Requires: constants, weights and bias are constant; every tensor between is read by the next node
(in 2 and 3, the last by layers) alone and is no output of the graph. Left as they are: the nodes of
an activation (the half in GELU), which would be none without them, and those that end a
normalization written out (γ and β behind x/√…), which runtimes know as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actcc.activations import find_activations
from actcc.graph import Array, Graph, Node, Shape, Tensor
from actcc.graph.axes import RESHAPING, axis_behind
from actcc.graph.operators import CONTRACTIONS
from actcc.linear.linear_layer import LinearLayer, layer_that_writes, linear_layer, only_read_by
from actcc.linear.scale_shift import ScaleShift, scale_shift
from actcc.pass_api import NormalizingPass
from actcc.site import Site

REARRANGING = RESHAPING | {"Transpose"}
_ONNX = (None, "", "ai.onnx")


class FoldScaleAndShift(NormalizingPass):
    """Add, Sub, Mul, Div, Neg with constants beside a layer  →  the layer with other weights."""

    name = "fold-scale-and-shift"

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        """The graph itself, how many were folded, and why the others were not."""
        if graph.opset < 7:
            return graph, ["left out: arithmetic before opset 7 broadcasts by an attribute"]
        folder = _Folder(graph)
        for node in list(graph.nodes()):
            folder.fold_behind(node)
        for node in reversed(list(graph.nodes())):
            if node.outputs:  # it may have been folded with the node behind it
                folder.fold_before(node)
        return graph, folder.notes()


@dataclass(frozen=True)
class _Chain:
    """Nodes that follow each other and together compute one scale and shift of `reads`."""

    nodes: tuple[Node, ...]
    reads: Tensor
    together: ScaleShift


class _Folder:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._claimed = frozenset(n.name for found in find_activations(graph) for n in found.nodes)
        # Types are asked once: folding changes the type of no tensor that stays.
        self._shapes: Mapping[str, Shape | None] = {
            name: found.shape for name, found in graph.types.items()
        }
        self._folded: Counter[tuple[str, str]] = Counter()
        self._kept: dict[str, list[str]] = {}

    def notes(self) -> list[str]:
        """What was folded and what was not, line by line."""
        notes = [f"folded {n} {op} {where}" for (op, where), n in sorted(self._folded.items())]
        for reason, names in self._kept.items():
            notes.append(f"kept {len(names)}: {reason} ('{names[0]}')")
        return notes

    def fold_behind(self, node: Node) -> None:
        """Case 1."""
        graph = self._graph
        found = self._read(node)
        if found is None:
            return
        between = self._rearranging(found.reads)
        written = between[0].inputs[0] if between else found.reads
        layer = layer_that_writes(graph, written, self._claimed)
        if layer is None:
            return
        problem = layer
        if isinstance(layer, LinearLayer):
            problem = self._fold_behind(node, found, layer, between)
        if problem:
            self._kept.setdefault(problem, []).append(node.name)

    def _rearranging(self, tensor: Tensor) -> list[Node]:
        """The nodes that move the elements of a layer's output until they are in this tensor."""
        nodes: list[Node] = []
        writer = self._graph.producer(tensor)
        while writer is not None and writer.op in REARRANGING and writer.domain in _ONNX:
            nodes.insert(0, writer)
            writer = self._graph.producer(writer.inputs[0])
        return nodes

    def _fold_behind(
        self, node: Node, found: ScaleShift, layer: LinearLayer, between: Sequence[Node]
    ) -> str:
        graph = self._graph
        if layer.node.op == "MatMul" and layer.bias is None and np.any(found.shift):
            return "MatMul has no bias to take the shift up"
        if not all(only_read_by(graph, t) for t in (found.reads, *(n.inputs[0] for n in between))):
            return "the layer's output is also read elsewhere"
        known = None if between else layer.rank
        rank = known or len(self._shape(found.reads) or (1,))
        axis = self._channel_axis(layer, between)
        if axis is None:
            return "its channels are rearranged behind the layer"
        along = found.along_channels(rank, axis, layer.output_channels)
        if along is None:
            return "its constant differs along other axes than the channels"
        folded = layer.scaled_behind(along.scale, along.shift)
        problem = layer.obstacle(folded)
        if not problem:
            layer.store(graph, folded)
            self._folded[node.op, f"into the {layer.node.op} before"] += 1
            graph.bypass(Site([node], found.reads, node.outputs[0]), found.reads)
        return problem

    def _channel_axis(self, layer: LinearLayer, between: Sequence[Node]) -> int | None:
        """The axis of a layer's channels behind the nodes that rearrange its output."""
        axis: int | None = layer.channel_axis
        for node in between:
            shapes = self._shape(node.inputs[0]), self._shape(node.outputs[0])
            if axis is None or shapes[0] is None or shapes[1] is None:
                return None
            axis = axis_behind(node.op, node.attrs, *shapes, axis % len(shapes[0]))
        return axis

    def fold_before(self, node: Node) -> None:
        """Cases 2 and 3."""
        found = self._read(node)
        readers = self._graph.consumers(node.outputs[0]) if found is not None else []
        if found is None or not readers or any(not _reads_data(r, node) for r in readers):
            return
        problem = self._fold_before(node, readers)
        if problem:
            self._kept.setdefault(problem, []).append(node.name)

    def _fold_before(self, last: Node, readers: Sequence[Node]) -> str:
        graph = self._graph
        if not only_read_by(graph, last.outputs[0], len(readers)):
            return "its output is also read elsewhere"
        found = [linear_layer(graph, reader, self._claimed) for reader in readers]
        layers = [layer for layer in found if isinstance(layer, LinearLayer)]
        problem = next((layer for layer in found if isinstance(layer, str)), "")
        if problem:
            return problem
        if len({(layer.channel_axis, layer.input_channels) for layer in layers}) > 1:
            return "the layers that read it have their channels along different axes"
        chain = self._chain(last, layers[0])
        if isinstance(chain, str):
            return chain
        scale, shift = chain.together.scale, chain.together.shift
        unmoved = next((text for each in layers if (text := each.adds_before())), "")
        left = unmoved if np.any(shift) else ""
        if left and (len(chain.nodes) == 1 or not _divides(shift, scale, layers[0].dtype)):
            return left
        new = [each.scaled_before(scale, np.zeros(()) if left else shift) for each in layers]
        for layer, folded in zip(layers, new, strict=True):
            problem = problem or layer.obstacle(folded)
        if problem:
            return problem
        for layer, folded in zip(layers, new, strict=True):
            layer.store(graph, folded)
        self._replace(chain, layers[0], left=bool(left))
        return ""

    def _chain(self, last: Node, layer: LinearLayer) -> _Chain | str:
        """The longest chain that ends in `last`."""
        graph = self._graph
        nodes: list[Node] = []
        node: Node | None = last
        together: ScaleShift | None = None
        while node is not None:
            found = self._read(node)
            if found is None or (nodes and not only_read_by(graph, node.outputs[0])):
                break
            if _ends_normalization(graph, found.reads):
                return "it ends a normalization, which runtimes know as a whole"
            shape = self._shape(found.reads)
            rank = layer.rank or len(shape or ())
            along = found.along_channels(rank, layer.channel_axis, layer.input_channels)
            if along is None or not _keeps_shape(shape, rank, layer, along):
                break
            together = along if together is None else along.then(together)
            nodes.insert(0, node)
            node = graph.producer(found.reads)
        if together is None:
            return "its constant has other axes than the channels, or the shape is unknown"
        return _Chain(tuple(nodes), together.reads, together)

    def _replace(self, chain: _Chain, layer: LinearLayer, *, left: bool) -> None:
        """Take the chain away, or leave one Add of it."""
        graph = self._graph
        site = Site(chain.nodes, chain.reads, chain.nodes[-1].outputs[0])
        for node in chain.nodes:
            self._folded[node.op, f"into the {layer.node.op} behind"] += 1
        if not left:
            graph.bypass(site, chain.reads)
            return
        self._folded[chain.nodes[-1].op, f"into the {layer.node.op} behind"] -= 1
        shift = chain.together.shift / chain.together.scale
        if shift.size > 1 and layer.channel_axis == 1:
            shift = shift.reshape(-1, *[1] * ((layer.rank or 2) - 2))
        with graph.marking(FoldScaleAndShift.name, site.writes, "shift"):
            graph.replace(site, "Add", [chain.reads, shift.astype(layer.dtype)])

    def _read(self, node: Node) -> ScaleShift | None:
        """What a node scales and shifts by; None where it does neither, or has to stay."""
        return None if node.name in self._claimed else scale_shift(self._graph, node)

    def _shape(self, tensor: Tensor) -> Shape | None:
        return self._shapes.get(tensor.name)


def _reads_data(reader: Node, node: Node) -> bool:
    """Whether a layer reads the node's output as its data, and as nothing else."""
    positions = [i for i, tensor in enumerate(reader.inputs) if tensor is node.outputs[0]]
    transposed = bool(reader.attrs.get("transA", 0))
    return reader.op in CONTRACTIONS and positions == [0] and not transposed


def _keeps_shape(shape: Shape | None, rank: int, layer: LinearLayer, along: ScaleShift) -> bool:
    """Whether the constants do not enlarge what they are combined with."""
    if along.scale.size == along.shift.size == 1 and not along.spread:
        return True
    if shape is None or len(shape) != rank:
        return False
    single = along.scale.size == along.shift.size == 1
    return single or shape[layer.channel_axis] == layer.input_channels


def _divides(shift: Array, scale: Array, dtype: np.dtype[Any]) -> bool:
    """Whether t/s is a number in the layer's precision."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite((shift / scale).astype(dtype)).all())


def _ends_normalization(graph: Graph, tensor: Tensor) -> bool:
    """Whether what is scaled is a quotient by, or a product with the inverse of, a square root."""
    writer = graph.producer(tensor)
    if writer is None or writer.op not in ("Div", "Mul"):
        return False
    above = [graph.producer(read) for read in writer.inputs]
    above += [graph.producer(read) for node in above if node is not None for read in node.inputs]
    return any(node is not None and node.op == "Sqrt" for node in above)
