"""Layers that a network computes in int8, beside what they are in the network in floating point.

    x → Q → DQ → Conv → [Relu] → Q → DQ → y          weights, bias: int8, int32 → DequantizeLinear

What a node in int8 writes keeps its name (`actcc.quantization.qdq`), by which the two are matched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actcc.graph import Array, Graph, Node, Tensor
from actcc.graph.operators import CONTRACTIONS, ONNX_DOMAINS
from actcc.graph.pairs import DEQUANTIZE, pair_behind, stored_as, stored_constant
from actcc.quantization.distribution import Range
from actcc.quantization.qdq import CUTS, LARGEST_BIAS
from actcc.quantization.steps import Step
from actcc.repair.layers import Layer, find_layers

_BITS_7, _BITS_8 = 63, 127


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
        return np.clip(numbers, -LARGEST_BIAS, LARGEST_BIAS).astype(np.int32)


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
            held = _integers(quantized, quantized.node(layer.node).inputs[index])
            assert held is not None
            numbers, steps = held
            axis = -1 if index == 2 else _axis(layer.reference)
            shape = [-1 if at == axis % numbers.ndim else 1 for at in range(numbers.ndim)]
            result.set_input(node, index, (numbers * steps.reshape(shape)).astype(np.float32))
    return result


def store(quantized: Graph, layer: Int8Layer, numbers: Array, bias: Array | None) -> None:
    """Let a layer have other numbers, [groups, columns, outputs], and another bias, int32."""
    node = quantized.node(layer.node)
    # Whole numbers are floats exactly.
    values: list[Array | None] = [layer.reference.tensor(numbers).astype(np.int8), bias]
    for index, value in enumerate(values, 1):
        if value is not None:
            writer = quantized.producer(node.inputs[index])
            assert writer is not None
            quantized.set_input(writer, 0, value)


def _int8_layer(
    reference: Graph, quantized: Graph, node: Node, layers: dict[str, Layer]
) -> Int8Layer | None:
    weights, behind = _integers(quantized, node.inputs[1]), _behind(quantized, node)
    source = quantized.producer(node.inputs[0])
    from_int8 = source is not None and source.op == DEQUANTIZE and stored_as(quantized, source)
    if weights is None or behind is None or not from_int8:
        return None
    cut, written, step = behind
    original = reference.producer(written)
    if original is not None and cut and original.op in CUTS:
        original = reference.producer(original.inputs[0])
    layer = None if original is None else layers.get(original.name)
    outputs = 0 if layer is None else layer.groups * layer.outputs
    if layer is None or layer.scale != (1.0, 1.0) or weights[1].size != outputs:
        return None
    has_bias = len(node.inputs) > 2 and not node.inputs[2].is_empty()
    bias = _integers(quantized, node.inputs[2]) if has_bias else None
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
    readers = graph.consumers(node.outputs[0])
    cut = len(readers) == 1 and readers[0].op in CUTS
    pair = pair_behind(graph, (readers[0] if cut else node).outputs[0])
    step = None if pair is None else Step.read(graph, pair.dequantize)
    return None if pair is None or step is None else (cut, pair.writes.name, step)


def _integers(graph: Graph, tensor: Tensor) -> tuple[Array, Array] | None:
    """Signed integers that are read as real values, and their steps."""
    found = stored_constant(graph, tensor)
    if found is None or found[0].dtype.kind != "i":
        return None
    return found[0], found[1].scale


def _axis(layer: Layer) -> int:
    """Of a layer's outputs, in its weights."""
    return 0 if layer.window is not None or layer.transposed[1] else 1
