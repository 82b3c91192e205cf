"""Whole networks, repaired: how close they come, what is left alone and why, and the same bytes."""

from __future__ import annotations

import tempfile

import numpy as np
import onnx
import pytest
from networks import images, residual_network
from onnx import numpy_helper

from actcc.errors import RepairError
from actcc.graph import Graph
from actcc.repair import repair, sequential
from actcc.runtime import run, session

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def drawn_anew(monkeypatch):
    """Each test draws the same numbers, whichever run before it."""
    monkeypatch.setattr(f"{__name__}.RANDOM", np.random.default_rng(0))


def floats(*shape, scale=1.0, dtype=np.float32):
    return (scale * RANDOM.standard_normal(shape)).astype(dtype)


def weights(*shape):
    """Weights that keep the size of what they map."""
    fan_in = int(np.prod(shape[1:])) if len(shape) != 2 else shape[0]
    return floats(*shape, scale=1.4 / np.sqrt(fan_in))


def model(text, opset=17, ir=8, **initializers):
    """A model of ONNX text, with initializers by name."""
    parsed = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}]>\n{text}')
    parsed.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(v), n) for n, v in initializers.items()
    )
    for index, node in enumerate(parsed.graph.node):
        node.name = node.name or f"{node.op_type}{index}"
    return parsed


def pair(text, old="Softplus", new="Relu", **initializers):
    """The graph of a text, and the same with another activation."""
    assert old in text
    networks = (model(t, **initializers) for t in (text, text.replace(old, new)))
    return tuple(Graph.load(network) for network in networks)


def outputs(graph, feeds):
    runner = session(graph)
    return [run(runner, sample) for sample in feeds]


def error(original, other, feeds):
    """Share of the outputs' energy, free of its mean, that another network misses."""
    missed = total = 0.0
    for theirs, ours in zip(outputs(original, feeds), outputs(other, feeds), strict=True):
        for name, values in theirs.items():
            missed += np.square(ours[name].astype(np.float64) - values).sum()
            total += np.square(values.astype(np.float64) - values.mean()).sum()
    return missed / total


def constants(graph):
    return {t.name: numpy_helper.to_array(t) for t in graph.to_proto().graph.initializer}


def weight(graph, node):
    """Values of a layer's weights."""
    return graph.constant(graph.node(node).inputs[1])


def serialized(graph):
    return graph.to_proto().SerializeToString(deterministic=True)


def with_activation(proto, op):
    """A copy of a network in which x · Sigmoid(x) is another operator."""
    twin = onnx.ModelProto()
    twin.CopyFrom(proto)
    kept, gates = [], {n.output[0]: n for n in twin.graph.node if n.op_type == "Sigmoid"}
    for node in twin.graph.node:
        if node.op_type == "Mul" and node.input[1] in gates:
            made = onnx.helper.make_node(op, [node.input[0]], [node.output[0]], name=node.name)
            kept.append(made)
        elif node.output[0] not in gates:
            kept.append(node)
    del twin.graph.node[:]
    twin.graph.node.extend(kept)
    return Graph.load(twin)


def image_feeds(count, seed=1):
    return [{"images": image[None]} for image in images(count, seed=seed)]


FITTED, HELD_OUT = image_feeds(32, seed=1), image_feeds(8, seed=2)


def feeds(shape, count=24, **more):
    return [{"x": floats(*shape), **{k: floats(*s) for k, s in more.items()}} for _ in range(count)]


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
    given = {f"w{i}": weights(6, 6, 1, 1) for i in (1, 2, 3)}
    given |= {"b2": floats(6), "w8": weights(6, 12, 1, 1)}
    given = {name: values for name, values in given.items() if name in text}
    original, rewritten = pair(text, **given)
    repaired = repair(original, rewritten, feeds((1, 6, 8, 8)))
    held_out = feeds((1, 6, 8, 8), 8)
    assert error(original, repaired.graph, held_out) < 0.4 * error(original, rewritten, held_out)


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


CHAIN = """network (float[N, 6, H, W] x) => (float[N, 6, H2, W2] y) {
    p = Conv(x, w1, b1) a = Softplus(p) q = Conv(a, w2, b2) c = Softplus(q) y = Conv(c, w3, b3) }"""


def chain_weights():
    random = np.random.default_rng(5)
    given = {
        f"w{i}": (random.standard_normal((6, 6, 1, 1)) / 2).astype(np.float32) for i in (1, 2, 3)
    }
    return given | {f"b{i}": random.standard_normal(6).astype(np.float32) for i in (1, 2, 3)}


def chain_feeds(count=16, shape=(1, 6, 8, 8), seed=3):
    random = np.random.default_rng(seed)
    return [{"x": random.standard_normal(shape).astype(np.float32)} for _ in range(count)]


def chain():
    return pair(CHAIN, **chain_weights())


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
    quantized = RANDOM.integers(-100, 100, (6, 6, 1, 1)).astype(np.int8)
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


# ---------------------------------------------------------------- samples


def test_half_precision_networks_are_repaired():
    given = {name: values.astype(np.float16) for name, values in chain_weights().items()}
    original, rewritten = pair(CHAIN.replace("float[", "float16["), **given)
    samples, held_out = (
        [{"x": s["x"].astype(np.float16)} for s in chain_feeds(seed=seed)] for seed in (3, 4)
    )
    repaired = repair(original, rewritten, samples)
    assert {values.dtype for values in constants(repaired.graph).values()} == {np.dtype("float16")}
    assert error(original, repaired.graph, held_out) < 0.2 * error(original, rewritten, held_out)


def test_samples_may_differ_in_size_and_hold_several_images():
    original, rewritten = chain()
    shapes = [(1, 6, 8, 8), (3, 6, 5, 9), (2, 6, 12, 4), (1, 6, 1, 1)]
    samples = [chain_feeds(1, shape, seed)[0] for seed in range(4) for shape in shapes]
    repaired = repair(original, rewritten, samples)
    held_out = chain_feeds(4, (2, 6, 7, 7), seed=9)
    assert error(original, repaired.graph, held_out) < 0.1 * error(original, rewritten, held_out)
    assert [t.shape for t in repaired.graph.inputs] == [t.shape for t in rewritten.inputs]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_in_one_sample_is_ignored(bad):
    original, rewritten = chain()
    samples = chain_feeds()
    samples[3]["x"][0, :, 2:, :] = bad
    repaired = repair(original, rewritten, samples)
    held_out = chain_feeds(4, seed=4)
    assert error(original, repaired.graph, held_out) < 0.1 * error(original, rewritten, held_out)


def test_where_no_sample_is_finite_weights_stay():
    original, rewritten = chain()
    samples = [{"x": np.full((1, 6, 8, 8), np.nan, np.float32)} for _ in range(3)]
    repaired = repair(original, rewritten, samples)
    assert repaired.refused.keys() == {"Conv0", "Conv2", "Conv4"}
    assert all("finite" in reason for reason in repaired.refused.values())
    assert not repaired.layers
    given, found = constants(rewritten), constants(repaired.graph)
    assert {n: v.tobytes() for n, v in found.items()} == {n: v.tobytes() for n, v in given.items()}


def test_without_samples_it_is_refused():
    with pytest.raises(RepairError, match="--calib"):
        repair(*chain(), [])


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("scale", [1e-20, 1e12, 1e20, 1e30])
def test_huge_and_tiny_values_never_give_weights_that_are_not_finite(scale):
    original, rewritten = chain()
    samples = [{"x": sample["x"] * np.float32(scale)} for sample in chain_feeds(4)]
    repaired = repair(original, rewritten, samples)
    assert all(np.isfinite(values).all() for values in constants(repaired.graph).values())
    assert len(repaired.layers) + len(repaired.refused) == 3


# ---------------------------------------------------------------- bytes


def network_pair():
    return Graph.load(residual_network()), with_activation(residual_network(), "Relu")


def test_the_same_seed_gives_the_same_bytes_and_so_does_any_number_of_threads():
    original, rewritten = network_pair()
    found = [repair(original, rewritten, FITTED, threads=threads).graph for threads in (1, 1, 2, 3)]
    assert len({serialized(graph) for graph in found}) == 1


def test_a_small_memory_gives_the_same_weights_and_is_kept():
    original, rewritten = chain()
    samples = chain_feeds(32, (8, 6, 16, 16))
    large = repair(original, rewritten, samples, memory_bytes=1 << 30)
    small = repair(original, rewritten, samples, memory_bytes=5 << 20)
    assert serialized(small.graph) == serialized(large.graph)
    assert large.memory_bytes > 5 << 20
    assert small.memory_bytes <= 5 << 20
    assert small.spilled_bytes > 0
    assert large.spilled_bytes == 0


def test_where_rows_have_to_be_cut_it_still_helps():
    original, rewritten = chain()
    repaired = repair(original, rewritten, chain_feeds(8, (8, 6, 12, 12)), memory_bytes=1 << 20)
    held_out = chain_feeds(4, seed=4)
    assert repaired.memory_bytes <= 1 << 20
    assert error(original, repaired.graph, held_out) < 0.1 * error(original, rewritten, held_out)


def test_an_interruption_leaves_no_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    original, rewritten = chain()
    seen = []

    def interrupt():
        seen.extend(tmp_path.iterdir())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repair(original, rewritten, chain_feeds(4), memory_bytes=1 << 20, advance=interrupt)
    assert seen
    assert not list(tmp_path.iterdir())


def test_progress_is_told_of_every_layer():
    told = []
    repaired = repair(*chain(), chain_feeds(4), advance=lambda: told.append(1))
    assert len(told) == len(repaired.layers) == 3
    assert all(after <= before for before, after in (layer.missed for layer in repaired.layers))
    assert sequential.DEFAULT_MEMORY == 2 << 30
