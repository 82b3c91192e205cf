"""Swapping activations inside QDQ: new ranges, biases that follow them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from quantized_networks import FEEDS, HARD_SWISH, SILU, floating, quantized, samples_for

from actcc.activations import Activation
from actcc.graph import Array, Graph, Interface, verify
from actcc.graph.pairs import QUANTIZE, stored_as
from actcc.pass_api import Survey, apply_candidates, find_sites
from actcc.passes.swap_quantized_activation import SwapQuantizedActivation
from actcc.runtime import run, session
from actcc.targets import load_target

SWAP = SwapQuantizedActivation()


def survey(graph: Graph, *, with_samples: bool = True) -> Survey:
    samples = samples_for(graph) if with_samples else None
    return find_sites(
        graph, [SWAP], load_target("cpu"), exact_only=not with_samples, samples=samples
    )


def swapped(graph: Graph, name: str) -> Graph:
    (site,) = survey(graph).sites
    result = apply_candidates(graph, [SWAP], [(site, name)])
    verify(result, Interface.of(graph), [SWAP.name])
    return result


def fused_operators(graph: Graph, folder: Path) -> list[str]:
    """What ONNX Runtime makes of a graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "fused.onnx")
    onnxruntime.InferenceSession(
        graph.to_proto().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [node.op_type for node in onnx.load(folder / "fused.onnx").graph.node]


def real_outputs(name: str) -> list[Array]:
    """Of the network in floating point with another activation."""
    text = {"Relu": "a = Relu(k)", "HardSwish": "a = HardSwish(k)"}[name]
    runner = session(Graph.load(floating(SILU.replace("s = Sigmoid(k) a = Mul(k, s)", text))))
    return [run(runner, {"x": values})["y"] for values in FEEDS]


def relative_error(graph: Graph, wanted: list[Array]) -> float:
    runner = session(graph, optimise=False)
    found = np.array([run(runner, {"x": values})["y"] for values in FEEDS])
    return float(np.square(found - wanted).mean() / np.square(wanted).mean())


@pytest.mark.parametrize("element", ["uint8", "int8"])
@pytest.mark.parametrize("body", [SILU, HARD_SWISH])
def test_relu_becomes_part_of_the_int8_convolution(body, element, tmp_path):
    graph = quantized(floating(body), tmp_path, element)
    result = swapped(graph, "Relu")
    assert "Relu" not in [node.op for node in result.nodes()]
    behind = next(r for r in result.consumers(next(result.nodes("Conv")).outputs[0]))
    kind = stored_as(result, behind)
    assert kind is not None
    assert kind.zero_point == np.iinfo(element).min
    assert kind.cuts_off(0.0, np.inf)
    fused = fused_operators(result, tmp_path)
    assert fused.count("QLinearConv") == 2
    assert not {"Conv", "QLinearSigmoid", "QLinearMul"} & set(fused)
    assert relative_error(result, real_outputs("Relu")) < 2e-3


def test_a_function_that_no_kernel_swallows_stands_between_two_roundings(tmp_path):
    graph = quantized(floating(), tmp_path)
    result = swapped(graph, "HardSwish")
    assert fused_operators(result, tmp_path).count("QLinearConv") == 2
    operators = [node.op for node in result.nodes()]
    place = operators.index("HardSwish")
    around = operators[place - 2 : place] + operators[place + 1 : place + 3]
    assert around == ["QuantizeLinear", "DequantizeLinear"] * 2
    assert relative_error(result, real_outputs("HardSwish")) < 2e-3


def test_the_bias_behind_is_stored_in_the_new_scale(tmp_path):
    result = swapped(quantized(floating(), tmp_path), "Relu")
    _, second = result.nodes("Conv")
    source, weights, bias = (stored_as(result, result.producer(tensor)) for tensor in second.inputs)
    np.testing.assert_allclose(bias.scale, source.scale * weights.scale, rtol=1e-6)
    node = result.producer(second.inputs[2])
    real = result.constant(node.inputs[0]) * bias.scale
    wanted = onnx.numpy_helper.to_array(
        next(t for t in floating().graph.initializer if t.name == "c")
    )
    np.testing.assert_allclose(real, wanted, atol=2 * bias.scale.max())


def test_pooling_behind_stays_in_int8_since_its_scale_follows(tmp_path):
    body = (
        "k = Conv<pads = [1,1,1,1]>(x, w, b) s = Sigmoid(k) a = Mul(k, s) "
        "p = MaxPool<kernel_shape = [3,3], pads = [1,1,1,1]>(a) y = Conv<pads=[1,1,1,1]>(p, v, c)"
    )
    result = swapped(quantized(floating(body), tmp_path), "Relu")
    fused = fused_operators(result, tmp_path)
    assert fused.count("QLinearConv") == 2
    assert fused.count("DequantizeLinear") == 1  # of the output


def test_a_zero_point_behind_that_was_left_out_follows_too():
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> network (float[1,3,10,10] x) => (float[1,3,5,5] y)'
        "<float from = {0.05}, uint8 middle = {128}, float to = {0.03}, uint8 zero = {0}> {"
        "i = QuantizeLinear(x, from, middle) d = DequantizeLinear(i, from, middle)"
        "a = Softplus(d) j = QuantizeLinear(a, to, zero) e = DequantizeLinear(j, to, zero)"
        "p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(e)"
        "k = QuantizeLinear(p, to) y = DequantizeLinear(k, to) }"
    )
    result = swapped(Graph.load(model), "LeakyRelu")
    pool = next(result.nodes("MaxPool"))
    before = stored_as(result, result.producer(pool.inputs[0]))
    (quantize,) = result.consumers(pool.outputs[0])
    behind = [stored_as(result, node) for node in (quantize, result.producer("y"))]
    assert before.zero_point > 0
    assert [before.same(kind) for kind in behind] == [True, True]


def test_values_before_it_keep_a_type_that_an_attribute_says():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> network (float[1,3,10,10] x) => (float[] y)'
        "<float step = {0.03}> { i = QuantizeLinear<output_dtype = 3>(x, step)"  # int8
        "d = DequantizeLinear(i, step) a = Softplus(d)"
        "j = QuantizeLinear<output_dtype = 3>(a, step) y = DequantizeLinear(j, step) }"
    )
    graph = Graph.load(model)
    result = swapped(graph, "HardSwish")
    kinds = [
        stored_as(g, g.producer(next(g.nodes(op)).inputs[0]))
        for g, op in ((graph, "Softplus"), (result, "HardSwish"))
    ]
    assert kinds[0].same(kinds[1])


def test_symmetric_models_keep_the_zero_point_0_and_the_relu(tmp_path):
    graph = quantized(floating(), tmp_path, "int8", symmetric=True)
    result = swapped(graph, "Relu")
    (relu,) = result.nodes("Relu")
    kinds = [stored_as(result, node) for node in result.nodes(QUANTIZE)]
    assert all(kind is not None and not kind.zero_point.any() for kind in kinds)
    assert result.producer(relu.inputs[0]).op == "DequantizeLinear"
    assert relative_error(result, real_outputs("Relu")) < 5e-3


def test_the_same_function_without_roundings_inside_is_approximate_and_keeps_its_range(tmp_path):
    graph = quantized(floating(), tmp_path)
    (site,) = survey(graph).sites
    candidate = site.candidate("Silu as Sigmoid+Mul")
    assert not candidate.exact
    assert candidate.computes == str(Activation("Silu"))
    result = swapped(graph, candidate.name)
    kinds = [
        stored_as(g, g.producer(g.producer(list(g.nodes("Conv"))[1].inputs[0]).inputs[0]))
        for g in (graph, result)
    ]
    assert kinds[0].same(kinds[1])


def test_without_samples_another_function_is_refused_with_the_reason(tmp_path):
    found = survey(quantized(floating(), tmp_path), with_samples=False)
    assert not found.sites
    reasons = {refusal.subject.split(" → ")[1]: refusal.reason for _, refusal in found.refusals}
    assert reasons["Relu"] == ("its range needs calibration data with finite values; give --calib")


def test_a_single_node_may_be_spelled_in_another_way_exactly(tmp_path):
    body = SILU.replace("s = Sigmoid(k) a = Mul(k, s)", "a = HardSigmoid(k)")
    graph = quantized(floating(body), tmp_path)
    (site,) = survey(graph).sites
    assert site.candidate("HardSigmoid as Mul+Clip").exact
    result = swapped(graph, "HardSigmoid as Mul+Clip")
    wanted = [run(session(graph, optimise=False), {"x": values})["y"] for values in FEEDS]
    assert relative_error(result, wanted) < 1e-5


def test_a_range_that_others_read_is_left_with_the_reason(tmp_path):
    graph = quantized(floating(), tmp_path)
    stored = next(node for node in graph.nodes(QUANTIZE) if node.inputs[0].name == "a")
    proto = graph.to_proto()
    again = onnx.helper.make_node(
        "DequantizeLinear", [stored.outputs[0].name, *[t.name for t in stored.inputs[1:]]], ["z"]
    )
    proto.graph.node.append(again)
    proto.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, None))
    found = survey(Graph.load(proto))
    reasons = {refusal.subject.split(" → ")[1]: refusal.reason for _, refusal in found.refusals}
    assert "is not read by one DequantizeLinear of the same scale alone" in reasons["Relu"]
