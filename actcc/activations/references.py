"""The form of each activation, and the way back from a form to the activation.

A family without parameters is one form. A family with parameters also says how to read them off a
form of its skeleton; the form that they give is then compared with the one that was found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from actcc.activations.algebra import (
    Form,
    TooComplex,
    X,
    absolute,
    clip,
    clip01,
    elu,
    erf,
    relu,
    sigmoid,
    softplus,
    step,
    tanh,
)
from actcc.activations.functions import GELU_TANH_CUBE, QUICK_GELU_ALPHA, Activation


def leaky_relu(p: Form, alpha: float) -> Form:
    """p where p ≥ 0, else alpha·p."""
    return alpha * p + (1 - alpha) * relu(p)


def hard_sigmoid(p: Form, alpha: float, beta: float) -> Form:
    """min(max(alpha·p + beta, 0), 1)."""
    return clip01(alpha * p + beta)


def gelu(p: Form) -> Form:
    """p·Φ(p) (Hendrycks and Gimpel 2016)."""
    return 0.5 * p * (1 + erf(p * math.sqrt(0.5)))


def gelu_tanh(p: Form) -> Form:
    """The approximation of GELU with tanh (Hendrycks and Gimpel 2016, section 2)."""
    return 0.5 * p * (1 + tanh(math.sqrt(2 / math.pi) * (p + GELU_TANH_CUBE * p**3)))


@dataclass(frozen=True)
class Family:
    """An activation with any values of its parameters.

    Attributes:
        form: the form at given parameters.
        read: parameters of a form that has the skeleton of one of the samples.
        samples: parameters whose forms show all skeletons of the family.
    """

    name: str
    form: Callable[..., Form]
    read: Callable[[Form], Mapping[str, float] | None] = lambda form: {}
    samples: Sequence[Mapping[str, float]] = ({},)


def _read_clip(form: Form) -> Mapping[str, float] | None:
    scale = form.coefficient("clip01")
    if scale:
        low = form.coefficient()
        return {"min": low, "max": low + scale}
    if form.coefficient("x"):
        return {"max": -form.argument("relu").coefficient()}
    return {"min": form.coefficient()}


def _read_leaky_relu(form: Form) -> Mapping[str, float] | None:
    alpha = form.coefficient("x")
    return {"alpha": alpha} if alpha > 0 else None


def _read_selu(form: Form) -> Mapping[str, float] | None:
    gamma = form.coefficient("relu")
    return {"alpha": form.coefficient("exp") / gamma, "gamma": gamma}


def _read_celu(form: Form) -> Mapping[str, float] | None:
    return {"alpha": form.coefficient("exp")}


def _read_hard_sigmoid(form: Form) -> Mapping[str, float] | None:
    inner = form.argument("clip01")
    return {"alpha": inner.coefficient("x"), "beta": inner.coefficient()}


# In order: where a form belongs to two families, the first one names it.
FAMILIES: tuple[Family, ...] = (
    Family("Relu", lambda: relu(X)),
    Family("Relu6", lambda: clip(X, 0.0, 6.0)),
    Family(
        "Clip",
        lambda min=None, max=None: clip(X, min, max),
        _read_clip,
        ({"min": 0, "max": 2}, {"min": -1, "max": 3}, {"min": 1}, {"max": 1}, {"max": 0}),
    ),
    Family("LeakyRelu", lambda alpha: leaky_relu(X, alpha), _read_leaky_relu, ({"alpha": 0.1},)),
    Family(
        "ThresholdedRelu",
        lambda alpha: X * step(X - alpha),
        lambda form: {"alpha": -form.argument("step").coefficient()},
        ({"alpha": 1.0},),
    ),
    Family(
        "Elu",
        lambda alpha: elu(X, alpha),
        lambda form: {"alpha": form.coefficient("exp")},
        ({"alpha": 0.5},),
    ),
    Family("Celu", lambda alpha: alpha * elu(X / alpha, 1.0), _read_celu, ({"alpha": 0.5},)),
    Family(
        "Selu",
        lambda alpha, gamma: gamma * elu(X, alpha),
        _read_selu,
        ({"alpha": 1.5, "gamma": 1.1},),
    ),
    Family("Sigmoid", lambda: sigmoid(X)),
    Family(
        "HardSigmoid",
        lambda alpha, beta: hard_sigmoid(X, alpha, beta),
        _read_hard_sigmoid,
        ({"alpha": 0.2, "beta": 0.5}, {"alpha": 0.2, "beta": 0.0}),
    ),
    Family("Tanh", lambda: tanh(X)),
    Family("Softplus", lambda: softplus(X)),
    Family("Softsign", lambda: X / (1 + absolute(X))),
    Family("HardSwish", lambda: X * hard_sigmoid(X, 1 / 6, 0.5)),
    Family("Silu", lambda: X * sigmoid(X)),
    Family("QuickGelu", lambda: X * sigmoid(X * QUICK_GELU_ALPHA)),
    Family("Gelu", lambda: gelu(X)),
    Family("GeluTanh", lambda: gelu_tanh(X)),
    Family("Mish", lambda: X * tanh(softplus(X))),
)
# Written with many constants: worth a word where one of them is wrong.
COMPOSITE = ("HardSwish", "Silu", "QuickGelu", "Gelu", "GeluTanh", "Mish", "Softsign")


def _index_by_skeleton() -> Mapping[str, tuple[Family, ...]]:
    table: dict[str, tuple[Family, ...]] = {}
    for family in FAMILIES:
        for sample in family.samples:
            skeleton = family.form(**sample).skeleton
            if family not in table.get(skeleton, ()):
                table[skeleton] = (*table.get(skeleton, ()), family)
    return MappingProxyType(table)


_BY_SKELETON = _index_by_skeleton()
_FIXED: Mapping[str, Form] = MappingProxyType(
    {family.name: family.form() for family in FAMILIES if family.samples == ({},)}
)


def identify(form: Form, tolerance: float) -> Activation | None:
    """The activation that a form computes, with parameters in float32's shortest notation.

    Args:
        tolerance: relative, for every number of the form.
    """
    for family in _BY_SKELETON.get(form.skeleton, ()):
        parameters = family.read(form)
        if parameters is not None and _is(family, parameters, form, tolerance):
            shortest = {name: float(str(np.float32(value))) for name, value in parameters.items()}
            return Activation.of(family.name, **shortest)
    return None


def _is(family: Family, parameters: Mapping[str, float], form: Form, tolerance: float) -> bool:
    try:
        reference = _FIXED.get(family.name) or family.form(**parameters)
    except TooComplex:
        return False
    return reference.skeleton == form.skeleton and all(
        abs(a - b) <= tolerance * max(abs(a), abs(b))
        for a, b in zip(reference.numbers, form.numbers, strict=True)
    )


def resembling(form: Form) -> tuple[str, ...]:
    """Names of composite activations that differ from a form in numbers alone."""
    families = _BY_SKELETON.get(form.skeleton, ())
    return tuple(family.name for family in families if family.name in COMPOSITE)
