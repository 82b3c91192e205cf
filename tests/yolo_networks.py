"""Detectors like YOLOv5 and YOLOX, with BatchNormalization, as PyTorch exports them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from mobile_networks import MobileBuilder
from onnx import numpy_helper

_STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Detector:
    """Size of a detector.

    Attributes:
        width: channels behind the stem.
        depth: bottlenecks of the blocks in the backbone's middle; a third of it elsewhere.
        size: of the image.
    """

    width: int = 8
    depth: int = 1
    classes: int = 3
    size: int = 64


YOLO_NANO = Detector(width=16, depth=3, classes=80, size=416)


class YoloBuilder(MobileBuilder):
    """Focus, C3, SPP, SPPF, and heads."""

    def integers(self, *values: int) -> str:
        name = f"i{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, np.int64), name))
        return name

    def conv_silu(self, x: str, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> str:
        return self.silu(self.conv_norm(x, inputs, outputs, kernel, stride=stride))

    def focus(self, outputs: int) -> str:
        """Every second row, then every second column, four times; 3×3 convolution behind."""
        phases = []
        for row, column in ((0, 0), (1, 0), (0, 1), (1, 1)):
            phase = "images"
            for axis, start in ((2, row), (3, column)):
                bounds = self.integers(start), self.integers(2**62), self.integers(axis)
                phase = self.add("Slice", phase, *bounds, self.integers(2))
            phases.append(phase)
        return self.conv_silu(self.add("Concat", *phases, axis=1), 12, outputs, 3)

    def c3(self, x: str, inputs: int, outputs: int, blocks: int, *, shortcut: bool = True) -> str:
        """Cross-stage partial block: half of the channels through bottlenecks, half past them."""
        half = outputs // 2
        inner, past = self.conv_silu(x, inputs, half), self.conv_silu(x, inputs, half)
        for _ in range(blocks):
            mapped = self.conv_silu(self.conv_silu(inner, half, half), half, half, 3)
            inner = self.add("Add", inner, mapped) if shortcut else mapped
        return self.conv_silu(self.add("Concat", inner, past, axis=1), outputs, outputs)

    def pool(self, x: str, kernel: int) -> str:
        return self.add("MaxPool", x, kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4)

    def sppf(self, x: str, channels: int) -> str:
        first = self.conv_silu(x, channels, channels // 2)
        second = self.pool(first, 5)
        third = self.pool(second, 5)
        joined = self.add("Concat", first, second, third, self.pool(third, 5), axis=1)
        return self.conv_silu(joined, 2 * channels, channels)

    def spp(self, x: str, channels: int) -> str:
        first = self.conv_silu(x, channels, channels // 2)
        pooled = [self.pool(first, kernel) for kernel in (5, 9, 13)]
        joined = self.add("Concat", first, *pooled, axis=1)
        return self.conv_silu(joined, 2 * channels, channels)

    def doubled(self, x: str) -> str:
        scales = self.weight(np.asarray([1, 1, 2, 2]))
        return self.add(
            "Resize",
            x,
            "",
            scales,
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )

    def features(self, of: Detector, spatial: Callable[[str, int], str]) -> list[str]:
        """Tensors of strides 8, 16 and 32 behind backbone and neck (PAN, Liu et al. 2018)."""
        width, few, many = of.width, max(1, of.depth // 3), of.depth
        x = self.focus(width)
        levels = []
        for index, blocks in enumerate((few, many, many, few)):
            inputs, outputs = width << index, width << (index + 1)
            x = self.conv_silu(x, inputs, outputs, 3, 2)
            x = spatial(x, outputs) if index == 3 else x
            x = self.c3(x, outputs, outputs, blocks, shortcut=index < 3)
            levels.append(x)
        small, middle, large = levels[1:]
        top = self.conv_silu(large, 16 * width, 8 * width)
        x = self.add("Concat", self.doubled(top), middle, axis=1)
        x = self.c3(x, 16 * width, 8 * width, few, shortcut=False)
        side = self.conv_silu(x, 8 * width, 4 * width)
        x = self.add("Concat", self.doubled(side), small, axis=1)
        first = self.c3(x, 8 * width, 4 * width, few, shortcut=False)
        x = self.conv_silu(first, 4 * width, 4 * width, 3, 2)
        x = self.add("Concat", x, side, axis=1)
        second = self.c3(x, 8 * width, 8 * width, few, shortcut=False)
        x = self.conv_silu(second, 8 * width, 8 * width, 3, 2)
        x = self.add("Concat", x, top, axis=1)
        return [first, second, self.c3(x, 16 * width, 16 * width, few, shortcut=False)]


def _grid(size: int) -> np.ndarray:
    """Column and row of each cell, [size, size, 2]."""
    return np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).astype(np.float32)


def _anchored_boxes(build: YoloBuilder, feature: str, inputs: int, of: Detector, step: int) -> str:
    """Head of YOLOv5 at one stride: [1, 3·size², 5 + classes], in pixels."""
    values, size = 5 + of.classes, of.size // step
    x = build.plain_conv(feature, inputs, 3 * values, 1, bias=True)
    x = build.add("Reshape", x, build.integers(1, 3, values, size, size))
    x = build.add("Sigmoid", build.add("Transpose", x, perm=[0, 1, 3, 4, 2]))
    parts = build.integers(2, 2, of.classes + 1)
    names = [f"{x}_{part}" for part in ("centre", "extent", "scores")]
    build.add("Split", x, parts, output=names[0], axis=4)
    build.nodes[-1].output.extend(names[1:])
    centre = build.add("Mul", names[0], build.weight(np.asarray(2.0)))
    centre = build.add("Add", centre, build.weight(_grid(size)[None, None] - 0.5))
    centre = build.add("Mul", centre, build.weight(np.asarray(float(step))))
    extent = build.add("Mul", names[1], build.weight(np.asarray(2.0)))
    extent = build.add("Pow", extent, build.weight(np.asarray(2.0)))
    anchors = step * build.random.uniform(1, 4, (1, 3, 1, 1, 2))
    extent = build.add("Mul", extent, build.weight(anchors))
    x = build.add("Concat", centre, extent, names[2], axis=4)
    return build.add("Reshape", x, build.integers(1, -1, values))


def yolov5_network(of: Detector = Detector(), seed: int = 0) -> onnx.ModelProto:
    """Focus, C3, SPPF and heads with anchors (Jocher 2020 and 2021)."""
    build = YoloBuilder(seed, opset=13)
    features = build.features(of, build.sppf)
    widths = [of.width << index for index in (2, 3, 4)]
    found = [
        _anchored_boxes(build, feature, width, of, step)
        for feature, width, step in zip(features, widths, _STRIDES, strict=True)
    ]
    build.add("Concat", *found, output="boxes", axis=1)
    cells = sum((of.size // step) ** 2 for step in _STRIDES)
    return build.model((1, 3, of.size, of.size), {"boxes": (1, 3 * cells, 5 + of.classes)})


def _decoupled_head(build: YoloBuilder, feature: str, inputs: int, of: Detector, step: int) -> str:
    """Head of YOLOX at one stride: [1, 5 + classes, size²], boxes as they come."""
    width = 4 * of.width
    x = build.conv_silu(feature, inputs, width)
    boxes, names = x, x
    for _ in range(2):
        boxes = build.conv_silu(boxes, width, width, 3)
        names = build.conv_silu(names, width, width, 3)
    parts = (
        build.plain_conv(boxes, width, 4, 1, bias=True),
        build.add("Sigmoid", build.plain_conv(boxes, width, 1, 1, bias=True)),
        build.add("Sigmoid", build.plain_conv(names, width, of.classes, 1, bias=True)),
    )
    joined = build.add("Concat", *parts, axis=1)
    return build.add("Reshape", joined, build.integers(1, 5 + of.classes, -1))


def yolox_network(of: Detector = Detector(), seed: int = 0) -> onnx.ModelProto:
    """Focus, CSP blocks, SPP and decoupled heads without anchors (Ge et al. 2021)."""
    build = YoloBuilder(seed, opset=13)
    features: Sequence[str] = build.features(of, build.spp)
    widths = [of.width << index for index in (2, 3, 4)]
    found = [
        _decoupled_head(build, feature, width, of, step)
        for feature, width, step in zip(features, widths, _STRIDES, strict=True)
    ]
    joined = build.add("Concat", *found, axis=2)
    build.add("Transpose", joined, output="boxes", perm=[0, 2, 1])
    cells = sum((of.size // step) ** 2 for step in _STRIDES)
    return build.model((1, 3, of.size, of.size), {"boxes": (1, cells, 5 + of.classes)})
