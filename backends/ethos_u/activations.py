"""Activations in TFLite: one operator where TFLite has it, else a composition.

LeakyRelu, Elu, Gelu, HardSwish, Relu, Relu6, Sigmoid, Tanh   one operator each
Clip          QUANTIZE to a range that ends there, or MAXIMUM and MINIMUM
HardSigmoid   MUL α, ADD β into the range [0, 1], which int8 does not leave
Silu          LOGISTIC, MUL x
QuickGelu     MUL 1.702, LOGISTIC, MUL x
Elu, Selu     a·ELU(x) + b·RELU(x); Selu with a = γα, b = γ(1 - α)
Celu          MUL 1/α, ELU, MUL α
Softplus      RELU(x) + LOG(1 + EXP(-|x|)), whose values all fit int8
Mish          (-x)·TANH(LOG(LOGISTIC(-x))), since softplus(x) = -log(sigmoid(-x))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from actcc.activations import Match
from actcc.activations.functions import QUICK_GELU_ALPHA, Activation
from actcc.backends.ethos_u.builder import Builder, Value
from actcc.backends.ethos_u.elementwise import arithmetic, constant_index
from actcc.backends.ethos_u.network import Quantization, int8_range
from actcc.backends.ethos_u.ranges import LOGISTIC, TANH
from actcc.errors import PricingError

# Clamps that operators of TFLite carry with them.
FUSED: Mapping[str, str] = MappingProxyType({"Relu": "RELU", "Relu6": "RELU6"})


def activation(builder: Builder, match: Match) -> None:
    """An activation by itself.

    Raises:
        PricingError: TFLite has no int8 operators for it.
    """
    rule = _RULES.get(match.activation.name)
    if rule is None:
        raise PricingError(
            f"activation {match.activation} ('{match.writes.name}') has no int8 operators on an "
            "Ethos-U"
        )
    rule(_Writing(builder, match))


def saturates(function: Activation, quantization: Quantization) -> bool:
    """Whether a clamp does nothing that the range of its int8 result does not."""
    bounds = dict(function.parameters)
    slack = 0.5 * quantization.scale
    low, high = bounds.get("min", -math.inf), bounds.get("max", math.inf)
    return quantization.low >= low - slack and quantization.high <= high + slack


class _Writing:
    """One activation on the way into the network."""

    def __init__(self, builder: Builder, match: Match) -> None:
        self.builder = builder
        self.function = match.activation
        self.name = match.writes.name
        self.source: Value = builder.value(match.reads)
        self.x = self.source.index
        self.range = builder.stored_quantization(self.x)

    def step(self, code: str, inputs: list[int], result: Quantization, **options: Any) -> int:
        """An operator in between."""
        stored = self.source.stored
        return self.builder.scratch(code, inputs, self.name, stored, result, **options)

    def scaled(self, index: int, factor: float) -> int:
        """A tensor times a number."""
        before = self.builder.stored_quantization(index)
        ends = (before.low * factor, before.high * factor)
        operands = [index, self.number(factor)]
        return self.step("MUL", operands, int8_range(min(ends), max(ends)), **arithmetic("MUL"))

    def number(self, value: float) -> int:
        """A number as an operand."""
        order = self.source.order
        return constant_index(self.builder, np.array(value), order, self.name)

    def finish(self, code: str, inputs: list[int], **options: Any) -> None:
        """The last operator; it writes the activation's result."""
        self.builder.put(code, inputs, self.name, self.source.order, **options)

    def finish_fixed(self, code: str, inputs: list[int], fixed: Quantization) -> None:
        """A last operator whose scale TFLite fixes."""
        self.builder.rescaled(self.step(code, inputs, fixed), self.name, self.source)


def _one(code: str, table: str = "", **options: int) -> Callable[[_Writing], None]:
    return lambda w: w.finish(code, [w.x], table=table, **options)


def _leaky_relu(w: _Writing) -> None:
    alpha = w.function.parameter("alpha")
    w.finish("LEAKY_RELU", [w.x], table="LeakyReluOptions", Alpha=alpha)


def _prelu(w: _Writing) -> None:
    rank = len(w.source.shape)
    channel = rank - 1 - int(w.function.parameter("trailing_axes"))
    order = (*(axis for axis in w.source.order if axis != channel), channel)
    source = w.builder.arranged(w.source, order)
    slopes = np.array([value for key, value in w.function.parameters if key == "slope"])
    slope = w.builder.numbers(slopes.reshape((1,) * (rank - 2) + (-1,)), f"{w.name}/slope")
    w.builder.put("PRELU", [source.index, slope], w.name, order)


def _clip(w: _Writing) -> None:
    wanted = w.builder.quantization(w.name)
    bounds = dict(w.function.parameters)
    if saturates(w.function, wanted):
        w.finish("QUANTIZE", [w.x], table="QuantizeOptions")
        return
    index = w.x
    if w.range != wanted:
        index = w.step("QUANTIZE", [index], wanted, table="QuantizeOptions")
    for bound, code in (("min", "MAXIMUM"), ("max", "MINIMUM")):
        if bound in bounds:
            value = constant_index(
                w.builder, np.array(bounds[bound]), w.source.order, w.name, wanted
            )
            index = w.step(code, [index, value], wanted, **arithmetic(code))
    w.builder.rescaled(index, w.name, w.source)


def _hard_sigmoid(w: _Writing) -> None:
    alpha, beta = w.function.parameter("alpha"), w.function.parameter("beta")
    operands = [w.scaled(w.x, alpha), w.number(beta)]
    index = w.step("ADD", operands, int8_range(0.0, 1.0), **arithmetic("ADD"))
    w.builder.rescaled(index, w.name, w.source)


def _silu(w: _Writing) -> None:
    gate = w.step("LOGISTIC", [w.x], LOGISTIC)
    w.finish("MUL", [w.x, gate], **arithmetic("MUL"))


def _quick_gelu(w: _Writing) -> None:
    gate = w.step("LOGISTIC", [w.scaled(w.x, QUICK_GELU_ALPHA)], LOGISTIC)
    w.finish("MUL", [w.x, gate], **arithmetic("MUL"))


def _elu(w: _Writing) -> None:
    _scaled_elu(w, w.function.parameter("alpha"), 1.0)


def _selu(w: _Writing) -> None:
    _scaled_elu(w, w.function.parameter("alpha"), w.function.parameter("gamma"))


def _scaled_elu(w: _Writing, alpha: float, gamma: float) -> None:
    """γ·(α·elu(x) + (1 - α)·relu(x)), where elu is that of α = 1."""
    if alpha == gamma == 1.0:
        w.finish("ELU", [w.x])
        return
    curved = w.step("ELU", [w.x], int8_range(-1.0, w.range.high))
    straight = w.step("RELU", [w.x], int8_range(0.0, w.range.high))
    operands = [w.scaled(curved, gamma * alpha), w.scaled(straight, gamma * (1 - alpha))]
    w.finish("ADD", operands, **arithmetic("ADD"))


def _celu(w: _Writing) -> None:
    alpha = w.function.parameter("alpha")
    inner = w.scaled(w.x, 1 / alpha)
    high = w.builder.stored_quantization(inner).high
    curved = w.step("ELU", [inner], int8_range(-1.0, high))
    w.finish("MUL", [curved, w.number(alpha)], **arithmetic("MUL"))


def _softplus(w: _Writing) -> None:
    farthest = max(-w.range.low, w.range.high)
    size = w.step("ABS", [w.x], int8_range(0.0, farthest), table="AbsOptions")
    decay = w.step("EXP", [w.scaled(size, -1.0)], int8_range(0.0, 1.0), table="ExpOptions")
    one_more = w.step("ADD", [decay, w.number(1.0)], int8_range(0.0, 2.0), **arithmetic("ADD"))
    rest = w.step("LOG", [one_more], int8_range(0.0, math.log(2.0)))
    straight = w.step("RELU", [w.x], int8_range(0.0, w.range.high))
    w.finish("ADD", [straight, rest], **arithmetic("ADD"))


def _mish(w: _Writing) -> None:
    negative = w.scaled(w.x, -1.0)
    gate = w.step("LOGISTIC", [negative], LOGISTIC)
    logarithm = w.step("LOG", [gate], int8_range(math.log(LOGISTIC.scale), 0.0))
    w.finish("MUL", [negative, w.step("TANH", [logarithm], TANH)], **arithmetic("MUL"))


def _identity(w: _Writing) -> None:
    w.builder.rescaled(w.x, w.name, w.source)


_RULES: Mapping[str, Callable[[_Writing], None]] = MappingProxyType(
    {
        "Relu": _one("RELU"),
        "Relu6": _one("RELU6"),
        "Clip": _clip,
        "LeakyRelu": _leaky_relu,
        "PRelu": _prelu,
        "Elu": _elu,
        "Selu": _selu,
        "Celu": _celu,
        "Sigmoid": lambda w: w.finish_fixed("LOGISTIC", [w.x], LOGISTIC),
        "Tanh": lambda w: w.finish_fixed("TANH", [w.x], TANH),
        "HardSigmoid": _hard_sigmoid,
        "HardSwish": _one("HARD_SWISH", "HardSwishOptions"),
        "Silu": _silu,
        "QuickGelu": _quick_gelu,
        "Gelu": _one("GELU", "GeluOptions", Approximate=False),
        "GeluTanh": _one("GELU", "GeluOptions", Approximate=True),
        "Softplus": _softplus,
        "Mish": _mish,
        "Identity": _identity,
    }
)
