"""Products and sums with constants become part of the layers behind which or before which they are.

    Add, Sub, Mul, Div, Neg with a constant, BatchNormalization:  y = s · x + t

1. behind a layer:  s · (W·x + b) + t  =  (s·W)·x + (s·b + t);
2. before layers:   W·(s·x + t) + b  =  (W·s)·x + (b + W·t), in all layers that read y;
3. before layers of which one pads with zeros (or has no bias): t cannot go into the weights, s can:
   W·(s·x + t) + b  =  (W·s)·(x + t/s) + b, and one Add is left of two nodes or more.

s and t have one value or one for each channel. Several such nodes in a row are taken as one.
Transpose and Reshape may stand between, if the channels keep an axis of their own or s and t have
one value. What s and t do to the weights of Conv, ConvTranspose, Gemm and MatMul:
`actcc.linear.linear_layer`.

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
from actcc.graph.operators import CONTRACTIONS, ONNX_DOMAINS
from actcc.linear.linear_layer import LinearLayer, layer_that_writes, linear_layer, only_read_by
from actcc.linear.scale_shift import ScaleShift, batch_norm_scale_shift, scale_shift
from actcc.pass_api import NormalizingPass
from actcc.site import Site


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
    """Nodes that follow each other and together compute one scale and shift of `reads`.

    Attributes:
        behind_channels: how many axes there are behind that of the channels.
    """

    nodes: tuple[Node, ...]
    reads: Tensor
    together: ScaleShift
    behind_channels: int

    def laid_along_channels(self, values: Array) -> Array:
        """One value, or one a channel, as it broadcasts against what the chain reads."""
        return values if values.size == 1 else values.reshape(-1, *[1] * self.behind_channels)


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
        counts = sorted((+self._folded).items())
        notes = [f"folded {count} {op} {where}" for (op, where), count in counts]
        for reason, names in self._kept.items():
            notes.append(f"kept {len(names)}: {reason} ('{names[0]}')")
        return notes

    def fold_behind(self, node: Node) -> None:
        """Case 1."""
        graph = self._graph
        found = self._read(node)
        if found is None:
            return
        between = self._rearranged_into(found.reads)
        written = between[0].inputs[0] if between else found.reads
        layer = layer_that_writes(graph, written, self._claimed)
        if layer is None:
            return
        problem = layer if isinstance(layer, str) else ""
        if isinstance(layer, LinearLayer):
            problem = self._fold_behind(node, found, layer, between)
        if problem:
            self._kept.setdefault(problem, []).append(node.name)

    def _rearranged_into(self, tensor: Tensor) -> list[Node]:
        """The nodes, in order, that do no more than move elements until they are in a tensor."""
        nodes: list[Node] = []
        writer = self._graph.producer(tensor)
        while writer is not None and _rearranges(writer):
            nodes.insert(0, writer)
            writer = self._graph.producer(writer.inputs[0])
        return nodes

    def _rearranged_from(self, tensor: Tensor) -> list[Node]:
        """The nodes, in order, that do no more than move a tensor's elements."""
        nodes: list[Node] = []
        while only_read_by(self._graph, tensor) and _rearranges(tensor.outputs[0]):
            nodes.append(tensor.outputs[0])
            if tensor is not nodes[-1].inputs[0]:
                return nodes[:-1]  # it is the shape of a Reshape
            tensor = nodes[-1].outputs[0]
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
        axis = self._axis_behind(between, layer.channel_axis)
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

    def _axis_behind(self, between: Sequence[Node], axis: int | None) -> int | None:
        """Where an axis stands behind nodes that move elements; None where it is not kept whole."""
        for node in between:
            before, after = self._shape(node.inputs[0]), self._shape(node.outputs[0])
            if axis is None or before is None or after is None:
                return None
            axis = axis_behind(node.op, node.attrs, before, after, axis % len(before))
        return axis

    def _axis_before(self, between: Sequence[Node], axis: int) -> int | None:
        """Where an axis that stands behind nodes that move elements comes from."""
        shapes = self._shape(between[0].inputs[0]), self._shape(between[-1].outputs[0])
        if shapes[0] is None or shapes[1] is None:
            return None
        wanted = axis % len(shapes[1])
        sources = range(len(shapes[0]))
        return next((i for i in sources if self._axis_behind(between, i) == wanted), None)

    def fold_before(self, node: Node) -> None:
        """Cases 2 and 3."""
        found = self._read(node)
        if found is None:
            return
        between = self._rearranged_from(node.outputs[0])
        read = between[-1].outputs[0] if between else node.outputs[0]
        readers = self._graph.consumers(read)
        if not readers or any(not _reads_data(reader, read) for reader in readers):
            return
        problem = self._fold_before(node, between, read)
        if problem:
            self._kept.setdefault(problem, []).append(node.name)

    def _fold_before(self, last: Node, between: Sequence[Node], read: Tensor) -> str:
        graph = self._graph
        readers = graph.consumers(read)
        if not only_read_by(graph, read, len(readers)):
            return "its output is also read elsewhere"
        found = [linear_layer(graph, reader, self._claimed) for reader in readers]
        layers = [layer for layer in found if isinstance(layer, LinearLayer)]
        problem = next((layer for layer in found if isinstance(layer, str)), "")
        if problem:
            return problem
        if len({(layer.channel_axis, layer.input_channels) for layer in layers}) > 1:
            return "the layers that read it have their channels along different axes"
        chain = self._chain(last, layers[0], between)
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
        self._replace(chain, layers[0].node.op, layers[0].dtype, left=bool(left))
        return ""

    def _chain(self, last: Node, layer: LinearLayer, between: Sequence[Node]) -> _Chain | str:
        """The longest chain that ends in `last`."""
        graph = self._graph
        rank = None if between else layer.rank
        rank = rank or len(self._shape(last.outputs[0]) or ())
        axis = self._axis_before(between, layer.channel_axis) if between else layer.channel_axis
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
            along = found.along_channels(rank, axis, layer.input_channels)
            if along is None or not _keeps_shape(shape, rank, axis, layer.input_channels, along):
                break
            together = along if together is None else along.then(together)
            nodes.insert(0, node)
            node = graph.producer(found.reads)
        if together is None:
            return "its constant has other axes than the channels, or the shape is unknown"
        behind = 0 if axis is None or not rank else rank - 1 - axis % rank
        return _Chain(tuple(nodes), together.reads, together, behind)

    def _replace(self, chain: _Chain, layer: str, dtype: np.dtype[Any], *, left: bool) -> None:
        """Take the chain away, or leave one Add of it."""
        graph = self._graph
        site = Site(chain.nodes, chain.reads, chain.nodes[-1].outputs[0])
        for node in chain.nodes:
            self._folded[node.op, f"into the {layer} behind"] += 1
        if not left:
            graph.bypass(site, chain.reads)
            return
        self._folded[chain.nodes[-1].op, f"into the {layer} behind"] -= 1
        shift = chain.laid_along_channels(chain.together.shift / chain.together.scale)
        with graph.marking(FoldScaleAndShift.name, site.writes, "shift"):
            graph.replace(site, "Add", [chain.reads, shift.astype(dtype)])

    def _read(self, node: Node) -> ScaleShift | None:
        """What a node scales and shifts by; None where it does neither, or has to stay."""
        if node.name in self._claimed:
            return None
        if node.op == "BatchNormalization":
            rank = len(self._shape(node.inputs[0]) or ())
            return batch_norm_scale_shift(self._graph, node, rank)
        return scale_shift(self._graph, node)

    def _shape(self, tensor: Tensor) -> Shape | None:
        return self._shapes.get(tensor.name)


def _rearranges(node: Node) -> bool:
    return node.domain in ONNX_DOMAINS and (node.op == "Transpose" or node.op in RESHAPING)


def _reads_data(reader: Node, read: Tensor) -> bool:
    """Whether a layer reads a tensor as its data, and as nothing else."""
    positions = [i for i, tensor in enumerate(reader.inputs) if tensor is read]
    transposed = bool(reader.attrs.get("transA", 0))
    is_layer = reader.op in CONTRACTIONS and reader.domain in ONNX_DOMAINS
    return is_layer and positions == [0] and not transposed


def _keeps_shape(
    shape: Shape | None, rank: int, axis: int | None, channels: int, along: ScaleShift
) -> bool:
    """Whether the constants do not enlarge what they are combined with."""
    if along.scale.size == along.shift.size == 1 and not along.spread:
        return True
    if shape is None or len(shape) != rank:
        return False
    single = along.scale.size == along.shift.size == 1
    return single or (axis is not None and shape[axis] == channels)


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
