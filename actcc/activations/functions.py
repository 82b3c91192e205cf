"""The activation functions by name, and their values in numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from actcc.activations.error_function import erf
from actcc.errors import PassError

Array: TypeAlias = "np.ndarray[Any, Any]"
Parameters: TypeAlias = tuple[tuple[str, float], ...]

# Parameters in order with the defaults of the ONNX operators; a one-sided Clip has one bound only.
_DEFAULTS: Mapping[str, Parameters] = MappingProxyType(
    {
        "Relu": (),
        "Relu6": (),
        "Clip": (),
        "LeakyRelu": (("alpha", 0.01),),
        "PRelu": (("trailing_axes", 0.0),),
        "ThresholdedRelu": (("alpha", 1.0),),
        "Elu": (("alpha", 1.0),),
        "Selu": (("alpha", 1.6732632), ("gamma", 1.050701)),
        "Celu": (("alpha", 1.0),),
        "Sigmoid": (),
        "HardSigmoid": (("alpha", 0.2), ("beta", 0.5)),
        "Tanh": (),
        "Softplus": (),
        "Softsign": (),
        "HardSwish": (),
        "Silu": (),
        "QuickGelu": (),
        "Gelu": (),
        "GeluTanh": (),
        "Mish": (),
        "Identity": (),
    }
)
NAMES = tuple(_DEFAULTS)
QUICK_GELU_ALPHA = 1.702
GELU_TANH_CUBE = 0.044715


@dataclass(frozen=True)
class Activation:
    """An element-wise function ℝ → ℝ.

    Attributes:
        name: one of `NAMES`.
        parameters: in the order of the ONNX operator, its defaults filled in. `Clip` has "min",
            "max" or both. `PRelu` has "trailing_axes", the number of axes behind the channel axis,
            and one "slope" a channel.
    """

    name: str
    parameters: Parameters = ()

    def __post_init__(self) -> None:
        if self.name not in _DEFAULTS:
            known = ", ".join(NAMES)
            raise PassError(f"there is no activation '{self.name}'; known: {known}")
        if self.name == "PRelu":
            return
        defaults = dict(_DEFAULTS[self.name])
        allowed = ("min", "max") if self.name == "Clip" else tuple(defaults)
        given = dict(self.parameters)
        unknown = [name for name in given if name not in allowed]
        if unknown or (self.name == "Clip" and not given):
            raise PassError(
                f"activation {self.name} takes the parameters ({', '.join(allowed)}), "
                f"not ({', '.join(given)}); correct the call"
            )
        merged = {**defaults, **given}
        ordered = tuple((name, float(merged[name])) for name in allowed if name in merged)
        object.__setattr__(self, "parameters", ordered)

    @classmethod
    def of(cls, name: str, **parameters: float) -> Activation:
        """The activation of that name; parameters that are left out have ONNX's defaults."""
        return cls(name, tuple(parameters.items()))

    def parameter(self, name: str, default: float | None = None) -> float:
        """The (first) parameter of that name; raises PassError where there is no default."""
        for key, value in self.parameters:
            if key == name:
                return value
        if default is None:
            raise PassError(f"activation {self} has no parameter '{name}'")
        return default

    def __call__(self, x: Array) -> Array:
        """Values of the function, in the shape of `x`.

        float32 and float64 are computed and returned in their own precision, float16 is computed
        in float32 and rounded, anything else is taken as float64.
        """
        x = np.asarray(x)
        if x.dtype == np.float16:
            return self(x.astype(np.float32)).astype(np.float16)
        if x.dtype not in (np.float32, np.float64):
            x = x.astype(np.float64)
        return np.asarray(_FUNCTIONS[self.name](x, self), x.dtype)

    def __str__(self) -> str:
        if not self.parameters or self.name in ("Selu", "PRelu"):
            return self.name
        inside = ", ".join(f"{name}={value:g}" for name, value in self.parameters)
        return f"{self.name}({inside})"


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, small) / (1 + small))


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(x, x.dtype.type(0)))


def _clip(x: Array, function: Activation) -> Array:
    low = function.parameter("min", -np.inf)
    return np.asarray(np.minimum(np.maximum(x, low), function.parameter("max", np.inf)))


def _negative_exponential(x: Array) -> Array:
    return np.expm1(np.minimum(x, 0))


def _prelu(x: Array, function: Activation) -> Array:
    slopes = np.array([value for name, value in function.parameters if name == "slope"], x.dtype)
    trailing = int(function.parameter("trailing_axes", 0.0))
    return np.where(x < 0, x * slopes.reshape(-1, *(1,) * trailing), x)


def _selu(x: Array, function: Activation) -> Array:
    alpha, gamma = function.parameter("alpha"), function.parameter("gamma")
    return gamma * (np.maximum(x, 0) + alpha * _negative_exponential(x))


def _celu(x: Array, function: Activation) -> Array:
    alpha = function.parameter("alpha")
    return np.maximum(x, 0) + alpha * _negative_exponential(x / alpha)


def _hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    return np.clip(alpha * x + beta, 0, 1)


def _gelu_tanh(x: Array) -> Array:
    inner = np.sqrt(2 / np.pi) * (x + GELU_TANH_CUBE * x * x * x)
    return np.asarray(x / 2 * (1 + np.tanh(inner.astype(x.dtype))))


_FUNCTIONS: Mapping[str, Callable[[Array, Activation], Array]] = MappingProxyType(
    {
        "Relu": lambda x, _: np.maximum(x, 0),
        "Relu6": lambda x, _: np.clip(x, 0, 6),
        "Clip": _clip,
        "LeakyRelu": lambda x, f: np.where(x < 0, f.parameter("alpha") * x, x),
        "PRelu": _prelu,
        "ThresholdedRelu": lambda x, f: np.where(x > f.parameter("alpha"), x, 0),
        "Elu": lambda x, f: np.maximum(x, 0) + f.parameter("alpha") * _negative_exponential(x),
        "Selu": _selu,
        "Celu": _celu,
        "Sigmoid": lambda x, _: _sigmoid(x),
        "HardSigmoid": lambda x, f: _hard_sigmoid(x, f.parameter("alpha"), f.parameter("beta")),
        "Tanh": lambda x, _: np.tanh(x),
        "Softplus": lambda x, _: _softplus(x),
        "Softsign": lambda x, _: x / (1 + np.abs(x)),
        "HardSwish": lambda x, _: x * _hard_sigmoid(x, 1 / 6, 0.5),
        "Silu": lambda x, _: x * _sigmoid(x),
        "QuickGelu": lambda x, _: x * _sigmoid(QUICK_GELU_ALPHA * x),
        "Gelu": lambda x, _: x / 2 * (1 + erf(x / np.sqrt(x.dtype.type(2)))),
        "GeluTanh": lambda x, _: _gelu_tanh(x),
        "Mish": lambda x, _: x * np.tanh(_softplus(x)),
        "Identity": lambda x, _: x,
    }
)
