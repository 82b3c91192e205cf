"""Element-wise operators of one, two or more operands in TFLite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from actcc.backends.ethos_u.builder import (
    NO_ACTIVATION,
    Builder,
    Order,
    Step,
    Value,
    elements,
    identity,
)
from actcc.backends.ethos_u.flatbuffer import enumeration
from actcc.backends.ethos_u.network import Quantization
from actcc.errors import PricingError
from actcc.graph import Array, Tensor

Rule = Callable[[Builder, Step], None]
_ARITHMETIC = frozenset({"ADD", "SUB", "MUL"})


def binary(code: str) -> Rule:
    """ADD, SUB, MUL, MAXIMUM or MINIMUM; of more than two operands one after the other."""

    def rule(builder: Builder, step: Step) -> None:
        operands = builder.operands(step.node)
        if len(operands) == 1:
            source = builder.value(operands[0])
            builder.rescaled(source.index, step.writes, source)
            return
        shape = builder.shape(step.writes)
        order = common_order(builder, operands, shape)
        found = [operand_index(builder, code, t, order, step.writes) for t in operands]
        combined = found[0]
        for other in found[1:-1]:
            stored = tuple(shape[axis] for axis in order)
            wide = builder.quantization(step.writes)
            combined = builder.scratch(
                code, [combined, other], step.writes, stored, wide, **arithmetic(code)
            )
        builder.put(
            code, [combined, found[-1]], step.writes, order, **arithmetic(code, step.activation)
        )

    return rule


def division(builder: Builder, step: Step) -> None:
    """Div by a constant as MUL with its reciprocal.

    Raises:
        PricingError: the divisor is computed.
    """
    divisor = builder.constant(step.node.inputs[1])
    if divisor is None or not np.all(divisor):
        raise PricingError(
            f"node '{step.node.name}' (Div) divides by what is computed, which no int8 operator "
            "of an Ethos-U does"
        )
    _times(builder, step, np.reciprocal(divisor.astype(np.float64)))


def negation(builder: Builder, step: Step) -> None:
    """Neg as MUL with -1; TFLite's NEG knows no int8."""
    _times(builder, step, np.array(-1.0))


def power(builder: Builder, step: Step) -> None:
    """Pow with exponent 2 as MUL of a tensor with itself.

    Raises:
        PricingError: another exponent.
    """
    exponent = builder.constant(step.node.inputs[1])
    if exponent is None or exponent.size != 1 or float(exponent.reshape(-1)[0]) != 2.0:
        raise PricingError(f"node '{step.node.name}' (Pow) is no square; only squares are lowered")
    source = builder.value(step.node.inputs[0])
    operands = [source.index, source.index]
    builder.put("MUL", operands, step.writes, source.order, **arithmetic("MUL", step.activation))


def unary(code: str, table: str) -> Rule:
    """An operator of one operand that keeps its layout."""

    def rule(builder: Builder, step: Step) -> None:
        source = builder.value(step.node.inputs[0])
        builder.put(code, [source.index], step.writes, source.order, table)

    return rule


def arithmetic(code: str, activation: str = NO_ACTIVATION) -> dict[str, Any]:
    """Table and options of an operator of two operands, as keywords of `Builder.put`."""
    if code not in _ARITHMETIC:
        return {"table": "MaximumMinimumOptions"}
    fused = enumeration("ActivationFunctionType", activation)
    return {"table": f"{code.capitalize()}Options", "FusedActivationFunction": fused}


def common_order(builder: Builder, operands: list[Tensor], shape: tuple[int, ...]) -> Order:
    """The order of the largest operand, brought to the rank of the result."""
    computed = [builder.value(t) for t in operands if builder.constant(t) is None]
    if not computed:
        return identity(len(shape))
    largest = max(computed, key=lambda value: (elements(value.shape), len(value.shape)))
    more = len(shape) - len(largest.shape)
    return (*range(more), *(axis + more for axis in largest.order))


def operand_index(builder: Builder, code: str, tensor: Tensor, order: Order, owner: str) -> int:
    """An operand in that order, of the rank of the result."""
    constant = builder.constant(tensor)
    if constant is None:
        value: Value = builder.with_rank(builder.value(tensor), len(order))
        return builder.arranged(value, order).index
    one_scale: Quantization | None = None
    if code not in _ARITHMETIC:
        one_scale = builder.quantization(owner)
    return constant_index(builder, constant, order, owner, one_scale)


def constant_index(
    builder: Builder,
    values: Array,
    order: Order,
    owner: str,
    quantization: Quantization | None = None,
) -> int:
    """A constant operand in that order, of the rank of the result."""
    values = np.asarray(values, np.float64)
    full = values.reshape((1,) * (len(order) - values.ndim) + values.shape)
    return builder.numbers(full.transpose(order), f"{owner}/operand", quantization)


def _times(builder: Builder, step: Step, factor: Array) -> None:
    shape = builder.shape(step.writes)
    order = common_order(builder, [step.node.inputs[0]], shape)
    source = operand_index(builder, "MUL", step.node.inputs[0], order, step.writes)
    operands = [source, constant_index(builder, factor, order, step.writes)]
    builder.put("MUL", operands, step.writes, order, **arithmetic("MUL", step.activation))


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Add": binary("ADD"),
        "Sum": binary("ADD"),
        "Sub": binary("SUB"),
        "Mul": binary("MUL"),
        "Max": binary("MAXIMUM"),
        "Min": binary("MINIMUM"),
        "Div": division,
        "Neg": negation,
        "Pow": power,
        "Abs": unary("ABS", "AbsOptions"),
        "Exp": unary("EXP", "ExpOptions"),
        "Log": unary("LOG", ""),
    }
)
