"""Networks executed segment by segment: the same numbers, every node once, memory within bounds."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from actcc.calibration import load_samples
from actcc.errors import DataError, ModelError, RepairError
from actcc.graph import Graph
from actcc.graph.files import write_model
from actcc.repair import execution
from actcc.repair.execution import Execution, TensorStore
from actcc.runtime import run, session

SAMPLES = 3


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def nodes_run(monkeypatch):
    """How often each node has run, of all networks together."""
    counted = Counter()

    def counting(model, **options):
        names = [node.name for node in model.graph.node]
        return names, session(model, **options)

    def counting_run(pair, feeds):
        counted.update(pair[0])
        return run(pair[1], feeds)

    monkeypatch.setattr(execution, "session", counting)
    monkeypatch.setattr(execution, "run", counting_run)
    return counted


def feeds(count=SAMPLES, size=16):
    return [{"images": image[None]} for image in networks.images(count, size)]


def model(text, opset=17, **weights):
    parsed = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')
    parsed.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in weights.items())
    for index, node in enumerate(parsed.graph.node):
        node.name = node.name or f"{node.op_type}{index}"
    return parsed


def check_segments(parsed, samples, pool, limit=1 << 20, segments=None):
    """Tensors reached one after the other are what one session of the whole network writes."""
    graph = Graph.load(parsed)
    names = [tensor.name for node in graph.nodes() for tensor in node.outputs if tensor.name]
    names = [name for name in names if name in graph.types]
    whole = onnx.ModelProto()
    whole.CopyFrom(graph.to_proto())
    have = {output.name for output in whole.graph.output}
    whole.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in have)
    runner = session(whole, optimise=False)
    with TensorStore(limit) as store:
        network = Execution(graph, samples, store, pool)
        network.want(names)
        for name in names:
            network.reach([name])
            for index, sample in enumerate(samples):
                expected = run(runner, sample)[name]
                found = network.values(name, index)
                assert found.dtype == expected.dtype
                np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
            network.release(name)
            assert store.bytes <= limit
        assert store.most_bytes <= limit
        assert store.bytes == 0
        assert network.runs == (len(names) if segments is None else segments)
        return store


# ---------------------------------------------------------------- numbers and counts


@pytest.mark.parametrize("limit", [0, 4 << 10, 1 << 20])
def test_segments_write_what_one_session_writes_within_any_limit(pool, limit):
    store = check_segments(networks.residual_network(), feeds(), pool, limit)
    assert bool(store.spilled_bytes) == (limit < 1 << 20)


def test_each_node_runs_once_for_each_sample_however_it_is_reached(pool, nodes_run):
    graph = Graph.load(networks.residual_network())
    names = [node.outputs[0].name for node in graph.nodes()]
    with TensorStore(1 << 20) as store:
        network = Execution(graph, feeds(), store, pool)
        network.want([*names[::3], "features", "map"])
        for name in [names[9], names[3], names[3], "map", *names[::3], "features", "map"]:
            network.reach([name])
    assert nodes_run == {node.name: SAMPLES for node in graph.nodes()}


def test_what_is_the_same_in_both_networks_is_computed_once(pool, nodes_run):
    parsed = networks.residual_network()
    original, rewritten = Graph.load(parsed), Graph.load(parsed)
    sigmoid = list(rewritten.nodes("Sigmoid"))[1]
    sigmoid.op = "HardSigmoid"
    depends = {sigmoid.outputs[0].name}
    for node in rewritten.nodes():
        if any(tensor.name in depends for tensor in node.inputs):
            depends.update(tensor.name for tensor in node.outputs)
    every = {tensor.name for node in rewritten.nodes() for tensor in node.outputs}
    same = frozenset(every - depends | {"images"})
    with TensorStore(2 << 10) as store:
        one = Execution(original, feeds(), store, pool)
        other = Execution(rewritten, feeds(), store, pool, one, same)
        one.want(["map"])
        other.want(["map", sigmoid.inputs[0].name])
        other.reach([sigmoid.inputs[0].name])
        other.reach(["map"])
        one.reach(["map"])
        for index, sample in enumerate(feeds()):
            for network, graph in ((one, original), (other, rewritten)):
                expected = run(session(graph, optimise=False), sample)["map"]
                np.testing.assert_allclose(network.values("map", index), expected, atol=1e-6)
        for network in (one, other):
            network.release("map")
        other.release(sigmoid.inputs[0].name)
        assert store.bytes == 0
        assert store.most_bytes <= 2 << 10
    unread = {node.name for node in original.nodes() if not needed_by(original, node, "map")}
    assert nodes_run == {
        node.name: SAMPLES * (1 if node.outputs[0].name in same else 2)
        for node in original.nodes()
        if node.name not in unread
    }


def needed_by(graph, node, output):
    frontier, seen = [output], set()
    while frontier:
        writer = graph.producer(frontier.pop())
        if writer is not None and id(writer) not in seen:
            seen.add(id(writer))
            frontier += [tensor.name for tensor in writer.inputs if tensor.name]
    return id(node) in seen


def test_a_node_of_which_only_some_outputs_are_the_same_is_computed(pool, nodes_run):
    text = (
        "g (float[4] x) => (float[2] a, float[2] b) { a, b = Split<axis = 0, num_outputs = 2>(x) }"
    )
    graph = Graph.load(model(text, opset=18))
    samples = [{"x": np.arange(4, dtype=np.float32)}]
    with TensorStore(1 << 10) as store:
        one = Execution(graph, samples, store, pool)
        other = Execution(graph, samples, store, pool, one, frozenset({"x", "a"}))
        other.want(["a", "b"])
        other.reach(["a", "b"])
        assert other.values("a", 0).tolist() == [0, 1]
        assert other.values("b", 0).tolist() == [2, 3]
    assert nodes_run == {"Split0": 1}


def test_a_weight_that_is_set_is_used_by_what_has_not_run_yet(pool):
    text = """g (float[2] x) => (float[2] y) {
        a = Mul(x, w)
        b = Relu(a)
        y = Mul(b, w)
    }"""
    large = np.full(2, 2, np.float32)
    with TensorStore(1 << 10) as store:
        samples = [{"x": np.ones(2, np.float32)}]
        network = Execution(Graph.load(model(text, w=large)), samples, store, pool)
        network.want(["a", "y"])
        network.reach(["a"])
        network.set_weight("w", np.full(2, 10, np.float32))
        network.reach(["y"])
        assert network.values("a", 0).tolist() == [2, 2]
        assert network.values("y", 0).tolist() == [20, 20]
        assert network.values("w", 0).tolist() == [10, 10]
        with pytest.raises(RepairError, match="no initializer 'v'"):
            network.set_weight("v", large)


# ---------------------------------------------------------------- memory


def test_a_tensor_goes_when_its_last_reader_has_run_and_nobody_wants_it(pool):
    text = """g (float[4] x) => (float[4] y) {
        a = Relu(x)
        b = Neg(a)
        c = Neg(b)
        unneeded = Neg(a)
        y = Add(a, c)
    }"""
    samples = [{"x": np.ones(4, np.float32)} for _ in range(5)]
    tensor = 5 * 16
    with TensorStore(1 << 20) as store:
        network = Execution(Graph.load(model(text)), samples, store, pool)
        network.want(["b", "c", "y"])
        network.reach(["b"])
        assert store.bytes == 2 * tensor  # a, b; x is gone
        network.release("b")
        network.reach(["c"])
        assert store.bytes == 2 * tensor  # a, c
        network.reach(["y"])
        network.release("c")
        assert store.bytes == tensor
        network.release("y")
        assert store.bytes == 0
        with pytest.raises(RepairError, match="'b' of sample 0 is not there"):
            network.values("b", 0)
        with pytest.raises(RepairError, match="'a' was computed and is gone"):
            network.want(["unneeded"])


def test_what_a_run_writes_takes_the_place_of_what_it_read_last(pool):
    chain = (
        "g (float[64] x) => (float[64] t9) {"
        + " ".join(f"t{i + 1} = Neg(t{i})" for i in range(9)).replace("t0", "x")
        + "}"
    )
    samples = [{"x": np.ones(64, np.float32)} for _ in range(20)]
    with TensorStore(1 << 20) as store:
        network = Execution(Graph.load(model(chain)), samples, store, pool)
        network.want(["t9"])
        for i in range(1, 10):
            network.reach([f"t{i}"])
    assert store.most_bytes <= 256 * (20 + 2)


def test_samples_are_loaded_once_for_both_networks_and_not_all_held(pool, tmp_path, monkeypatch):
    np.save(tmp_path / "samples.npy", networks.images(6)[:, None])
    graph = Graph.load(networks.residual_network())
    samples = load_samples(tmp_path / "samples.npy", graph)
    loads = Counter()
    load = type(samples.loader).load

    def counting(self, index):
        loads[index] += 1
        return load(self, index)

    monkeypatch.setattr(type(samples.loader), "load", counting)
    names = [node.outputs[0].name for node in graph.nodes()]
    with TensorStore(4 << 10) as store:
        one = Execution(graph, samples, store, pool)
        other = Execution(graph, samples, store, pool, one, frozenset({"images"}))
        other.want(names)
        one.want(names)
        for name in names:
            one.reach([name])
            other.reach([name])
            np.testing.assert_array_equal(one.values(name, 5), other.values(name, 5))
        assert loads == dict.fromkeys(range(6), 1)
        assert store.most_bytes <= 4 << 10


def test_the_store_keeps_what_it_was_given_on_either_side_of_its_limit():
    arrays = [
        np.arange(6, dtype=np.float16).reshape(2, 3),
        np.array(3.5),
        np.zeros((0, 4), np.float32),
        np.array(["one", "äöü"], dtype=object),
        np.array([True, False]),
        np.arange(12).reshape(3, 4).T,
    ]
    for limit in (0, 20, 1 << 20):
        with TensorStore(limit) as store:
            kept = [store.keep(values) for values in arrays]
            assert store.bytes <= limit
            for one, values in zip(kept, arrays, strict=True):
                assert one.values.dtype == values.dtype
                np.testing.assert_array_equal(one.values, values)
                store.drop(one)
            assert store.bytes == 0


def test_many_spilled_arrays_hold_no_file_open():
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("needs /proc to count open files")
    with TensorStore(0) as store:
        before = len(os.listdir(folder))
        kept = [store.keep(np.ones(3)) for _ in range(50)]
        assert sum(one.values.sum() for one in kept) == 150
        assert len(os.listdir(folder)) <= before + 1


def test_threads_may_fill_a_store_and_its_limit_holds():
    with TensorStore(1000) as store, ThreadPoolExecutor(8) as threads:
        kept = list(threads.map(lambda i: store.keep(np.full(10, i)), range(200)))
        assert store.most_bytes <= 1000
        assert store.bytes + store.spilled_bytes == 200 * 80
        assert [one.values[0] for one in kept] == list(range(200))
        list(threads.map(store.drop, kept))
        assert store.bytes == 0


def test_dropped_files_are_deleted_and_an_error_leaves_none_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fail():
        with TensorStore(0) as store:
            first, _ = store.keep(np.ones(3)), store.keep(np.ones(3))
            assert len(list(tmp_path.rglob("*.npy"))) == 2
            store.drop(first)
            assert len(list(tmp_path.rglob("*.npy"))) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_gone_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = TensorStore(0)
    store.close()
    with pytest.raises(RepairError, match="--repair-memory"):
        store.keep(np.ones(3))


# ---------------------------------------------------------------- kinds of networks


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


# ---------------------------------------------------------------- what can be asked for and fail


def test_inputs_and_weights_can_be_asked_for_as_any_tensor(pool):
    graph = Graph.load(networks.residual_network())
    weight = next(node for node in graph.nodes("Conv")).inputs[1]
    with TensorStore(1 << 20) as store:
        network = Execution(graph, feeds(), store, pool)
        network.want(["images", weight.name])
        network.reach(["images", weight.name])
        np.testing.assert_array_equal(network.values("images", 1), feeds()[1]["images"])
        np.testing.assert_array_equal(network.values(weight.name, 0), weight.values)
        network.release("images")
        network.release(weight.name)
        assert store.bytes == 0
        np.testing.assert_array_equal(network.values("images", 2), feeds()[2]["images"])
        assert network.runs == 0


def test_a_sample_without_an_input_is_named(pool):
    graph = Graph.load(networks.residual_network())
    with TensorStore(1 << 20) as store:
        network = Execution(graph, [{"image": np.ones(1)}], store, pool)
        with pytest.raises(DataError, match=r"sample 0 has no values for input 'images'.*image"):
            network.reach(["map"])


def test_an_error_of_one_sample_ends_the_run_before_the_others_start(pool):
    graph = Graph.load(networks.residual_network())
    asked = itertools.count()

    class Samples(list):
        def __getitem__(self, index):
            next(asked)
            return {"images": np.ones((1, 3, 5, 5), np.float32)}

    with TensorStore(1 << 20) as store:
        network = Execution(graph, Samples(range(1000)), store, pool)
        with pytest.raises(ModelError, match="shapes and types"):
            network.reach(["map"])
    assert next(asked) < 1000
