"""Conv, ConvTranspose, Gemm, MatMul and BatchNormalization in TFLite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from actcc.backends.ethos_u.builder import CHANNELS_LAST, Builder, Step, Value, identity
from actcc.backends.ethos_u.flatbuffer import enumeration
from actcc.backends.ethos_u.padding import padded
from actcc.backends.ethos_u.weights import put_weights
from actcc.backends.ethos_u.windows import window_of
from actcc.errors import PricingError
from actcc.graph import Array, Node
from actcc.linear import Obstacle, convolution_of

Rule = Callable[[Builder, Step], None]


def convolution(builder: Builder, step: Step) -> None:
    """CONV_2D, or DEPTHWISE_CONV_2D where every group reads one channel."""
    node = step.node
    weights = _weights(builder, node)
    _convolve(builder, step, weights, _bias(builder, node, 2), int(node.attrs.get("group", 1)))


def batch_normalization(builder: Builder, step: Step) -> None:
    """DEPTHWISE_CONV_2D of one tap, where no layer before it takes it in.

    Raises:
        PricingError: it is in training mode, its statistics are computed, or its input is no image.
    """
    found = convolution_of(builder.graph, step.node, builder.graph.types)
    if isinstance(found, Obstacle) or found.rank != 2:
        reason = found.reason if isinstance(found, Obstacle) else "its input is no image"
        raise PricingError(f"node '{step.node.name}' (BatchNormalization): {reason}")
    _convolve(builder, step, np.float32(found.weights), np.float32(found.bias), found.groups)


def _convolve(
    builder: Builder, step: Step, weights: Array, bias: Array | None, groups: int
) -> None:
    node = step.node
    window = window_of(builder, node, weights.shape[2:])
    source = builder.arranged(builder.value(node.inputs[0]), CHANNELS_LAST)
    if window.explicit:
        source = padded(builder, source, window.before, window.after, step.writes)
    depthwise = groups > 1 and weights.shape[1] == 1
    options: dict[str, int] = {
        "Padding": enumeration("Padding", window.padding),
        "StrideW": window.strides[1],
        "StrideH": window.strides[0],
        "FusedActivationFunction": enumeration("ActivationFunctionType", step.activation),
        "DilationWFactor": window.dilations[1],
        "DilationHFactor": window.dilations[0],
    }
    if depthwise:
        options["DepthMultiplier"] = weights.shape[0] // groups
        # ONNX [outputs, 1, height, width] → TFLite [1, height, width, outputs]
        arranged, axis = weights.transpose(1, 2, 3, 0), 3
    else:
        arranged, axis = weights.transpose(0, 2, 3, 1), 0
    constants = put_weights(
        builder,
        arranged,
        axis,
        bias,
        builder.stored_quantization(source.index),
        node.outputs[0].name,
    )
    builder.put(
        "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
        [source.index, *constants],
        step.writes,
        CHANNELS_LAST,
        "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions",
        **options,
    )


def transposed_convolution(builder: Builder, step: Step) -> None:
    """TRANSPOSE_CONV with the paddings that TFLite knows.

    Raises:
        PricingError: groups, dilation, or a padding that is neither SAME nor VALID.
    """
    node = step.node
    weights = _weights(builder, node)
    if weights.ndim != 4 or node.attrs.get("group", 1) != 1 or _dilated(node):
        raise PricingError(
            f"node '{node.name}' (ConvTranspose) has groups, dilation or no plane; "
            "TFLite's TRANSPOSE_CONV has none of these"
        )
    strides = tuple(node.attrs.get("strides") or (1, 1))
    padding = _transposed_padding(builder, node, weights.shape[2:], strides)
    source = builder.arranged(builder.value(node.inputs[0]), CHANNELS_LAST)
    result = builder.shape(node.outputs[0])
    # ONNX [inputs, outputs, height, width] → TFLite [outputs, height, width, inputs]
    weight, bias = put_weights(
        builder,
        weights.transpose(1, 2, 3, 0),
        0,
        _bias(builder, node, 2),
        builder.stored_quantization(source.index),
        node.outputs[0].name,
    )
    size = builder.integers([result[axis] for axis in CHANNELS_LAST], f"{step.writes}/size")
    builder.put(
        "TRANSPOSE_CONV",
        [size, weight, source.index, bias],
        step.writes,
        CHANNELS_LAST,
        "TransposeConvOptions",
        Padding=enumeration("Padding", padding),
        StrideW=strides[1],
        StrideH=strides[0],
        FusedActivationFunction=enumeration("ActivationFunctionType", step.activation),
    )


def _transposed_padding(
    builder: Builder, node: Node, kernel: tuple[int, ...], strides: tuple[int, ...]
) -> str:
    source, result = builder.shape(node.inputs[0])[2:], builder.shape(node.outputs[0])[2:]
    pads = tuple(node.attrs.get("pads") or (0,) * 4)
    if node.attrs.get("auto_pad", "NOTSET") in ("NOTSET", "VALID"):
        valid = [s * f + max(k - f, 0) for s, f, k in zip(source, strides, kernel, strict=True)]
        if not any(pads) and list(result) == valid:
            return "VALID"
        first = [max(k - f, 0) // 2 for k, f in zip(kernel, strides, strict=True)]
        enlarged = [s * f for s, f in zip(source, strides, strict=True)]
        if list(result) == enlarged and list(pads[:2]) == first:
            return "SAME"
    raise PricingError(
        f"node '{node.name}' (ConvTranspose) pads {list(pads)}, which is neither SAME nor VALID "
        "in TFLite"
    )


def general_product(builder: Builder, step: Step) -> None:
    """Gemm as FULLY_CONNECTED.

    Raises:
        PricingError: its weights are computed, or its first operand is transposed.
    """
    node = step.node
    weights = builder.constant(node.inputs[1])
    if weights is None or node.attrs.get("transA", 0):
        raise PricingError(
            f"node '{node.name}' (Gemm) has computed weights or a transposed first operand; "
            "neither is lowered"
        )
    arranged = weights if node.attrs.get("transB", 0) else weights.T
    arranged = arranged * np.float32(node.attrs.get("alpha", 1.0))
    bias = _bias(builder, node, 2)
    if bias is not None:
        scaled = bias.reshape(-1) * np.float32(node.attrs.get("beta", 1.0))
        bias = np.broadcast_to(scaled, arranged.shape[:1])
    _fully_connected(builder, step, builder.value(node.inputs[0]), arranged, bias)


def matrix_product(builder: Builder, step: Step) -> None:
    """MatMul as FULLY_CONNECTED with constant weights, else as BATCH_MATMUL."""
    node = step.node
    weights = builder.constant(node.inputs[1])
    if weights is not None and weights.ndim == 2:
        _fully_connected(builder, step, builder.value(node.inputs[0]), weights.T, None)
        return
    rank = len(builder.shape(step.writes))
    operands = []
    for tensor in node.inputs:
        constant = builder.constant(tensor)
        if constant is not None:
            values = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
            operands.append(builder.numbers(values, f"{step.writes}/operand"))
            continue
        value = builder.with_rank(builder.value(tensor), rank)
        operands.append(builder.arranged(value, identity(rank)).index)
    builder.put("BATCH_MATMUL", operands, step.writes, identity(rank), "BatchMatMulOptions")


def _fully_connected(
    builder: Builder, step: Step, source: Value, weights: Array, bias: Array | None
) -> None:
    """Weights are [outputs, inputs]; the last ONNX axis is summed over."""
    rank = len(source.shape)
    last = rank - 1
    source = builder.arranged(source, (*(axis for axis in source.order if axis != last), last))
    constants = put_weights(
        builder,
        np.ascontiguousarray(weights),
        0,
        bias,
        builder.stored_quantization(source.index),
        step.node.outputs[0].name,
    )
    builder.put(
        "FULLY_CONNECTED",
        [source.index, *constants],
        step.writes,
        source.order,
        "FullyConnectedOptions",
        FusedActivationFunction=enumeration("ActivationFunctionType", step.activation),
        KeepNumDims=rank > 2,
    )


def _weights(builder: Builder, node: Node) -> Array:
    found = builder.constant(node.inputs[1])
    if found is None:
        raise PricingError(
            f"node '{node.name}' ({node.op}) has weights that are computed; an Ethos-U takes them "
            "from the compiled model"
        )
    return found


def _bias(builder: Builder, node: Node, index: int) -> Array | None:
    if len(node.inputs) <= index or node.inputs[index].is_empty():
        return None
    found = builder.constant(node.inputs[index])
    if found is None:
        raise PricingError(f"node '{node.name}' ({node.op}) has a bias that is computed")
    return found


def _dilated(node: Node) -> bool:
    return any(step != 1 for step in node.attrs.get("dilations") or ())


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "BatchNormalization": batch_normalization,
        "Conv": convolution,
        "ConvTranspose": transposed_convolution,
        "Gemm": general_product,
        "MatMul": matrix_product,
    }
)
