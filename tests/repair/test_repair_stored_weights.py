"""The repair of models whose weights are stored in int8."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from quantized_networks import FEEDS, floating, quantized, samples_for

from actcc.calibration import load_samples
from actcc.graph import Graph
from actcc.graph.pairs import stored_as
from actcc.pass_api import apply_candidates, find_sites
from actcc.passes.swap_quantized_activation import SwapQuantizedActivation
from actcc.repair import repair
from actcc.repair.biases import with_own_biases
from actcc.repair.stored import with_real_weights, with_stored_weights
from actcc.runtime import run, session
from actcc.site import Site
from actcc.targets import load_target


def outputs(graph: Graph) -> list[np.ndarray]:
    runner = session(graph, optimise=False)
    return [run(runner, {"x": values})["y"] for values in FEEDS]


def with_relu(graph: Graph) -> Graph:
    swap = SwapQuantizedActivation()
    found = find_sites(graph, [swap], load_target("cpu"), samples=samples_for(graph))
    (site,) = found.sites
    return apply_candidates(graph, [swap], [(site, "Relu")])


@pytest.mark.parametrize("element", ["uint8", "int8"])
def test_weights_that_are_left_alone_stay_bit_for_bit(element, tmp_path):
    graph = quantized(floating(), tmp_path, element)
    real, layers = with_real_weights(graph)
    assert set(layers) == {node.name for node in graph.nodes("Conv")}
    assert all(real.constant(node.inputs[1]) is not None for node in real.nodes("Conv"))
    np.testing.assert_array_equal(outputs(real), outputs(graph))
    again = with_stored_weights(real, layers)
    for before, after in zip(graph.nodes("Conv"), again.nodes("Conv"), strict=True):
        for one, other in zip(before.inputs[1:], after.inputs[1:], strict=True):
            writers = graph.producer(one), again.producer(other)
            assert stored_as(graph, writers[0]).same(stored_as(again, writers[1]))
            stored = graph.constant(writers[0].inputs[0]), again.constant(writers[1].inputs[0])
            np.testing.assert_array_equal(*stored)


@pytest.mark.parametrize("kind", ["float", "none"])
def test_weights_stay_bit_for_bit_beside_a_bias_that_was_no_integers(kind, tmp_path):
    graph = quantized(floating(), tmp_path)
    for node in graph.nodes("Conv"):
        bias = graph.producer(node.inputs[2])
        values = graph.constant(bias.inputs[0]) * graph.constant(bias.inputs[1])
        graph.set_input(node, 2, (values if kind == "float" else 0 * values).astype(np.float32))
    if kind == "none":
        proto = graph.to_proto()
        for node in proto.graph.node:
            if node.op_type == "Conv":
                del node.input[2]
        graph = Graph.load(proto)
    real, layers = with_real_weights(graph)
    own = with_own_biases(real, [node.outputs[0].name for node in real.nodes("Conv")])
    again = with_stored_weights(own, layers)
    for before, after in zip(graph.nodes("Conv"), again.nodes("Conv"), strict=True):
        writers = graph.producer(before.inputs[1]), again.producer(after.inputs[1])
        assert stored_as(graph, writers[0]).same(stored_as(again, writers[1]))
        stored = graph.constant(writers[0].inputs[0]), again.constant(writers[1].inputs[0])
        np.testing.assert_array_equal(*stored)
        assert (again.producer(after.inputs[2]) is None) is (kind == "float")
    np.testing.assert_array_equal(outputs(again), outputs(graph))


def test_what_a_swap_loses_is_made_good_in_int8(tmp_path):
    graph = quantized(floating(), tmp_path)
    rewritten = with_relu(graph)
    found = repair(graph, rewritten, samples_for(graph), threads=1)
    assert len(found.layers) == 2
    assert not found.refused
    wanted = np.array(outputs(graph))
    naive, repaired = (
        np.square(np.array(outputs(g)) - wanted).mean() for g in (rewritten, found.graph)
    )
    assert repaired < naive / 3
    for node in found.graph.nodes("Conv"):
        weights = stored_as(found.graph, found.graph.producer(node.inputs[1]))
        assert weights.zero_point.dtype == np.int8
        stored = found.graph.constant(found.graph.producer(node.inputs[1]).inputs[0])
        assert np.abs(stored).max() <= 64  # the quantizer had reduced its range to 7 bits


@pytest.mark.parametrize("opset", [10, 12])
def test_models_from_before_scales_for_each_output_are_swapped_and_repaired(opset, tmp_path):
    graph = quantized(floating(opset=opset), tmp_path, per_channel=False)
    assert graph.opset == opset
    rewritten = with_relu(graph)
    assert rewritten.opset == opset
    found = repair(graph, rewritten, samples_for(graph), threads=1)
    assert len(found.layers) == 2
    wanted = np.array(outputs(graph))
    naive, repaired = (
        np.square(np.array(outputs(g)) - wanted).mean() for g in (rewritten, found.graph)
    )
    assert repaired < naive / 3


def test_weights_in_steps_of_float16_are_left_alone_and_still_run():
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 19]> '
        "network (float16[1,3,6,6] x) => (float16[1,4,6,6] y)"
        "{ i = QuantizeLinear(x, step, middle) d = DequantizeLinear(i, step, middle)"
        "a = Sigmoid(d) j = QuantizeLinear(a, step, middle) e = DequantizeLinear(j, step, middle)"
        "v = DequantizeLinear<axis = 0>(w, steps) y = Conv<pads = [1,1,1,1]>(e, v) }"
    )
    constants = {
        "step": np.float16(0.03),
        "middle": np.uint8(128),
        "w": np.random.default_rng(0).integers(-99, 99, (4, 3, 3, 3)).astype(np.int8),
        "steps": np.full(4, 0.01, np.float16),
    }
    for name, values in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), name))
    feeds = [{"x": np.full((1, 3, 6, 6), value, np.float16)} for value in (-1, 0, 1)]
    graph = Graph.load(model)
    rewritten = graph.copy()
    sigmoid = next(rewritten.nodes("Sigmoid"))
    rewritten.replace(Site([sigmoid], sigmoid.inputs[0], sigmoid.outputs[0]), "HardSigmoid", ["d"])
    found = repair(graph, rewritten, load_samples(feeds, graph), threads=1)
    assert "in float32 steps" in next(iter(found.refused.values()))
    assert run(session(found.graph), feeds[0])["y"].dtype == np.float16


def test_weights_with_a_zero_point_are_left_alone_with_the_reason(tmp_path):
    graph = quantized(floating(), tmp_path)
    for node in graph.nodes("Conv"):
        writer = graph.producer(node.inputs[1])
        stored = graph.constant(writer.inputs[0]).astype(np.int16) + 128
        graph.set_input(writer, 0, stored.astype(np.uint8))
        graph.set_input(writer, 2, np.full(stored.shape[0], 128, np.uint8))
    rewritten = with_relu(graph)
    found = repair(graph, rewritten, samples_for(graph), threads=1)
    assert not found.layers
    assert all("without a zero point" in reason for reason in found.refused.values())
    np.testing.assert_array_equal(outputs(found.graph), outputs(rewritten))
