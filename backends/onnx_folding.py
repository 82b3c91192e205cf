"""What ONNX Runtime computes once, when it loads a model, and so costs nothing in a run.

Nodes that read constants alone are computed then, except DequantizeLinear, which it leaves for its
int8 kernels ("constant folding" in its documentation of graph optimisations), and what draws random
numbers. Two graphs that differ in such nodes alone run the same kernels on weights of other values.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from actcc.graph import Graph, Node, Tensor
from actcc.graph.operators import RANDOM
from actcc.neighbourhood import constant_nodes, holds_subgraph

_LEFT = frozenset({"DequantizeLinear", "QuantizeLinear"})
# They read in floating point how large their result is.
_RESIZING = frozenset({"Resize", "Upsample"})


def structure_of_run(graph: Graph) -> Graph:
    """The graph with constants for what is computed from constants; their values are not kept.

    For its structure only. Integers and single numbers, whose values may decide how a layer runs,
    are left to be computed, and so is what decides the shape of a tensor.
    """
    folded = graph.copy()
    deciding = _deciding_shapes(folded)
    for node in list(folded.nodes()):
        if _is_computed_at_load(folded, node) and node.outputs[0].name not in deciding:
            written = node.outputs[0]
            shape = folded.types[written.name].shape or ()
            weights = folded.initializer(written.name, np.zeros(shape, np.float32))
            folded.redirect(folded.consumers(written), written, weights)
    folded.prune()
    return folded


def _deciding_shapes(graph: Graph) -> frozenset[str]:
    """Names of what integers are computed from, and sizes of feature maps."""
    constants = constant_nodes(graph)
    found: set[str] = set()
    for node in reversed(list(graph.nodes())):
        if node.name in constants:
            decides = any(t.name in found or not _is_float(graph, t) for t in node.outputs)
            found.update(tensor.name for tensor in node.inputs if decides)
        elif node.op in _RESIZING:
            found.update(tensor.name for tensor in node.inputs[1:])
    return frozenset(found)


def _is_computed_at_load(graph: Graph, node: Node) -> bool:
    if node.op in _LEFT | RANDOM or holds_subgraph(node) or len(node.outputs) != 1:
        return False
    constant = all(isinstance(tensor, gs.Constant) or tensor.is_empty() for tensor in node.inputs)
    return bool(node.inputs) and constant and _holds_weights(graph, node.outputs[0])


def _holds_weights(graph: Graph, tensor: Tensor) -> bool:
    known = graph.types.get(tensor.name)
    if known is None or not known.is_static or graph.is_output(tensor):
        return False
    if graph.is_read_in_subgraph(tensor):  # which knows it by this name
        return False
    sizes = [size for size in known.shape or () if isinstance(size, int)]
    return _is_float(graph, tensor) and int(np.prod(sizes)) > 1


def _is_float(graph: Graph, tensor: Tensor) -> bool:
    known = graph.types.get(tensor.name)
    return known is not None and known.element == onnx.TensorProto.FLOAT
