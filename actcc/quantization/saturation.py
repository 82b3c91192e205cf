"""How many bits of a weight a runtime's int8 kernels multiply exactly on this processor.

x86 without VNNI adds two products of uint8 and int8 in 16 bits, which saturate where both are
large (onnxruntime's documentation of quantization, "reduce_range"). Whether a machine does is
neither in ONNX nor in a list of processors that anybody keeps: one layer of the largest numbers
tells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from actcc.graph import Graph
from actcc.runtime import ModelRun

_CHANNELS, _LARGEST_VALUE, _LARGEST_WEIGHT = 32, 255, 127
_SUM = float(_CHANNELS * _LARGEST_VALUE * _LARGEST_WEIGHT)


def exact_weight_bits(open_model: Callable[[Graph], ModelRun]) -> Literal[7, 8]:
    """8, or 7 where a layer in int8 whose values and weights are all the largest gives too little.

    Args:
        open_model: loads a model in the runtime.

    Raises:
        ModelError: the runtime cannot run the layer.
    """
    values = np.full((1, _CHANNELS, 4, 4), _LARGEST_VALUE, np.float32)
    (found,) = open_model(_largest_layer())({"x": values}).values()
    # Saturated it is half of that.
    return 8 if float(found.min()) > 0.9 * _SUM else 7


def _largest_layer() -> Graph:
    weights = np.full((_CHANNELS, _CHANNELS, 1, 1), _LARGEST_WEIGHT, np.int8)
    steps = {"one": np.float32(1), "zero": np.uint8(0), "step": np.float32(_SUM / _LARGEST_VALUE)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["x8"]),
        helper.make_node("DequantizeLinear", ["x8", "one", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w8", "one"], ["w"]),
        helper.make_node("Conv", ["xd", "w"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "step", "zero"], ["c8"]),
        helper.make_node("DequantizeLinear", ["c8", "step", "zero"], ["y"]),
    ]
    shape = [1, _CHANNELS, 4, 4]
    graph = helper.make_graph(
        nodes,
        "largest",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in {**steps, "w8": weights}.items()],
    )
    opsets = [helper.make_opsetid("", 13)]
    return Graph.load(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8))
