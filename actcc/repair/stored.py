"""Layers of a quantized model: weights in int8 are real numbers while they are re-fitted.

    weights in int8 → DequantizeLinear → layer      ↔      real weights → layer

The repair sees the layers in the second form, fed with feature maps as the model rounds them. What
it found is stored as int8 without a zero point, with a scale for each output, and the bias as int32
in the product of the scales (`actcc.quantization.qdq`). Those that it left alone stay bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from actcc.graph import Array, Graph, Node, Tensor
from actcc.graph.operators import ONNX_DOMAINS
from actcc.graph.pairs import DEQUANTIZE, StoredAs, stored_as, stored_constant
from actcc.linear.units import output_axis
from actcc.quantization.qdq import OPSET, weights_in_int8

_PASS = "repair"
_LAYERS = frozenset({"Conv", "Gemm"})
_LARGEST_IN_7_BITS = 64


@dataclass(frozen=True, eq=False)
class _Operand:
    """Integers behind a DequantizeLinear, and what they stand for."""

    stored: Array
    kind: StoredAs
    axis: int

    @property
    def values(self) -> Array:
        """Real numbers, as the DequantizeLinear gives them."""
        shape = [1] * self.stored.ndim
        if not self.kind.is_whole:
            shape[self.axis] = -1
        scale = self.kind.scale.reshape(shape if self.stored.ndim else ())
        return np.asarray(self.stored.astype(self.kind.scale.dtype) * scale)


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """How a layer's weights and bias were stored.

    Attributes:
        bias: None for one that was no integers.
        adds: the bias as real numbers; None where there is none.
        outputs: how many the layer has.
        input_scale: of what it reads.
    """

    weights: _Operand
    bias: _Operand | None
    adds: Array | None
    outputs: int
    input_scale: float


def with_real_weights(graph: Graph) -> tuple[Graph, dict[str, StoredLayer]]:
    """A copy in which layers hold real weights, and how these were stored, by node.

    Left as they are: weights with a zero point or of another type than int8, in steps of another
    type than float32, that several layers share, or whose layer reads no dequantized tensor; and
    any MatMul, whose bias is no part of it.
    """
    found = {
        node.name: layer
        for node in graph.nodes()
        if node.op in _LAYERS and node.domain in ONNX_DOMAINS and (layer := _layer(graph, node))
    }
    if not found:
        return graph, found
    real = graph.copy()
    for name, layer in found.items():
        node = real.node(name)
        real.set_input(node, 1, real.initializer(f"{name}_weights", layer.weights.values))
        if layer.bias is not None:
            real.set_input(node, 2, real.initializer(f"{name}_bias", layer.bias.values))
    real.prune()
    return real, found


def with_stored_weights(graph: Graph, layers: Mapping[str, StoredLayer]) -> Graph:
    """The graph with the weights of these layers in integers again; edited in place.

    Raises:
        PassError: the graph cannot be brought to the operator set in which weights have a scale
            for each output.
    """
    if any(_has_changed(graph, graph.node(name), layer) for name, layer in layers.items()):
        graph.raise_opset(OPSET)
    for name, layer in layers.items():
        node = graph.node(name)
        with graph.marking(_PASS, node.outputs[0].name, "stored"):
            for index, operand in enumerate(_stored(graph, node, layer), start=1):
                if index < len(node.inputs):
                    graph.set_input(node, index, operand)
                else:
                    graph.append_input(node, operand)
    graph.prune()
    return graph


def _stored(graph: Graph, node: Node, layer: StoredLayer) -> list[Tensor]:
    if not _has_changed(graph, node, layer):
        given = layer.adds is None and len(node.inputs) > 2
        bias = _no_bias(layer) if given else layer.bias
        return [_inserted(graph, o, node.name) for o in (layer.weights, bias) if o is not None]
    largest = int(np.abs(layer.weights.stored.astype(np.int32)).max(initial=0))
    bits = 7 if largest <= _LARGEST_IN_7_BITS else 8
    return weights_in_int8(graph, node, layer.input_scale, bits)


def _inserted(graph: Graph, operand: _Operand, name: str) -> Tensor:
    operands = [operand.stored, operand.kind.scale, operand.kind.zero_point]
    if operand.kind.is_whole:
        return graph.insert(DEQUANTIZE, operands, name=name)
    return graph.insert(DEQUANTIZE, operands, name=name, axis=operand.axis)


def _no_bias(layer: StoredLayer) -> _Operand:
    """The zeros that a layer without a bias was given, of which nothing came."""
    scale = np.asarray(layer.weights.kind.scale * np.float32(layer.input_scale))
    zeros = np.zeros(scale.shape, np.int32)
    return _Operand(np.zeros(layer.outputs, np.int32), StoredAs(scale, zeros), 0)


def _has_changed(graph: Graph, node: Node, layer: StoredLayer) -> bool:
    zeros = np.zeros(layer.outputs, np.float32)
    has_bias = len(node.inputs) > 2 and not node.inputs[2].is_empty()
    weights, bias = (graph.constant(node.inputs[i]) if i < 2 or has_bias else zeros for i in (1, 2))
    if weights is None or bias is None or not np.array_equal(weights, layer.weights.values):
        return True
    return not np.array_equal(bias, zeros if layer.adds is None else layer.adds)


def _layer(graph: Graph, node: Node) -> StoredLayer | None:
    source = graph.producer(node.inputs[0])
    kind = None if source is None or source.op != DEQUANTIZE else stored_as(graph, source)
    weights = _operand(graph, node, 1)
    if kind is None or not kind.is_whole or weights is None:
        return None
    fits = weights.kind.is_whole or weights.axis == output_axis(node)
    if weights.stored.dtype != np.int8 or weights.kind.zero_point.any() or not fits:
        return None
    if weights.kind.scale.dtype != np.float32:  # float16 does not hold the steps of a bias
        return None
    bias, adds = None, None
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        bias = _operand(graph, node, 2)
        adds = graph.constant(node.inputs[2]) if bias is None else bias.values
        if adds is None:
            return None
    outputs = int(weights.stored.shape[output_axis(node)])
    return StoredLayer(weights, bias, adds, outputs, float(kind.scale.reshape(())))


def _operand(graph: Graph, node: Node, index: int) -> _Operand | None:
    tensor = node.inputs[index]
    found = stored_constant(graph, tensor)
    writer = None if found is None else graph.producer(tensor)
    if found is None or writer is None or len(graph.readers(tensor)) > 1:
        return None
    stored, kind = found
    if kind.scale.ndim > 1 or graph.is_output(tensor):
        return None
    axis = int(writer.attrs.get("axis", 1)) % max(stored.ndim, 1)
    return None if kind.zero_point.any() else _Operand(stored, kind, axis)
