"""A fine-tune brings a rewritten network closer to the original, and never further away."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
import onnx
import pytest
from networks import Builder, images, residual_network
from onnx import numpy_helper

from actcc.calibration import load_samples
from actcc.errors import DataError, RepairError
from actcc.graph import Graph, structure_hash
from actcc.repair.distill import distill
from actcc.runtime import run, session

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'actcc[distill]'")


def swapped(graph: Graph) -> Graph:
    """Every SiLU as ReLU; the tensor that it writes keeps its name."""
    rewritten = graph.copy()
    for node in list(rewritten.nodes("Mul")):
        sigmoid = rewritten.producer(node.inputs[1])

        class Site:
            nodes = (sigmoid.name, node.name)
            writes = node.outputs[0].name

        rewritten.replace(Site, "Relu", [node.inputs[0].name])
    return rewritten


def distance(original: Graph, rewritten: Graph, feeds: np.ndarray) -> float:
    """Mean square of the difference of all outputs, relative to the original's."""
    sessions = session(original), session(rewritten)
    found = [[run(s, {"images": x[None]}) for x in feeds] for s in sessions]
    errors = [
        np.square(a[k] - b[k]).mean() / np.var(a[k]) for a, b in zip(*found, strict=True) for k in a
    ]
    return float(np.mean(errors))


class StepClock:
    """A clock on which each look takes 10 ms: equally many steps on machines of any speed."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        self.now_s += 0.01
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    stepping = StepClock()
    for module in ("distillation", "fitting"):
        monkeypatch.setattr(f"actcc.repair.distill.{module}.time", stepping)
    return stepping


@pytest.fixture(scope="module")
def network():
    original = Graph.load(residual_network())
    return original, swapped(original), load_samples(images(12), original)


def test_the_outputs_come_closer_on_samples_that_were_never_seen(network, clock):
    original, rewritten, samples = network
    unseen = images(8, seed=99)

    found = distill(original, rewritten, samples, time_limit_s=3)

    assert found.improved
    assert found.refused == {}
    assert 2.5 < found.seconds < clock.now_s <= 3
    before, after = (distance(original, g, unseen) for g in (rewritten, found.graph))
    assert after < 0.3 * before


def test_it_ends_in_time_and_says_what_it_did(network):
    original, rewritten, samples = network
    ticks = []
    began = time.monotonic()

    found = distill(original, rewritten, samples, time_limit_s=2, advance=lambda: ticks.append(1))

    # Other work on the machine may hold up the last step.
    assert time.monotonic() - began < 6
    assert found.seconds < 6
    assert len(ticks) == len(found.spans) == 1
    assert found.spans[0].stage == "whole"
    assert found.spans[0].steps > 0
    assert found.spans[0].loss_after < found.spans[0].loss_before


def test_a_network_that_is_right_already_is_given_back(network, clock):
    original, _, samples = network

    found = distill(original, original, samples, time_limit_s=0.5)

    assert found.graph is original
    assert not found.improved
    assert "did not fall" in found.spans[0].reason
    assert found.spans[0].steps == 0  # nothing is missed


@pytest.mark.parametrize("threads", [1, 3])
def test_pytorch_computes_with_one_thread_for_each_worker(network, clock, monkeypatch, threads):
    from actcc.repair.distill import problem

    seen = set()
    original_loss = problem.Problem.loss

    def loss(self, batch, weights):
        seen.add((threading.get_ident(), torch.get_num_threads()))
        return original_loss(self, batch, weights)

    monkeypatch.setattr(problem.Problem, "loss", loss)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = distill(*network, time_limit_s=1)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found.improved
    assert {used for _, used in seen} == {1}
    # A pool a span, of up to as many threads.
    assert len({name for name, _ in seen}) >= threads


def test_no_time_leaves_the_weights(network):
    original, rewritten, samples = network

    found = distill(original, rewritten, samples, time_limit_s=1e-6)

    assert found.graph is rewritten


def test_the_given_graphs_are_not_changed_and_structure_names_and_outputs_stay(network, clock):
    original, rewritten, samples = network
    before = rewritten.to_proto().SerializeToString()

    found = distill(original, rewritten, samples, time_limit_s=0.5)

    assert rewritten.to_proto().SerializeToString() == before
    assert structure_hash(found.graph) == structure_hash(rewritten)
    assert [n.name for n in found.graph.nodes()] == [n.name for n in rewritten.nodes()]


def with_unknown_node() -> onnx.ModelProto:
    """Two convolutions with a CumSum, which the table lacks, between them."""
    build = Builder()
    x = build.silu(build.conv("images", 3, 4))
    build.weights.append(numpy_helper.from_array(np.array(3, np.int64), "axis"))
    x = build.add("CumSum", x, "axis")
    build.conv(build.silu(build.conv(x, 4, 4)), 4, 2)
    build.nodes[-1].output[0] = "y"
    return build.model((1, 3, 16, 16), {"y": (1, 2, 16, 16)})


def test_layers_around_an_unknown_operator_are_fitted_and_it_is_named(clock):
    original = Graph.load(with_unknown_node())

    found = distill(original, swapped(original), load_samples(images(8), original), time_limit_s=1)

    assert found.improved
    assert ["not in the table" in reason for reason in found.refused.values()] == [True]
    # What is before it writes nothing that a layer reads or that leaves the network.
    assert [span.kept for span in found.spans] == [False, True]
    assert "counterpart" in found.spans[0].reason
    assert math.isnan(found.spans[0].loss_before)


def test_shared_weights_stay_as_they_are(clock):
    build = Builder()
    x = build.silu(build.conv("images", 3, 3))
    weights = build.nodes[0].input[1:]
    x = build.silu(build.add("Conv", x, *weights, pads=[1] * 4))
    build.conv(x, 3, 2)
    build.nodes[-1].output[0] = "y"
    original = Graph.load(build.model((1, 3, 16, 16), {"y": (1, 2, 16, 16)}))

    found = distill(original, swapped(original), load_samples(images(8), original), time_limit_s=1)

    for name in weights:
        np.testing.assert_array_equal(found.graph.constant(name), original.constant(name))
    assert sum("shared" in reason for reason in found.refused.values()) == 2
    assert found.improved


def test_half_precision_weights_are_fitted_in_single_and_rounded_at_the_end(clock):
    model = residual_network()
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    original = Graph.load(model)
    samples = load_samples({"images": images(8).astype(np.float16)}, original)

    found = distill(original, swapped(original), samples, time_limit_s=1)

    assert found.improved
    kinds = {found.graph.constant(n.inputs[1]).dtype for n in found.graph.nodes("Conv")}
    assert kinds == {np.dtype(np.float16)}


def test_no_time_at_all_and_a_single_sample_are_errors(network):
    original, rewritten, samples = network

    with pytest.raises(RepairError, match="seconds above 0"):
        distill(original, rewritten, samples, time_limit_s=0)
    with pytest.raises(DataError, match="at least 2"):
        distill(original, rewritten, samples.take(1), time_limit_s=1)


def test_without_pytorch_the_extra_is_named(network, monkeypatch):
    original, rewritten, samples = network
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(RepairError, match=r"pip install 'actcc\[distill\]'"):
        distill(original, rewritten, samples, time_limit_s=1)
