"""How each activation can be written, and writing it.

A spelling is an expression of ONNX operators, so that a new one is one line of a table. The opset
of a model is never raised: a spelling that needs a higher one is refused with a reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from actcc.activations.functions import GELU_TANH_CUBE, QUICK_GELU_ALPHA, Activation
from actcc.activations.operators import CONTRIB
from actcc.graph import Graph, Tensor
from actcc.site import Site

# Element types by the name that sites carry; numpy has no bfloat16 to write constants in.
WRITABLE: Mapping[str, int] = MappingProxyType(
    {
        "float16": onnx.TensorProto.FLOAT16,
        "float32": onnx.TensorProto.FLOAT,
        "float64": onnx.TensorProto.DOUBLE,
    }
)
_CLIP_WITH_INPUTS = 11
_CONTRIB_OPSET = 9  # where there is no kernel, ONNX Runtime writes them out, with Erf of opset 9
_CONTRIB_TYPES = ("float16", "float32")


@dataclass(frozen=True)
class Input:
    """The tensor that an activation reads."""


Operand: TypeAlias = "Input | Call | float | None"


@dataclass(frozen=True)
class Call:
    """One operator; the operands are the input, other calls, constants, or left out (None)."""

    operator: str
    operands: tuple[Operand, ...]
    attributes: tuple[tuple[str, float | str], ...] = ()
    domain: str = ""

    def calls(self) -> Iterator[Call]:
        """This call and those inside it, operands first."""
        for operand in self.operands:
            if isinstance(operand, Call):
                yield from operand.calls()
        yield self


@dataclass(frozen=True)
class Spelling:
    """One way to write an activation.

    Attributes:
        name: the operators that tell it from other spellings.
        opset: the first version of the ONNX operators that has what it needs.
        expression: what is written, for the parameters of an activation.
        domain: other than ONNX's own; then only some runtimes can run it.
        fits: whether it can be written with given parameters.
    """

    name: str
    opset: int
    expression: Callable[[Activation], Call]
    domain: str = ""
    fits: Callable[[Activation], bool] = lambda activation: True

    def operators(self, activation: Activation) -> tuple[str, ...]:
        """Operators in the order of writing, as in `Match.spelling`."""
        calls = self.expression(activation).calls()
        return tuple(f"{c.domain}.{c.operator}" if c.domain else c.operator for c in calls)

    def obstacle(self, activation: Activation, opset: int, element: str, contrib: bool) -> str:
        """Why it cannot be written in a model; empty where it can.

        Args:
            opset: of the model.
            element: name of the element type, "float16".
            contrib: whether operators of com.microsoft may be used.
        """
        if element not in WRITABLE:
            return f"constants of type {element} cannot be written"
        if self.domain and not contrib:
            return (
                f"only ONNX Runtime runs operators of {self.domain}; "
                "set contrib_operators = true in the target's settings"
            )
        if opset < self.opset:
            return f"needs opset {self.opset}, the model has {opset}"
        for call in self.expression(activation).calls():
            if element not in _element_types(call, opset):
                return f"operator {call.operator} takes no {element} at opset {opset}"
        return ""


def _element_types(call: Call, opset: int) -> frozenset[str]:
    if call.domain:
        return frozenset(_CONTRIB_TYPES)
    schema = onnx.defs.get_schema(call.operator, opset)
    names = {"tensor(float16)": "float16", "tensor(float)": "float32", "tensor(double)": "float64"}
    return frozenset(names[text] for text in schema.inputs[0].types if text in names)


X = Input()


def _call(operator: str, *operands: Operand, domain: str = "", **attributes: float | str) -> Call:
    return Call(operator, operands, tuple(attributes.items()), domain)


def _operator(name: str, opset: int) -> Spelling:
    """The operator of the same name, with its parameters as attributes."""
    return Spelling(name, opset, lambda f: Call(name, (X,), f.parameters))


def _contrib(name: str, **attributes: float) -> Spelling:
    return Spelling(
        f"{CONTRIB}.{name}",
        _CONTRIB_OPSET,
        lambda f: _call(name, X, domain=CONTRIB, **attributes),
        CONTRIB,
    )


def _with(name: str, opset: int, expression: Call) -> Spelling:
    return Spelling(name, opset, lambda f: expression)


def _bounds(f: Activation) -> tuple[float | None, float | None]:
    given = dict(f.parameters)
    return given.get("min"), given.get("max")


def _max_min(f: Activation) -> Call:
    low, high = _bounds(f)
    if low is None:
        return _call("Min", X, high)
    raised = _call("Max", X, low)
    return raised if high is None else _call("Min", raised, high)


def _hard_sigmoid(f: Activation) -> Call:
    scaled = _call("Mul", X, f.parameter("alpha"))
    beta = f.parameter("beta")
    return _call("Clip", _call("Add", scaled, beta) if beta else scaled, 0.0, 1.0)


def _elu_as_selu(f: Activation) -> Call:
    return _call("Mul", _call("Elu", X, alpha=f.parameter("alpha")), f.parameter("gamma"))


def _celu_as_elu(f: Activation) -> Call:
    alpha = f.parameter("alpha")
    return _call("Mul", _call("Elu", _call("Div", X, alpha), alpha=1.0), alpha)


_ERF_GATE = _call("Add", _call("Erf", _call("Div", X, math.sqrt(2))), 1.0)
_CUBE = _call("Mul", _call("Mul", X, X), X)
_INNER = _call("Mul", _call("Add", X, _call("Mul", _CUBE, GELU_TANH_CUBE)), math.sqrt(2 / math.pi))
_TANH_GATE = _call("Add", _call("Tanh", _INNER), 1.0)
_SIXTH = _call("Mul", _call("Clip", _call("Add", X, 3.0), 0.0, 6.0), 1 / 6)
_QUICK_GATE = _call("Sigmoid", _call("Mul", X, QUICK_GELU_ALPHA))

# The first that is legal is the one to prefer where nothing is measured. Opset 7 is the first in
# which constants broadcast without an attribute (8 for Max and Min).
_SPELLINGS: Mapping[str, tuple[Spelling, ...]] = MappingProxyType(
    {
        "Relu": (_operator("Relu", 6),),
        "Relu6": (_with("Clip", 6, _call("Clip", X, 0.0, 6.0)),),
        "Clip": (
            Spelling("Clip", 6, lambda f: _call("Clip", X, *_bounds(f))),
            Spelling("Max+Min", 8, _max_min),
        ),
        "LeakyRelu": (
            _operator("LeakyRelu", 6),
            Spelling(
                "Mul+Max",
                8,
                lambda f: _call("Max", X, _call("Mul", X, f.parameter("alpha"))),
                fits=lambda f: 0 < f.parameter("alpha") < 1,
            ),
        ),
        "PRelu": (),
        "ThresholdedRelu": (_operator("ThresholdedRelu", 10),),
        "Elu": (_operator("Elu", 6),),
        "Selu": (_operator("Selu", 6), Spelling("Elu+Mul", 7, _elu_as_selu)),
        "Celu": (_operator("Celu", 12), Spelling("Elu+Mul", 7, _celu_as_elu)),
        "Sigmoid": (_operator("Sigmoid", 6),),
        "HardSigmoid": (_operator("HardSigmoid", 6), Spelling("Mul+Clip", 7, _hard_sigmoid)),
        "Tanh": (_operator("Tanh", 6),),
        "Softplus": (_operator("Softplus", 1),),
        "Softsign": (
            _operator("Softsign", 1),
            _with("Abs+Div", 7, _call("Div", X, _call("Add", _call("Abs", X), 1.0))),
        ),
        "HardSwish": (
            _operator("HardSwish", 14),
            _with(
                "HardSigmoid+Mul",
                7,
                _call("Mul", X, _call("HardSigmoid", X, alpha=1 / 6, beta=0.5)),
            ),
            _with("Clip+Mul", 7, _call("Mul", X, _SIXTH)),
        ),
        "Silu": (
            _with("Sigmoid+Mul", 7, _call("Mul", X, _call("Sigmoid", X))),
            _with("Swish", 24, _call("Swish", X, alpha=1.0)),
            _contrib("QuickGelu", alpha=1.0),
        ),
        "QuickGelu": (
            _with("Sigmoid+Mul", 7, _call("Mul", X, _QUICK_GATE)),
            _with("Swish", 24, _call("Swish", X, alpha=QUICK_GELU_ALPHA)),
            _contrib("QuickGelu", alpha=QUICK_GELU_ALPHA),
        ),
        "Gelu": (
            _with("Gelu", 20, _call("Gelu", X, approximate="none")),
            _with("Erf", 9, _call("Mul", _call("Mul", X, _ERF_GATE), 0.5)),
            _contrib("Gelu"),
        ),
        "GeluTanh": (
            _with("GeluTanh", 20, _call("Gelu", X, approximate="tanh")),
            _with("Tanh", 7, _call("Mul", _call("Mul", X, _TANH_GATE), 0.5)),
            _contrib("FastGelu"),
        ),
        "Mish": (
            _operator("Mish", 18),
            _with(
                "Softplus+Tanh+Mul",
                7,
                _call("Mul", X, _call("Tanh", _call("Softplus", X))),
            ),
        ),
        "Identity": (_operator("Identity", 1),),
    }
)


def spellings_of(activation: Activation) -> tuple[Spelling, ...]:
    """All ways to write an activation, the preferred one first."""
    return tuple(s for s in _SPELLINGS[activation.name] if s.fits(activation))


def write(
    graph: Graph, site: Site, activation: Activation, spelling: Spelling, element: str
) -> Tensor:
    """Put an activation in the place of a site; constants are written in the type `element`.

    Returns:
        The tensor that the site writes, under its old name.

    Raises:
        PassError: a tensor inside the site is used outside it.
    """
    writer = _Writer(graph, site, np.dtype(element))
    root = spelling.expression(activation)
    operands, attributes = writer.prepare(root)
    return graph.replace(site, root.operator, operands, domain=root.domain or None, **attributes)


@dataclass(frozen=True)
class _Writer:
    """Adds the nodes of one expression, each call once."""

    graph: Graph
    site: Site
    dtype: np.dtype[Any]

    def prepare(self, call: Call) -> tuple[list[Any], dict[str, Any]]:
        """Operands and attributes of a call, with the nodes before it added."""
        attributes: dict[str, Any] = dict(call.attributes)
        operands = list(call.operands)
        if call.operator == "Clip" and self.graph.opset < _CLIP_WITH_INPUTS:
            bounds = zip(("min", "max"), operands[1:], strict=False)
            attributes |= {name: bound for name, bound in bounds if bound is not None}
            del operands[1:]
        while operands[-1] is None:
            operands.pop()
        return [self._operand(operand) for operand in operands], attributes

    def _operand(self, operand: Operand) -> Any:
        if isinstance(operand, Input):
            return self.site.reads
        if isinstance(operand, Call):
            operands, attributes = self.prepare(operand)
            return self.graph.insert(
                operand.operator,
                operands,
                domain=operand.domain or None,
                like=self.site.reads if operand.domain else None,
                **attributes,
            )
        if operand is None:
            return gs.Variable.empty()
        return np.asarray(operand, self.dtype)
