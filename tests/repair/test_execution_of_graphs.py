"""Every kind of graph executed segment by segment gives what one session gives."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from segment_checks import check_segments, feeds, model

from actcc.graph import Graph
from actcc.graph.files import write_model
from actcc.repair.execution import Execution, TensorStore
from actcc.runtime import run, session


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


def test_symbolic_dimensions_may_differ_from_sample_to_sample(pool):
    text = """g (float[n,3] x) => (float[n,3] y) {
        a = Relu(x)
        s = Shape(a)
        z = ConstantOfShape(s)
        y = Add(a, z)
    }"""
    samples = [{"x": networks.images(1, 4)[0].reshape(-1, 3)[:n]} for n in (1, 4, 2)]
    check_segments(model(text), samples, pool)


def test_subgraphs_read_tensors_inputs_and_weights_from_outside(pool):
    text = """g (float[3] x, bool c) => (float[3] y, float[3] a) {
        a = Relu(x)
        b = Neg(a)
        d = If(c) <
            then_branch = t () => (float[3] p) { q = Mul(a, w) p = Add(q, x) },
            else_branch = e () => (float[3] n) { n = Identity(b) }
        >
        y = Sub(d, a)
    }"""
    w = np.arange(3, dtype=np.float32)
    samples = [{"x": w - 1, "c": np.array(flag)} for flag in (True, False)]
    check_segments(model(text, w=w), samples, pool)


def test_a_weight_of_a_subgraph_that_is_too_large_for_a_frame_is_there(pool):
    text = """g (float[400] x, bool c) => (float[400] y) {
        a = Relu(x)
        y = If(c) <
            then_branch = t () => (float[400] p) { p = Mul(a, w) },
            else_branch = e () => (float[400] n) { n = Identity(a) }
        >
    }"""
    w = np.arange(400, dtype=np.float32)
    samples = [{"x": w, "c": np.array(flag)} for flag in (True, False)]
    check_segments(model(text, w=w), samples, pool)


def test_a_loop_reads_from_outside_at_any_depth(pool):
    text = """g (float[3] x, int64 n, bool c) => (float[3] y) {
        a = Relu(x)
        b = Neg(x)
        z = Loop(n, c, x) <
            body = l (int64 i, bool k, float[3] s) => (bool m, float[3] r) {
                m = Identity(k)
                h = If(k) <
                    then_branch = t () => (float[3] p) { p = Mul(a, w) },
                    else_branch = e () => (float[3] q) { q = Identity(b) }
                >
                r = Add(s, h)
            }
        >
        y = Abs(z)
    }"""
    w = np.arange(3, dtype=np.float32)
    samples = [{"x": w - 1, "n": np.array(n), "c": np.array(True)} for n in (1, 3)]
    check_segments(model(text, w=w), samples, pool)


def test_functions_of_the_model_and_constant_nodes(pool):
    text = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
    g (float[3] x) => (float[3] y) {
        c = Constant<value_floats = [1.0, 2.0, 3.0]>()
        a = own.twice(x)
        y = Add(a, c)
    }
    <domain: "own", opset_import: ["" : 17]> twice (i) => (o) { o = Add(i, i) }"""
    parsed = onnx.parser.parse_model(text)
    check_segments(parsed, [{"x": np.ones(3, np.float32)}], pool, segments=2)


def test_optional_inputs_and_outputs_may_be_left_out(pool):
    nodes = [
        helper.make_node("Dropout", ["x"], ["a", ""], name="drop"),
        helper.make_node("Clip", ["a", "", "high"], ["y"], name="clip"),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in "xy")
    weights = [numpy_helper.from_array(np.array(0.5, np.float32), "high")]
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    parsed = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    check_segments(parsed, [{"x": np.ones(3, np.float32)}], pool)


def test_a_default_that_a_caller_may_override_is_the_default(pool):
    text = "g (float[3] x, float[3] w) => (float[3] y) { a = Relu(x) y = Mul(a, w) }"
    w = np.arange(3, dtype=np.float32)
    check_segments(model(text, w=w), [{"x": np.ones(3, np.float32)}], pool)


def test_nodes_that_exchange_a_sequence_run_together(pool):
    text = """g (float[4] x) => (float[4] y) {
        a = Relu(x)
        s = SplitToSequence<keepdims = 1>(a, size)
        i = Identity(zero)
        n = SequenceLength(s)
        e = SequenceAt(s, i)
        b = Add(e, e)
        y = Concat<axis = 0>(b, e)
    }"""
    parsed = model(text, size=np.array(2), zero=np.array(0))
    check_segments(parsed, [{"x": np.arange(4, dtype=np.float32)}], pool, segments=5)


def test_types_that_onnx_cannot_infer_are_those_of_the_values(pool):
    parsed = model("""g (float[1,4] x) => (float[1,4] y) { a = Relu(x) b = Neg(a) y = Abs(b) }""")
    parsed.graph.node[1].op_type, parsed.graph.node[1].domain = "QuickGelu", "com.microsoft"
    parsed.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    graph = Graph.load(parsed)
    assert "b" not in graph.types
    samples = [{"x": np.ones((1, 4), np.float32)}]
    with TensorStore(1 << 10) as store:
        network = Execution(graph, samples, store, pool)
        network.want(["y"])
        for name in "aby":
            network.reach([name])
        np.testing.assert_allclose(network.values("y", 0), run(session(graph), samples[0])["y"])


def test_weights_in_a_file_of_their_own_are_never_serialised_whole(pool, tmp_path, monkeypatch):
    write_model(networks.residual_network(channels=32), tmp_path / "m.onnx", external=True)
    graph = Graph.load(tmp_path / "m.onnx")
    monkeypatch.setattr(Graph, "to_proto", lambda self: pytest.fail("exported whole"))
    with TensorStore(1 << 20) as store:
        network = Execution(graph, feeds(), store, pool)
        network.want(["map"])
        network.reach(["map"])
        found = network.values("map", 1)
    monkeypatch.undo()
    expected = run(session(graph, optimise=False), feeds()[1])["map"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
