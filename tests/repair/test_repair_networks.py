"""Whole networks, repaired: how close they come, what is left alone and why, and the same bytes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from network_pairs import (
    CHAIN,
    FITTED,
    HELD_OUT,
    chain,
    chain_feeds,
    chain_weights,
    constants,
    error,
    feeds,
    floats,
    model,
    outputs,
    pair,
    serialized,
    weight,
    weights,
    with_activation,
)
from networks import residual_network

from actcc.graph import Graph
from actcc.repair import repair

# ---------------------------------------------------------------- how close


@pytest.mark.parametrize(
    ("op", "before", "after"), [("Relu", 0.15, 0.04), ("HardSwish", 0.009, 0.005)]
)
def test_a_network_with_other_activations_is_much_closer_on_held_out_samples(op, before, after):
    original, rewritten = Graph.load(residual_network()), with_activation(residual_network(), op)
    repaired = repair(original, rewritten, FITTED)
    assert error(original, rewritten, HELD_OUT) > before
    assert error(original, repaired.graph, HELD_OUT) < after
    assert not repaired.refused


SHAPES = {
    "conv 1-d": ("Conv", (2, 6, 20), (8, 6, 3), "<pads = [1, 1]>"),
    "conv 2-d": ("Conv", (1, 4, 9, 9), (8, 4, 3, 3), "<pads = [1, 0, 0, 1], strides = [2, 1]>"),
    "conv 3-d": ("Conv", (1, 3, 5, 6, 5), (8, 3, 2, 3, 1), "<dilations = [1, 2, 1]>"),
    "depthwise": ("Conv", (1, 8, 9, 9), (8, 1, 3, 3), "<group = 8, pads = [1, 1, 1, 1]>"),
    "grouped": ("Conv", (1, 8, 9, 9), (8, 4, 3, 3), "<group = 2>"),
    "transposed": (
        "ConvTranspose",
        (1, 4, 5, 5),
        (4, 8, 3, 3),
        "<strides = [2, 2], output_padding = [1, 1]>",
    ),
    "gemm": ("Gemm", (12, 6), (6, 8), ""),
    "gemm of transposed weights": ("Gemm", (12, 6), (8, 6), "<transB = 1, alpha = 0.5>"),
    "matmul": ("MatMul", (2, 9, 6), (6, 8), ""),
}


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("kind", SHAPES)
def test_every_kind_of_layer_is_repaired(kind, with_bias):
    op, shape, weight, attributes = SHAPES[kind]
    spatial = shape[2:] if "Conv" in op else ()
    second_shape = (4, 8, *(1 for _ in spatial)) if spatial else (8, 4)
    second = "Conv" if spatial else op
    lines = []
    for index, (kernel, read, attrs, written) in enumerate(
        [(op, "x", attributes, "p"), (second, "a", "", "y")], 1
    ):
        bias = f", b{index}" if with_bias else ""
        if kernel != "MatMul":
            lines.append(f"{written} = {kernel} {attrs} ({read}, w{index}{bias})")
        elif with_bias:
            lines.append(
                f"m{index} = MatMul(x, w1)\n p = Add(m1, b1)"
                if index == 1
                else "m2 = MatMul(a, w2)\n y = Add(b2, m2)"
            )
        else:
            lines.append(f"{written} = MatMul({read}, w{index})")
    network = f"network (float[{','.join(map(str, shape))}] x) => (y)"
    text = f"{network} {{ {lines[0]} a = Softplus(p) {lines[1]} }}"
    initializers = {"w1": weights(*weight), "w2": weights(*second_shape)}
    if with_bias:
        initializers |= {"b1": floats(8, scale=0.3), "b2": floats(4, scale=0.3)}
    original, rewritten = pair(text, **initializers)
    repaired = repair(original, rewritten, feeds(shape))
    held_out = feeds(shape, 8)
    assert len(repaired.layers) == 2
    assert not repaired.refused
    found = error(original, repaired.graph, held_out), error(original, rewritten, held_out)
    assert found[0] < 0.35 * found[1]
    assert [t.name for t in repaired.graph.outputs] == ["y"]


BRANCHES = {
    "residual": """
        p = Conv(x, w1) a = Softplus(p) q = Conv(a, w2, b2) s = Add(q, x) y = Conv(s, w3)""",
    "sum before the activation": """
        p = Conv(x, w1) q = Conv(x, w2) s = Add(p, q) a = Softplus(s) y = Conv(a, w3)""",
    "sum with a vector": """
        p = Conv(x, w1) a = Softplus(p) g = GlobalAveragePool(x) m = Conv(g, w2) q = Conv(a, w4, b2)
        s = Add(q, m) c = Softplus(s) y = Conv(c, w3)""",
    "sum with an image": """
        p = Conv(x, w1) a = Softplus(p) g = GlobalAveragePool(a) q = Conv(g, w2) s = Add(q, x)
        c = Softplus(s) y = Conv(c, w3)""",
    "concat": """
        p = Conv(x, w1) a = Softplus(p) q = Conv(x, w2) c = Softplus(q) d = Concat<axis=1>(a, c)
        y = Conv(d, w8)""",
    "squeeze and excite": """
        p = Conv(x, w1) a = Softplus(p) g = GlobalAveragePool(a) h = Conv(g, w2) e = Sigmoid(h)
        s = Mul(a, e) y = Conv(s, w3)""",
}


@pytest.mark.parametrize("kind", BRANCHES)
def test_networks_with_branches_are_repaired(kind):
    text = f"network (float[1, 6, 8, 8] x) => (y) {{ {BRANCHES[kind]} }}"
    given = {f"w{i}": weights(6, 6, 1, 1) for i in (1, 2, 3, 4)}
    given |= {"b2": floats(6), "w8": weights(6, 12, 1, 1)}
    given = {name: values for name, values in given.items() if name in text}
    original, rewritten = pair(text, **given)
    repaired = repair(original, rewritten, feeds((1, 6, 8, 8)))
    held_out = feeds((1, 6, 8, 8), 8)
    assert error(original, repaired.graph, held_out) < 0.4 * error(original, rewritten, held_out)


@pytest.mark.parametrize("other", ["PRelu(d, s)", "Relu(d)", "LeakyRelu(d)"])
def test_a_slope_for_each_channel_behind_a_layer_is_no_obstacle(other):
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y)
        <float[2, 2, 1, 1] w = {0.9, 0.3, -0.2, 0.5}, float[2, 2, 1, 1] v = {0.8, 0.3, -0.2, 0.7},
         float[2, 2, 1, 1] u = {0.7, 0.3, -0.2, 0.9}, float[2, 1, 1] s = {0.1, 0.4}> {
            c = Conv(x, w)  h = HardSwish(c)  d = Conv(h, v)  e = PRelu(d, s)  y = Conv(e, u)
        }"""
    original = Graph.load(onnx.parser.parse_model(text))
    other = text.replace("HardSwish", "Relu").replace("PRelu(d, s)", other)
    rewritten = Graph.load(onnx.parser.parse_model(other))
    random = np.random.default_rng(0)
    samples = [{"x": random.standard_normal((1, 2, 4, 4)).astype(np.float32)} for _ in range(8)]
    repaired = repair(original, rewritten, samples)
    before, after = (error(original, graph, samples) for graph in (rewritten, repaired.graph))
    assert after < before


def test_two_inputs_and_several_outputs_keep_their_names():
    text = """network (float[1, 6, 8, 8] x, float[1, 6, 8, 8] z) => (y, v, a) {
        p = Conv(x, w1) a = Softplus(p) q = Conv(z, w2) c = Softplus(q) s = Mul(a, c)
        y = Conv(s, w3) v = Conv(c, w4) }"""
    given = {f"w{i}": weights(6, 6, 1, 1) for i in (1, 2, 3, 4)}
    original, rewritten = pair(text, **given)
    shape = (1, 6, 8, 8)
    repaired = repair(original, rewritten, feeds(shape, z=shape))
    held_out = feeds(shape, 8, z=shape)
    assert [t.name for t in repaired.graph.outputs] == ["y", "v", "a"]
    assert error(original, repaired.graph, held_out) < 0.3 * error(original, rewritten, held_out)


@pytest.mark.parametrize(("node", "scaled"), [("Conv0", "w1"), ("Conv2", "w2"), ("Conv4", "w3")])
def test_a_layer_that_another_tool_scaled_is_restored(node, scaled):
    given = chain_weights()
    original = Graph.load(model(CHAIN, **given))
    rewritten = Graph.load(model(CHAIN, **{**given, scaled: given[scaled] * np.float32(1.7)}))
    repaired = repair(original, rewritten, chain_feeds())
    assert error(original, rewritten, chain_feeds(4, seed=4)) > 0.01
    assert error(original, repaired.graph, chain_feeds(4, seed=4)) < 1e-8
    bound = 1e-4 * np.abs(given[scaled]).max()
    np.testing.assert_allclose(weight(repaired.graph, node), given[scaled], rtol=0, atol=bound)


def test_a_matmul_whose_input_is_the_same_runs_with_its_new_weights():
    """What a later layer is fitted on is what the repaired network gives it."""
    text = """network (float[N, 6] x) => (float[N, 4] y) {
        m = MatMul(x, w1) p = Add(m, b1) a = Softplus(p) k = MatMul(a, w2) y = Add(k, b2) }"""
    original, rewritten = pair(text, w1=weights(6, 8), w2=weights(8, 4), b1=floats(8), b2=floats(4))
    given = feeds((64, 6), 24)
    repaired = repair(original, rewritten, given)
    wanted, found = (
        np.concatenate([sample["y"] for sample in outputs(graph, given)])
        for graph in (original, repaired.graph)
    )
    missed = np.square(wanted - found).mean(axis=0).sum() / wanted.var(axis=0).sum()
    assert missed == pytest.approx(repaired.layers[-1].missed[1], rel=0.05)


# ---------------------------------------------------------------- left alone


def test_weights_that_two_nodes_share_are_left_alone_and_the_rest_is_repaired():
    text = """network (float[1, 6, 8, 8] x) => (y) {
        p = Conv(x, w1) a = Softplus(p) q = Conv(a, w2) c = Conv(q, w2) y = Conv(c, w3) }"""
    original, rewritten = pair(text, **{f"w{i}": weights(6, 6, 1, 1) for i in (1, 2, 3)})
    repaired = repair(original, rewritten, feeds((1, 6, 8, 8)))
    assert all("shared with" in reason for reason in repaired.refused.values())
    assert repaired.refused.keys() == {"Conv2", "Conv3"}
    assert [layer.node for layer in repaired.layers] == ["Conv0", "Conv4"]
    np.testing.assert_array_equal(weight(repaired.graph, "Conv2"), weight(rewritten, "Conv2"))
    held_out = feeds((1, 6, 8, 8), 8)
    assert error(original, repaired.graph, held_out) < 0.3 * error(original, rewritten, held_out)


def test_weights_that_are_a_graph_input_are_left_alone():
    text = """network (float[1, 6, 8, 8] x, float[6, 6, 1, 1] z) => (y) {
        p = Conv(x, w1) a = Softplus(p) q = Conv(a, z) y = Conv(q, w3) }"""
    original, rewritten = pair(text, w1=weights(6, 6, 1, 1), w3=weights(6, 6, 1, 1))
    kernel = weights(6, 6, 1, 1)
    given = [{**sample, "z": kernel} for sample in feeds((1, 6, 8, 8))]
    repaired = repair(original, rewritten, given)
    assert repaired.refused == {"Conv2": "its weights are a graph input"}
    assert error(original, repaired.graph, given) < 0.2 * error(original, rewritten, given)


def test_quantized_weights_are_left_alone():
    text = """network (float[1, 6, 8, 8] x) => (y)
        <float s = {0.01}, int8 zero = {0}> {
        p = Conv(x, w1) a = Softplus(p) d = DequantizeLinear(w2, s, zero) q = Conv(a, d)
        y = Conv(q, w3) }"""
    quantized = np.random.default_rng(0).integers(-100, 100, (6, 6, 1, 1)).astype(np.int8)
    original, rewritten = pair(text, w1=weights(6, 6, 1, 1), w2=quantized, w3=weights(6, 6, 1, 1))
    repaired = repair(original, rewritten, feeds((1, 6, 8, 8)))
    assert list(repaired.refused) == ["Conv3"]
    assert "computed, by DequantizeLinear" in repaired.refused["Conv3"]
    np.testing.assert_array_equal(constants(repaired.graph)["w2"], quantized)
    held_out = feeds((1, 6, 8, 8), 8)
    assert error(original, repaired.graph, held_out) < 0.3 * error(original, rewritten, held_out)


def test_weights_that_leave_the_graph_are_left_alone():
    text = """network (float[1, 6, 8, 8] x) => (y, w2) {
        p = Conv(x, w1) a = Softplus(p) q = Conv(a, w2) y = Conv(q, w3) }"""
    original, rewritten = pair(text, **{f"w{i}": weights(6, 6, 1, 1) for i in (1, 2, 3)})
    repaired = repair(original, rewritten, feeds((1, 6, 8, 8)))
    assert repaired.refused == {"Conv2": "its weights leave the graph"}


def test_a_layer_whose_output_leaves_the_graph_gives_what_it_gave():
    text = """network (float[1, 6, 8, 8] x) => (p, y) {
        p = Conv(x, w1) a = Softplus(p) y = Conv(a, w2) }"""
    original, rewritten = pair(text, **{f"w{i}": weights(6, 6, 1, 1) for i in (1, 2)})
    repaired = repair(original, rewritten, feeds((1, 6, 8, 8)))
    given = feeds((1, 6, 8, 8), 4)
    for ours, theirs in zip(outputs(repaired.graph, given), outputs(original, given), strict=True):
        np.testing.assert_allclose(ours["p"], theirs["p"], rtol=1e-5, atol=1e-5)
    assert error(original, repaired.graph, given) < error(original, rewritten, given)


def test_where_nothing_has_changed_nothing_changes():
    original, twin = chain()[0], chain()[0]
    repaired = repair(original, twin, chain_feeds(4))
    assert not repaired.layers
    assert serialized(repaired.graph) == serialized(twin)


def test_layers_before_the_first_change_keep_their_bytes():
    text = CHAIN.replace("c = Softplus", "c = Relu")
    given = chain_weights()
    original, rewritten = (Graph.load(model(t, **given)) for t in (CHAIN, text))
    repaired = repair(original, rewritten, chain_feeds()).graph
    assert constants(repaired)["w1"].tobytes() == given["w1"].tobytes()
    assert constants(repaired)["b1"].tobytes() == given["b1"].tobytes()
    assert weight(repaired, "Conv2").tobytes() != given["w2"].tobytes()


def test_neither_network_is_edited():
    original, rewritten = chain()
    before = serialized(original), serialized(rewritten)
    repair(original, rewritten, chain_feeds(4))
    assert (serialized(original), serialized(rewritten)) == before


@pytest.mark.parametrize("back", [False, True])
def test_layers_that_another_tool_lets_map_other_positions_are_left_alone(back):
    text = """network (float[1,16,8] x) => (float[1,1,4] y) {
        t = Identity(x) a = MatMul(t, u) b = Relu(a) c = MatMul(b, v)
        y = ReduceMean <axes = [1]> (c)
    }"""
    shared = {"u": weights(8, 8), "v": weights(8, 4), "at": np.array([0]), "to": np.array([8])}
    fewer = text.replace("Identity(x)", "Slice(x, at, to, one)")
    every, half = (Graph.load(model(t, **shared, one=np.array([1]))) for t in (text, fewer))
    pair_of_networks = (half, every) if back else (every, half)
    repaired = repair(*pair_of_networks, [{"x": floats(1, 16, 8)} for _ in range(8)])
    assert not repaired.layers
    assert len(repaired.refused) == 2
