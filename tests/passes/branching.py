"""Networks of linear branches, written node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from actcc.graph import Array, Graph

SHAPE = (2, 4, 7, 7)


class Net:
    """A network written node by node, with seeded weights."""

    def __init__(self, seed: int = 0, element: Any = np.float32) -> None:
        self.random = np.random.default_rng(seed)
        self.element = element
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Array] = {}

    def weight(self, values: Array) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(values, self.element)
        return name

    def add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def conv(
        self,
        x: str = "x",
        kernel: Sequence[int] = (3, 3),
        channels: int = 4,
        bias: bool = True,
        outputs: int = 0,
        **attributes: Any,
    ) -> str:
        """A convolution that keeps the size unless it is given pads or a stride."""
        dilations = attributes.setdefault("dilations", [1] * len(kernel))
        half = [d * (k - 1) // 2 for d, k in zip(dilations, kernel, strict=True)]
        if "auto_pad" not in attributes:
            attributes.setdefault("pads", half * 2)
        inputs = channels // attributes.get("group", 1)
        outputs = outputs or channels
        operands = [self.weight(self.random.standard_normal((outputs, inputs, *kernel)))]
        if bias:
            operands.append(self.weight(self.random.standard_normal(outputs)))
        return self.add("Conv", x, *operands, **attributes)

    def norm(self, x: str = "x", channels: int = 4, **attributes: Any) -> str:
        random = self.random
        gamma, beta, mean = random.standard_normal((3, channels))
        variance = random.uniform(0.5, 2, channels)
        operands = [self.weight(values) for values in (gamma, beta, mean, variance)]
        return self.add("BatchNormalization", x, *operands, **attributes)

    def pool(self, x: str = "x", kernel: Sequence[int] = (3, 3), **attributes: Any) -> str:
        attributes.setdefault("pads", [(k - 1) // 2 for k in kernel] * 2)
        attributes.setdefault("count_include_pad", 1)
        return self.add("AveragePool", x, kernel_shape=kernel, **attributes)

    def graph(
        self, x: Sequence[int | str] = SHAPE, outputs: Sequence[str] = (), opset: int = 17
    ) -> Graph:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.element))
        outputs = outputs or [self.nodes[-1].output[0]]
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", kind, x)],
            [helper.make_tensor_value_info(name, kind, None) for name in outputs],
            [onnx.numpy_helper.from_array(v, name) for name, v in self.weights.items()],
        )
        opsets = [helper.make_opsetid("", opset)]
        return Graph.load(helper.make_model(graph, opset_imports=opsets, ir_version=8))
