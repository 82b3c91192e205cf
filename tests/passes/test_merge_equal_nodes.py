"""Equal branches are computed once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from normalizing import assert_kept, graph_of, operators, rewritten

from actcc.passes.merge_equal_nodes import MergeEqualNodes

MERGE = MergeEqualNodes()
W = np.random.default_rng(0).standard_normal((4, 4, 3, 3)).astype(np.float32)


def test_equal_branches_fall_together_node_by_node() -> None:
    body = "a = Conv(x, w) b = Relu(a) c = Conv(x, v) d = Relu(c) y = Add(b, d)"
    result, notes = rewritten(graph_of(body, constants={"w": W, "v": W.copy()}), MERGE)
    assert operators(result) == ["Conv", "Relu", "Add"]
    assert notes == "merged 1 Conv with equal ones; merged 1 Relu with equal ones"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.sampled_from(["Relu", "Neg", "Abs"]), st.integers(0, 9)), max_size=8),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5),
)
def test_no_two_nodes_that_are_left_are_equal(
    unary: list[tuple[str, int]], pairs: list[tuple[int, int]]
) -> None:
    tensors, lines = ["x"], []
    for op, source in unary:
        tensors.append(f"t{len(tensors)}")
        lines.append(f"{tensors[-1]} = {op}({tensors[source % (len(tensors) - 1)]})")
    for first, second in pairs:
        tensors.append(f"t{len(tensors)}")
        known = len(tensors) - 1
        lines.append(f"{tensors[-1]} = Add({tensors[first % known]}, {tensors[second % known]})")
    lines.append(f"y = Sum({', '.join(tensors)})")
    result, _ = rewritten(graph_of(" ".join(lines), (2, 3)), MERGE)
    keys = [(n.op, *(t.name for t in n.inputs)) for n in result.nodes()]
    assert len(set(keys)) == len(keys)


def test_outputs_keep_their_names() -> None:
    body = "a = Relu(x) b = Neg(a) y = Relu(x) z = Neg(y) p = Add(b, z)"
    result, _ = rewritten(graph_of(body, outputs="y p"), MERGE)
    assert operators(result) == ["Relu", "Neg", "Add"]
    assert [tensor.name for tensor in result.outputs] == ["y", "p"]


def test_two_outputs_with_one_value_stay_two_nodes() -> None:
    assert_kept(graph_of("y = Relu(x) z = Relu(x)", outputs="y z"), MERGE, "need a node each")


def test_nodes_with_several_results_merge() -> None:
    body = "a, b = Split <axis = 1> (x, two) c, d = Split <axis = 1> (x, too) y = Sum(a, b, c, d)"
    halves = np.array([2, 2])
    result, _ = rewritten(graph_of(body, constants={"two": halves, "too": halves}), MERGE)
    assert operators(result) == ["Split", "Sum"]


@pytest.mark.parametrize(
    "body",
    [
        "a = LeakyRelu <alpha = 0.1> (x) b = LeakyRelu <alpha = 0.2> (x) y = Add(a, b)",
        "a = Conv(x, w) b = Conv(x, u) y = Add(a, b)",
        "a = Sub(x, one) b = Sub(one, x) y = Add(a, b)",
        "a = QuantizeLinear(x, one, zero) b = DequantizeLinear(a, one, zero) "
        "c = DequantizeLinear(a, one, zero) y = Add(b, c)",
    ],
)
def test_what_differs_or_has_to_be_there_twice_stays(body: str) -> None:
    given = {"w": W, "u": W + 1, "one": np.float32(1), "zero": np.uint8(0)}
    used = {name: value for name, value in given.items() if name in body}
    assert_kept(graph_of(body, constants=used), MERGE)


def test_random_nodes_stay() -> None:
    body = "a = RandomNormalLike(x) b = RandomNormalLike(x) y = Sub(a, b)"
    graph = graph_of(body)
    result, _ = MERGE.run(graph.copy())
    assert operators(result) == operators(graph)


def test_zeros_of_different_sign_are_different_constants() -> None:
    constants = {"p": np.float32(0.0), "q": np.float32(-0.0)}
    graph = graph_of("a = Div(x, p) b = Div(x, q) y = Less(a, b)", (1, 4), constants, "bool:y")
    result, _ = MERGE.run(graph.copy())
    assert operators(result) == ["Div", "Div", "Less"]
