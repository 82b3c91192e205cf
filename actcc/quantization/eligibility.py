"""Which nodes and activations can be computed in int8, and why others cannot."""

from __future__ import annotations

import onnx

from actcc.activations import Match
from actcc.graph import Graph, Node, Tensor
from actcc.graph.operators import CONTRACTIONS
from actcc.quantization.qdq import QUANTIZABLE, cut_behind, feature_maps, is_dequantized

NOT_FLOAT = "not in float32"


def obstacle(graph: Graph, node: Node) -> str:
    """Why a node cannot be computed in int8; empty where it can.

    Args:
        node: of an operator of ONNX.
    """
    if node.op not in QUANTIZABLE:
        return f"no int8 kernel computes {node.op}"
    tensors = [*feature_maps(graph, node), *node.outputs]
    if not all(is_float32(graph, tensor) for tensor in tensors):
        return NOT_FLOAT
    if len(node.outputs) != 1:
        return "it writes several tensors"
    if any(graph.constant(tensor) is not None for tensor in feature_maps(graph, node)):
        return "an operand is constant"
    if any(is_dequantized(graph, tensor) for tensor in node.inputs):
        return "it is in int8 already"
    if node.op in CONTRACTIONS and graph.constant(node.inputs[1]) is None:
        return "its weights are not constant"
    if node.op in CONTRACTIONS and len(node.inputs) > 2 and not node.inputs[2].is_empty():
        bias = graph.constant(node.inputs[2])
        if bias is None:
            return "its bias is not constant"
        if any(size != 1 for size in bias.shape[:-1]):
            return "its bias is no vector"
    if node.op == "Gemm" and any(node.attrs.get(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return "it has factors of its own"
    if node.op == "Gemm" and node.attrs.get("transA", 0):
        return "it transposes what it reads"
    if node.op == "MatMul" and graph.constant(node.inputs[1]).ndim != 2:  # type: ignore[union-attr]
        return "its weights are no matrix"
    return ""


def is_in_int8(graph: Graph, match: Match) -> bool:
    """Whether the runtime computes an activation in int8 as the model is."""
    readers = graph.consumers(match.writes)
    return is_dequantized(graph, match.reads) and any(r.op == "QuantizeLinear" for r in readers)


def is_cut_off(graph: Graph, match: Match) -> bool:
    """Whether the kernel before an activation swallows it."""
    writer = graph.producer(match.reads)
    cut = None if writer is None else cut_behind(graph, writer)
    return cut is not None and any(node.name == cut.name for node in match.nodes)


def is_float32(graph: Graph, tensor: Tensor) -> bool:
    """Whether a tensor, constant or not, is known to be float32."""
    known = graph.types.get(tensor.name)
    constant = graph.constant(tensor)
    if constant is not None:
        return bool(constant.dtype == "float32")
    return known is not None and known.element == onnx.TensorProto.FLOAT
