"""A BatchNormalization behind a layer becomes part of the layer's weights and bias.

    γ · (W·x + b − μ) / √(σ² + ε) + β  =  W'·x + b'
    W' = W · s,   b' = (b − μ) · s + β,   s = γ / √(σ² + ε)

s scales the output channels: axis 0 of a Conv's weights; axis 1 within each group of a
ConvTranspose's weights [C, M/groups, …]; the columns of a Gemm's B (its rows with transB). Gemm
computes α·A·B + β_g·C, so C' = (β_g·C − μ)·s + β and β_g becomes 1.

Requires: inference mode with statistics per channel; constant statistics, weights and bias; the
layer's output is read by nothing else and is no output of the graph. Weights get new initializers,
so a layer that shares them is left as it is. Computed in double precision.
"""

from __future__ import annotations

import numpy as np

from actcc.graph import Array, Graph, Node, Tensor
from actcc.linear.convolution import Obstacle
from actcc.linear.reading import training_obstacle
from actcc.site import Site

_LAYERS = ("Conv", "ConvTranspose", "Gemm")
_ONNX = (None, "", "ai.onnx")


def fold_batch_norm(graph: Graph, batch_norm: Node) -> Node | Obstacle:
    """Fold one BatchNormalization into the layer before it, in place: that layer, or why not."""
    problem = training_obstacle(graph, batch_norm)
    if problem:
        return Obstacle(problem)
    between = batch_norm.inputs[0]
    layer = graph.producer(between)
    if layer is None or layer.op not in _LAYERS or layer.domain not in _ONNX:
        return Obstacle("no Conv, ConvTranspose or Gemm before it")
    if len(between.outputs) != 1 or graph.is_output(between):
        return Obstacle("the layer's output is also read elsewhere")
    if layer.op == "Gemm" and graph.opset < 7:
        return Obstacle("Gemm before opset 7 broadcasts by an attribute")
    statistics = [graph.constant(tensor) for tensor in batch_norm.inputs[1:5]]
    weights = graph.constant(layer.inputs[1])
    bias_tensor = _bias(layer)
    bias = None if bias_tensor is None else graph.constant(bias_tensor)
    constants = [*statistics, weights, *([] if bias_tensor is None else [bias])]
    if weights is None or any(value is None for value in constants):
        return Obstacle("statistics, weights or bias are not constant")
    if weights.dtype not in (np.float16, np.float32, np.float64):
        return Obstacle(f"weights of type {weights.dtype}")
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in statistics)
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + batch_norm.attrs.get("epsilon", 1e-5))
        new_weights = _scaled(layer, weights, scale).astype(weights.dtype)
        new_bias = ((_scaled_bias(layer, bias) - mean) * scale + beta).astype(weights.dtype)
    if not (np.isfinite(new_weights).all() and np.isfinite(new_bias).all()):
        return Obstacle("the folded weights would overflow")
    if layer.op == "Gemm":
        if _grows_by_row(bias, new_bias):
            return Obstacle("the bias of the Gemm differs by row")
        graph.set_attribute(layer, "beta", 1.0)
    _rewrite(graph, layer, new_weights, bias_tensor, new_bias)
    graph.bypass(Site([batch_norm], between, batch_norm.outputs[0]), between)
    return layer


def _bias(layer: Node) -> Tensor | None:
    present = len(layer.inputs) > 2 and not layer.inputs[2].is_empty()
    return layer.inputs[2] if present else None


def _scaled(layer: Node, weights: Array, scale: Array) -> Array:
    wide = weights.astype(np.float64)
    if layer.op == "Conv":
        return wide * scale.reshape(-1, *[1] * (wide.ndim - 1))
    if layer.op == "Gemm":
        return wide * (scale[:, None] if layer.attrs.get("transB", 0) else scale)
    groups = layer.attrs.get("group", 1)
    split = wide.reshape(groups, wide.shape[0] // groups, *wide.shape[1:])
    spread = scale.reshape(groups, 1, -1, *[1] * (wide.ndim - 2))
    scaled: Array = (split * spread).reshape(wide.shape)
    return scaled


def _grows_by_row(bias: Array | None, new_bias: Array) -> bool:
    return bias is not None and bias.ndim == 2 and len(bias) > 1 and bias.shape != new_bias.shape


def _scaled_bias(layer: Node, bias: Array | None) -> Array:
    if bias is None:
        return np.zeros((), np.float64)
    factor = layer.attrs.get("beta", 1.0) if layer.op == "Gemm" else 1.0
    return bias.astype(np.float64) * factor


def _rewrite(
    graph: Graph, layer: Node, weights: Array, bias_tensor: Tensor | None, bias: Array
) -> None:
    stem = layer.inputs[1].name
    graph.set_input(layer, 1, graph.initializer(stem, weights))
    if bias_tensor is not None:
        graph.set_input(layer, 2, graph.initializer(bias_tensor.name, bias))
    elif len(layer.inputs) > 2:
        graph.set_input(layer, 2, graph.initializer(f"{stem}_bias", bias))
    else:
        graph.append_input(layer, graph.initializer(f"{stem}_bias", bias))


def without_batch_norms(graph: Graph) -> Graph:
    """A copy in which all that can be folded is; the graph itself where it has none."""
    if next(graph.nodes("BatchNormalization"), None) is None:
        return graph
    folded = graph.copy()
    for batch_norm in list(folded.nodes("BatchNormalization")):
        fold_batch_norm(folded, batch_norm)
    return folded
