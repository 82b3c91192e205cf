"""Finding the layers of a graph whose weights can be re-fitted, and why others cannot.

Those are Conv, ConvTranspose, Gemm and MatMul with weights that are theirs alone: see
`actcc.repair.layer` for what they have in common.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from actcc.graph import Array, Graph, Node
from actcc.graph.operators import CONTRACTIONS, ONNX_DOMAINS
from actcc.graph.pairs import DEQUANTIZE
from actcc.repair.layer import (
    Layer,
    channels_of,
    count_positions,
    rows_of,
    same_geometry,
    targets_of,
)
from actcc.repair.windows import Window

__all__ = [
    "Layer",
    "channels_of",
    "count_positions",
    "find_layers",
    "rows_of",
    "same_geometry",
    "targets_of",
]

_TYPES = (np.float16, np.float32, np.float64)
# Since then Add and Gemm broadcast as NumPy does.
_BROADCASTING_OPSET = 7


def find_layers(graph: Graph) -> tuple[dict[str, Layer], dict[str, str]]:
    """Layers in topological order by the name of what they write, and by node why others are none.

    A layer is refused where its weights or its bias are not known before a run, are not its own,
    or are not finite numbers, and where a subgraph knows it by name.
    """
    found: dict[str, Layer] = {}
    refused: dict[str, str] = {}
    for node in graph.nodes():
        if node.op in CONTRACTIONS and node.domain in ONNX_DOMAINS:
            layer = _layer(graph, node)
            if isinstance(layer, str):
                refused[node.name] = layer
            else:
                found[layer.writes] = layer
    return found, refused


def _layer(graph: Graph, node: Node) -> Layer | str:
    """The layer of a node, or why there is none."""
    if graph.opset < _BROADCASTING_OPSET:
        return f"opset {graph.opset} broadcasts in its own way; convert the model to a later one"
    weights = graph.constant(node.inputs[1])
    if weights is None:
        return _why_unknown(graph, node)
    problem = _why_fixed(graph, node, weights)
    if problem:
        return problem
    if node.op in ("Gemm", "MatMul") and weights.ndim != 2:
        return f"its weights have rank {weights.ndim}, not 2"
    if node.op == "MatMul":
        return _matmul(graph, node, weights)
    return _with_bias(
        graph, node, _gemm(node, weights) if node.op == "Gemm" else _conv(node, weights)
    )


def _why_unknown(graph: Graph, node: Node) -> str:
    """Why the values of a node's weights are not known before a run."""
    weight = node.inputs[1]
    writer = graph.producer(weight)
    if graph.constant(node.inputs[0]) is not None:
        return "its weights are on the left"
    if writer is not None:
        stored = (
            "; it has to be int8 without a zero point, in float32 steps, behind an input in int8, "
            "of a Conv or Gemm"
        )
        why = stored if writer.op == DEQUANTIZE else ""
        return f"its weights are computed, by {writer.op} '{writer.name}'{why}"
    if weight.name in graph.overridable or any(weight is source for source in graph.inputs):
        return "its weights are a graph input"
    return "its weights are sparse"


def _why_fixed(graph: Graph, node: Node, weights: Array) -> str:
    """Why a node's weights have to stay as they are; empty where they may change."""
    weight, written = node.inputs[1], node.outputs[0]
    if weights.dtype not in _TYPES:
        return f"its weights are {weights.dtype}, not float16, float32 or float64"
    if not np.isfinite(weights).all():
        return "its weights are not all finite"
    if graph.constant(node.inputs[0]) is not None:
        return "what it maps is constant"
    if graph.is_output(weight):
        return "its weights leave the graph"
    if graph.is_read_in_subgraph(weight):
        return "a subgraph reads its weights"
    others = [other.name for other in graph.consumers(weight) if other is not node]
    if others:
        return f"its weights are shared with '{others[0]}'"
    return "a subgraph reads what it writes" if graph.is_read_in_subgraph(written) else ""


def _plain(node: Node, weights: Array) -> Layer:
    """A layer without a bias, as all of them have it in common."""
    return Layer(
        node=node.name,
        op=node.op,
        reads=node.inputs[0].name,
        writes=node.outputs[0].name,
        weight=node.inputs[1].name,
        weights=weights,
    )


def _conv(node: Node, weights: Array) -> Layer:
    window, groups = Window.of(node, weights.shape[2:]), int(node.attrs.get("group", 1))
    return replace(_plain(node, weights), window=window, groups=groups)


def _gemm(node: Node, weights: Array) -> Layer:
    return replace(
        _plain(node, weights),
        scale=(float(node.attrs.get("alpha", 1.0)), float(node.attrs.get("beta", 1.0))),
        transposed=(bool(node.attrs.get("transA", 0)), bool(node.attrs.get("transB", 0))),
    )


def _with_bias(graph: Graph, node: Node, layer: Layer) -> Layer | str:
    """The layer with the bias that its node holds."""
    if not all(layer.scale):
        return "its alpha or beta is zero"
    if len(node.inputs) < 3 or node.inputs[2].is_empty():
        return layer
    biases = graph.constant(node.inputs[2])
    if biases is None:
        return "its bias is computed or a graph input"
    if not _is_one_row(biases, layer.groups * layer.outputs):
        return "its bias differs from row to row"
    if not np.isfinite(biases).all():
        return "its bias is not all finite"
    return replace(layer, bias=node.inputs[2].name, biases=biases)


def _matmul(graph: Graph, node: Node, weights: Array) -> Layer | str:
    """The layer with the bias that an Add of a constant puts on what a MatMul writes."""
    layer, written = _plain(node, weights), node.outputs[0]
    readers = graph.consumers(written)
    if len(readers) != 1 or readers[0].op != "Add" or graph.is_output(written):
        return layer
    add = readers[0]
    for tensor in add.inputs:
        biases = None if tensor is written else graph.constant(tensor)
        if biases is None or not _is_one_row(biases, layer.outputs):
            continue
        if not np.isfinite(biases).all():
            return "its bias is not all finite"
        if graph.is_read_in_subgraph(add.outputs[0]):
            return "a subgraph reads what it writes"
        return replace(
            layer, writes=add.outputs[0].name, bias=tensor.name, biases=biases, adds=add.name
        )
    return layer


def _is_one_row(biases: Array, outputs: int) -> bool:
    """Whether a bias is the same at all positions: one number, or one for each output."""
    return biases.size == 1 or (biases.size == outputs == biases.shape[-1])
