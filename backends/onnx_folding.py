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
from actcc.neighbourhood import holds_subgraph

_LEFT = frozenset({"DequantizeLinear", "QuantizeLinear"})


def structure_of_run(graph: Graph) -> Graph:
    """The graph with constants for what is computed from constants; their values are not kept.

    For its structure only. Integers and single numbers, whose values may decide how a layer runs,
    are left to be computed.
    """
    folded = graph.copy()
    for node in list(folded.nodes()):
        if _is_computed_at_load(folded, node):
            written = node.outputs[0]
            shape = folded.types[written.name].shape or ()
            weights = folded.initializer(written.name, np.zeros(shape, np.float32))
            for reader in folded.consumers(written):
                for index, tensor in enumerate(reader.inputs):
                    if tensor is written:
                        folded.set_input(reader, index, weights)
    folded.prune()
    return folded


def _is_computed_at_load(graph: Graph, node: Node) -> bool:
    if node.op in _LEFT | RANDOM or holds_subgraph(node) or len(node.outputs) != 1:
        return False
    constant = all(isinstance(tensor, gs.Constant) or tensor.is_empty() for tensor in node.inputs)
    return bool(node.inputs) and constant and _holds_weights(graph, node.outputs[0])


def _holds_weights(graph: Graph, tensor: Tensor) -> bool:
    known = graph.types.get(tensor.name)
    if known is None or not known.is_static or graph.is_output(tensor):
        return False
    sizes = [size for size in known.shape or () if isinstance(size, int)]
    return known.element == onnx.TensorProto.FLOAT and int(np.prod(sizes)) > 1
