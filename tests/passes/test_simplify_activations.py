"""Activations that change nothing, pairs of Clip, and functions before ArgMax."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from normalizing import assert_kept, graph_of, operators, rewritten

from actcc.graph import Graph
from actcc.passes.simplify_activations import SimplifyActivations
from actcc.runtime import run, session

SIMPLIFY = SimplifyActivations()
NUMBERS = {
    name: np.float32(value)
    for name, value in {"zero": 0, "one": 1, "six": 6, "minus": -2, "half": 0.5}.items()
}


def network(
    body: str, x: tuple[int, ...] = (2, 3, 6, 6), opset: int = 17, outputs: str = "y"
) -> Graph:
    used = {name: value for name, value in NUMBERS.items() if name in body}
    return graph_of(body, x, used, outputs, opset)


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Relu(x) y = Relu(a)", ["Relu"]),
        ("a = Sigmoid(x) y = Relu(a)", ["Sigmoid"]),
        ("a = Sigmoid(x) y = Clip(a, zero, one)", ["Sigmoid"]),
        ("a = HardSigmoid(x) y = Clip(a, zero, one)", ["HardSigmoid"]),
        ("a = Clip(x, zero, six) y = Relu(a)", ["Clip"]),
        ("a = Relu(x) y = Abs(a)", ["Relu"]),
        ("a = Relu(x) y = LeakyRelu <alpha = 0.3> (a)", ["Relu"]),
        ("a = Relu(x) b = MaxPool <kernel_shape = [2, 2]> (a) y = Relu(b)", ["Relu", "MaxPool"]),
        ("a = Relu(x) b = Sigmoid(x) c = Concat <axis = 1> (a, b) y = Relu(c)", None),
        ("a = Relu(x) b = Exp(x) c = Add(a, b) d = Mul(c, a) y = Relu(d)", None),
        ("a = Floor(x) y = Round(a)", ["Floor"]),
        ("a = Sign(x) y = Sign(a)", ["Sign"]),
        ("a = Clip(x, zero, six) y = Clip(a, minus, one)", ["Clip"]),
        ("a = Relu(x) y = Clip(a, minus, six)", ["Clip"]),
        ("a = Clip(x, minus) y = Relu(a)", ["Relu"]),
    ],
)
def test_what_changes_nothing_goes(body: str, left: list[str] | None) -> None:
    graph = network(body)
    result, notes = rewritten(graph, SIMPLIFY)
    assert operators(result) == (operators(graph)[:-1] if left is None else left)
    assert notes


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.integers(-3, 3), min_size=4, max_size=4), st.sampled_from([10, 17]))
def test_clips_of_clips_are_one(bounds: list[int], opset: int) -> None:
    (a, b), (c, d) = sorted(bounds[:2]), sorted(bounds[2:])
    if opset == 10:
        body = f"p = Clip <min = {a}.0, max = {b}.0> (x) y = Clip <min = {c}.0, max = {d}.0> (p)"
        graph = graph_of(body, opset=opset)
    else:
        constants = {name: np.float32(v) for name, v in zip("abcd", (a, b, c, d), strict=True)}
        graph = graph_of("p = Clip(x, a, b) y = Clip(p, c, d)", constants=constants)
    result, _ = rewritten(graph, SIMPLIFY)
    assert operators(result) == ["Clip"]


@pytest.mark.parametrize(
    "body",
    [
        "a = Tanh(x) y = Relu(a)",
        "a = Clip(x, minus, six) y = Relu(a) z = Neg(a)",
        "a = Sub(x, one) y = Relu(a)",
        "a = Sigmoid(x) y = Clip(a, half, one)",
        "a = Relu(x) b = Neg(a) y = Relu(b)",
        "a = Max(x, zero) b = Relu(x) c = Mul(a, x) d = Add(c, b) y = Relu(d)",
    ],
)
def test_what_changes_something_stays(body: str) -> None:
    assert_kept(network(body, outputs="y z" if "z =" in body else "y"), SIMPLIFY)


@pytest.mark.parametrize(
    ("function", "gone"),
    [
        ("a = Sigmoid(x)", True),
        ("a = Tanh(x)", True),
        ("b = LeakyRelu(x) a = Softplus(b)", True),
        ("a = Softmax <axis = 1> (x)", True),
        ("a = LogSoftmax <axis = -3> (x)", True),
        ("b = Add(x, one) a = Mul(six, b)", True),
        ("b = Neg(x) c = Neg(b) a = Sigmoid(c)", True),
        ("a = Softmax <axis = 2> (x)", False),
        ("a = Relu(x)", False),
        ("a = Mul(x, zero)", False),
        ("a = Abs(x)", False),
    ],
)
@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_only_the_order_counts_for_the_largest(function: str, gone: bool, op: str) -> None:
    graph = network(f"{function} y = {op} <axis = 1> (a)", outputs="int64:y")
    result, _ = rewritten(graph, SIMPLIFY, tolerance=0)
    assert operators(result) == ([op] if gone else operators(graph))


def test_a_decreasing_function_turns_the_largest_into_the_smallest() -> None:
    graph = network("a = Mul(x, minus) y = ArgMax <axis = 1, keepdims = 0> (a)", outputs="int64:y")
    result, _ = rewritten(graph, SIMPLIFY, tolerance=0)
    assert operators(result) == ["ArgMin"]


@pytest.mark.parametrize("function", ["Sigmoid", "Neg"])
def test_indices_of_the_largest_need_no_values(function: str) -> None:
    body = f"k = Constant <value_ints = [2]> () a = {function}(x) v, y = TopK <axis = 1> (a, k)"
    result, _ = rewritten(network(body, outputs="int64:y"), SIMPLIFY, tolerance=0)
    assert operators(result) == ["TopK"]


def test_values_of_the_largest_do() -> None:
    body = "k = Constant <value_ints = [2]> () a = Sigmoid(x) y, i = TopK <axis = 1> (a, k)"
    assert_kept(network(body), SIMPLIFY)


def test_a_function_that_is_read_elsewhere_stays() -> None:
    assert_kept(network("a = Sigmoid(x) y = ArgMax(a) z = Neg(a)", outputs="int64:y z"), SIMPLIFY)


@pytest.mark.parametrize(("axis", "gone"), [(1, True), (2, True), (0, False)])
def test_softmax_before_opset_13_runs_over_all_axes_behind(axis: int, gone: bool) -> None:
    graph = network(
        f"a = Softmax <axis = 1> (x) y = ArgMax <axis = {axis}> (a)", opset=11, outputs="int64:y"
    )
    result, _ = rewritten(graph, SIMPLIFY, tolerance=0)
    assert operators(result) == (["ArgMax"] if gone else ["Softmax", "ArgMax"])


def test_where_rounding_hides_the_order_the_index_is_still_that_of_a_largest() -> None:
    graph = network("a = Sigmoid(x) y = ArgMax <axis = 1> (a)", (1, 2, 1, 1), outputs="int64:y")
    result, _ = rewritten(graph, SIMPLIFY)
    x = np.array([40, 50], np.float32).reshape(1, 2, 1, 1)
    before, after = (run(session(each), {"x": x})["y"].item() for each in (graph, result))
    assert (before, after) == (0, 1)


def test_a_tensor_that_is_added_to_itself_again_and_again_is_looked_at_once() -> None:
    doubled = " ".join(f"a{index + 1} = Add(a{index}, a{index})" for index in range(30))
    assert_kept(network(f"a0 = Neg(x) {doubled} y = Relu(a30)", (1, 2)), SIMPLIFY)


def test_indices_of_a_pooling_do_not_lie_where_its_elements_do() -> None:
    graph = graph_of(
        "c = Sigmoid(x) p, i = MaxPool <kernel_shape = [2, 2]> (c) y = Clip(i, zero, three)",
        (1, 3, 6, 6),
        {"zero": np.int64(0), "three": np.int64(3)},
        "int64:y",
    )
    result, _ = rewritten(graph, SIMPLIFY)
    assert operators(result) == ["Sigmoid", "MaxPool", "Clip"]
