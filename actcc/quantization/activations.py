"""An activation in int8, written with the operators that runtimes have a kernel for.

    Sigmoid, LeakyRelu   one operator, which runtimes compute by a table of 256 entries
    Silu                 x · Sigmoid(x)
    HardSigmoid          x + β/α, cut off at 0 and 1/α by the range of its result
    HardSwish            x · HardSigmoid(x)

HardSigmoid has to be multiplied by α in the end. An int8 tensor is multiplied by saying so of its
scale: what QuantizeLinear wrote in steps of 1/(255·α) DequantizeLinear reads in steps of 1/255.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from actcc.activations import Activation
from actcc.errors import PassError
from actcc.graph import Graph, Tensor
from actcc.quantization.distribution import Range
from actcc.quantization.qdq import OPSET, dequantized, range_of, read, stored
from actcc.quantization.steps import HIGHEST, Step
from actcc.site import Site

_SHARE = Step(1 / HIGHEST, 0)  # of 0 to 1


def has_int8_form(function: Activation) -> bool:
    """Whether a function is one of those above, with parameters that int8 can stand for."""
    if function.name == "HardSigmoid":
        return function.parameter("alpha") > 0 and function.parameter("beta") > 0
    return function.name in _FORMS


def quantize_activation(
    graph: Graph, place: Site, function: Activation, ranges: Mapping[str, Range]
) -> None:
    """Let an activation be computed in int8, in place.

    What it writes keeps its name. What it reads is read as it is where it is quantized already.

    Args:
        ranges: of what it reads and writes, by name.

    Raises:
        PassError: the function has no such form, or a range is missing.
    """
    if not has_int8_form(function):
        raise PassError(f"'{place.writes}': {function} has no form in int8")
    graph.raise_opset(OPSET)
    x = read(graph, graph.tensor(place.reads), ranges)
    form = _FORMS[function.name](graph, x, function)
    step = form.step or Step.of(range_of(ranges, place.writes))
    result = graph.insert(form.op, form.operands, like=x, **dict(form.attributes))
    written = stored(graph, result, step)
    graph.replace(place, "DequantizeLinear", [written, *(form.read_as or step).constants])


@dataclass(frozen=True)
class _Form:
    """The last operator.

    Attributes:
        step: of what it writes, where that does not depend on its range.
        read_as: in which steps that is read again; None for those in which it was written.
    """

    op: str
    operands: list[Tensor]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    step: Step | None = None
    read_as: Step | None = None


def _sigmoid(graph: Graph, x: Tensor, function: Activation) -> _Form:
    return _Form("Sigmoid", [x], step=_SHARE)


def _leaky_relu(graph: Graph, x: Tensor, function: Activation) -> _Form:
    return _Form("LeakyRelu", [x], {"alpha": function.parameter("alpha")})


def _silu(graph: Graph, x: Tensor, function: Activation) -> _Form:
    gate = graph.insert("Sigmoid", [x], like=x)
    return _Form("Mul", [x, dequantized(graph, stored(graph, gate, _SHARE), _SHARE, like=x)])


def _hard_sigmoid(graph: Graph, x: Tensor, function: Activation) -> _Form:
    alpha, beta = function.parameter("alpha"), function.parameter("beta")
    shift = Step(beta / alpha / HIGHEST, 0)
    number = graph.insert("DequantizeLinear", [np.array(HIGHEST, np.uint8), *shift.constants])
    return _Form("Add", [x, number], step=Step(1 / alpha / HIGHEST, 0), read_as=_SHARE)


def _hard_swish(graph: Graph, x: Tensor, function: Activation) -> _Form:
    cut = _hard_sigmoid(graph, x, Activation.of("HardSigmoid", alpha=1 / 6, beta=0.5))
    assert cut.step is not None
    gate = stored(graph, graph.insert(cut.op, cut.operands, like=x), cut.step)
    return _Form("Mul", [x, dequantized(graph, gate, _SHARE, like=x)])


_FORMS: Mapping[str, Callable[[Graph, Tensor, Activation], _Form]] = MappingProxyType(
    {
        "HardSigmoid": _hard_sigmoid,
        "HardSwish": _hard_swish,
        "LeakyRelu": _leaky_relu,
        "Sigmoid": _sigmoid,
        "Silu": _silu,
    }
)
