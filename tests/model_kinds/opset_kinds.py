"""A model of each operator set."""

from __future__ import annotations

import numpy as np
import onnx
from kind_models import CHANNELS, IMAGE, MAP
from networks import Builder
from onnx import helper


def at_opset(version: int) -> onnx.ModelProto:
    """Every activation that the opset knows as it is spelled there, behind a convolution each."""
    build = Builder(opset=version)
    x = build.silu(build.conv("images", 3, CHANNELS))
    x = build.add("Relu", build.conv(x, CHANNELS, CHANNELS))
    x = _relu6(build, build.conv(x, CHANNELS, CHANNELS))
    x = _hard_swish(build, build.conv(x, CHANNELS, CHANNELS))
    x = build.add("LeakyRelu", build.conv(x, CHANNELS, CHANNELS), alpha=0.1)
    x = build.add("Elu", build.conv(x, CHANNELS, CHANNELS), alpha=1.0)
    if version >= 9:
        x = _gelu(build, build.conv(x, CHANNELS, CHANNELS))
    if version >= 14:
        x = build.add("HardSwish", build.conv(x, CHANNELS, CHANNELS))
    if version >= 18:
        x = build.add("Mish", build.conv(x, CHANNELS, CHANNELS))
    if version >= 20:
        x = build.add("Gelu", build.conv(x, CHANNELS, CHANNELS))
    if version == 24:  # ONNX Runtime 1.31 has none beyond
        x = build.add("Swish", build.conv(x, CHANNELS, CHANNELS))
    build.add("Identity", x, output="y")
    model = build.model(IMAGE, {"y": MAP})
    model.ir_version = _ir_version(version)
    if model.ir_version < 4:
        model.graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, list(t.dims))
            for t in model.graph.initializer
        )
    return model


def _ir_version(opset: int) -> int:
    return helper.OP_SET_ID_VERSION_MAP[("ai.onnx", opset)]


def _relu6(build: Builder, x: str) -> str:
    if build.opset < 11:
        return build.add("Clip", x, min=0.0, max=6.0)
    low, high = build.weight(np.asarray(0.0)), build.weight(np.asarray(6.0))
    return build.add("Clip", x, low, high)


def _hard_swish(build: Builder, x: str) -> str:
    return build.add("Mul", x, build.add("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def _gelu(build: Builder, x: str) -> str:
    gate = build.add("Erf", build.add("Div", x, build.weight(np.asarray(np.sqrt(2)))))
    product = build.add("Mul", x, build.add("Add", gate, build.weight(np.asarray(1.0))))
    return build.add("Mul", product, build.weight(np.asarray(0.5)))
