"""Every spelling that exporters write, and the activation that it is."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest

from actcc.activations import Activation, find_activations, recognise
from actcc.graph import Graph

RELU6 = Activation("Relu6")
HARD_SWISH, SILU, GELU = Activation("HardSwish"), Activation("Silu"), Activation("Gelu")
GELU_TANH, QUICK_GELU, MISH = Activation("GeluTanh"), Activation("QuickGelu"), Activation("Mish")
LEAKY, HARD_SIGMOID = Activation.of("LeakyRelu", alpha=0.1), Activation("HardSigmoid")
SIXTH, SQRT_HALF, SQRT_2, SQRT_2_PI = "#0.16666667", "#0.70710677", "#1.4142135", "#0.7978846"

# activation, opset, body
SINGLE = [
    (Activation("Relu"), 17, "y = Relu(x)"),
    (Activation("Relu"), 17, "y = Max(x, #0)"),
    (Activation("Relu"), 17, "y = Clip(x, #0)"),
    (Activation("Relu"), 10, "y = Clip<min=0.0>(x)"),
    (RELU6, 10, "y = Clip<min=0.0, max=6.0>(x)"),
    (RELU6, 17, "y = Clip(x, #0, #6)"),
    (RELU6, 17, "a = Max(x, #0) y = Min(a, #6)"),
    (RELU6, 17, "a = Min(#6, x) y = Max(#0, a)"),
    (RELU6, 17, "a = Relu(x) y = Min(a, #6)"),
    (RELU6, 17, "a = Relu(x) y = Clip(a, #0, #6)"),
    (Activation.of("Clip", min=-1.0, max=1.0), 17, "y = Clip(x, #-1, #1)"),
    (Activation.of("Clip", min=-1.0, max=1.0), 17, "a = Max(x, #-1) y = Min(a, #1)"),
    (Activation.of("Clip", min=0.0, max=4.0), 17, "y = Clip(x, #0, #4)"),
    (Activation.of("Clip", max=2.0), 17, "y = Clip(x, , #2)"),
    (Activation.of("Clip", max=2.0), 10, "y = Clip<max=2.0>(x)"),
    (Activation.of("Clip", max=2.0), 17, "y = Min(x, #2)"),
    (Activation.of("Clip", min=1.0), 17, "y = Max(#1, x)"),
    (Activation("LeakyRelu"), 17, "y = LeakyRelu(x)"),
    (LEAKY, 17, "y = LeakyRelu<alpha=0.1>(x)"),
    (LEAKY, 17, "y = PRelu(x, #0.1[2,1,1])"),
    (LEAKY, 17, "a = Mul(x, #0.1) y = Max(x, a)"),
    (LEAKY, 17, "r = Relu(x) n = Neg(x) m = Relu(n) s = Mul(m, #0.1) y = Sub(r, s)"),
    (Activation.of("ThresholdedRelu", alpha=2.0), 17, "y = ThresholdedRelu<alpha=2.0>(x)"),
    (Activation("Elu"), 17, "y = Elu(x)"),
    (Activation.of("Elu", alpha=0.5), 17, "y = Elu<alpha=0.5>(x)"),
    (Activation("Elu"), 17, "y = Celu<alpha=1.0>(x)"),
    (Activation("Selu"), 17, "y = Selu(x)"),
    (Activation("Selu"), 17, "a = Elu<alpha=1.6732632>(x) y = Mul(#1.0507010, a)"),
    (Activation.of("Celu", alpha=2.0), 17, "y = Celu<alpha=2.0>(x)"),
    (Activation.of("Celu", alpha=2.0), 17, "a = Div(x, #2) e = Elu(a) y = Mul(e, #2)"),
    (Activation("Sigmoid"), 17, "y = Sigmoid(x)"),
    (Activation("Sigmoid"), 17, "n = Neg(x) e = Exp(n) a = Add(e, #1) y = Reciprocal(a)"),
    (Activation("Sigmoid"), 17, "n = Neg(x) e = Exp(n) a = Add(#1, e) y = Div(#1, a)"),
    (HARD_SIGMOID, 17, "y = HardSigmoid(x)"),
    (HARD_SIGMOID, 17, "m = Mul(x, #0.2) a = Add(m, #0.5) y = Clip(a, #0, #1)"),
    (
        Activation.of("HardSigmoid", alpha=0.16666667, beta=0.5),
        17,
        "a = Add(x, #3) c = Clip(a, #0, #6) y = Div(c, #6)",
    ),
    (
        Activation.of("HardSigmoid", alpha=0.16666667, beta=0.0),
        17,
        f"c = Clip(x, #0, #6) y = Mul(c, {SIXTH})",
    ),
    (Activation("Tanh"), 17, "y = Tanh(x)"),
    (Activation("Softplus"), 17, "y = Softplus(x)"),
    (Activation("Softplus"), 17, "e = Exp(x) a = Add(e, #1) y = Log(a)"),
    (Activation("Softsign"), 17, "y = Softsign(x)"),
    (Activation("Softsign"), 17, "b = Abs(x) a = Add(b, #1) y = Div(x, a)"),
]
HARD_SWISHES = [
    (HARD_SWISH, 17, "y = HardSwish(x)"),
    (HARD_SWISH, 17, "h = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(x, h)"),
    (HARD_SWISH, 17, "h = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(h, x)"),
    (HARD_SWISH, 17, "a = Add(x, #3) c = Clip(a, #0, #6) m = Mul(x, c) y = Div(m, #6)"),
    (HARD_SWISH, 10, "a = Add(x, #3) c = Clip<min=0.0, max=6.0>(a) m = Mul(x, c) y = Div(m, #6)"),
    (HARD_SWISH, 17, "a = Add(#3, x) c = Clip(a, #0, #6) d = Div(c, #6) y = Mul(x, d)"),
    (HARD_SWISH, 17, "d = Div(x, #6) a = Add(x, #3) c = Clip(a, #0, #6) y = Mul(d, c)"),
    (HARD_SWISH, 17, f"a = Add(x, #3) c = Clip(a, #0, #6) m = Mul(x, c) y = Mul(m, {SIXTH})"),
    (HARD_SWISH, 17, f"a = Add(x, #3) c = Clip(a, #0, #6) m = Mul({SIXTH}, c) y = Mul(m, x)"),
    (HARD_SWISH, 17, f"m = Mul(x, {SIXTH}) a = Add(x, #3) c = Clip(a, #0, #6) y = Mul(c, m)"),
    (HARD_SWISH, 17, "a = Add(x, #3) b = Max(a, #0) c = Min(b, #6) m = Mul(x, c) y = Div(m, #6)"),
    (HARD_SWISH, 17, "a = Add(x, #3) b = Relu(a) c = Min(b, #6) m = Mul(x, c) y = Div(m, #6)"),
    (HARD_SWISH, 17, "a = Sub(x, #-3) c = Clip(a, #0, #6) m = Mul(x, c) y = Div(m, #6)"),
]
SMOOTH = [
    (SILU, 17, "s = Sigmoid(x) y = Mul(x, s)"),
    (SILU, 17, "s = Sigmoid(x) y = Mul(s, x)"),
    (SILU, 17, "m = Mul(x, #1) s = Sigmoid(m) y = Mul(x, s)"),
    (SILU, 17, "n = Neg(x) e = Exp(n) a = Add(e, #1) y = Div(x, a)"),
    (SILU, 24, "y = Swish(x)"),
    (SILU, 24, "y = Swish<alpha=1.0>(x)"),
    (SILU, 17, "y = com.microsoft.QuickGelu<alpha=1.0>(x)"),
    (QUICK_GELU, 17, "m = Mul(x, #1.702) s = Sigmoid(m) y = Mul(x, s)"),
    (QUICK_GELU, 17, "m = Mul(#1.702, x) s = Sigmoid(m) y = Mul(s, x)"),
    (QUICK_GELU, 17, "y = com.microsoft.QuickGelu(x)"),
    (QUICK_GELU, 24, "y = Swish<alpha=1.702>(x)"),
    (MISH, 17, "p = Softplus(x) t = Tanh(p) y = Mul(x, t)"),
    (MISH, 17, "p = Softplus(x) t = Tanh(p) y = Mul(t, x)"),
    (MISH, 17, "e = Exp(x) a = Add(e, #1) p = Log(a) t = Tanh(p) y = Mul(x, t)"),
    (MISH, 18, "y = Mish(x)"),
]
_ERF = f"d = Div(x, {SQRT_2}) e = Erf(d) a = Add(e, #1)"
_CUBE = "p = Pow(x, #3) k = Mul(p, #0.044715) s = Add(x, k)"
GELUS = [
    (GELU, 17, f"{_ERF} m = Mul(x, a) y = Mul(m, #0.5)"),
    (GELU, 17, f"{_ERF} h = Mul(x, #0.5) y = Mul(h, a)"),
    (GELU, 17, f"{_ERF} h = Mul(a, #0.5) y = Mul(x, h)"),
    (GELU, 17, f"{_ERF} m = Mul(a, x) y = Div(m, #2)"),
    (
        GELU,
        17,
        f"d = Mul({SQRT_HALF}, x) e = Erf(d) a = Add(#1, e) h = Mul(#0.5, x) y = Mul(a, h)",
    ),
    (
        GELU,
        17,
        f"d = Mul(x, {SQRT_HALF}) e = Erf(d) g = Mul(e, #0.5) a = Add(g, #0.5) y = Mul(x, a)",
    ),
    (GELU, 20, "y = Gelu(x)"),
    (GELU, 20, 'y = Gelu<approximate="none">(x)'),
    (GELU, 17, "y = com.microsoft.Gelu(x)"),
    (GELU_TANH, 20, 'y = Gelu<approximate="tanh">(x)'),
    (GELU_TANH, 17, "y = com.microsoft.FastGelu(x)"),
    (
        GELU_TANH,
        17,
        f"{_CUBE} i = Mul(s, {SQRT_2_PI}) t = Tanh(i) a = Add(t, #1) "
        "m = Mul(x, a) y = Mul(m, #0.5)",
    ),
    (
        GELU_TANH,
        17,
        f"{_CUBE} i = Mul({SQRT_2_PI}, s) t = Tanh(i) a = Add(#1, t) "
        "h = Mul(#0.5, x) y = Mul(h, a)",
    ),
    (
        GELU_TANH,
        17,
        "q = Mul(x, x) p = Mul(q, x) m = Mul(#0.044715, p) s = Add(m, x) "
        f"i = Mul(s, {SQRT_2_PI}) t = Tanh(i) a = Add(t, #1) g = Mul(a, #0.5) y = Mul(x, g)",
    ),
    (
        GELU_TANH,
        17,
        "c = Mul(x, #0.044715) q = Mul(x, c) b = Add(q, #1) "
        f"z = Mul(x, {SQRT_2_PI}) i = Mul(z, b) t = Tanh(i) a = Add(t, #1) "
        "h = Mul(x, #0.5) y = Mul(h, a)",
    ),
]
CASES = SINGLE + HARD_SWISHES + SMOOTH + GELUS


def _ids(cases):
    return [f"{case[0].name}: {case[2]}" for case in cases]


@pytest.mark.parametrize(("activation", "opset", "body"), CASES, ids=_ids(CASES))
def test_spelling_is_recognised_and_computes_the_function(
    activation, opset, body, build_model, run_model, samples
):
    model = build_model(body, opset=opset)
    (match,) = find_activations(Graph.load(model))
    assert match.activation == activation
    assert len(match.nodes) == len(model.graph.node)
    assert (match.reads.name, match.writes.name) == ("x", "y")
    (expected,) = run_model(model, x=samples)
    np.testing.assert_allclose(activation(samples), expected, rtol=1e-5, atol=2e-6)


HALF = [case for case in CASES if "Celu" not in case[2]]  # Celu is defined for float32 alone


@pytest.mark.parametrize(("activation", "opset", "body"), HALF, ids=_ids(HALF))
def test_spelling_is_recognised_with_constants_in_half_precision(
    activation, opset, body, build_model, run_model, samples
):
    model = build_model(body, opset=opset, dtype="float16")
    (match,) = find_activations(Graph.load(model))
    assert match.activation.name == activation.name
    values, own = dict(match.activation.parameters), dict(activation.parameters)
    assert values == pytest.approx(own, rel=1.5e-3)
    (expected,) = run_model(model, x=samples.astype(np.float16))
    np.testing.assert_allclose(activation(samples), expected, rtol=1e-2, atol=1.5e-2)


@pytest.mark.parametrize("shape", ["", "[1]", "[1,1]", "[1,1,1,1]", "[2,1,1]", "[1,2,4,8]"])
def test_constants_may_be_tensors_of_one_value_that_keep_the_shape(shape, build_model):
    body = f"a = Add(x, #3{shape}) c = Clip(a, #0, #6) m = Mul(x, c) y = Div(m, #6{shape})"
    (match,) = find_activations(Graph.load(build_model(body)))
    assert match.activation == HARD_SWISH


def test_constants_may_come_from_constant_nodes_and_casts(build_model):
    model = build_model(
        "three = Constant<value = float {3.0}>() six = Constant<value_float = 6.0>() "
        "wide = Constant<value = double {6.0}>() narrow = Cast<to=1>(wide) "
        "a = Add(x, three) c = Clip(a, #0, six) m = Mul(x, c) y = Div(m, narrow)"
    )
    (match,) = find_activations(Graph.load(model))
    assert match.activation == HARD_SWISH
    assert match.spelling == "Add+Clip+Mul+Div"


@pytest.mark.parametrize(
    ("activation", "body"),
    [
        (SILU, "w = Cast<to=1>(x) s = Sigmoid(w) m = Mul(w, s) y = Cast<to=10>(m)"),
        (SILU, "w = Cast<to=1>(x) s = Sigmoid(w) n = Cast<to=10>(s) y = Mul(x, n)"),
        (Activation("Softplus"), "w = Cast<to=1>(x) s = Softplus(w) y = Cast<to=10>(s)"),
        (MISH, "w = Cast<to=1>(x) s = Softplus(w) n = Cast<to=10>(s) t = Tanh(n) y = Mul(x, t)"),
    ],
)
def test_casts_to_a_wider_type_and_back_belong_to_the_activation(activation, body, build_model):
    model = build_model(body, dtype="float16")
    (match,) = find_activations(Graph.load(model))
    assert match.activation == activation
    assert len(match.nodes) == len(model.graph.node)


def test_casts_to_a_narrower_type_do_not_belong_to_the_activation(build_model):
    model = build_model("h = Cast<to=10>(x) s = Sigmoid(h) m = Mul(h, s) y = Cast<to=1>(m)")
    (match,) = find_activations(Graph.load(model))
    assert match.activation == SILU
    assert (match.spelling, match.reads.name, match.writes.name) == ("Sigmoid+Mul", "h", "m")


def test_a_cast_without_the_way_back_does_not_belong_to_the_activation(build_model):
    body = "w = Cast<to=1>(x) s = Sigmoid(w) m = Mul(w, s) e = Exp(m) y = Cast<to=10>(e)"
    model = build_model(body, dtype="float16")
    (match,) = find_activations(Graph.load(model))
    assert match.spelling == "Sigmoid+Mul"


def test_activation_between_quantize_and_dequantize_is_a_quantized_site(build_model):
    model = build_model(
        "q = QuantizeLinear(x, #0.05) d = DequantizeLinear(q, #0.05) s = Sigmoid(d) m = Mul(d, s) "
        "p = QuantizeLinear(m, #0.05) y = DequantizeLinear(p, #0.05)"
    )
    (match,) = find_activations(Graph.load(model))
    assert (match.activation, match.quantized) == (SILU, True)
    assert match.spelling == "Sigmoid+Mul"


def test_activation_without_quantization_is_not_quantized(build_model):
    (match,) = find_activations(Graph.load(build_model("y = Relu(x)")))
    assert not match.quantized


def test_prelu_with_slopes_for_channels(build_model, run_model, samples):
    model = build_model("y = PRelu(x, slope)")
    slopes = np.array([0.5, 0.25], np.float32).reshape(2, 1, 1)
    model.graph.initializer.append(onnx.numpy_helper.from_array(slopes, "slope"))
    (match,) = find_activations(Graph.load(model))
    assert match.activation.name == "PRelu"
    np.testing.assert_array_equal(match.activation(samples), run_model(model, x=samples)[0])


def test_matches_come_in_topological_order_and_share_no_node(build_model):
    model = build_model(
        "a = Relu(x) c = Add(a, a) s = Sigmoid(c) m = Mul(c, s) p = Softplus(m) t = Tanh(p) "
        "n = Mul(m, t) k = Clip(n, #0, #6) y = Mul(k, k)"
    )
    matches = find_activations(Graph.load(model))
    names = [match.activation.name for match in matches]
    assert names == ["Relu", "Silu", "Mish", "Relu6"]
    nodes = [node.name for match in matches for node in match.nodes]
    assert len(nodes) == len(set(nodes))


def test_parts_remain_activations_where_the_whole_cannot_be_taken(build_model):
    model = build_model("p = Softplus(x) t = Tanh(p) y = Mul(x, t) z = Neg(t)", outputs=", float z")
    names = [match.activation.name for match in find_activations(Graph.load(model))]
    assert names == ["Softplus", "Tanh"]


def test_activation_of_a_model_with_dynamic_axes(build_model):
    model = build_model("a = Add(x, #3[1]) c = Clip(a, #0, #6) m = Mul(x, c) y = Div(m, #6[1])")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    (match,) = find_activations(Graph.load(model))
    assert match.activation == HARD_SWISH


def test_four_hundred_nodes_take_less_than_a_tenth_of_a_second(build_model):
    lines, before = [], "x"
    for index in range(80):
        lines.append(
            f"k{index} = Conv({before}, weight) a{index} = Add(k{index}, #3) "
            f"c{index} = Clip(a{index}, #0, #6) m{index} = Mul(k{index}, c{index}) "
            f"t{index} = Div(m{index}, #6)"
        )
        before = f"t{index}"
    model = build_model("\n".join([*lines, f"y = Identity({before})"]))
    weight = np.ones((2, 2, 1, 1), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    graph = Graph.load(model)
    assert graph.types  # inferred once for all stages, so it does not count here
    times = []
    for _ in range(3):
        start = time.process_time()
        recognition = recognise(graph)
        times.append(time.process_time() - start)
    assert len(recognition.matches) == 80
    assert min(times) < 0.1
