"""Weights stored in fewer bits, and computed with in floating point.

    float16:  y = Conv(x, W)      →      y = Conv(x, Cast(W₁₆))
    int8:     y = Conv(x, W)      →      y = Conv(x, Cast(W₈) · s)      s: one scale for each output

A runtime that folds constants when it loads the model, as ONNX Runtime does, then computes the same
layer on rounded weights: the file is smaller, and nothing is slower. (Measured on ONNX Runtime: it
does not fold a DequantizeLinear, and a convolution behind one took 920 µs instead of 717 µs; hence
Cast and Mul.) Rounding is symmetric, to the nearest; int8 maps the largest weight of an output to
127. Biases stay as they are. Applied last of all, to repaired weights. Approximate, bound by the
budget.

Requires: float32 weights that are constant, that nothing else reads, and that are worth a node.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx

from actcc.graph import Array, Graph, Node, Tensor
from actcc.graph.operators import CONTRACTIONS, ONNX_DOMAINS
from actcc.linear.units import output_axis
from actcc.pass_api import Pass, rewrite
from actcc.site import Candidate, Refusal, Site
from actcc.targets import Target

_HIGHEST = 127
# A node with its names takes a few hundred bytes of the file.
_LEAST_BYTES = 1024


@rewrite("compress-weights", default=False)
class CompressWeights(Pass):
    """Layer  →  the same layer, its weights stored in float16 or int8."""

    late = True
    for_size = True

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """Every layer with weights of its own."""
        for node in graph.nodes():
            if node.op in CONTRACTIONS and node.domain in ONNX_DOMAINS:
                reason = _obstacle(graph, node)
                if reason:
                    yield Refusal(node.outputs[0].name, reason)
                else:
                    largest = float(np.abs(_weights(graph, node)).max())
                    facts = {"largest": largest}
                    yield Site([node], node.inputs[0], node.outputs[0], node.op, facts)

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """Half the bytes, and a quarter."""
        largest = float(site.facts["largest"])
        if largest <= float(np.finfo(np.float16).max):
            yield Candidate("float16")
        else:
            yield Refusal("float16", f"a weight of {largest:.3g} is beyond its range")
        yield Candidate("int8")

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Let the layer read its weights from fewer bits."""
        node = graph.node(site.nodes[0])
        store = {"float16": _in_float16, "int8": _in_int8}[candidate.name]
        graph.set_input(node, 1, store(graph, node))
        graph.prune()  # a Constant node that held them


def _in_float16(graph: Graph, node: Node) -> Tensor:
    weights = _weights(graph, node)
    # What was repaired since may have grown.
    most = np.finfo(np.float16).max
    return _float32(graph, node, np.clip(weights, -most, most).astype(np.float16))


def _in_int8(graph: Graph, node: Node) -> Tensor:
    weights = _weights(graph, node)
    axis = weights.ndim - 1 if node.op == "MatMul" else output_axis(node)
    others = tuple(index for index in range(weights.ndim) if index != axis)
    scales = np.abs(weights).max(axis=others, keepdims=True) / np.float32(_HIGHEST)
    scales = np.where(scales > 0, scales, np.float32(1)).astype(np.float32)
    rounded = np.clip(np.round(weights / scales), -_HIGHEST, _HIGHEST).astype(np.int8)
    return graph.insert("Mul", [_float32(graph, node, rounded), scales], like=node.inputs[1])


def _float32(graph: Graph, node: Node, stored: Array) -> Tensor:
    named = graph.initializer(f"{node.inputs[1].name}_{stored.dtype}", stored)
    return graph.insert("Cast", [named], like=node.inputs[1], to=onnx.TensorProto.FLOAT)


def _weights(graph: Graph, node: Node) -> Array:
    weights = graph.constant(node.inputs[1])
    assert weights is not None  # or it would be no site
    return weights


def _obstacle(graph: Graph, node: Node) -> str:
    """Why a layer's weights cannot be stored in fewer bits; empty where they can."""
    tensor = node.inputs[1]
    weights = graph.constant(tensor)
    if weights is None:
        return "its weights are not constant"
    if weights.dtype != np.float32:
        return "its weights are not in float32"
    if not np.isfinite(weights).all():
        return "a weight is not finite"
    if weights.nbytes < _LEAST_BYTES:
        return f"its weights have less than {_LEAST_BYTES} bytes"
    if len(graph.consumers(tensor)) > 1 or graph.is_output(tensor):
        return "something else reads its weights too"
    return ""
