"""Small networks that tests build: real enough to price, small enough to run in a millisecond."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Builder:
    """Builds an ONNX graph node by node, with seeded weights."""

    def __init__(self, seed: int = 0, opset: int = 17) -> None:
        self.random = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, values: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def add(self, op: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        name = output or f"t{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op, list(inputs), [name], name=f"{op}_{len(self.nodes)}", **attributes)
        )
        return name

    def conv(
        self, x: str, inputs: int, outputs: int, kernel: int = 3, groups: int = 1, stride: int = 1
    ) -> str:
        fan_in = inputs // groups * kernel * kernel
        shape = (outputs, inputs // groups, kernel, kernel)
        weight = self.weight(self.random.standard_normal(shape) / np.sqrt(fan_in))
        bias = self.weight(0.1 * self.random.standard_normal(outputs))
        pads = [kernel // 2] * 4
        return self.add("Conv", x, weight, bias, group=groups, pads=pads, strides=[stride, stride])

    def silu(self, x: str) -> str:
        return self.add("Mul", x, self.add("Sigmoid", x))

    def model(self, x: tuple[int, ...], y: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, x)],
            [helper.make_tensor_value_info(k, TensorProto.FLOAT, s) for k, s in y.items()],
            self.weights,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def residual_network(channels: int = 16, size: int = 16, opset: int = 17) -> onnx.ModelProto:
    """Conv, two equal inverted residuals with SiLU, a parallel branch, and two outputs."""
    build = Builder(opset=opset)
    x = build.silu(build.conv("images", 3, channels))
    for _ in range(2):
        inner = build.silu(build.conv(x, channels, 4 * channels, kernel=1))
        inner = build.silu(build.conv(inner, 4 * channels, 4 * channels, groups=4 * channels))
        x = build.add("Add", x, build.conv(inner, 4 * channels, channels, kernel=1))
    side = build.silu(build.conv(x, channels, channels, kernel=1))
    joined = build.add("Concat", x, side, axis=1)
    pooled = build.add("GlobalAveragePool", joined)
    build.add("Flatten", pooled, output="features")
    build.conv(x, channels, 4, kernel=1)
    build.nodes[-1].output[0] = "map"
    return build.model(
        (1, 3, size, size), {"features": (1, 2 * channels), "map": (1, 4, size, size)}
    )


def images(count: int, size: int = 16, seed: int = 1) -> np.ndarray:
    """Smooth random images, float32 [count, 3, size, size]."""
    random = np.random.default_rng(seed)
    coarse = random.standard_normal((count, 3, size // 4, size // 4))
    fine = coarse.repeat(4, axis=2).repeat(4, axis=3)
    return (fine + 0.1 * random.standard_normal(fine.shape)).astype(np.float32)


def saved_with_images(model: onnx.ModelProto, folder: Path) -> Path:
    """The file of a network, with images for it in `calib.npz` beside it."""
    path = folder / "network.onnx"
    onnx.save_model(model, path)
    np.savez(folder / "calib.npz", images=images(20))
    return path
