"""Layers in int8: close to floating point, and fused by the runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import residual_network
from normalizing import graph_of
from quantizing import QUANTIZE, error, floats, kernels, mobile_network, quantized, seen, sites_of

from actcc.graph import Array, Graph
from actcc.pass_api import apply_candidates
from actcc.runtime import run, session


@settings(max_examples=25, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
    pad=st.integers(0, 1),
    behind=st.sampled_from(["", "Relu", "Clip"]),
    bias=st.booleans(),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_a_convolution_is_off_by_a_few_steps(
    groups: int, kernel: int, stride: int, pad: int, behind: str, bias: bool, scale: float
) -> None:
    constants: dict[str, Array] = {
        "w": scale * floats(8, 4 // groups, kernel, kernel, seed=1),
        "b": scale * floats(8, seed=2),
        "low": np.array(0.0, np.float32),
        "high": np.array(6.0 * scale, np.float32),
    }
    operands = "x, w, b" if bias else "x, w"
    tails = {"": "y = Identity(c)", "Relu": "y = Relu(c)", "Clip": "y = Clip(c, low, high)"}
    geometry = f"group={groups}, strides=[{stride}, {stride}], pads=[{pad}, {pad}, {pad}, {pad}]"
    graph = graph_of(f"c = Conv<{geometry}>({operands}) {tails[behind]}", (1, 4, 9, 9), constants)
    # 4 · 9 products, each off by a step of 7 and one of 8 bits, add up at random.
    assert 0 < error(graph, quantized(graph)) < 0.35


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_gemm_has_a_scale_for_each_output(transposed: int) -> None:
    weights = floats(8, 5, seed=1) * np.array([1e-3, 1, 1, 1, 1e3], np.float32)
    constants = {"w": weights.T.copy() if transposed else weights, "b": floats(5)}
    graph = graph_of(f"y = Gemm<transB={transposed}>(x, w, b)", (64, 8), constants)
    result = quantized(graph)
    sample = dict(seen(graph)[0].inputs)
    before, after = run(session(graph), sample)["y"], run(session(result), sample)["y"]
    # The output has one step for all columns, which is as wide as the largest asks for.
    assert np.abs(after - before)[:, 4].max() < 0.2 * before[:, 4].std()


def test_a_channel_without_weights_keeps_its_bias() -> None:
    weights = floats(4, 4, 1, 1)
    weights[1], weights[2] = 0, 1e-20
    graph = graph_of("y = Conv(x, w, b)", constants={"w": weights, "b": floats(4, seed=1) * 3})
    assert error(graph, quantized(graph)) < 0.1


def test_a_layer_that_reads_zeros_keeps_its_bias() -> None:
    constants = {"zero": np.zeros(1, np.float32), "w": floats(4, 4, 1, 1), "b": floats(4)}
    graph = graph_of("z = Mul(x, zero) y = Conv(z, w, b)", constants=constants)
    assert error(graph, quantized(graph)) < 0.1


def test_the_runtime_fuses_everything(tmp_path: Path) -> None:
    graph = mobile_network()
    found = kernels(quantized(graph), tmp_path)
    assert found["QLinearConv"] == 4
    assert found["QLinearAdd"] == found["QGemm"] == found["QLinearGlobalAveragePool"] == 1
    assert not {"Conv", "Relu", "Add", "Gemm"} & set(found)
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 1)


def test_names_of_inputs_and_outputs_stay_and_values_are_close() -> None:
    graph = mobile_network()
    result = quantized(graph)
    assert [t.name for t in result.outputs] == ["logits"]
    assert error(graph, result) < 0.3


def test_a_layer_in_floating_point_reads_what_was_not_rounded() -> None:
    graph = graph_of(
        "a = Conv(x, w) b = Conv(a, v) c = Relu(a) y = Add(b, c)",
        constants={"w": floats(4, 4, 1, 1), "v": floats(4, 4, 1, 1, seed=1)},
    )
    second = next(site for site in sites_of(graph) if site.site.writes == "b")
    result = apply_candidates(graph, [QUANTIZE], [(second, second.candidates[0].name)])
    relu = next(node for node in result.nodes() if node.op == "Relu")
    assert relu.inputs[0].name == "a"
    assert [node.op for node in result.consumers("a")].count("QuantizeLinear") == 1


def test_an_older_operator_set_is_raised() -> None:
    graph = Graph.load(residual_network(opset=11))
    result = quantized(graph)
    assert (graph.opset, result.opset) == (11, 13)
    assert error(graph, result) < 1.0


@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 1), (1, 5)])
def test_a_bias_is_stored_as_one_number_for_each_output(shape: tuple[int, ...]) -> None:
    constants = {"w": floats(8, 5), "b": np.array(floats(*shape, seed=1) * 3, np.float32)}
    graph = graph_of("y = Gemm(x, w, b)", (64, 8), constants)
    result = quantized(graph)
    (gemm,) = (node for node in result.nodes() if node.op == "Gemm")
    assert result.shape(gemm.inputs[2]) == (5,)
    assert error(graph, result) < 0.1


@pytest.mark.parametrize("operands", ["x, step", "x, step, zero", "x, steps, zeros"])
def test_what_the_model_quantizes_in_another_way_is_quantized_anew(operands: str) -> None:
    constants = {
        "step": np.array(0.03, np.float32),
        "zero": np.array(-5, np.int8),
        "steps": np.full(4, 0.03, np.float32),
        "zeros": np.zeros(4, np.uint8),
    }
    constants = {name: constants[name] for name in operands.split(", ")[1:]}
    body = (
        f"q = QuantizeLinear({operands}) d = DequantizeLinear({operands.replace('x', 'q', 1)}) "
        "n = Neg(d) p = MaxPool<kernel_shape=[3, 3]>(x)"
    )
    graph = graph_of(body, constants=constants, outputs="n p")
    assert error(graph, quantized(graph)) < 0.1


@pytest.mark.parametrize(
    ("function", "written", "fused"),
    [
        ("Silu", "s = Sigmoid(a) b = Mul(a, s)", {"QLinearSigmoid", "QLinearMul"}),
        (
            "HardSwish",
            "s = HardSigmoid<alpha=0.16666667, beta=0.5>(a) b = Mul(a, s)",
            {"QLinearAdd", "QLinearMul"},
        ),
        ("HardSigmoid", "b = HardSigmoid<alpha=0.2, beta=0.4>(a)", {"QLinearAdd"}),
        ("Sigmoid", "b = Sigmoid(a)", {"QLinearSigmoid"}),
        ("LeakyRelu", "b = LeakyRelu<alpha=0.1>(a)", {"QLinearLeakyRelu"}),
    ],
)
def test_an_activation_between_layers_is_computed_in_int8(
    tmp_path: Path, function: str, written: str, fused: set[str]
) -> None:
    constants = {"w": floats(8, 4, 3, 3, seed=1), "v": floats(4, 8, 1, 1, seed=2)}
    body = f"a = Conv<pads=[1, 1, 1, 1]>(x, w) {written} y = Conv(b, v)"
    graph = graph_of(body, (1, 4, 12, 12), constants)
    assert 0 < error(graph, quantized(graph, function)) < 0.06
    everything = quantized(graph)
    assert error(graph, everything) < 0.3
    found = kernels(everything, tmp_path)
    assert {name for name in found if name.startswith("QLinear")} == {"QLinearConv", *fused}
