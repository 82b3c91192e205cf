"""A normal form has the values of the expression that it was made from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actcc.activations import algebra as a
from actcc.activations.algebra import TooComplex, X
from actcc.activations.error_function import erf

POINTS = np.linspace(-4, 4, 41)
VALUES = {
    "relu": lambda p: np.maximum(p, 0),
    "clip01": lambda p: np.clip(p, 0, 1),
    "tanh": np.tanh,
    "erf": erf,
    "exp": np.exp,
    "softplus": lambda p: np.logaddexp(p, 0),
    "reciprocal": lambda p: 1 / p,
    "step": lambda p: np.where(p > 0, 1.0, 0.0),
}


def values_of(form, x):
    total = np.zeros_like(x)
    for monomial, coefficient in form.terms:
        product = np.full_like(x, coefficient)
        for atom in monomial:
            product *= (
                x if atom.argument is None else VALUES[atom.name](values_of(atom.argument, x))
            )
        total += product
    return total


UNARY = [
    (a.relu, VALUES["relu"]),
    (a.clip01, VALUES["clip01"]),
    (a.tanh, np.tanh),
    (a.erf, erf),
    (a.sigmoid, lambda p: 1 / (1 + np.exp(-p))),
    (a.softplus, VALUES["softplus"]),
    (a.absolute, np.abs),
    (lambda p: a.clip(p, 0.0, 6.0), lambda p: np.clip(p, 0, 6)),
    (lambda p: a.clip(p, -1.0, 2.0), lambda p: np.clip(p, -1, 2)),
    (lambda p: a.elu(p, 0.5), lambda p: np.maximum(p, 0) + 0.5 * np.expm1(np.minimum(p, 0))),
    (lambda p: a.reciprocal(1 + a.absolute(p)), lambda p: 1 / (1 + np.abs(p))),
    (lambda p: a.reciprocal(2 + 2 * a.exponential(p)), lambda p: 1 / (2 + 2 * np.exp(p))),
    (lambda p: a.logarithm(1 + a.exponential(p)), VALUES["softplus"]),
]
BINARY = [
    (lambda p, q: p + q, np.add),
    (lambda p, q: p - q, np.subtract),
    (lambda p, q: p * q, np.multiply),
    (a.maximum, np.maximum),
    (a.minimum, np.minimum),
]
numbers = st.sampled_from([-6.0, -3.0, -1.0, -0.5, 0.1, 0.25, 1.0, 3.0, 6.0])
leaves = st.one_of(
    st.just((X, POINTS)), numbers.map(lambda v: (a.number(v), np.full_like(POINTS, v)))
)


def _combine(children):
    unary = st.tuples(st.sampled_from(UNARY), children).map(lambda pair: _apply(pair[0], pair[1]))
    binary = st.tuples(st.sampled_from(BINARY), children, children).map(
        lambda triple: _apply(triple[0], triple[1], triple[2])
    )
    return st.one_of(unary, binary)


def _apply(functions, *operands):
    """The form, None where it is given up, and the values."""
    on_forms, on_values = functions
    values = on_values(*(operand[1] for operand in operands))
    if any(operand[0] is None for operand in operands):
        return None, values
    try:
        return on_forms(*(operand[0] for operand in operands)), values
    except TooComplex:
        return None, values


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.recursive(leaves, _combine, max_leaves=8))
def test_form_has_the_values_of_its_expression(pair):
    form, values = pair
    if form is not None:
        scale = 1 + np.abs(values).max()
        np.testing.assert_allclose(values_of(form, POINTS), values, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (a.maximum(X, 0.1 * X), X - 0.9 * a.minimum(X, a.number(0))),
        (a.minimum(a.relu(X), a.number(6)), a.clip(X, 0.0, 6.0)),
        (a.relu(a.minimum(X, a.number(6))), a.clip(X, 0.0, 6.0)),
        (a.clip(X + 3, 0.0, 6.0) / 6, a.clip01(X / 6 + 0.5)),
        (1 - a.sigmoid(-X), a.sigmoid(X)),
        (a.reciprocal(1 + a.exponential(-X)), a.sigmoid(X)),
        (0.5 * X * (1 + a.tanh(0.5 * X)), X * a.sigmoid(X)),
        (a.softplus(-X) + X, a.softplus(X)),
        (-a.erf(-X), a.erf(X)),
    ],
)
def test_equal_functions_have_equal_forms(left, right):
    assert left.skeleton == right.skeleton
    assert left.numbers == pytest.approx(right.numbers, rel=1e-12)


@pytest.mark.parametrize(
    ("left", "right"),
    [(a.relu(X), a.relu(X - 1)), (a.tanh(X), a.erf(X)), (X * a.tanh(X), a.tanh(X))],
)
def test_different_functions_have_different_skeletons(left, right):
    assert left.skeleton != right.skeleton


@pytest.mark.parametrize(
    "build",
    [
        lambda: a.clip(X, 2.0, 1.0),
        lambda: a.reciprocal(a.number(0.0)),
        lambda: a.logarithm(X),
        lambda: X**5,
        lambda: a.tanh(a.tanh(a.tanh(X))),
    ],
)
def test_expressions_beyond_activations_are_given_up(build):
    with pytest.raises(TooComplex):
        build()
