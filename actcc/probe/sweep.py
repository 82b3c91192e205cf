"""A standard sweep: layers × activations × sizes, for a table that knows no model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from actcc.graph import Graph
from actcc.probe.probes import LAYER, ProbeCollector, Probes

_OPSET = 17
# What a network of this field is made of: (positions a side, channels in, channels out).
_SIZES = (
    (112, 16, 32),
    (56, 24, 64),
    (56, 64, 64),
    (28, 48, 128),
    (28, 96, 96),
    (14, 96, 256),
    (14, 160, 160),
    (7, 256, 256),
    (7, 320, 96),
)


@dataclass(frozen=True)
class _Layer:
    kernel: int
    stride: int
    depthwise: bool


_LAYERS = (
    _Layer(1, 1, False),
    _Layer(3, 1, False),
    _Layer(3, 2, False),
    _Layer(3, 1, True),
    _Layer(5, 2, True),
)
_ACTIVATIONS: tuple[tuple[tuple[str, tuple[str, ...]], ...], ...] = (
    (),
    (("Relu", ("z",)),),
    (("Clip", ("z", "low", "high")),),
    (("LeakyRelu", ("z",)),),
    (("Sigmoid", ("z",)),),
    (("Tanh", ("z",)),),
    (("HardSwish", ("z",)),),
    (("Sigmoid", ("z",)), ("Mul", ("z", "a0"))),
    (("HardSigmoid", ("z",)), ("Mul", ("z", "a0"))),
)
_JOINTS = ("Add", "Mul", "Concat", "MaxPool", "GlobalAveragePool", "Resize")


def sweep_probes() -> Probes:
    """Convolutions with every activation, and what joins them, at sizes that networks use."""
    collector = ProbeCollector()
    for number, model in enumerate(_models()):
        graph = Graph.load(model)
        group = f"sweep {number // len(_ACTIVATIONS)}"
        collector.add(graph, group, LAYER)
    return collector.found("a standard sweep")


def _models() -> Iterator[onnx.ModelProto]:
    for side, inputs, outputs in _SIZES:
        for layer in _LAYERS:
            for activation in _ACTIVATIONS:
                yield _layer(side, inputs, outputs, layer, activation)
    for side, channels, _ in _SIZES:
        for op in _JOINTS:
            yield _joint(op, side, channels)


def _layer(
    side: int,
    inputs: int,
    outputs: int,
    layer: _Layer,
    activation: tuple[tuple[str, tuple[str, ...]], ...],
) -> onnx.ModelProto:
    written = inputs if layer.depthwise else outputs
    shape = (written, 1 if layer.depthwise else inputs, layer.kernel, layer.kernel)
    weights = [
        numpy_helper.from_array(np.ones(shape, np.float32), "w"),
        numpy_helper.from_array(np.ones(written, np.float32), "b"),
    ]
    nodes = [
        helper.make_node(
            "Conv",
            ["x", "w", "b"],
            ["z"],
            "conv",
            group=inputs if layer.depthwise else 1,
            pads=[layer.kernel // 2] * 4,
            strides=[layer.stride] * 2,
        )
    ]
    for index, (op, reads) in enumerate(activation):
        nodes.append(helper.make_node(op, list(reads), [f"a{index}"], f"{op}_{index}"))
        if op == "Clip":
            weights.append(numpy_helper.from_array(np.float32(0), "low"))
            weights.append(numpy_helper.from_array(np.float32(6), "high"))
    after = (side + layer.stride - 1) // layer.stride
    return _model(nodes, weights, {"x": (1, inputs, side, side)}, (1, written, after, after))


def _joint(op: str, side: int, channels: int) -> onnx.ModelProto:
    shape = (1, channels, side, side)
    written: tuple[int, ...] = shape
    inputs: dict[str, tuple[int, ...]] = {"x": shape}
    weights: list[onnx.TensorProto] = []
    attributes: dict[str, Any] = {}
    reads = ["x"]
    if op in ("Add", "Mul", "Concat"):
        inputs["y"] = (1, channels, 1, 1) if op == "Mul" else shape
        reads.append("y")
    if op == "Concat":
        attributes, written = {"axis": 1}, (1, 2 * channels, side, side)
    elif op == "MaxPool":
        attributes = {"kernel_shape": [2, 2], "strides": [2, 2]}
        written = (1, channels, side // 2, side // 2)
    elif op == "GlobalAveragePool":
        written = (1, channels, 1, 1)
    elif op == "Resize":
        weights.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
        reads += ["", "scales"]
        attributes, written = {"mode": "nearest"}, (1, channels, 2 * side, 2 * side)
    return _model(
        [helper.make_node(op, reads, ["out"], op, **attributes)], weights, inputs, written
    )


def _model(
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    inputs: dict[str, tuple[int, ...]],
    written: tuple[int, ...],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "sweep",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, written)],
        weights,
    )
    opsets = [helper.make_opsetid("", _OPSET)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return model
