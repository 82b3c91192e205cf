"""Which layers can be re-fitted, why others cannot, and their weights there and back."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from actcc.graph import Graph
from actcc.repair.layers import (
    count_positions,
    find_layers,
    rows_of,
    same_geometry,
    targets_of,
)
from actcc.runtime import run, session

RANDOM = np.random.default_rng(0)


def model(text, opset=17, **weights):
    """A model of ONNX text, with initializers by name."""
    header = f'<ir_version: 8, opset_import: ["" : {opset}, "custom" : 1]>\n'
    parsed = onnx.parser.parse_model(header + text)
    parsed.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in weights.items())
    for index, node in enumerate(parsed.graph.node):
        node.name = node.name or f"{node.op_type}{index}"
    return parsed


def floats(*shape, dtype=np.float32):
    return RANDOM.standard_normal(shape).astype(dtype)


def only(parsed):
    """The one layer of a model, or why there is none."""
    found, refused = find_layers(Graph.load(parsed))
    assert len(found) + len(refused) == 1
    return next(iter((*found.values(), *refused.values())))


def check(parsed, shape):
    """The layer writes rows · matrix + offset, and its weights are those of the node."""
    layer = only(parsed)
    values = floats(*shape)
    expected = run(session(parsed, optimise=False), {"x": values})["y"]
    assert layer.writes == "y"
    positions = np.arange(count_positions(layer, expected.shape))
    found = rows_of(layer, values, positions, expected.shape) @ layer.matrix
    found += layer.offset[:, None]
    targets = targets_of(layer, expected, positions)
    np.testing.assert_allclose(found, targets, rtol=1e-5, atol=1e-5)
    weights = {t.name: numpy_helper.to_array(t) for t in parsed.graph.initializer}
    np.testing.assert_array_equal(layer.tensor(layer.matrix), weights[layer.weight])
    if layer.bias is not None:
        vector = layer.vector(layer.offset)
        bias = weights[layer.bias]
        np.testing.assert_array_equal(vector, np.broadcast_to(bias, vector.shape))
        assert vector.ndim == max(bias.ndim, 1)
    return layer


# ---------------------------------------------------------------- what is found


@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("right", [0, 1])
@pytest.mark.parametrize("bias", [None, (), (1,), (4,), (1, 1), (1, 4)])
def test_gemm_with_any_flags_factors_and_bias(left, right, bias):
    weights = {"w": floats(*((4, 3) if right else (3, 4)))}
    operands = "x, w"
    if bias is not None:
        weights["b"], operands = floats(*bias), "x, w, b"
    attributes = f"transA = {left}, transB = {right}, alpha = 0.3, beta = -1.7"
    shape = (3, 5) if left else (5, 3)
    declared = f"float[{shape[0]},{shape[1]}] x"
    text = f"g ({declared}) => (float[5,4] y) {{ y = Gemm<{attributes}>({operands}) }}"
    layer = check(model(text, **weights), shape)
    assert (layer.columns, layer.outputs, layer.groups) == (3, 4, 1)
    assert layer.bias == (None if bias is None else "b")


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 3), (2, 1, 5, 3)])
def test_matmul_without_bias_of_any_rank(shape):
    dims = ",".join(map(str, shape))
    parsed = model(f"g (float[{dims}] x) => (float y) {{ y = MatMul(x, w) }}", w=floats(3, 4))
    del parsed.graph.output[0].type.tensor_type.shape.dim[:]
    parsed.graph.output[0].type.tensor_type.ClearField("shape")
    assert check(parsed, shape).bias is None


@pytest.mark.parametrize("operands", ["m, b", "b, m"])
@pytest.mark.parametrize("bias", [(), (1,), (4,), (1, 1, 4), (1, 1, 1, 4)])
def test_matmul_with_a_bias_in_the_add_behind_it(operands, bias):
    text = f"g (float[2,5,3] x) => (float y) {{ m = MatMul(x, w) y = Add({operands}) }}"
    parsed = model(text, w=floats(3, 4), b=floats(*bias))
    parsed.graph.output[0].type.tensor_type.ClearField("shape")
    layer = check(parsed, (2, 5, 3))
    assert (layer.node, layer.adds, layer.bias) == ("MatMul0", "Add1", "b")


@pytest.mark.parametrize(
    "text",
    [
        "g (float[5,3] x) => (float[5,4] y) { m = MatMul(x, w) y = Add(m, b) }",
        "g (float[5,3] x, float[4] b) => (float[5,4] y) { m = MatMul(x, w) y = Add(m, b) }",
        "g (float[5,3] x) => (float[5,4] y) { m = MatMul(x, w) y = Add(m, m) }",
        "g (float[5,3] x) => (float[5,4] y, float[5,4] m) { m = MatMul(x, w) y = Add(m, row) }",
        "g (float[5,3] x) => (float[5,4] y) { m = MatMul(x, w) n = Add(m, row) y = Mul(m, n) }",
    ],
)
def test_an_add_that_is_no_bias_is_left_out_of_the_layer(text):
    weights = {"w": floats(3, 4), "row": floats(4)}
    if "float[4] b" not in text:
        weights["b"] = floats(5, 1)
    layer = only(model(text, **weights))
    assert (layer.writes, layer.bias, layer.adds) == ("m", None, None)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_weights_of_any_float_come_back_as_they_were(op, dtype):
    element = {np.float16: "float16", np.float32: "float", np.float64: "double"}[dtype]
    text = f"g ({element}[1,4,6,5] x) => ({element}[1,4,a,b] y) {{ y = {op}<group = 2>(x, w, b) }}"
    parsed = model(text, w=floats(4, 2, 3, 2, dtype=dtype), b=floats(4, dtype=dtype))
    layer = only(parsed)
    weights, bias = (numpy_helper.to_array(tensor) for tensor in parsed.graph.initializer)
    again = layer.tensor(layer.matrix), layer.vector(layer.offset)
    assert [values.dtype for values in again] == [dtype, dtype]
    np.testing.assert_array_equal(again[0], weights)
    np.testing.assert_array_equal(again[1], bias)


def test_half_precision_holds_its_largest_number_in_the_place_of_infinity():
    text = "g (float16[1,1,3] x) => (float16[1,1,3] y) { y = Conv(x, w, b) }"
    layer = only(model(text, w=np.ones((1, 1, 1), np.float16), b=np.ones(1, np.float16)))
    assert layer.tensor(np.full((1, 1, 1), 1e6)).item() == 65504
    assert layer.vector(np.full((1, 1), -1e6)).item() == -65504


def test_weights_in_a_constant_node_are_weights():
    text = """g (float[5,2] x) => (float[5,2] y) {
        w = Constant<value = float[2,2] {1.0, 2.0, 3.0, 4.0}>()
        y = MatMul(x, w)
    }"""
    assert only(model(text)).weight == "w"


def test_layers_come_in_topological_order_by_what_they_write():
    text = """g (float[5,3] x) => (float[5,3] y) {
        a = Gemm(x, u)
        r = Relu(a)
        y = MatMul(r, v)
    }"""
    found, refused = find_layers(Graph.load(model(text, u=floats(3, 3), v=floats(3, 3))))
    assert (list(found), refused) == (["a", "y"], {})
    assert [layer.reads for layer in found.values()] == ["x", "r"]


@pytest.mark.parametrize(
    ("text", "empty", "output"),
    [
        ("y = Conv<group = 2>(x, w)", (0, 4, 9), (0, 4, 7)),
        ("y = Conv<group = 2>(x, w)", (1, 4, 0), (1, 4, 0)),
        ("y = MatMul(x, v)", (0, 2, 3), (0, 2, 5)),
    ],
)
def test_a_tensor_without_elements_has_no_rows(text, empty, output):
    parsed = model(f"g (float[a,b,c] x) => (float[d,e,f] y) {{ {text} }}")
    values = {"w": floats(4, 2, 3), "v": floats(3, 5)}
    name = parsed.graph.node[0].input[1]
    parsed.graph.initializer.append(numpy_helper.from_array(values[name], name))
    layer = only(parsed)
    assert count_positions(layer, output) == 0
    nowhere = np.arange(0)
    rows = rows_of(layer, np.zeros(empty, np.float32), nowhere, output)
    targets = targets_of(layer, np.zeros(output, np.float32), nowhere)
    assert rows.shape == (layer.groups, 0, layer.columns)
    assert targets.shape == (layer.groups, 0, layer.outputs)


# ---------------------------------------------------------------- what is refused

MATMUL = "g (float[3,3] x) => (float[3,3] y) { y = MatMul(x, w) }"


@pytest.mark.parametrize(
    ("text", "weights", "reason"),
    [
        (
            "g (float[3,3] x) => (float[3,3] y) { a = MatMul(x, w) y = Mul(a, w) }",
            {"w": floats(3, 3)},
            "its weights are shared with 'Mul1'",
        ),
        (
            "g (float[3,3] x, float[3,3] w) => (float[3,3] y) { y = MatMul(x, w) }",
            {},
            "its weights are a graph input",
        ),
        (
            "g (float[3,3] x, float[3,3] w) => (float[3,3] y) { y = MatMul(x, w) }",
            {"w": floats(3, 3)},
            "its weights are a graph input",
        ),
        (
            """g (float[3,3] x) => (float[3,3] y) {
                w = DequantizeLinear(q, s)
                y = MatMul(x, w)
            }""",
            {"q": np.ones((3, 3), np.int8), "s": np.array(0.1, np.float32)},
            "its weights are computed, by DequantizeLinear 'DequantizeLinear0'; it has to be int8 "
            "without a zero point, in float32 steps, behind an input in int8, of a Conv or Gemm",
        ),
        (
            "g (float[3,3] x) => (float[3,3] y) { y = MatMul(w, x) }",
            {"w": floats(3, 3)},
            "its weights are on the left",
        ),
        (
            "g () => (float[3,3] y) { y = MatMul(v, w) }",
            {"v": floats(3, 3), "w": floats(3, 3)},
            "what it maps is constant",
        ),
        (
            "g (int32[3,3] x) => (int32[3,3] y) { y = MatMul(x, w) }",
            {"w": np.ones((3, 3), np.int32)},
            "its weights are int32, not float16, float32 or float64",
        ),
        (MATMUL, {"w": np.full((3, 3), np.nan, np.float32)}, "its weights are not all finite"),
        (
            "g (float[2,3,3] x) => (float[2,3,3] y) { y = MatMul(x, w) }",
            {"w": floats(2, 3, 3)},
            "its weights have rank 3, not 2",
        ),
        (
            "g (float[3,3] x) => (float[3,3] y, float[3,3] w) { y = MatMul(x, w) }",
            {"w": floats(3, 3)},
            "its weights leave the graph",
        ),
        (
            "g (float[3,3] x) => (float[3,3] y) { m = MatMul(x, w) y = Add(m, b) }",
            {"w": floats(3, 3), "b": np.full(3, np.inf, np.float32)},
            "its bias is not all finite",
        ),
        (
            "g (float[3,3] x, float[3] b) => (float[3,3] y) { y = Gemm(x, w, b) }",
            {"w": floats(3, 3)},
            "its bias is computed or a graph input",
        ),
        (
            "g (float[3,3] x) => (float[3,3] y) { y = Gemm(x, w, b) }",
            {"w": floats(3, 3), "b": floats(3, 1)},
            "its bias differs from row to row",
        ),
        (
            "g (float[3,3] x) => (float[3,3] y) { y = Gemm<beta = 0.0>(x, w, b) }",
            {"w": floats(3, 3), "b": floats(3)},
            "its alpha or beta is zero",
        ),
        (
            """g (float[3,3] x, bool c) => (float[3,3] y) {
                a = MatMul(x, w)
                y = If(c) <
                    then_branch = t () => (float[3,3] p) { p = Mul(a, w) },
                    else_branch = e () => (float[3,3] n) { n = Identity(a) }
                >
            }""",
            {"w": floats(3, 3)},
            "a subgraph reads its weights",
        ),
        (
            """g (float[3,3] x, bool c) => (float[3,3] y) {
                a = MatMul(x, w)
                y = If(c) <
                    then_branch = t () => (float[3,3] p) { p = Neg(a) },
                    else_branch = e () => (float[3,3] n) { n = Identity(a) }
                >
            }""",
            {"w": floats(3, 3)},
            "a subgraph reads what it writes",
        ),
    ],
)
def test_a_layer_that_cannot_change_is_refused_with_the_reason(text, weights, reason):
    assert only(model(text, **weights)) == reason


def test_an_old_opset_is_refused_because_it_broadcasts_otherwise():
    assert only(model(MATMUL, opset=6, w=floats(3, 3))).startswith("opset 6 broadcasts")


def test_sparse_weights_are_refused():
    parsed = model(MATMUL)
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "indices")
    parsed.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3, 3]))
    assert only(parsed) == "its weights are sparse"


def test_an_operator_of_another_domain_is_no_layer():
    text = "g (float[3,3] x) => (float[3,3] y) { y = custom.MatMul(x, w) }"
    assert find_layers(Graph.load(model(text, w=floats(3, 3)))) == ({}, {})


# ---------------------------------------------------------------- comparing


def test_only_layers_of_the_same_geometry_can_exchange_weights():
    def conv(**attributes):
        nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="c", **attributes)]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 9])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        weights = floats(4, 4 // attributes.get("group", 1), 3)
        graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(weights, "w")])
        opset = [helper.make_opsetid("", 17)]
        return only(helper.make_model(graph, opset_imports=opset, ir_version=8))

    assert same_geometry(conv(pads=[1, 1]), conv(pads=[1, 1], strides=[1]))
    assert not same_geometry(conv(pads=[1, 1]), conv(auto_pad="SAME_UPPER"))
    assert not same_geometry(conv(), conv(strides=[2]))
    assert not same_geometry(conv(), conv(group=2))
