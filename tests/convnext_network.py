"""ConvNeXt (Liu et al. 2022) as PyTorch exports it below opset 17: LayerNormalization written out.

The layer scale stands behind the Linear in channels-last, as in the authors' code, or behind the
Transpose back to channels-first, as in torchvision's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from structured_networks import BlockBuilder

TINY = ((96, 3), (192, 3), (384, 9), (768, 3))
SMALL_CONVNEXT = ((8, 2), (12, 2))
_LAST, _FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


class ConvNextBuilder(BlockBuilder):
    """Depthwise 7×7, LayerNormalization, and two Linear with a GELU between them."""

    def number(self, value: float) -> str:
        return self.weight(np.asarray(value))

    def layer_norm(self, x: str, channels: int) -> str:
        """Over the last axis."""
        mean = self.add("ReduceMean", x, axes=[-1], keepdims=1)
        centred = self.add("Sub", x, mean)
        square = self.add("Pow", centred, self.number(2.0))
        variance = self.add("ReduceMean", square, axes=[-1], keepdims=1)
        deviation = self.add("Sqrt", self.add("Add", variance, self.number(1e-6)))
        scaled = self.add("Div", centred, deviation)
        scaled = self.add("Mul", scaled, self.weight(self.random.uniform(0.8, 1.2, channels)))
        return self.add("Add", scaled, self.weight(0.1 * self.random.standard_normal(channels)))

    def layer_norm_first(self, x: str, channels: int) -> str:
        """Over the channels of a channels-first tensor."""
        x = self.layer_norm(self.add("Transpose", x, perm=_LAST), channels)
        return self.add("Transpose", x, perm=_FIRST)

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        weights = self.random.standard_normal((inputs, outputs)) / np.sqrt(inputs)
        product = self.add("MatMul", x, self.weight(weights))
        return self.add("Add", self.weight(0.1 * self.random.standard_normal(outputs)), product)

    def gelu(self, x: str) -> str:
        error = self.add("Erf", self.add("Div", x, self.number(np.sqrt(2))))
        product = self.add("Mul", x, self.add("Add", error, self.number(1.0)))
        return self.add("Mul", product, self.number(0.5))

    def conv_patches(self, x: str, inputs: int, outputs: int, size: int) -> str:
        shape = (outputs, inputs, size, size)
        scale = np.sqrt(inputs * size * size)
        weights = self.weight(self.random.standard_normal(shape) / scale)
        bias = self.weight(0.1 * self.random.standard_normal(outputs))
        return self.add("Conv", x, weights, bias, strides=[size, size])

    def block(self, x: str, channels: int, *, scale_first: bool) -> str:
        inner = self.plain_conv(x, channels, channels, 7, groups=channels, bias=True)
        inner = self.layer_norm(self.add("Transpose", inner, perm=_LAST), channels)
        inner = self.gelu(self.linear(inner, channels, 4 * channels))
        inner = self.linear(inner, 4 * channels, channels)
        scale = self.random.uniform(0.3, 0.7, channels)
        if not scale_first:
            inner = self.add("Mul", self.weight(scale), inner)
        inner = self.add("Transpose", inner, perm=_FIRST)
        if scale_first:
            inner = self.add("Mul", self.weight(scale.reshape(-1, 1, 1)), inner)
        return self.add("Add", x, inner)


def convnext_network(
    stages: Sequence[tuple[int, int]] = SMALL_CONVNEXT,
    size: int = 32,
    classes: int = 10,
    seed: int = 0,
    *,
    scale_first: bool = False,
) -> onnx.ModelProto:
    """A classifier; `stages` are channels and blocks.

    Args:
        scale_first: the layer scale stands behind the Transpose to channels-first.
    """
    build = ConvNextBuilder(seed, opset=13)
    x, inputs = "images", 3
    for index, (channels, blocks) in enumerate(stages):
        if index:
            x = build.conv_patches(build.layer_norm_first(x, inputs), inputs, channels, 2)
        else:
            x = build.layer_norm_first(build.conv_patches(x, 3, channels, 4), channels)
        inputs = channels
        for _ in range(blocks):
            x = build.block(x, channels, scale_first=scale_first)
    x = build.layer_norm_first(build.add("GlobalAveragePool", x), inputs)
    x = build.add("Flatten", x)
    weights = build.weight(build.random.standard_normal((classes, inputs)) / np.sqrt(inputs))
    bias = build.weight(0.1 * build.random.standard_normal(classes))
    build.add("Gemm", x, weights, bias, output="classes", transB=1)
    return build.model((1, 3, size, size), {"classes": (1, classes)})
