"""MobileNetV2, MobileNetV3 and EfficientNet, with BatchNormalization, as frameworks export them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from structured_networks import BlockBuilder


@dataclass(frozen=True)
class MobileStage:
    """Equal inverted residuals, of which the first has a stride.

    Attributes:
        kernel: of the depthwise convolution.
        widening: how many times as many channels there are inside.
        activation: relu6, relu, hardswish or silu.
        squeezed: channels inside the squeeze-and-excitation, as a part of those of the block's
            input (EfficientNet) or of its inside (MobileNetV3); 0 where there is none.
    """

    kernel: int
    widening: float
    channels: int
    blocks: int
    stride: int
    activation: str
    squeezed: float = 0.0


# Sandler et al. 2018, table 2.
MOBILENET_V2 = tuple(
    MobileStage(3, widening, channels, blocks, stride, "relu6")
    for widening, channels, blocks, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
)
# Howard et al. 2019, table 2 (small).
MOBILENET_V3 = (
    MobileStage(3, 1, 16, 1, 2, "relu", 0.5),
    MobileStage(3, 4.5, 24, 1, 2, "relu"),
    MobileStage(3, 88 / 24, 24, 1, 1, "relu"),
    MobileStage(5, 4, 40, 1, 2, "hardswish", 0.25),
    MobileStage(5, 6, 40, 2, 1, "hardswish", 0.25),
    MobileStage(5, 3, 48, 2, 1, "hardswish", 0.25),
    MobileStage(5, 6, 96, 3, 2, "hardswish", 0.25),
)
# Tan and Le 2019, table 1.
EFFICIENTNET_B0 = tuple(
    MobileStage(kernel, widening, channels, blocks, stride, "silu", 0.25)
    for kernel, widening, channels, blocks, stride in (
        (3, 1, 16, 1, 1),
        (3, 6, 24, 2, 2),
        (5, 6, 40, 2, 2),
        (3, 6, 80, 3, 2),
        (5, 6, 112, 3, 1),
        (5, 6, 192, 4, 2),
        (3, 6, 320, 1, 1),
    )
)
SMALL_MOBILE = {
    "mobilenet_v2": (
        MobileStage(3, 1, 8, 1, 1, "relu6"),
        MobileStage(3, 4, 12, 2, 2, "relu6"),
        MobileStage(3, 4, 16, 2, 2, "relu6"),
    ),
    "mobilenet_v3": (
        MobileStage(3, 1, 8, 1, 2, "relu", 0.5),
        MobileStage(3, 4, 12, 2, 2, "relu"),
        MobileStage(5, 4, 16, 2, 2, "hardswish", 0.25),
    ),
    "efficientnet": (
        MobileStage(3, 1, 8, 1, 1, "silu", 0.25),
        MobileStage(5, 4, 12, 2, 2, "silu", 0.25),
        MobileStage(3, 4, 16, 2, 2, "silu", 0.25),
    ),
}


class MobileBuilder(BlockBuilder):
    """Inverted residuals."""

    def batch_norm(self, x: str, channels: int, gain: float = 1.4) -> str:
        """With a factor that makes up for the part that an activation takes away."""
        random = self.random
        statistics = (
            gain * random.uniform(0.8, 1.2, channels),
            0.1 * random.standard_normal(channels),
            0.1 * random.standard_normal(channels),
            random.uniform(0.8, 1.2, channels),
        )
        return self.add("BatchNormalization", x, *(self.weight(each) for each in statistics))

    def clip(self, x: str) -> str:
        return self.add("Clip", x, self.weight(np.zeros(())), self.weight(np.asarray(6.0)))

    def hard_sigmoid(self, x: str) -> str:
        shifted = self.clip(self.add("Add", x, self.weight(np.asarray(3.0))))
        return self.add("Div", shifted, self.weight(np.asarray(6.0)))

    def hard_swish(self, x: str) -> str:
        shifted = self.clip(self.add("Add", x, self.weight(np.asarray(3.0))))
        return self.add("Div", self.add("Mul", x, shifted), self.weight(np.asarray(6.0)))

    def activation(self, x: str, name: str) -> str:
        if name == "relu":
            return self.add("Relu", x)
        return {"relu6": self.clip, "hardswish": self.hard_swish, "silu": self.silu}[name](x)

    def mean(self, x: str) -> str:
        """Of each channel."""
        return self.add("GlobalAveragePool", x)

    def squeeze_excite(self, x: str, channels: int, squeezed: int, *, hard: bool) -> str:
        inner = self.mean(x)
        inner = self.plain_conv(inner, channels, squeezed, 1, bias=True)
        inner = self.add("Relu", inner) if hard else self.silu(inner)
        inner = self.plain_conv(inner, squeezed, channels, 1, bias=True)
        gate = self.hard_sigmoid(inner) if hard else self.add("Sigmoid", inner)
        return self.add("Mul", x, gate)

    def inverted_residual(self, x: str, inputs: int, stage: MobileStage, stride: int) -> str:
        width, name = round(stage.widening * inputs), stage.activation
        inner = x
        if width != inputs:
            inner = self.activation(self.conv_norm(x, inputs, width, 1), name)
        inner = self.conv_norm(inner, width, width, stage.kernel, groups=width, stride=stride)
        inner = self.activation(inner, name)
        if stage.squeezed:
            silu = name == "silu"
            squeezed = max(4, round(stage.squeezed * (inputs if silu else width)))
            inner = self.squeeze_excite(inner, width, squeezed, hard=not silu)
        equal = inputs == stage.channels and stride == 1
        inner = self.plain_conv(inner, width, stage.channels, 1)
        inner = self.batch_norm(inner, stage.channels, 0.5 if equal else 1.0)
        return self.add("Add", x, inner) if equal else inner


class ChannelsLastBuilder(MobileBuilder):
    """Tensors are channels-last, and every layer stands between two Transposes."""

    def plain_conv(self, x: str, *sizes: int, **more: int) -> str:
        x = self.add("Transpose", x, perm=[0, 3, 1, 2])
        return self.add("Transpose", super().plain_conv(x, *sizes, **more), perm=[0, 2, 3, 1])

    def batch_norm(self, x: str, channels: int, gain: float = 1.4) -> str:
        x = self.add("Transpose", x, perm=[0, 3, 1, 2])
        return self.add("Transpose", super().batch_norm(x, channels, gain), perm=[0, 2, 3, 1])

    def mean(self, x: str) -> str:
        return self.add("ReduceMean", x, axes=[1, 2], keepdims=1)


def mobile_network(
    stages: Sequence[MobileStage],
    stem: int,
    head: int,
    size: int,
    classes: int = 10,
    seed: int = 0,
    *,
    channels_last: bool = False,
) -> onnx.ModelProto:
    """A classifier of inverted residuals; its Linear is a Gemm with weights [classes, head]."""
    build = (ChannelsLastBuilder if channels_last else MobileBuilder)(seed, opset=13)
    name = stages[-1].activation
    x, inputs = build.activation(build.conv_norm("images", 3, stem, stride=2), name), stem
    for stage in stages:
        for index in range(stage.blocks):
            x = build.inverted_residual(x, inputs, stage, 1 if index else stage.stride)
            inputs = stage.channels
    x = build.activation(build.conv_norm(x, inputs, head, 1), name)
    x = build.add("Flatten", build.mean(x))
    weights = build.weight(build.random.standard_normal((classes, head)) / np.sqrt(head))
    bias = build.weight(0.1 * build.random.standard_normal(classes))
    build.add("Gemm", x, weights, bias, output="classes", transB=1)
    shape = (1, size, size, 3) if channels_last else (1, 3, size, size)
    return build.model(shape, {"classes": (1, classes)})
