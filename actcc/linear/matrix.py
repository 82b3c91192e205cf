"""Fully connected layers as values: x·W + b, as Gemm or as MatMul with an Add behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from actcc.graph import Array, Graph, Node, Tensor
from actcc.graph.operators import ONNX_DOMAINS
from actcc.linear.convolution import Obstacle
from actcc.linear.linear_layer import only_read_by
from actcc.linear.reading import Types

_FLOATS = (np.float16, np.float32, np.float64)


@dataclass(frozen=True, eq=False)
class AffineMap:
    """x·W + b over the last axis.

    Attributes:
        weights: float64 [inputs, outputs].
        bias: float64 [outputs].
    """

    weights: Array
    bias: Array


@dataclass(frozen=True, eq=False)
class FullyConnected:
    """Nodes of a graph that compute an affine map.

    Attributes:
        nodes: a Gemm; or a MatMul, with the Add behind it where that adds a bias.
        source: what it reads.
        result: what it writes.
        element: type of the weights.
    """

    nodes: tuple[Node, ...]
    source: Tensor
    result: Tensor
    map: AffineMap
    element: np.dtype[Any]

    @property
    def is_gemm(self) -> bool:
        """Whether it is one Gemm, whose input is a matrix."""
        return bool(self.nodes[0].op == "Gemm")


def compose_maps(first: AffineMap, second: AffineMap) -> AffineMap:
    """(x·W₁ + b₁)·W₂ + b₂ = x·(W₁·W₂) + (b₁·W₂ + b₂)."""
    return AffineMap(first.weights @ second.weights, first.bias @ second.weights + second.bias)


def largest_composed_map(first: AffineMap, second: AffineMap) -> float:
    """A bound on the magnitude of the composition's weights and bias, without computing it."""
    rows = np.abs(second.weights).sum(axis=0)
    largest = max(np.abs(first.weights).max(initial=0), np.abs(first.bias).max(initial=0))
    return float((rows * largest + np.abs(second.bias)).max(initial=0))


def fully_connected(graph: Graph, node: Node, types: Types) -> FullyConnected | Obstacle:
    """The layer that begins with `node`, a Gemm or MatMul, or why it is none."""
    if node.domain not in ONNX_DOMAINS:
        return Obstacle(f"an operator of domain '{node.domain}'")
    weights = graph.constant(node.inputs[1])
    if weights is None or weights.ndim != 2 or weights.dtype not in _FLOATS:
        return Obstacle("its weights are not one constant matrix of floats")
    wide = weights.astype(np.float64)
    if node.op == "Gemm":
        return _from_gemm(graph, node, wide, weights.dtype)
    outputs = wide.shape[1]
    plain = AffineMap(wide, np.zeros(outputs))
    found = FullyConnected((node,), node.inputs[0], node.outputs[0], plain, weights.dtype)
    if graph.opset < 7 or not only_read_by(graph, found.result):
        return found
    behind = found.result.outputs[0]
    if behind.op != "Add" or behind.domain not in ONNX_DOMAINS:
        return found
    other = behind.inputs[0 if behind.inputs[1] is node.outputs[0] else 1]
    bias = graph.constant(other)
    if bias is None or not _is_row(bias, outputs, _rank(node.outputs[0], types)):
        return found
    row = AffineMap(wide, np.broadcast_to(bias.astype(np.float64).reshape(-1), (outputs,)))
    nodes = (node, behind)
    return FullyConnected(nodes, node.inputs[0], behind.outputs[0], row, weights.dtype)


def _from_gemm(
    graph: Graph, node: Node, weights: Array, element: np.dtype[Any]
) -> FullyConnected | Obstacle:
    if graph.opset < 7:
        return Obstacle("Gemm before opset 7 broadcasts by an attribute")
    if node.attrs.get("transA", 0):
        return Obstacle("it transposes its input")
    matrix = weights.T if node.attrs.get("transB", 0) else weights
    matrix = matrix * node.attrs.get("alpha", 1.0)
    outputs = matrix.shape[1]
    bias = np.zeros(outputs)
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        given = graph.constant(node.inputs[2])
        if given is None or not _is_row(given, outputs, rank=2):
            return Obstacle("its bias is not constant, or differs by row")
        scaled = given.astype(np.float64).reshape(-1) * node.attrs.get("beta", 1.0)
        bias = np.broadcast_to(scaled, (outputs,))
    row = AffineMap(matrix, bias)
    return FullyConnected((node,), node.inputs[0], node.outputs[0], row, element)


def _is_row(bias: Array, outputs: int, rank: int | None) -> bool:
    """Whether adding it leaves the shape as it is and treats all rows alike."""
    if bias.ndim > 1 and (rank is None or bias.ndim > rank):
        return False
    return bias.size == 1 or (bias.size == outputs and bias.shape[-1] == outputs)


def _rank(tensor: Tensor, types: Types) -> int | None:
    found = types.get(tensor.name)
    return None if found is None or found.shape is None else len(found.shape)
