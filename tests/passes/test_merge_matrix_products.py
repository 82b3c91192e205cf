"""A fully connected layer directly behind another."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actcc.graph import Array, Graph, Interface, verify
from actcc.graph.compare import compare
from actcc.pass_api import Survey, apply_candidates, find_sites
from actcc.passes.merge_matrix_products import MergeMatrixProducts
from actcc.runtime import random_feeds
from actcc.targets import load_target

MERGE = MergeMatrixProducts()
TARGET = load_target("npu1")
RANDOM = np.random.default_rng(0)


def model_of(
    body: str,
    weights: dict[str, Array],
    x: str = "2, 5",
    outputs: str = "y",
    element: str = "float",
) -> Graph:
    declared = ", ".join(f"{element}[] {name}" for name in outputs.split())
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> '
        f"network ({element}[{x}] x) => ({declared}) {{ {body} }}"
    )
    model = onnx.parser.parse_model(text)
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    kind = np.float16 if element == "float16" else np.float32
    for name, values in weights.items():
        values = values if values.dtype == np.int8 else values.astype(kind)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return Graph.load(model)


def survey(graph: Graph) -> Survey:
    return find_sites(graph, [MERGE], TARGET, exact_only=True)


def merged(graph: Graph, tolerance: float = 1e-5) -> list[str]:
    """Operators after the only site's candidate was applied and compared."""
    found = survey(graph)
    assert len(found.sites) == 1, found.refusals
    (site,) = found.sites
    result = apply_candidates(graph, [MERGE], [(site, site.candidates[0].name)])
    verify(result, Interface.of(graph), ["merge-matrix-products"])
    feeds = [random_feeds(graph, 3)]
    assert compare(graph, result, feeds, optimise=False).agrees(tolerance)
    return [node.op for node in result.nodes()]


def refusal(graph: Graph) -> str:
    found = survey(graph)
    assert not found.sites
    (entry,) = found.refusals
    return entry[1].reason


LINEAR = {
    "w": RANDOM.standard_normal((5, 4)),
    "b": RANDOM.standard_normal(4),
    "v": RANDOM.standard_normal((4, 3)),
    "c": RANDOM.standard_normal(3),
}
TWO = "a = MatMul(x, w) y = MatMul(a, v)"


@st.composite
def layers(draw: st.DrawFn, name: str, inputs: int, outputs: int, gemm: bool) -> Any:
    """Text and weights of a layer that reads `x` (first) or `a` and writes `a` or `y`."""
    source, result = ("x", "a") if name == "w" else ("a", "y")
    rows = [(), (1,), (outputs,), (1, outputs), (1, 1)]
    shape = draw(st.sampled_from([None, *rows]))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    weights = {name: random.standard_normal((inputs, outputs))}
    if shape is not None:
        weights[f"{name}b"] = np.asarray(random.standard_normal(shape))
    if not gemm:
        if shape is None:
            return f"{result} = MatMul({source}, {name})", weights
        operands = draw(st.permutations([f"{name}t", f"{name}b"]))
        text = f"{name}t = MatMul({source}, {name}) {result} = Add({', '.join(operands)})"
        return text, weights
    turned = draw(st.integers(0, 1))
    if turned:
        weights[name] = weights[name].T
    alpha, beta = draw(st.sampled_from([1.0, -0.5])), draw(st.sampled_from([1.0, 0.25, 0.0]))
    bias = "" if shape is None else f", {name}b"
    attributes = f"<alpha = {alpha}, beta = {beta}, transB = {turned}>"
    return f"{result} = Gemm {attributes} ({source}, {name}{bias})", weights


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_any_two_layers_in_a_row_become_one(data: st.DataObject) -> None:
    inner = [data.draw(st.integers(1, 5)) for _ in range(3)]
    gemms = [data.draw(st.booleans()) for _ in range(2)]
    first = data.draw(layers("w", inner[0], inner[1], gemms[0]))
    second = data.draw(layers("v", inner[1], inner[2], gemms[1]))
    batch = [2] if any(gemms) else data.draw(st.sampled_from([[2], [2, 3], [2, 1, 3]]))
    x = ", ".join(map(str, [*batch, inner[0]]))
    graph = model_of(f"{first[0]} {second[0]}", {**first[1], **second[1]}, x)
    operators = merged(graph)
    if any(gemms):
        assert operators == ["Gemm"]
    else:
        assert operators in (["MatMul"], ["MatMul", "Add"])


def test_exported_linear_layers_become_one() -> None:
    body = "s = MatMul(x, w) a = Add(b, s) t = MatMul(a, v) y = Add(t, c)"
    assert merged(model_of(body, LINEAR, x="2, 7, 5")) == ["MatMul", "Add"]


def test_a_vector_is_multiplied_alike() -> None:
    assert merged(model_of(TWO, {"w": LINEAR["w"], "v": LINEAR["v"]}, x="5")) == ["MatMul"]


def test_a_chain_is_offered_as_pairs() -> None:
    weights = {**LINEAR, "u": RANDOM.standard_normal((3, 2))}
    body = "s = MatMul(x, w) a = Add(b, s) t = MatMul(a, v) z = MatMul(t, u)"
    graph = model_of(body, weights, outputs="z")
    found = survey(graph)
    assert [site.site.writes for site in found.sites] == ["t", "z"]
    once = apply_candidates(graph, [MERGE], [(found.sites[1], "MatMul")])
    assert merged(once) == ["MatMul", "Add"]


def test_half_precision_is_computed_in_double_and_cast_back() -> None:
    weights = {"w": LINEAR["w"], "v": LINEAR["v"]}
    assert merged(model_of(TWO, weights, element="float16"), tolerance=4e-3) == ["MatMul"]


def test_a_value_that_is_read_elsewhere_stops_it() -> None:
    weights = {"w": LINEAR["w"], "v": LINEAR["v"]}
    graph = model_of(f"{TWO} z = Relu(a)", weights, outputs="y z")
    assert "also read elsewhere" in refusal(graph)
    assert "also read elsewhere" in refusal(model_of(TWO, weights, outputs="y a"))


def test_a_sum_that_is_no_bias_stops_it() -> None:
    weights = {"w": LINEAR["w"], "v": LINEAR["v"]}
    graph = model_of("s = MatMul(x, w) z = Neg(s) a = Add(s, z) y = MatMul(a, v)", weights)
    assert "no constant row" in refusal(graph)
    rows = {**weights, "b": RANDOM.standard_normal((2, 4))}
    graph = model_of("s = MatMul(x, w) a = Add(s, b) y = MatMul(a, v)", rows)
    assert "no constant row" in refusal(graph)


def test_a_gemm_bias_that_differs_by_row_stops_it() -> None:
    weights = {**LINEAR, "b": RANDOM.standard_normal((2, 1))}
    del weights["c"]
    graph = model_of("a = Gemm(x, w, b) y = Gemm(a, v)", weights)
    assert "the first layer: its bias is not constant, or differs by row" in refusal(graph)


def test_a_transposed_input_stops_it() -> None:
    weights = {"w": LINEAR["w"], "v": RANDOM.standard_normal((2, 3))}
    graph = model_of("a = Gemm(x, w) y = Gemm<transA = 1>(a, v)", weights)
    assert "the second layer: it transposes its input" in refusal(graph)


def test_products_of_two_computed_tensors_stay() -> None:
    weights = {"w": LINEAR["w"]}
    graph = model_of("s = MatMul(x, w) t = Transpose(s) y = MatMul(s, t)", weights)
    assert "the second layer: its weights are not one constant matrix" in refusal(graph)


def test_quantized_weights_stop_it() -> None:
    weights = {"q": np.ones((5, 4), np.int8), "scale": np.asarray(0.1), "v": LINEAR["v"]}
    graph = model_of(f"w = DequantizeLinear(q, scale) {TWO}", weights)
    assert "the first layer: its weights are not one constant matrix" in refusal(graph)


def test_weights_that_could_overflow_stop_it() -> None:
    weights = {"w": np.full((5, 4), 3e4), "v": np.full((4, 3), 3.0)}
    assert "may overflow" in refusal(model_of(TWO, weights, element="float16"))


@pytest.mark.parametrize("op", ["Relu", "Sigmoid"])
def test_layers_with_something_between_are_no_site(op: str) -> None:
    weights = {"w": LINEAR["w"], "v": LINEAR["v"]}
    graph = model_of(f"s = MatMul(x, w) a = {op}(s) y = MatMul(a, v)", weights)
    assert survey(graph) == Survey((), ())
