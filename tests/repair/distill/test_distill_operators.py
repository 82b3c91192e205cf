"""The operator table gives what ONNX Runtime gives."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from actcc.graph import Graph
from actcc.runtime import run, session

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'actcc[distill]'")

from actcc.repair.distill.network import OPERATORS, TorchNetwork, execute  # noqa: E402

IMAGE = (1, 6, 9, 8)
RANDOM = np.random.default_rng(3)


def single(op, shape=IMAGE, constants=(), opset=17, outputs=1, extra_inputs=(), **attributes):
    """A model of one node that reads `x` and constants."""
    weights = [
        numpy_helper.from_array(np.asarray(value), f"c{index}")
        for index, value in enumerate(constants)
        if value is not None
    ]
    names = ["" if value is None else f"c{index}" for index, value in enumerate(constants)]
    node = helper.make_node(
        op, ["x", *names], [f"y{i}" for i in range(outputs)], name="node", **attributes
    )
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [onnx.ValueInfoProto(name=f"y{i}") for i in range(outputs)],
        weights,
    )
    opsets = [helper.make_opsetid("", opset)]
    return Graph.load(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def f(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def i(*values):
    return np.array(values, np.int64)


UNARY = [
    "Abs", "Elu", "Erf", "Exp", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Neg", "Relu",
    "Reciprocal", "Sigmoid", "Softmax", "Softplus", "Softsign", "Tanh",
]  # fmt: skip
CASES = [
    *(pytest.param(op, {}, id=op) for op in UNARY),
    ("Add", {"constants": [f(6, 1, 1)]}),
    ("Sub", {"constants": [f(6, 1, 1)]}),
    ("Mul", {"constants": [f(6, 1, 1)]}),
    ("Div", {"constants": [1 + np.abs(f(6, 1, 1))]}),
    ("Max", {"constants": [f(6, 1, 1), f(1)]}),
    ("Min", {"constants": [f(6, 1, 1)]}),
    ("Sum", {"constants": [f(6, 1, 1)]}),
    ("Pow", {"constants": [np.float32(2)]}),
    ("PRelu", {"constants": [f(6, 1, 1)]}),
    ("Clip", {"constants": [np.float32(-0.5), np.float32(0.7)]}),
    ("Clip", {"constants": [None, np.float32(0.7)]}),
    ("Clip", {"opset": 9, "min": -0.2, "max": 0.3}),
    ("Cast", {"to": TensorProto.FLOAT}),
    ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    ("LeakyRelu", {"alpha": 0.3}),
    ("Softmax", {"axis": 1}),
    ("Gelu", {"opset": 20}),
    ("Gelu", {"opset": 20, "approximate": "tanh"}),
    ("Mish", {"opset": 18}),
    ("BatchNormalization", {"constants": [f(6), f(6), f(6), np.abs(f(6)) + 0.1]}),
    ("LayerNormalization", {"constants": [f(9, 8), f(9, 8)], "axis": 2}),
    ("Gemm", {"shape": (3, 4), "constants": [f(5, 4), f(5)], "transB": 1, "alpha": 0.5}),
    ("Gemm", {"shape": (4, 3), "constants": [f(4, 5), f(5)], "transA": 1, "beta": 2.0}),
    ("MatMul", {"shape": (2, 3, 4), "constants": [f(4, 5)]}),
    ("Conv", {"constants": [f(4, 6, 3, 3), f(4)], "pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ("Conv", {"constants": [f(6, 1, 3, 3)], "group": 6, "dilations": [2, 2], "pads": [2] * 4}),
    ("Conv", {"constants": [f(4, 3, 2, 3), f(4)], "group": 2, "auto_pad": "SAME_UPPER"}),
    ("Conv", {"constants": [f(4, 6, 3, 3)], "auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("Conv", {"shape": (1, 3, 11), "constants": [f(4, 3, 3)], "pads": [1, 1]}),
    ("Conv", {"shape": (1, 2, 4, 5, 6), "constants": [f(3, 2, 3, 3, 3)], "pads": [1] * 6}),
    (
        "ConvTranspose",
        {
            "constants": [f(6, 2, 3, 3), f(4)],
            "group": 2,
            "strides": [2, 2],
            "pads": [1, 0, 0, 1],
            "output_padding": [1, 0],
        },
    ),
    ("ConvTranspose", {"shape": (1, 3, 7), "constants": [f(3, 2, 4)], "strides": [2]}),
    ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 0, 1]}),
    ("MaxPool", {"kernel_shape": [5, 5], "pads": [2] * 4}),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1] * 4}),
    ("AveragePool", {"kernel_shape": [2, 2], "pads": [0, 1, 1, 0], "count_include_pad": 1}),
    ("GlobalAveragePool", {}),
    ("GlobalMaxPool", {}),
    ("Pad", {"constants": [i(0, 0, 1, 2, 0, 0, 3, 0), np.float32(0.5)]}),
    ("Resize", {"constants": [None, np.float32([1, 1, 2, 3])], "mode": "nearest"}),
    (
        "Resize",
        {
            "constants": [None, np.float32([1, 1, 2, 2])],
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
    ),
    ("Resize", {"constants": [None, None, i(1, 6, 13, 20)], "mode": "linear"}),
    (
        "Resize",
        {
            "constants": [None, np.float32([1, 1, 2, 2])],
            "mode": "linear",
            "coordinate_transformation_mode": "align_corners",
        },
    ),
    ("Concat", {"constants": [f(1, 2, 9, 8)], "axis": 1}),
    ("Split", {"constants": [i(2, 4)], "axis": 1, "outputs": 2}),
    ("Split", {"axis": 1, "outputs": 3}),
    ("Slice", {"constants": [i(1, 0), i(-1, 2**62), i(2, 3), i(2, 3)]}),
    ("Slice", {"opset": 9, "starts": [1], "ends": [4], "axes": [1]}),
    ("Reshape", {"constants": [i(0, 2, -1, 4)]}),
    ("Transpose", {"perm": [0, 2, 3, 1]}),
    ("Transpose", {}),
    ("Flatten", {"axis": 2}),
    ("Squeeze", {"constants": [i(0)]}),
    ("Unsqueeze", {"constants": [i(0, 3)]}),
    ("Unsqueeze", {"opset": 11, "axes": [1]}),
    ("Gather", {"constants": [i(0, -1, 2)], "axis": 1}),
    ("Gather", {"constants": [np.int64(3)], "axis": 2}),
    ("Expand", {"constants": [i(3, 6, 1, 8)]}),
    ("ReduceMean", {"axes": [2, 3]}),
    ("ReduceMean", {"opset": 18, "constants": [i(1)], "keepdims": 0}),
    ("ReduceSum", {"constants": [i(-1)]}),
    ("ReduceMax", {"axes": [1], "keepdims": 0}),
]


@pytest.mark.parametrize(("op", "settings"), CASES)
def test_an_operator_computes_what_onnx_runtime_computes(op, settings):
    graph = single(op, **settings)
    x = f(*settings.get("shape", IMAGE))
    expected = run(session(graph, optimise=False), {"x": x})
    network = TorchNetwork.of(graph, torch.device("cpu"))
    assert not network.refused

    found = execute(
        network.steps, network.constants, {}, {"x": torch.from_numpy(x)}, list(expected)
    )

    for name, values in expected.items():
        np.testing.assert_allclose(found[name].numpy(), values, rtol=1e-5, atol=2e-6)


REFUSED = [
    ("Resize", {"constants": [None, np.float32([1, 1, 1.5, 1.5])], "mode": "nearest"}, "not whole"),
    ("Resize", {"constants": [None, np.float32([1, 1, 2, 2])], "mode": "cubic"}, "cubic"),
    ("Pad", {"constants": [i(0, 0, 1, 1, 0, 0, 1, 1)], "mode": "reflect"}, "reflect"),
    ("Slice", {"constants": [i(8), i(0), i(2), i(-1)]}, "backwards"),
    ("Softmax", {"opset": 11, "axis": 1}, "flattened"),
    ("CumSum", {"constants": [np.int64(1)]}, "not in the table"),
]


@pytest.mark.parametrize(("op", "settings", "reason"), REFUSED)
def test_what_the_table_cannot_do_is_refused_with_a_reason(op, settings, reason):
    network = TorchNetwork.of(single(op, **settings), torch.device("cpu"))

    assert reason in network.refused["node"]


def test_a_reshape_for_one_sample_takes_several():
    graph = single("Reshape", constants=[i(1, 6, -1)])
    network = TorchNetwork.of(graph, torch.device("cpu"))

    found = execute(network.steps, network.constants, {}, {"x": torch.zeros(4, 6, 9, 8)}, ["y0"])

    assert found["y0"].shape == (4, 6, 72)


def test_every_operator_of_the_table_is_compared():
    spelled = {case.values[0] if hasattr(case, "values") else case[0] for case in CASES}
    other = {"Log", "Sqrt", "ReduceMin", "Swish"}  # Swish: no kernel in ONNX Runtime

    assert set(OPERATORS) == spelled | other
