"""Networks executed segment by segment: the same numbers, every node once, memory within bounds."""

from __future__ import annotations

import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import networks
import numpy as np
import pytest
from segment_checks import SAMPLES, check_segments, feeds, model

from actcc.calibration import load_samples
from actcc.errors import DataError, ModelError, RepairError
from actcc.graph import Graph
from actcc.repair import execution
from actcc.repair.execution import Execution, TensorStore
from actcc.runtime import run, session


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
