"""Functions that the model defines become their own nodes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import inliner

from actcc.graph import Graph, Interface, verify
from actcc.graph.compare import compare
from actcc.passes.inline_functions import InlineFunctions
from actcc.runtime import random_feeds, run, session

SILU = '<domain: "local", opset_import: ["" : 18]> silu (x) => (z) { s = Sigmoid(x) z = Mul(x, s) }'
TWICE = """<domain: "local", opset_import: ["" : 18, "local" : 1]> twice (x) => (z) {
  a = local.silu(x) z = local.silu(a)
}"""


def net(body: str, *functions: str) -> Graph:
    text = f"""
        <ir_version: 9, opset_import: ["" : 18, "local" : 1]>
        net (float[2,3] x) => (float[2,3] y) {{ {body} }} {" ".join(functions)}
    """
    return Graph.load(onnx.parser.parse_model(text))


def inlined(graph: Graph) -> tuple[Graph, list[str]]:
    result, notes = InlineFunctions().run(graph.copy())
    verify(result, Interface.of(graph), ["inline-functions"])
    assert compare(graph, result, [random_feeds(graph, 0)]).agrees(1e-6)
    return result, notes


def operators(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes()]


def test_a_call_becomes_the_nodes_of_the_function() -> None:
    graph, notes = inlined(net("[a] h = local.silu(x) [b] y = local.silu(h)", SILU))
    assert operators(graph) == ["Sigmoid", "Mul", "Sigmoid", "Mul"]
    assert graph.functions == []
    assert notes == ["inlined 2 calls of 1 functions"]


def test_functions_that_call_functions_are_inlined_to_the_end() -> None:
    graph, notes = inlined(net("y = local.twice(x)", TWICE, SILU))
    assert operators(graph) == ["Sigmoid", "Mul", "Sigmoid", "Mul"]
    assert notes == ["inlined 3 calls of 2 functions"]


def test_a_body_of_an_older_operator_set_is_converted() -> None:
    older = """<domain: "local", opset_import: ["" : 12]> mean (x) => (z) {
      m = ReduceSum<axes = [1]>(x) z = Sub(x, m)
    }"""
    graph = Graph.load(
        onnx.parser.parse_model(
            '<ir_version: 9, opset_import: ["" : 18, "local" : 1]> '
            f"net (float[2,3] x) => (float[2,3] y) {{ y = local.mean(x) }} {older}"
        )
    )
    result, notes = InlineFunctions().run(graph.copy())
    assert notes == ["inlined 1 calls of 1 functions"]
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = run(session(result), {"x": x})["y"]
    np.testing.assert_allclose(found, x - x.sum(axis=1, keepdims=True))


IF = """
  flag = Constant <value = bool {1}> ()
  y = If (flag) <
    then_branch = one () => (float[2,3] u) { u = local.silu(x) },
    else_branch = two () => (float[2,3] v) { v = local.silu(x) }
  >
"""


def test_calls_in_subgraphs_count() -> None:
    _, notes = inlined(net(IF, SILU))
    assert notes == ["inlined 2 calls of 1 functions"]


@pytest.mark.parametrize(
    ("body", "caller", "left"),
    [(IF, "", 2), ("y = local.outer(x)", SILU.replace("Sigmoid", "local.silu"), 1)],
)
def test_calls_that_are_left_inside_are_said(
    body: str, caller: str, left: int, without_conversion: None
) -> None:
    older = SILU.replace('"" : 18', '"" : 16')
    if caller:
        caller = caller.replace(" silu (", " outer (").replace('"" : 18', '"" : 18, "local" : 1')
    _, notes = inlined(net(body, older, caller))
    said = "calls of 'silu' are left: it is written for another version of operators"
    assert notes[-1] == f"{left} {said}"


@pytest.fixture
def without_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnx's inliner, where no version can be converted into another."""
    convert = inliner.inline_local_functions

    def refusing(model: onnx.ModelProto, convert_version: bool = False) -> object:
        if convert_version:
            raise RuntimeError("no adapter")
        return convert(model)

    monkeypatch.setattr(inliner, "inline_local_functions", refusing)


def test_a_function_that_cannot_be_converted_is_left_and_said(without_conversion: None) -> None:
    older = SILU.replace('"" : 18', '"" : 16').replace("silu (", "gate (")
    graph, notes = inlined(net("h = local.silu(x) y = local.gate(h)", SILU, older))
    assert operators(graph) == ["Sigmoid", "Mul", "gate"]
    assert [found.name for found in graph.functions] == ["gate"]
    assert notes == [
        "inlined 1 calls of 1 functions",
        "1 calls of 'gate' are left: it is written for another version of operators",
    ]


def test_a_model_without_functions_is_the_same_object() -> None:
    graph = net("y = Relu(x)")
    assert InlineFunctions().run(graph) == (graph, [])


def test_weights_and_bound_shapes_stay() -> None:
    text = """
        <ir_version: 9, opset_import: ["" : 18, "local" : 1]>
        net (float[N,64] x) => (float[N,64] y) { h = MatMul(x, w) y = local.silu(h) }
    """
    model = onnx.parser.parse_model(f"{text} {SILU}")
    weights = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    graph, _ = inlined(Graph.load(model, {"x": (2, 64)}))
    held = graph.constant("w")
    assert held is not None
    np.testing.assert_array_equal(held, weights)
    assert graph.shape("y") == (2, 64)
