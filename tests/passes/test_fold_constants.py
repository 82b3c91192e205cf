"""Subexpressions of constants."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from actcc.graph import Graph, Interface, verify
from actcc.graph.compare import compare
from actcc.passes.fold_constants import FoldConstants
from actcc.runtime import random_feeds


def net(
    body: str,
    outputs: str = "float[3] y",
    constants: str = "float[3] w = {1.0, -2.0, 3.0}",
    inputs: str = "float[3] x",
    opset: int = 17,
) -> Graph:
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]>
        net ({inputs}) => ({outputs}) {f"<{constants}>" if constants else ""} {{ {body} }}
        """
    )
    return Graph.load(model)


def folded(graph: Graph) -> Graph:
    result, notes = FoldConstants().run(graph.copy())
    verify(result, Interface.of(graph), ["fold-constants"])
    gone = len(list(graph.nodes())) - len(list(result.nodes()))
    expected = [f"computed {gone} nodes of constants once and for all"] if gone else []
    assert notes == expected
    return result


def operators_after(graph: Graph) -> list[str]:
    result = folded(graph)
    assert compare(graph, result, [random_feeds(graph, 0)]).agrees(0)
    return [node.op for node in result.nodes()]


@pytest.mark.parametrize(
    "body",
    [
        "c = Neg(w)  y = Mul(x, c)",
        "c = Neg(w)  d = Exp(c)  e = Add(d, w)  y = Mul(x, e)",
        "k = Constant<value_float = 2.0>()  c = Mul(w, k)  y = Mul(x, c)",
        "i = Constant<value_ints = [2, 1, 0]>()  c = Gather(w, i)  y = Mul(x, c)",
        "s = Shape(x)  c = ConstantOfShape<value = float[1] {2.0}>(s)  y = Mul(x, c)",
        "s = Shape(x)  f = Cast<to=1>(s)  y = Mul(x, f)",
        "n = Size(x)  f = Cast<to=1>(n)  y = Mul(x, f)",
        "s = Shape<start=-1, end=5>(x)  f = Cast<to=1>(s)  y = Mul(x, f)",
    ],
)
def test_constants_are_computed_once(body: str) -> None:
    assert operators_after(net(body)) == ["Mul"]


def test_both_outputs_of_a_node_are_computed() -> None:
    graph = net(
        "c, d = TopK(w, k)  f = Cast<to=1>(d)  g = Add(c, f)  y = Mul(x, g)",
        constants="float[3] w = {1.0, -2.0, 3.0}, int64[1] k = {3}",
    )
    assert operators_after(graph) == ["Mul"]


def test_a_value_that_two_nodes_read_is_computed_for_both() -> None:
    assert operators_after(net("c = Neg(w)  a = Mul(x, c)  y = Add(a, c)")) == ["Mul", "Add"]


def test_a_weight_that_is_used_elsewhere_stays_as_it_was() -> None:
    result = folded(net("c = Neg(w)  a = Mul(x, c)  y = Add(a, w)"))
    np.testing.assert_array_equal(result.constant("w"), [1, -2, 3])


def test_a_constant_output_keeps_its_node() -> None:
    graph = net("c = Neg(w)  y = Mul(x, c)", "float[3] y, float[3] c")
    assert operators_after(graph) == ["Neg", "Mul"]


@pytest.mark.parametrize(
    "body",
    [
        "c = RandomNormalLike(w)  y = Mul(x, c)",
        "c = RandomNormal<shape=[3]>()  y = Mul(x, c)",
        "u = Abs(w)  p = Clip(u, zero, one)  c = Bernoulli(p)  y = Mul(x, c)",
    ],
)
def test_random_values_are_never_computed(body: str) -> None:
    constants = "float[3] w = {1.0, -2.0, 3.0}, float zero = {0.0}, float one = {1.0}"
    kept = {node.op for node in folded(net(body, constants=constants)).nodes()}
    assert kept & {"RandomNormalLike", "RandomNormal", "Bernoulli"}


def test_quantized_weights_stay_quantized() -> None:
    graph = net(
        "c = DequantizeLinear(w, s)  y = Mul(x, c)",
        constants="int8[3] w = {1, -2, 3}, float s = {0.5}",
    )
    assert operators_after(graph) == ["DequantizeLinear", "Mul"]


def test_operators_of_other_domains_are_left_alone() -> None:
    graph = net("c = com.microsoft.QuickGelu<alpha=1.0>(w)  y = Mul(x, c)")
    assert operators_after(graph) == ["QuickGelu", "Mul"]


def test_control_flow_is_left_alone() -> None:
    graph = net(
        """
        c = If(yes) <then_branch = t () => (float[3] p) { p = Neg(w) },
                     else_branch = e () => (float[3] q) { q = Abs(w) }>
        y = Mul(x, c)
        """,
        constants="float[3] w = {1.0, -2.0, 3.0}, bool yes = {1}",
    )
    assert operators_after(graph) == ["If", "Mul"]


def test_a_value_that_a_subgraph_reads_keeps_its_node() -> None:
    graph = net(
        """
        c = Neg(w)
        y = If(b) <then_branch = t () => (float[3] p) { p = Mul(x, c) },
                   else_branch = e () => (float[3] q) { q = Add(x, c) }>
        """,
        inputs="float[3] x, bool b",
    )
    assert operators_after(graph) == ["Neg", "If"]


def test_overridable_weights_are_not_constants() -> None:
    graph = net("c = Neg(w)  y = Mul(x, c)", inputs="float[3] x, float[3] w")
    assert operators_after(graph) == ["Neg", "Mul"]


def test_a_symbolic_shape_is_not_folded() -> None:
    graph = net(
        "s = Shape(x)  f = Cast<to=1>(s)  y = Mul(x, f)",
        'float["N"] y',
        constants="",
        inputs='float["N"] x',
    )
    assert [node.op for node in folded(graph).nodes()] == ["Shape", "Cast", "Mul"]


def test_a_table_that_would_make_the_model_grow_is_not_expanded() -> None:
    graph = net(
        "c = Expand(w, s)  y = Add(x, c)",
        "float[30000, 3] y",
        "float[3] w = {1.0, -2.0, 3.0}, int64[2] s = {30000, 3}",
    )
    assert operators_after(graph) == ["Expand", "Add"]


def test_large_weights_may_be_rearranged_since_they_do_not_grow() -> None:
    model = net(
        "c = Transpose<perm=[1,0]>(v)  y = MatMul(x, c)",
        "float[1024] y",
        "float[3] w = {0.0, 0.0, 0.0}, float[1] v = {0.0}",
        "float[1024] x",
    ).to_proto()
    values = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
    stored = [onnx.numpy_helper.from_array(values, "v")]
    del model.graph.initializer[:]
    model.graph.initializer.extend(stored)
    assert operators_after(Graph.load(model)) == ["MatMul"]


def test_an_integer_division_by_zero_is_left_to_the_run() -> None:
    graph = net(
        "d = Div(a, z)  f = Cast<to=1>(d)  y = Mul(x, f)",
        constants="int64[1] a = {1}, int64[1] z = {0}",
    )
    assert [node.op for node in folded(graph).nodes()] == ["Div", "Cast", "Mul"]


def test_an_operator_without_a_kernel_is_left_alone() -> None:
    graph = net("b = Cast<to=16>(w)  e = Erf(b)  f = Cast<to=1>(e)  y = Mul(x, f)")
    result = folded(graph)
    assert "Erf" in {node.op for node in result.nodes()} or len(list(result.nodes())) == 1


def test_text_is_left_alone() -> None:
    graph = net(
        "c = Concat<axis=0>(w, w)  n = Shape(c)  f = Cast<to=1>(n)  y = Mul(x, f)",
        constants='string[1] w = {"a"}',
    )
    assert [node.op for node in folded(graph).nodes()] == ["Mul"]
