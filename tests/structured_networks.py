"""Networks as they are before their blocks are merged: training-time RepVGG, MobileOne and others.

`python tests/structured_networks.py BLOCK FILE.onnx` writes one at full size, for 224×224 images.

Weights are random, scaled so that activations keep their range; BatchNormalization has random
statistics, as after training.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx
from networks import Builder


class BlockBuilder(Builder):
    """Convolutions without bias, and BatchNormalization behind them."""

    def plain_conv(
        self,
        x: str,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        *,
        groups: int = 1,
        stride: int = 1,
        bias: bool = False,
    ) -> str:
        shape = (outputs, inputs // groups, kernel, kernel)
        scale = np.sqrt(inputs // groups * kernel * kernel)
        operands = [self.weight(self.random.standard_normal(shape) / scale)]
        if bias:
            operands.append(self.weight(0.1 * self.random.standard_normal(outputs)))
        pads = [kernel // 2] * 4
        return self.add("Conv", x, *operands, group=groups, pads=pads, strides=[stride, stride])

    def batch_norm(self, x: str, channels: int) -> str:
        random = self.random
        statistics = (
            random.uniform(0.4, 0.8, channels),
            0.1 * random.standard_normal(channels),
            0.1 * random.standard_normal(channels),
            random.uniform(0.5, 1.5, channels),
        )
        return self.add("BatchNormalization", x, *(self.weight(each) for each in statistics))

    def conv_norm(self, x: str, inputs: int, outputs: int, kernel: int = 3, **more: int) -> str:
        return self.batch_norm(self.plain_conv(x, inputs, outputs, kernel, **more), outputs)

    def total(self, terms: Sequence[str]) -> str:
        """A chain of Adds, as frameworks export `a + b + c`."""
        result = terms[0]
        for term in terms[1:]:
            result = self.add("Add", result, term)
        return result

    def repvgg_block(self, x: str, inputs: int, outputs: int, stride: int = 1) -> str:
        terms = [
            self.conv_norm(x, inputs, outputs, 3, stride=stride),
            self.conv_norm(x, inputs, outputs, 1, stride=stride),
        ]
        if inputs == outputs and stride == 1:
            terms.append(self.batch_norm(x, inputs))
        return self.add("Relu", self.total(terms))

    def qarepvgg_block(self, x: str, inputs: int, outputs: int, stride: int = 1) -> str:
        terms = [
            self.conv_norm(x, inputs, outputs, 3, stride=stride),
            self.plain_conv(x, inputs, outputs, 1, stride=stride, bias=True),
        ]
        if inputs == outputs and stride == 1:
            terms.append(x)
        return self.add("Relu", self.batch_norm(self.total(terms), outputs))

    def mobileone_block(self, x: str, inputs: int, outputs: int, stride: int = 1) -> str:
        depthwise = [
            self.conv_norm(x, inputs, inputs, 3, groups=inputs, stride=stride) for _ in range(3)
        ]
        depthwise.append(self.conv_norm(x, inputs, inputs, 1, groups=inputs, stride=stride))
        if stride == 1:
            depthwise.append(self.batch_norm(x, inputs))
        x = self.add("Relu", self.total(depthwise))
        pointwise = [self.conv_norm(x, inputs, outputs, 1) for _ in range(2)]
        if inputs == outputs:
            pointwise.append(self.batch_norm(x, inputs))
        return self.add("Relu", self.total(pointwise))

    def residual_block(self, x: str, inputs: int, outputs: int, stride: int = 1) -> str:
        inner = self.add("Relu", self.conv_norm(x, inputs, outputs, 3, stride=stride))
        inner = self.conv_norm(inner, outputs, outputs, 3)
        if inputs != outputs or stride != 1:
            x = self.conv_norm(x, inputs, outputs, 1, stride=stride)
        return self.add("Relu", self.add("Add", inner, x))


@dataclass(frozen=True)
class Stage:
    """Equal blocks, of which the first has stride 2."""

    channels: int
    blocks: int


SMALL = (Stage(8, 1), Stage(16, 2), Stage(24, 3))
# RepVGG-A0 (Ding et al. 2021, table 2).
REPVGG_A0 = (Stage(48, 1), Stage(48, 2), Stage(96, 4), Stage(192, 14), Stage(1280, 1))
# MobileOne-S0 (Vasu et al. 2023, table 4), with three 3×3 branches and two of 1×1 a block.
MOBILEONE_S0 = (Stage(48, 1), Stage(48, 2), Stage(128, 8), Stage(256, 10), Stage(1024, 1))
RESNET18 = (Stage(64, 1), Stage(64, 2), Stage(128, 2), Stage(256, 2), Stage(512, 2))
BLOCKS = ("repvgg", "qarepvgg", "mobileone", "residual")
FULL_SIZE: Mapping[str, Sequence[Stage]] = MappingProxyType(
    {
        "repvgg": REPVGG_A0,
        "qarepvgg": REPVGG_A0,
        "mobileone": MOBILEONE_S0,
        "residual": RESNET18,
    }
)


def network_of_blocks(
    block: str, stages: Sequence[Stage] = SMALL, size: int = 32, seed: int = 0
) -> onnx.ModelProto:
    """A classifier of ten classes out of one kind of block, one of `BLOCKS`."""
    build = BlockBuilder(seed)
    make = getattr(build, f"{block}_block")
    x, inputs = "images", 3
    for stage in stages:
        for index in range(stage.blocks):
            x = make(x, inputs, stage.channels, 1 if index else 2)
            inputs = stage.channels
    pooled = build.add("Flatten", build.add("GlobalAveragePool", x))
    weights = build.weight(build.random.standard_normal((inputs, 10)) / np.sqrt(inputs))
    build.add("MatMul", pooled, weights, output="classes")
    return build.model((1, 3, size, size), {"classes": (1, 10)})


if __name__ == "__main__":
    onnx.save(network_of_blocks(sys.argv[1], FULL_SIZE[sys.argv[1]], 224), sys.argv[2])
