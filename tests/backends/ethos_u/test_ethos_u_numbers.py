"""What the int8 network computes, against ONNX Runtime, operator by operator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from networks import Builder, residual_network
from onnx import numpy_helper

from actcc.activations import Activation
from actcc.activations.spellings import spellings_of, write
from actcc.errors import PricingError
from actcc.graph import Graph
from actcc.passes.swap_activation import activation_sites

# Of the range of the output: 1 % is two and a half steps of int8. Input values are exact.
ONE_OPERATOR = 0.012
SEVERAL_OPERATORS = 0.03

IMAGE = (1, 8, 12, 12)


def _ints(build: Builder, values: list[int]) -> str:
    name = f"i{len(build.weights)}"
    build.weights.append(numpy_helper.from_array(np.asarray(values, np.int64), name))
    return name


def _conv(outputs: int = 16, **options: int) -> Callable[[Builder], str]:
    return lambda b: b.conv("images", 8, outputs, **options)


def _transposed(b: Builder, kernel: int, pads: list[int]) -> str:
    weight = b.weight(b.random.standard_normal((8, 6, kernel, kernel)) / 8)
    return b.add("ConvTranspose", "images", weight, strides=[2, 2], pads=pads)


def _two(op: str) -> Callable[[Builder], str]:
    return lambda b: b.add(op, "images", b.conv("images", 8, 8))


def _with_constant(op: str) -> Callable[[Builder], str]:
    return lambda b: b.add(op, "images", b.weight(1 + b.random.random((8, 1, 1))))


def _batch_norm(b: Builder) -> str:
    scale, shift, mean = b.random.standard_normal((3, 8))
    statistics = (scale, shift, mean, b.random.uniform(0.5, 2, 8))
    return b.add("BatchNormalization", "images", *(b.weight(each) for each in statistics))


def _product(b: Builder) -> str:
    flat = b.add("Flatten", b.add("GlobalAveragePool", b.conv("images", 8, 32)))
    weight, bias = b.weight(b.random.standard_normal((10, 32))), b.weight(np.ones(10))
    return b.add("Gemm", flat, weight, bias, transB=1, alpha=0.5, beta=2.0)


def _slice(b: Builder) -> str:
    bounds = [_ints(b, v) for v in ([1, 2], [9, 12], [2, 3], [2, 1])]
    return b.add("Slice", "images", *bounds)


def _focus(b: Builder) -> str:
    parts = []
    for row, column in ((0, 0), (1, 0), (0, 1), (1, 1)):
        bounds = [_ints(b, v) for v in ([row, column], [2**31, 2**31], [2, 3], [2, 2])]
        parts.append(b.add("Slice", "images", *bounds))
    return b.add("Concat", *parts, axis=1)


def _split(b: Builder) -> str:
    b.nodes.append(onnx.helper.make_node("Split", ["images"], ["left", "right"], axis=1))
    return b.add("Concat", "right", "left", axis=1)


def _shuffle(b: Builder) -> str:
    apart = b.add("Reshape", "images", _ints(b, [1, 2, 4, 12, 12]))
    turned = b.add("Transpose", apart, perm=[0, 2, 1, 3, 4])
    return b.add("Reshape", turned, _ints(b, [1, 8, 12, 12]))


def _pad(b: Builder, mode: str) -> str:
    return b.add("Pad", "images", _ints(b, [0, 0, 1, 2, 0, 0, 2, 0]), mode=mode)


def _resize(mode: str, way: str, **more: object) -> Callable[[Builder], str]:
    def build(b: Builder) -> str:
        scales = b.weight(np.array([1, 1, 2, 2]))
        return b.add(
            "Resize", "images", "", scales, mode=mode, coordinate_transformation_mode=way, **more
        )

    return build


def _attention(b: Builder) -> str:
    flat = b.add("Transpose", b.add("Reshape", "images", _ints(b, [1, 8, 144])), perm=[0, 2, 1])
    return b.add("MatMul", flat, b.add("Reshape", b.conv("images", 8, 8), _ints(b, [1, 8, 144])))


def _linear(b: Builder) -> str:
    flat = b.add("Transpose", b.add("Reshape", "images", _ints(b, [1, 8, 144])), perm=[0, 2, 1])
    return b.add("MatMul", flat, b.weight(b.random.standard_normal((8, 5))))


def _positive(b: Builder) -> str:
    return b.add("Add", b.add("Abs", "images"), b.weight(np.array([0.5])))


def _squeezed(b: Builder) -> str:
    column = b.add("ReduceMean", "images", axes=[3], keepdims=1)
    flat = b.add("Squeeze", column, _ints(b, [3]))
    return b.add("Unsqueeze", flat, _ints(b, [0, 2]))


def _reduced(op: str, *axes: int, keepdims: int = 1) -> Callable[[Builder], str]:
    if op == "ReduceSum":  # its axes are an input since opset 13
        return lambda b: b.add(op, "images", _ints(b, list(axes)), keepdims=keepdims)
    return lambda b: b.add(op, "images", axes=list(axes), keepdims=keepdims)


OPERATORS: dict[str, Callable[[Builder], str]] = {
    "convolution": _conv(),
    "convolution 1x1": _conv(kernel=1),
    "convolution with stride 2 and padding that is not SAME": _conv(stride=2),
    "depthwise": _conv(outputs=8, groups=8),
    "depthwise with two outputs a channel": _conv(outputs=16, groups=8),
    "grouped": _conv(outputs=8, groups=2),
    "dilated": lambda b: b.add(
        "Conv",
        "images",
        b.weight(b.random.standard_normal((4, 8, 3, 3)) / 8),
        dilations=[2, 2],
        pads=[2] * 4,
    ),
    "transposed, VALID": lambda b: _transposed(b, 2, [0] * 4),
    "transposed, SAME": lambda b: _transposed(b, 4, [1] * 4),
    "BatchNormalization": _batch_norm,
    "Gemm": _product,
    "MatMul with weights": _linear,
    "MatMul of two feature maps": _attention,
    "Add": _two("Add"),
    "Sub": _two("Sub"),
    "Mul": _two("Mul"),
    "Max": _two("Max"),
    "Min": _two("Min"),
    "Sum of three": lambda b: b.add(
        "Sum", "images", b.conv("images", 8, 8), b.conv("images", 8, 8)
    ),
    "Add of a constant": _with_constant("Add"),
    "Div by a constant": _with_constant("Div"),
    "Neg": lambda b: b.add("Neg", "images"),
    "Abs": lambda b: b.add("Abs", "images"),
    "MaxPool": lambda b: b.add("MaxPool", "images", kernel_shape=[2, 2], strides=[2, 2]),
    "MaxPool with padding": lambda b: b.add(
        "MaxPool", "images", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4
    ),
    "AveragePool": lambda b: b.add("AveragePool", "images", kernel_shape=[3, 3], pads=[1] * 4),
    "AveragePool that counts its padding": lambda b: b.add(
        "AveragePool", "images", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1
    ),
    "GlobalAveragePool": lambda b: b.add("GlobalAveragePool", "images"),
    "ReduceMean": lambda b: b.add("ReduceMean", "images", axes=[2, 3], keepdims=0),
    "Exp": lambda b: b.add("Exp", b.add("Neg", b.add("Abs", "images"))),
    "Log": lambda b: b.add("Log", _positive(b)),
    "Pow with exponent 2": lambda b: b.add("Pow", "images", b.weight(np.array([2.0]))),
    "GlobalMaxPool": lambda b: b.add("GlobalMaxPool", "images"),
    "ReduceMean over channels": _reduced("ReduceMean", 1),
    "ReduceMean over everything": lambda b: b.add("ReduceMean", _positive(b)),
    "ReduceSum over a plane": _reduced("ReduceSum", 2, 3),
    "ReduceSum over channels": _reduced("ReduceSum", 1, keepdims=0),
    "ReduceSum over everything": lambda b: b.add("ReduceSum", _positive(b)),
    "ReduceMax over a plane": _reduced("ReduceMax", 2, 3, keepdims=0),
    "ReduceMax over channels": _reduced("ReduceMax", -3),
    "ReduceMin over rows": _reduced("ReduceMin", 2),
    "Squeeze and Unsqueeze": _squeezed,
    "Concat": lambda b: b.add("Concat", "images", b.conv("images", 8, 4), axis=1),
    "Slice": _slice,
    "four interleaved slices": _focus,
    "Split": _split,
    "Gather of one channel": lambda b: b.add("Gather", "images", _ints(b, [3]), axis=1),
    "Pad": lambda b: _pad(b, "constant"),
    "Pad by reflection": lambda b: _pad(b, "reflect"),
    "nearest, asymmetric": _resize("nearest", "asymmetric", nearest_mode="floor"),
    "nearest, half pixel": _resize("nearest", "half_pixel"),
    "bilinear, half pixel": _resize("linear", "half_pixel"),
    "bilinear, corners": _resize("linear", "align_corners"),
    "Flatten": lambda b: b.add("Flatten", "images"),
    "channel shuffle": _shuffle,
    "Transpose": lambda b: b.add("Transpose", "images", perm=[0, 3, 1, 2]),
    "Softmax over channels": lambda b: b.add("Softmax", "images", axis=1),
}


def _model(build: Builder, output: str, shape: tuple[int, ...] = IMAGE) -> onnx.ModelProto:
    build.nodes[-1].output[0] = "y"
    proto = build.model(shape, {"y": ()})
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(proto)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_computes_what_onnx_runtime_computes(name: str, run_int8) -> None:
    build = Builder()
    found = run_int8(_model(build, OPERATORS[name](build)))
    assert found.worst < ONE_OPERATOR


def test_upsample_computes_what_onnx_runtime_computes(run_int8) -> None:
    build = Builder(opset=9)
    build.add("Upsample", "images", build.weight(np.array([1, 1, 2, 2])), mode="nearest")
    assert run_int8(_model(build, "y")).worst < ONE_OPERATOR


def test_a_power_that_is_no_square_is_refused(run_int8) -> None:
    build = Builder()
    build.add("Pow", "images", build.weight(np.array([3.0])))
    with pytest.raises(PricingError, match="is no square"):
        run_int8(_model(build, "y"))


ACTIVATIONS = (
    Activation("Relu"),
    Activation("Relu6"),
    Activation.of("Clip", min=-1.0, max=1.0),
    Activation.of("Clip", max=0.5),
    Activation.of("LeakyRelu", alpha=0.1),
    Activation("Elu"),
    Activation.of("Elu", alpha=0.5),
    Activation("Selu"),
    Activation.of("Celu", alpha=0.7),
    Activation("Sigmoid"),
    Activation.of("HardSigmoid", alpha=1 / 6, beta=0.5),
    Activation("Tanh"),
    Activation("Softplus"),
    Activation("HardSwish"),
    Activation("Silu"),
    Activation("QuickGelu"),
    Activation("Gelu"),
    Activation("GeluTanh"),
    Activation("Mish"),
)


@pytest.mark.parametrize("function", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("behind", ["input", "convolution"])
def test_an_activation_computes_what_onnx_runtime_computes(
    function: Activation, behind: str, run_int8
) -> None:
    build = Builder(opset=18)
    source = "images" if behind == "input" else build.conv("images", 8, 8)
    build.add("Relu", source)
    graph = Graph.load(_model(build, "y"))
    (site,) = activation_sites(graph)
    way = next(w for w in spellings_of(function) if not w.obstacle(function, 18, "float32", False))
    write(graph, site, function, way, "float32")
    assert run_int8(graph).worst < SEVERAL_OPERATORS


def test_prelu_takes_a_slope_for_each_channel(run_int8) -> None:
    build = Builder()
    build.add("PRelu", "images", build.weight(build.random.random((8, 1, 1))))
    found = run_int8(_model(build, "y"))
    assert found.worst < ONE_OPERATOR
    assert found.operators == {"PRELU": 1}


def test_an_activation_in_several_operators_becomes_the_one_that_tflite_has(run_int8) -> None:
    build = Builder()
    gate = build.add("HardSigmoid", "images", alpha=1 / 6, beta=0.5)
    build.add("Mul", "images", gate)
    assert run_int8(_model(build, "y")).operators == {"HARD_SWISH": 1}


def test_clamps_fuse_into_the_operator_before_them(run_int8) -> None:
    build = Builder()
    build.add("Relu", build.conv("images", 8, 8))
    assert run_int8(_model(build, "y")).operators == {"CONV_2D": 1}


def test_a_clamp_behind_a_tensor_with_another_reader_stays_apart(run_int8) -> None:
    build = Builder()
    features = build.conv("images", 8, 8)
    build.add("Add", features, build.add("Relu", features))
    found = run_int8(_model(build, "y"))
    assert found.operators == {"CONV_2D": 1, "RELU": 1, "ADD": 1}
    assert found.worst < ONE_OPERATOR


def test_a_sigmoid_is_rescaled_before_it_is_joined_with_wider_values(run_int8) -> None:
    build = Builder()
    # An output that is only joined would be int16.
    build.add("Abs", build.add("Concat", "images", build.add("Sigmoid", "images"), axis=1))
    found = run_int8(_model(build, "y"))
    assert found.operators == {"LOGISTIC": 1, "QUANTIZE": 1, "CONCATENATION": 1, "ABS": 1}
    assert found.worst < ONE_OPERATOR


def test_a_network_keeps_its_numbers(run_int8) -> None:
    assert run_int8(residual_network()).worst < 0.06
