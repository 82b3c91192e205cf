"""Small networks as onnxruntime's quantizer writes them, each tensor between Q and DQ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from actcc.calibration import SampleSet, load_samples
from actcc.graph import Graph

CHANNELS, SIZE = 8, 10
FEEDS = [
    2 * np.random.default_rng(seed).standard_normal((1, 3, SIZE, SIZE)).astype(np.float32)
    for seed in range(8)
]
TWO_LAYERS = "k = Conv<pads = [1,1,1,1]>(x, w, b) {} y = Conv<pads = [1,1,1,1]>(a, v, c)"
SILU = TWO_LAYERS.format("s = Sigmoid(k) a = Mul(k, s)")
HARD_SWISH = TWO_LAYERS.format(
    "t = Add(k, three) m = Clip(t, zero, six) p = Mul(k, m) a = Div(p, six)"
)


def floating(body: str = SILU, opset: int = 17) -> onnx.ModelProto:
    """A network from x [1, 3, 10, 10] to y, with weights w, b and v, c for two layers."""
    random = np.random.default_rng(0)
    weights: dict[str, Any] = {
        "w": random.standard_normal((CHANNELS, 3, 3, 3)) / 4,
        "b": random.standard_normal(CHANNELS) / 2,
        "v": random.standard_normal((CHANNELS, CHANNELS, 3, 3)) / 8,
        "c": random.standard_normal(CHANNELS) / 2,
        "zero": 0.0,
        "three": 3.0,
        "six": 6.0,
    }
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]> network '
        f"(float[1,3,{SIZE},{SIZE}] x) => (float[1,{CHANNELS},{SIZE},{SIZE}] y) {{ {body} }}"
    )
    read = {name for node in model.graph.node for name in node.input}
    for name in sorted(read & weights.keys()):
        values = np.asarray(weights[name], np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def quantized(
    model: onnx.ModelProto,
    folder: Path,
    element: str = "uint8",
    *,
    symmetric: bool = False,
    per_channel: bool = True,
) -> Graph:
    """The network quantized, with feature maps in uint8 or int8."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds: Iterator[dict[str, Any]] = iter([{"x": values} for values in FEEDS])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._feeds, None)

    path = folder / f"{element}.onnx"
    quantize_static(
        model,
        path,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        reduce_range=True,
        activation_type=QuantType.QUInt8 if element == "uint8" else QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": symmetric},
    )
    return Graph.load(path)


def samples_for(graph: Graph) -> SampleSet:
    """The samples that it was quantized on."""
    return load_samples([{"x": values} for values in FEEDS], graph)
