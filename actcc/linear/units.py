"""Layers without some of their outputs or inputs."""

from __future__ import annotations

import numpy as np

from actcc.graph import Array, Graph, Node
from actcc.graph.operators import CONTRACTIONS


def output_axis(node: Node) -> int:
    """The axis of output channels in the weights of a Conv, Gemm or MatMul."""
    return 0 if node.op == "Conv" or node.attrs.get("transB", 0) else 1


def weights_by_input(graph: Graph, node: Node) -> Array:
    """Weights of a dense layer, float64 [inputs, all that is made of one]."""
    return _along(graph, node, 1 - output_axis(node))


def weights_by_output(graph: Graph, node: Node) -> Array:
    """Weights of a layer, float64 [outputs, all that one is made with]."""
    return _along(graph, node, output_axis(node))


def _along(graph: Graph, node: Node, axis: int) -> Array:
    weights = np.asarray(graph.constant(node.inputs[1]), np.float64)
    return np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)


def keep_inputs(graph: Graph, node: Node, chosen: Array) -> None:
    """Let a dense layer read the chosen channels alone."""
    _take(graph, node, 1, chosen, 1 - output_axis(node))


def keep_outputs(graph: Graph, node: Node, chosen: Array) -> None:
    """Let a dense or depthwise layer, or the Add behind a MatMul, write the chosen channels alone.

    A bias of one number for all channels stays as it is.
    """
    for index, tensor in enumerate(node.inputs):
        values = None if tensor.is_empty() else graph.constant(tensor)
        if values is None:
            continue
        if node.op in CONTRACTIONS and index == 1:
            _take(graph, node, index, chosen, output_axis(node))
        elif values.ndim and values.shape[-1] > 1:
            _take(graph, node, index, chosen, -1)
    if node.attrs.get("group", 1) > 1:
        graph.set_attribute(node, "group", len(chosen))


def _take(graph: Graph, node: Node, index: int, chosen: Array, axis: int) -> None:
    tensor = node.inputs[index]
    values = np.take(np.asarray(graph.constant(tensor)), chosen, axis=axis)
    graph.set_input(node, index, graph.initializer(tensor.name, values))
