"""ONNX operators as functions on forms: what each node computes from one variable.

A rule takes the operands' forms in order, None where an optional input is left out, and the
attributes by name with ONNX's defaults. It raises `TooComplex` where no form can be given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import onnx

from actcc.activations import algebra as a
from actcc.activations.algebra import Form, TooComplex
from actcc.activations.functions import QUICK_GELU_ALPHA
from actcc.activations.references import gelu, gelu_tanh, hard_sigmoid, leaky_relu

Rule: TypeAlias = Callable[..., Form]
CONTRIB = "com.microsoft"
# Bytes of an element by floating-point type.
FLOAT_BYTES: Mapping[int, int] = MappingProxyType(
    {
        onnx.TensorProto.FLOAT16: 2,
        onnx.TensorProto.BFLOAT16: 2,
        onnx.TensorProto.FLOAT: 4,
        onnx.TensorProto.DOUBLE: 8,
    }
)


def _bound(operand: Form | None, attribute: float | None) -> float | None:
    if operand is None:
        return attribute
    if operand.constant is None:
        raise TooComplex
    return operand.constant


def _clip(
    p: Form,
    low: Form | None = None,
    high: Form | None = None,
    min: float | None = None,
    max: float | None = None,
) -> Form:
    bounds = _bound(low, min), _bound(high, max)
    limit = 3e38  # exporters write the largest float for a bound that is not there
    lower = None if bounds[0] is None or bounds[0] <= -limit else bounds[0]
    upper = None if bounds[1] is None or bounds[1] >= limit else bounds[1]
    return a.clip(p, lower, upper)


def _prelu(p: Form, slope: Form) -> Form:
    if slope.constant is None:
        raise TooComplex
    return leaky_relu(p, slope.constant)


def _power(p: Form, exponent: Form) -> Form:
    if exponent.constant not in (1.0, 2.0, 3.0):
        raise TooComplex
    return p ** int(exponent.constant)


def _gelu(p: Form, approximate: str = "none") -> Form:
    return gelu_tanh(p) if approximate == "tanh" else gelu(p)


def _fast_gelu(p: Form, bias: Form | None = None) -> Form:
    return gelu_tanh(p if bias is None else p + bias)


def _extreme(choose: Callable[[Form, Form], Form]) -> Rule:
    def rule(first: Form, *others: Form) -> Form:
        for other in others:
            first = choose(first, other)
        return first

    return rule


def _cast(p: Form, to: int = 0, saturate: int = 1) -> Form:
    del saturate  # for 8-bit floats only
    if to not in FLOAT_BYTES:
        raise TooComplex
    return p


def _celu(p: Form, alpha: float = 1.0) -> Form:
    return alpha * a.elu(p * (1 / alpha), 1.0)


def _selu(p: Form, alpha: float = 1.6732632, gamma: float = 1.0507010) -> Form:
    return gamma * a.elu(p, alpha)


def _swish(default: float) -> Rule:
    return lambda p, alpha=default: p * a.sigmoid(p * alpha)


_ARITHMETIC: dict[str, Rule] = {
    "Add": lambda p, q: p + q,
    "Sum": lambda *terms: a.total(terms),
    "Sub": lambda p, q: p - q,
    "Mul": lambda p, q: p * q,
    "Div": lambda p, q: p / q,
    "Neg": lambda p: -p,
    "Reciprocal": a.reciprocal,
    "Pow": _power,
    "Abs": a.absolute,
    "Exp": a.exponential,
    "Log": a.logarithm,
    "Erf": a.erf,
    "Min": _extreme(a.minimum),
    "Max": _extreme(a.maximum),
    "Cast": _cast,
    "Identity": lambda p: p,
}
_ACTIVATIONS: dict[str, Rule] = {
    "Relu": a.relu,
    "Clip": _clip,
    "LeakyRelu": lambda p, alpha=0.01: leaky_relu(p, alpha),
    "PRelu": _prelu,
    "ThresholdedRelu": lambda p, alpha=1.0: p * a.step(p - alpha),
    "Elu": lambda p, alpha=1.0: a.elu(p, alpha),
    "Selu": _selu,
    "Celu": _celu,
    "Sigmoid": a.sigmoid,
    "HardSigmoid": lambda p, alpha=0.2, beta=0.5: hard_sigmoid(p, alpha, beta),
    "Tanh": a.tanh,
    "Softplus": a.softplus,
    "Softsign": lambda p: p / (1 + a.absolute(p)),
    "HardSwish": lambda p: p * hard_sigmoid(p, 1 / 6, 0.5),
    "Swish": _swish(1.0),
    "Gelu": _gelu,
    "Mish": lambda p: p * a.tanh(a.softplus(p)),
}
_CONTRIB: dict[str, Rule] = {
    "QuickGelu": _swish(QUICK_GELU_ALPHA),
    "Gelu": lambda p: gelu(p),
    "FastGelu": _fast_gelu,
}
RULES: Mapping[tuple[str, str], Rule] = MappingProxyType(
    {
        **{("", op): rule for op, rule in {**_ARITHMETIC, **_ACTIVATIONS}.items()},
        **{(CONTRIB, op): rule for op, rule in _CONTRIB.items()},
    }
)
ACTIVATION_OPERATORS = frozenset(
    (*(("", op) for op in _ACTIVATIONS), *((CONTRIB, op) for op in _CONTRIB))
)
