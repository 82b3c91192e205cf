"""Weights and bias of a layer that is linear in its input, and what scale and shift make of them.

    s · (W·x + b) + t  =  (s·W)·x + (s·b + t)      behind the layer: s, t for each output channel
    W·(s·x + t) + b    =  (W·s)·x + (b + W·t)      before it: s, t for each input channel

Where zeros are padded, W·t is smaller at the border, so t ≠ 0 before a layer needs one without
padding. Output channels are axis 0 of a Conv's weights [M, C/groups, …], axis 1 within each group
of a ConvTranspose's [C, M/groups, …], and the columns of a Gemm's or MatMul's matrix (rows with
transB). Gemm computes α·A·B + β·C; a new C has β folded in. MatMul has for its bias the Add of a
vector that reads it, if there is one. Computed in double precision.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from actcc.graph.graph import Graph
from actcc.graph.operators import CONTRACTIONS, ONNX_DOMAINS
from actcc.graph.view import Array, Node, Tensor

_ROUNDINGS = 2.0


@dataclass(frozen=True)
class LinearLayer:
    """A Conv, ConvTranspose, Gemm or MatMul with constant weights.

    Attributes:
        weights: as they lie in the graph, float64.
        bias: what is added to the product, float64: [channels] for convolutions, whatever
            broadcasts for Gemm; None where there is none.
        adds_bias: the Add behind a MatMul that adds its bias.
    """

    node: Node
    weights: Array
    bias: Array | None
    dtype: np.dtype[Any]
    adds_bias: Node | None = None

    @property
    def writes(self) -> Tensor:
        """The tensor in which product and bias are added up."""
        written: Tensor = (self.adds_bias or self.node).outputs[0]
        return written

    @property
    def rank(self) -> int | None:
        """Number of axes of what it reads and writes; None for MatMul, where any will do."""
        return None if self.node.op == "MatMul" else self.weights.ndim

    @property
    def channel_axis(self) -> int:
        """The axis of channels in what it reads and writes."""
        return 1 if self.node.op in ("Conv", "ConvTranspose") else -1

    @property
    def input_channels(self) -> int:
        """Channels that it reads."""
        grouped, _, axis = self._grouped()
        return int(grouped.shape[0] * grouped.shape[axis])

    @property
    def output_channels(self) -> int:
        """Channels that it writes."""
        grouped, axis, _ = self._grouped()
        return int(grouped.shape[0] * grouped.shape[axis])

    def scaled_behind(self, scale: Array, shift: Array) -> LinearLayer:
        """The layer and `scale · y + shift` behind it; both have one value or one a channel."""
        grouped, axis, _ = self._grouped()
        factors = _along(np.broadcast_to(scale.reshape(-1), self.output_channels), grouped, axis)
        before = np.zeros(()) if self.bias is None else self.bias
        bias = before * scale + shift
        unbiased = self.bias is None and not np.any(bias)
        return replace(
            self,
            weights=(grouped * factors).reshape(self.weights.shape),
            bias=None if unbiased else bias,
        )

    def scaled_before(self, scale: Array, shift: Array) -> LinearLayer:
        """The layer and `scale · x + shift` before it; both have one value or one a channel."""
        grouped, outputs, axis = self._grouped()
        sizes = self.input_channels
        factors = _along(np.broadcast_to(scale.reshape(-1), sizes), grouped, axis)
        weights = (grouped * factors).reshape(self.weights.shape)
        if not np.any(shift):
            return replace(self, weights=weights)
        terms = _along(np.broadcast_to(shift.reshape(-1), sizes), grouped, axis) * grouped
        summed = tuple(index for index in range(1, grouped.ndim) if index != outputs)
        added = terms.sum(axis=summed).reshape(-1) * float(self.node.attrs.get("alpha", 1.0))
        bias = added if self.bias is None else self.bias + added
        return replace(self, weights=weights, bias=bias)

    def adds_before(self) -> str:
        """Why a shift before the layer is no bias behind it; empty where it is."""
        if self.node.op == "ConvTranspose":
            return "the border of a ConvTranspose sums over fewer inputs"
        if self.node.op == "MatMul" and self.bias is None:
            return "MatMul has no bias to take the shift up"
        if self.node.op == "Conv" and _pads(self.node, self.weights):
            return "the convolution pads with zeros, which the shift would not reach"
        return ""

    def obstacle(self, new: LinearLayer) -> str:
        """Why the layer cannot take the weights and bias of `new`; empty where it can."""
        if not keeps_digits(new.weights, self.dtype) or not keeps_digits(new.bias, self.dtype):
            return f"the folded weights would overflow or lose digits in {self.dtype}"
        if self.node.op == "Gemm" and self.bias is not None and new.bias is not None:
            by_row = self.bias.ndim == 2 and len(self.bias) > 1
            if by_row and self.bias.shape != new.bias.shape:
                return "the bias of the Gemm differs by row"
        return ""

    def store(self, graph: Graph, new: LinearLayer) -> None:
        """Give the layer the weights and bias of `new`, against which there is no obstacle."""
        stem = self.node.inputs[1].name
        weights = new.weights.astype(self.dtype)
        graph.set_input(self.node, 1, graph.initializer(stem, weights))
        if new.bias is not None:
            self._store_bias(graph, stem, self._in_shape(new.bias).astype(self.dtype))

    def _store_bias(self, graph: Graph, stem: str, bias: Array) -> None:
        if self.node.op == "Gemm":
            graph.set_attribute(self.node, "beta", 1.0)
        if self.adds_bias is not None:
            index = _operands(graph, self.adds_bias)[1]
            name = self.adds_bias.inputs[index].name
            graph.set_input(self.adds_bias, index, graph.initializer(name, bias))
        elif len(self.node.inputs) > 2:
            name = self.node.inputs[2].name or f"{stem}_bias"
            graph.set_input(self.node, 2, graph.initializer(name, bias))
        else:
            graph.append_input(self.node, graph.initializer(f"{stem}_bias", bias))

    def _in_shape(self, bias: Array) -> Array:
        """One value a channel where convolutions ask for it."""
        if self.node.op in ("Conv", "ConvTranspose"):
            return np.broadcast_to(bias.reshape(-1), self.output_channels)
        return bias

    def _grouped(self) -> tuple[Array, int, int]:
        """Weights with an axis of groups in front, and the axes of output and input channels."""
        weights, node = self.weights, self.node
        if node.op in ("Gemm", "MatMul"):
            outputs = 1 if node.attrs.get("transB", 0) else 2
            return weights[None], outputs, 3 - outputs
        groups = node.attrs.get("group", 1)
        split = weights.reshape(groups, weights.shape[0] // groups, *weights.shape[1:])
        return (split, 1, 2) if node.op == "Conv" else (split, 2, 1)


def linear_layer(
    graph: Graph, node: Node | None, claimed: Collection[str] = ()
) -> LinearLayer | str | None:
    """The layer that a node is, why its weights cannot be changed, or None where it is no layer.

    Args:
        claimed: names of nodes whose constants have to stay, so that they are no bias.
    """
    if node is None or node.op not in CONTRACTIONS or node.domain not in ONNX_DOMAINS:
        return None
    if node.op == "Gemm" and graph.opset < 7:
        return "Gemm before opset 7 broadcasts by an attribute"
    weights = graph.constant(node.inputs[1])
    bias_tensor = node.inputs[2] if len(node.inputs) > 2 else None
    biased = bias_tensor is not None and not bias_tensor.is_empty()
    bias = graph.constant(bias_tensor) if bias_tensor is not None and biased else None
    writer = graph.producer(node.inputs[1])
    if writer is not None and writer.op == "DequantizeLinear":
        return "the layer is inside QDQ: its scales were calibrated for these weights"
    if weights is None or (biased and bias is None):
        return "weights or bias are not constant"
    if weights.dtype not in (np.float16, np.float32, np.float64):
        return f"weights of type {weights.dtype}"
    layer = LinearLayer(node, weights.astype(np.float64), _wide(node, bias), weights.dtype)
    return layer if node.op != "MatMul" else _with_added_bias(graph, layer, claimed)


def layer_that_writes(
    graph: Graph, tensor: Tensor, claimed: Collection[str] = ()
) -> LinearLayer | str | None:
    """`linear_layer` whose result a tensor is, the Add behind a MatMul included."""
    writer = graph.producer(tensor)
    if writer is not None and writer.op == "Add" and writer.domain in ONNX_DOMAINS:
        data, constant = _operands(graph, writer)
        if constant >= 0:
            writer = graph.producer(writer.inputs[data])
    layer = linear_layer(graph, writer, claimed)
    return layer if not isinstance(layer, LinearLayer) or layer.writes is tensor else None


def only_read_by(graph: Graph, tensor: Tensor, count: int = 1) -> bool:
    """Whether exactly `count` inputs of nodes read the tensor, and nobody else knows it."""
    named = graph.is_output(tensor) or graph.is_read_in_subgraph(tensor)
    return len(tensor.outputs) == count and not named


def _with_added_bias(
    graph: Graph, layer: LinearLayer, claimed: Collection[str]
) -> LinearLayer | str:
    if layer.weights.ndim != 2:
        return "MatMul with a stack of matrices"
    written = layer.node.outputs[0]
    reader = graph.consumers(written)[0] if only_read_by(graph, written) else None
    if reader is None or reader.op != "Add" or reader.name in claimed or graph.opset < 7:
        return layer
    _, index = _operands(graph, reader)
    bias = None if index < 0 else graph.constant(reader.inputs[index])
    if bias is None or bias.shape != (layer.output_channels,):
        return layer
    return replace(layer, bias=bias.astype(np.float64), adds_bias=reader)


def _operands(graph: Graph, node: Node) -> tuple[int, int]:
    """Positions of the data and of the constant among two operands; -1 where there is none."""
    constant = [graph.constant(tensor) is not None for tensor in node.inputs]
    if len(constant) != 2 or constant[0] == constant[1]:
        return 0, -1
    return (1, 0) if constant[0] else (0, 1)


def _wide(node: Node, bias: Array | None) -> Array | None:
    if bias is None:
        return None
    factor = node.attrs.get("beta", 1.0) if node.op == "Gemm" else 1.0
    wide: Array = bias.astype(np.float64) * factor
    return wide


def _along(values: Array, grouped: Array, axis: int) -> Array:
    """Values of channels, laid along the axes of groups and of channels in a group."""
    shape = [1] * grouped.ndim
    shape[0], shape[axis] = grouped.shape[0], grouped.shape[axis]
    return values.reshape(shape)


def _pads(node: Node, weights: Array) -> bool:
    automatic = node.attrs.get("auto_pad", "NOTSET")
    text = automatic.decode() if isinstance(automatic, bytes) else automatic
    if text.startswith("SAME"):
        return any(size > 1 for size in weights.shape[2:])
    return text == "NOTSET" and any(node.attrs.get("pads", ()))


def keeps_digits(values: Array | None, dtype: np.dtype[Any]) -> bool:
    """Whether values keep their digits in the layer's precision and none becomes infinite."""
    if values is None:
        return True
    with np.errstate(all="ignore"):
        narrow = values.astype(dtype)
        lost = np.abs(narrow.astype(np.float64) - values).max(initial=0.0)
    bound = _ROUNDINGS * float(np.finfo(dtype).eps) * np.abs(values).max(initial=0.0)
    return bool(np.isfinite(narrow).all() and lost <= bound)
