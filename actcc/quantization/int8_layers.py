"""Layers that a network computes in int8, beside what they are in the network in floating point.

    x → Q → DQ → Conv → [Relu] → Q → DQ → y          weights, bias: int8, int32 → DequantizeLinear

What a node in int8 writes keeps its name (`actcc.quantization.qdq`), by which the two are matched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actcc.graph import Array, Graph, Node, Tensor
from actcc.graph.operators import CONTRACTIONS, ONNX_DOMAINS
from actcc.quantization.distribution import Range
from actcc.quantization.steps import Step
from actcc.repair.layers import Layer, find_layers

_CUTS = frozenset({"Relu", "Clip"})
_BITS_7, _BITS_8 = 63, 127
_LARGEST_BIAS = 2**30


@dataclass(frozen=True, eq=False)
class Int8Layer:
    """A layer in int8, and what it is in floating point.

    Attributes:
        node: name of the node in int8.
        reference: the layer in floating point.
        wanted: name of the tensor, in the network in floating point, that the layer writes.
        steps: of the weights, [groups, outputs]: weight = step · number.
        highest: numbers lie between this and its negative.
        bias_steps: of the bias, float32 [outputs of all groups]; None where it has none.
        keeps: what the next kernel reads is cut off outside of it.
    """

    node: str
    reference: Layer
    wanted: str
    steps: Array
    highest: int
    bias_steps: Array | None
    keeps: Range

    def weights(self, numbers: Array) -> Array:
        """Real weights, as a node holds them, from whole numbers [groups, columns, outputs]."""
        return self.reference.tensor(numbers * self.steps[:, None])

    def rounded_bias(self, bias: Array) -> Array:
        """A bias [groups, outputs] in steps, int32."""
        assert self.bias_steps is not None
        numbers = np.round(bias.reshape(-1) / self.bias_steps)
        return np.clip(numbers, -_LARGEST_BIAS, _LARGEST_BIAS).astype(np.int32)


def find_int8_layers(reference: Graph, quantized: Graph) -> list[Int8Layer]:
    """Layers of which the weights are in int8 in one network and floats in the other, in order.

    Left out are those whose weights or steps are none that `actcc.quantization.qdq` writes.
    """
    layers, _ = find_layers(reference)
    by_node = {layer.node: layer for layer in layers.values()}
    found = []
    for node in quantized.nodes():
        if node.op in CONTRACTIONS and node.domain in ONNX_DOMAINS:
            layer = _int8_layer(reference, quantized, node, by_node)
            if layer is not None:
                found.append(layer)
    return found


def dequantized_twin(quantized: Graph, layers: list[Int8Layer]) -> Graph:
    """A copy whose int8 layers hold the values of their weights and biases as floats."""
    result = quantized.copy()
    for layer in layers:
        node = result.node(layer.node)
        for index in range(1, 2 if layer.bias_steps is None else 3):
            numbers, steps = _stored(quantized, quantized.node(layer.node).inputs[index])
            axis = -1 if index == 2 else _axis(layer.reference)
            shape = [-1 if at == axis % numbers.ndim else 1 for at in range(numbers.ndim)]
            result.set_input(node, index, (numbers * steps.reshape(shape)).astype(np.float32))
    return result


def store(quantized: Graph, layer: Int8Layer, numbers: Array, bias: Array | None) -> None:
    """Let a layer have other numbers, [groups, columns, outputs], and another bias, int32."""
    node = quantized.node(layer.node)
    values: list[Array | None] = [_as_held(layer.reference, numbers).astype(np.int8), bias]
    for index, value in enumerate(values, 1):
        if value is not None:
            writer = quantized.producer(node.inputs[index])
            assert writer is not None
            quantized.set_input(writer, 0, value)


def _int8_layer(
    reference: Graph, quantized: Graph, node: Node, layers: dict[str, Layer]
) -> Int8Layer | None:
    weights = _dequantized(quantized, node.inputs[1])
    reads = _dequantized(quantized, node.inputs[0], constant=False)
    behind = _behind(quantized, node)
    if weights is None or reads is None or behind is None:
        return None
    cut, written, step = behind
    original = reference.producer(written)
    if original is not None and cut and original.op in _CUTS:
        original = reference.producer(original.inputs[0])
    layer = None if original is None else layers.get(original.name)
    outputs = 0 if layer is None else layer.groups * layer.outputs
    if layer is None or layer.scale != (1.0, 1.0) or weights[1].size != outputs:
        return None
    has_bias = len(node.inputs) > 2 and not node.inputs[2].is_empty()
    bias = _dequantized(quantized, node.inputs[2]) if has_bias else None
    if has_bias and (bias is None or bias[1].size != outputs):
        return None
    assert original is not None
    return Int8Layer(
        node.name,
        layer,
        original.outputs[0].name,
        weights[1].astype(np.float64).reshape(layer.groups, layer.outputs),
        _BITS_7 if np.abs(weights[0].astype(np.int16)).max(initial=0) <= _BITS_7 else _BITS_8,
        None if bias is None else bias[1].reshape(-1),
        step.range,
    )


def _behind(graph: Graph, node: Node) -> tuple[bool, str, Step] | None:
    """Whether a layer is cut off, what its group writes, and the step of that."""
    last, cut = node, False
    readers = graph.consumers(last.outputs[0])
    if len(readers) == 1 and readers[0].op in _CUTS:
        last, cut = readers[0], True
        readers = graph.consumers(last.outputs[0])
    if len(readers) != 1 or readers[0].op != "QuantizeLinear":
        return None
    readers = graph.consumers(readers[0].outputs[0])
    if len(readers) != 1 or readers[0].op != "DequantizeLinear":
        return None
    step = Step.read(graph, readers[0])
    return None if step is None else (cut, readers[0].outputs[0].name, step)


def _dequantized(
    graph: Graph, tensor: Tensor, *, constant: bool = True
) -> tuple[Array, Array] | None:
    """Numbers and steps of what DequantizeLinear gives; of a run's values steps alone count."""
    writer = graph.producer(tensor)
    if writer is None or writer.op != "DequantizeLinear":
        return None
    numbers, steps = (graph.constant(source) for source in writer.inputs[:2])
    if steps is None or (constant and (numbers is None or numbers.dtype.kind != "i")):
        return None
    return np.zeros(0) if numbers is None else numbers, steps


def _stored(graph: Graph, tensor: Tensor) -> tuple[Array, Array]:
    found = _dequantized(graph, tensor)
    assert found is not None
    return found


def _axis(layer: Layer) -> int:
    """Of a layer's outputs, in its weights."""
    return 0 if layer.window is not None or layer.transposed[1] else 1


def _as_held(layer: Layer, matrix: Array) -> Array:
    """[groups, columns, outputs] as the node holds it; whole numbers are floats exactly."""
    return layer.tensor(matrix)
