"""What looks like an activation and must not be taken for it, and what is said about it."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

from actcc.activations import explain_activations, find_activations
from actcc.graph import Graph

_HARD_SWISH = "a = Add(x, #3) c = Clip(a, #0, #6) m = Mul(x, c) y = Div(m, #6)"
# body, further inputs and outputs, activations that remain, what the reason says
CASES = {
    "silu of another input": (
        "w = Neg(x) s = Sigmoid(z) y = Mul(w, s)",
        ", float[1,2,4,8] z",
        "",
        ["Sigmoid"],
        "would be Silu of 'z', but node .* multiplies with 'w', another tensor",
    ),
    "hard swish of another input": (
        "a = Add(x, #3) c = Clip(a, #0, #6) m = Mul(w, c) y = Div(m, #6)",
        ", float[1,2,4,8] w",
        "",
        ["Relu6"],
        "would be HardSwish of 'x', but node 'Mul_2' multiplies with 'w', another tensor",
    ),
    "intermediate result read elsewhere": (
        "s = Sigmoid(x) y = Mul(x, s) z = Neg(s)",
        "",
        ", float[1,2,4,8] z",
        ["Sigmoid"],
        "is Silu of 'x', but its intermediate result 's' is read by node 'Neg_2' too",
    ),
    "intermediate result is an output": (
        _HARD_SWISH,
        "",
        ", float[1,2,4,8] c",
        ["Relu6"],
        "is HardSwish of 'x', but its intermediate result 'c' is an output of the graph",
    ),
    "5.9 for 6": (
        _HARD_SWISH.replace("#0, #6", "#0, #5.9"),
        "",
        "",
        ["Clip"],
        r"is written like HardSwish, but its constants \(3, 0, 5.9, 6\) give another function",
    ),
    "2.9 for 3": (_HARD_SWISH.replace("#3", "#2.9"), "", "", ["Relu6"], r"\(2.9, 0, 6, 6\)"),
    "divided by 5": (_HARD_SWISH.replace("m, #6", "m, #5"), "", "", ["Relu6"], "like HardSwish"),
    "swish with alpha 1.5": (
        "m = Mul(x, #1.5) s = Sigmoid(m) y = Mul(x, s)",
        "",
        "",
        ["Sigmoid"],
        r"is written like Silu or QuickGelu, but its constants \(1.5\)",
    ),
    "erf without the half": (
        "d = Div(x, #1.4142135) e = Erf(d) a = Add(e, #1) y = Mul(x, a)",
        "",
        "",
        [],
        "is written like Gelu",
    ),
    "erf divided by 2": (
        "d = Div(x, #2) e = Erf(d) a = Add(e, #1) m = Mul(x, a) y = Mul(m, #0.5)",
        "",
        "",
        [],
        "is written like Gelu",
    ),
    "tanh with another cube": (
        "p = Pow(x, #3) k = Mul(p, #0.05) s = Add(x, k) i = Mul(s, #0.7978846) t = Tanh(i) "
        "a = Add(t, #1) m = Mul(x, a) y = Mul(m, #0.5)",
        "",
        "",
        ["Tanh"],
        "is written like GeluTanh",
    ),
}


@pytest.mark.parametrize(
    ("body", "inputs", "outputs", "remaining", "reason"), CASES.values(), ids=CASES.keys()
)
def test_near_miss_is_refused_with_a_reason(body, inputs, outputs, remaining, reason, build_model):
    graph = Graph.load(build_model(body, inputs=inputs, outputs=outputs))
    assert [match.activation.name for match in find_activations(graph)] == remaining
    (refusal,) = explain_activations(graph)
    assert refusal.subject in {node.name for node in graph.nodes()}
    assert re.search(reason, refusal.reason)


def names_in(model):
    return [match.activation.name for match in find_activations(Graph.load(model))]


@pytest.mark.parametrize("shape", ["[3,1,1,1]", "[1,1,1,1,1]", "[2,1,1,1,1]"])
def test_constant_that_enlarges_the_shape_does_not_belong_to_an_activation(shape, build_model):
    model = build_model(f"m = Mul(x, #1.702{shape}) s = Sigmoid(m) y = Mul(x, s)")
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert names_in(model) == ["Sigmoid"]


def test_constant_of_several_values_does_not_belong_to_an_activation(build_model):
    model = build_model("m = Mul(x, scale) s = Sigmoid(m) y = Mul(x, s)")
    scale = np.array([1.0, 1.1], np.float32).reshape(2, 1, 1)
    model.graph.initializer.append(onnx.numpy_helper.from_array(scale, "scale"))
    assert names_in(model) == ["Sigmoid"]


def test_initializer_that_a_caller_may_override_is_no_constant(build_model):
    model = build_model("y = Clip(x, low, high)", inputs=", float low, float high")
    for name, value in (("low", 0.0), ("high", 6.0)):
        values = np.array(value, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    assert names_in(model) == []


def test_bounds_and_slopes_that_are_computed_are_no_constants(build_model):
    assert names_in(build_model("y = Clip(x, low)", inputs=", float low")) == []
    model = build_model("y = PRelu(x, slope)", inputs=", float[2,1,1] slope")
    assert names_in(model) == []
    (refusal,) = explain_activations(Graph.load(model))
    assert refusal.reason == "is PRelu, but its slope 'slope' is no constant"


def test_prelu_whose_slope_varies_along_two_axes_is_left_alone(build_model):
    model = build_model("y = PRelu(x, slope)")
    slope = np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 4, 1)
    model.graph.initializer.append(onnx.numpy_helper.from_array(slope, "slope"))
    assert names_in(model) == []
    (refusal,) = explain_activations(Graph.load(model))
    assert "varies along several axes" in refusal.reason


def test_fast_gelu_with_bias_is_no_activation(build_model):
    model = build_model("y = com.microsoft.FastGelu(x, b)", inputs=", float[8] b")
    assert names_in(model) == []


def test_integers_have_no_activations(build_model):
    model = build_model("k = Cast<to=7>(x) r = Max(k, zero) y = Cast<to=1>(r)")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0), "zero"))
    assert names_in(model) == []
    assert explain_activations(Graph.load(model)) == []


def test_absolute_value_is_no_leaky_relu(build_model):
    assert names_in(build_model("y = Abs(x)")) == []


def test_arithmetic_alone_is_no_activation(build_model):
    model = build_model("a = Add(x, #3) m = Mul(a, #2) n = Neg(m) y = Add(n, x)")
    graph = Graph.load(model)
    assert find_activations(graph) == []
    assert explain_activations(graph) == []


def test_scaled_activation_is_taken_without_the_scale_and_without_a_word(build_model):
    graph = Graph.load(build_model("s = Sigmoid(x) m = Mul(x, s) y = Mul(m, #0.5)"))
    (match,) = find_activations(graph)
    assert (match.activation.name, match.writes.name) == ("Silu", "m")
    assert explain_activations(graph) == []


def test_type_that_is_unknown_is_a_reason(build_model):
    model = build_model("k = Strange(x) y = Relu(k)")
    model.graph.node[0].domain = "somewhere.else"
    model.opset_import.append(onnx.helper.make_opsetid("somewhere.else", 1))
    assert names_in(model) == []
    (refusal,) = explain_activations(Graph.load(model))
    assert "the element type of 'k' is unknown" in refusal.reason


def test_activations_of_a_subgraph_are_counted_and_left(build_model):
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[4] x, bool b) => (float[4] y) {
            r = Relu(x)
            y = If (b) <
                then_branch = yes () => (float[4] p) { h = Sigmoid(r) p = Tanh(h) },
                else_branch = no () => (float[4] q) { q = Relu(r) }
            >
        }"""
    )
    graph = Graph.load(model)
    assert [match.activation.name for match in find_activations(graph)] == ["Relu"]
    (refusal,) = explain_activations(graph)
    assert refusal.reason == "3 activations in its subgraphs are left as they are"


def test_intermediate_result_that_a_subgraph_reads_stays(build_model):
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[4] x, bool b) => (float[4] y, float[4] z) {
            s = Sigmoid(x)
            y = Mul(x, s)
            z = If (b) <
                then_branch = yes () => (float[4] p) { p = Neg(s) },
                else_branch = no () => (float[4] q) { q = Identity(x) }
            >
        }"""
    )
    graph = Graph.load(model)
    assert [match.activation.name for match in find_activations(graph)] == ["Sigmoid"]
    (refusal,) = explain_activations(graph)
    assert "its intermediate result 's' is read by node" in refusal.reason


def test_activations_of_a_function_are_counted_and_left():
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[4] x) => (float[4] y) { y = own.Block(x) }
        <domain: "own", opset_import: ["": 17]>
        Block (a) => (b) { s = Sigmoid(a) b = Mul(a, s) }"""
    )
    graph = Graph.load(model)
    assert find_activations(graph) == []
    (refusal,) = explain_activations(graph)
    assert "1 activation in the function 'Block' are left" in refusal.reason
