"""Operator → PyTorch function: element-wise operators, matrix products and normalization."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import onnx
import torch
from torch.nn import functional

from actcc.repair.distill.reading import Function, Reading, UntranslatableError

_ELEMENTS: Mapping[int, torch.dtype] = MappingProxyType(
    {
        onnx.TensorProto.FLOAT: torch.float32,
        onnx.TensorProto.FLOAT16: torch.float32,  # fp16 networks are fine-tuned in fp32
        onnx.TensorProto.INT32: torch.int32,
        onnx.TensorProto.INT64: torch.int64,
        onnx.TensorProto.BOOL: torch.bool,
    }
)


def _one(function: Callable[[Any], Any]) -> Callable[[Reading], Function]:
    return lambda reading: lambda values: function(values[0])


def _two(function: Callable[[Any, Any], Any]) -> Callable[[Reading], Function]:
    return lambda reading: lambda values: function(values[0], values[1])


def _many(function: Callable[[Any, Any], Any]) -> Callable[[Reading], Function]:
    return lambda reading: lambda values: functools.reduce(function, values)


def _divide(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    if left.is_floating_point():
        return left / right
    return torch.div(left, right, rounding_mode="trunc")


def _clip(reading: Reading) -> Function:
    bounds = []
    for index, name in ((1, "min"), (2, "max")):
        given = reading.attribute(name)
        if given is None and reading.opset >= 11:
            held = reading.constant(index)
            given = None if held is None else held.item()
        bounds.append(None if given is None else float(given))
    low, high = bounds
    if low is None and high is None:
        return lambda values: values[0]
    return lambda values: values[0].clamp(low, high)


def _hard_sigmoid(reading: Reading) -> Function:
    slope = float(reading.attribute("alpha", 0.2))
    offset = float(reading.attribute("beta", 0.5))
    return lambda values: (values[0] * slope + offset).clamp(0, 1)


def _leaky_relu(reading: Reading) -> Function:
    slope = float(reading.attribute("alpha", 0.01))
    return lambda values: functional.leaky_relu(values[0], slope)


def _elu(reading: Reading) -> Function:
    alpha = float(reading.attribute("alpha", 1.0))
    return lambda values: functional.elu(values[0], alpha)


def _swish(reading: Reading) -> Function:
    alpha = float(reading.attribute("alpha", 1.0))
    return lambda values: values[0] * torch.sigmoid(alpha * values[0])


def _gelu(reading: Reading) -> Function:
    spelling = reading.text("approximate", "none")
    return lambda values: functional.gelu(values[0], approximate=spelling)


def _prelu(values: Sequence[Any]) -> Any:
    return torch.where(values[0] < 0, values[0] * values[1], values[0])


def _softmax(reading: Reading) -> Function:
    if reading.opset >= 13:
        axis = int(reading.attribute("axis", -1))
        return lambda values: torch.softmax(values[0], axis)
    rank = reading.rank()
    axis = int(reading.attribute("axis", 1)) % rank
    reading.refuse_unless(axis == rank - 1, f"over flattened axes (opset {reading.opset})")
    return lambda values: torch.softmax(values[0], axis)


def _cast(reading: Reading) -> Function:
    element = _ELEMENTS.get(int(reading.attribute("to")))
    if element is None:
        raise UntranslatableError(f"Cast to element type {reading.attribute('to')}")
    return lambda values: values[0].to(element)


def _gemm(reading: Reading) -> Function:
    alpha, beta = float(reading.attribute("alpha", 1.0)), float(reading.attribute("beta", 1.0))
    turn_left, turn_right = reading.attribute("transA", 0), reading.attribute("transB", 0)

    def gemm(values: Sequence[Any]) -> Any:
        left = values[0].t() if turn_left else values[0]
        right = values[1].t() if turn_right else values[1]
        product = alpha * (left @ right)
        return product if len(values) < 3 or values[2] is None else product + beta * values[2]

    return gemm


def _batch_normalization(reading: Reading) -> Function:
    epsilon = float(reading.attribute("epsilon", 1e-5))
    reading.refuse_unless(not reading.attribute("training_mode", 0), "in training mode")

    def normalize(values: Sequence[Any]) -> Any:
        x, scale, shift, mean, variance = values
        return functional.batch_norm(x, mean, variance, scale, shift, eps=epsilon)

    return normalize


def _layer_normalization(reading: Reading) -> Function:
    axis, rank = int(reading.attribute("axis", -1)), reading.rank()
    epsilon = float(reading.attribute("epsilon", 1e-5))
    count = rank - axis % rank

    def normalize(values: Sequence[Any]) -> Any:
        x, scale = values[0], values[1]
        shift = values[2] if len(values) > 2 else None
        return functional.layer_norm(x, x.shape[x.ndim - count :], scale, shift, epsilon)

    return normalize


ARITHMETIC: Mapping[str, Callable[[Reading], Function]] = MappingProxyType(
    {
        "Abs": _one(torch.abs),
        "Add": _two(torch.add),
        "BatchNormalization": _batch_normalization,
        "Cast": _cast,
        "Clip": _clip,
        "Div": _two(_divide),
        "Elu": _elu,
        "Erf": _one(torch.erf),
        "Exp": _one(torch.exp),
        "Gelu": _gelu,
        "Gemm": _gemm,
        "HardSigmoid": _hard_sigmoid,
        "HardSwish": _one(functional.hardswish),
        "Identity": _one(lambda x: x),
        "LayerNormalization": _layer_normalization,
        "LeakyRelu": _leaky_relu,
        "Log": _one(torch.log),
        "MatMul": _two(torch.matmul),
        "Max": _many(torch.maximum),
        "Min": _many(torch.minimum),
        "Mish": _one(functional.mish),
        "Mul": _two(torch.mul),
        "Neg": _one(torch.neg),
        "PRelu": lambda reading: _prelu,
        "Pow": _two(torch.pow),
        "Reciprocal": _one(torch.reciprocal),
        "Relu": _one(functional.relu),
        "Sigmoid": _one(torch.sigmoid),
        "Softmax": _softmax,
        "Softplus": _one(functional.softplus),
        "Softsign": _one(functional.softsign),
        "Sqrt": _one(torch.sqrt),
        "Sub": _two(torch.sub),
        "Sum": _many(torch.add),
        "Swish": _swish,
        "Tanh": _one(torch.tanh),
    }
)
