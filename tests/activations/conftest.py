"""Small models from one line of ONNX text, and their values under ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

_CONSTANT = re.compile(r"#(-?[\d.]+(?:e-?\d+)?)(\[[\d,]*\])?")
_TYPES = {"float": np.float32, "float16": np.float16, "double": np.float64}


def build(
    body: str,
    *,
    opset: int = 17,
    dtype: str = "float",
    shape: str = "1,2,4,8",
    inputs: str = "",
    outputs: str = "",
) -> onnx.ModelProto:
    """A model from `x` to `y`; `#6` in the text is a scalar constant, `#6[1,1]` one of a shape."""
    constants: dict[str, np.ndarray[Any, Any]] = {}

    def name(found: re.Match[str]) -> str:
        dimensions = [int(size) for size in re.findall(r"\d+", found[2] or "")]
        key = f"constant_{len(constants)}"
        constants[key] = np.full(dimensions, float(found[1]), _TYPES[dtype])
        return key

    nodes = _CONSTANT.sub(name, body)
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}, "com.microsoft": 1]>\n'
        f"g ({dtype}[{shape}] x{inputs}) => ({dtype}[{shape}] y{outputs}) {{ {nodes} }}"
    )
    for key, values in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, key))
    return model


def run(model: onnx.ModelProto, **feeds: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Outputs of a model under ONNX Runtime without its rewrites."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    outputs: list[np.ndarray[Any, Any]] = session.run(None, feeds)
    return outputs


@pytest.fixture(scope="session")
def build_model() -> Callable[..., onnx.ModelProto]:
    return build


@pytest.fixture(scope="session")
def run_model() -> Callable[..., list[np.ndarray[Any, Any]]]:
    return run


@pytest.fixture(scope="session")
def samples() -> np.ndarray[Any, Any]:
    """64 values that fall on every branch of every activation."""
    values = np.concatenate([np.linspace(-9, 9, 58), [-3, -1, 0, 1, 3, 6]])
    return values.astype(np.float32).reshape(1, 2, 4, 8)
