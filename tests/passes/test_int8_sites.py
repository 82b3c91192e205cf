"""Which layers are offered in int8, and why others are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import Builder
from normalizing import graph_of
from quantizing import (
    CPU,
    QUANTIZE,
    error,
    floats,
    kernels,
    mobile_network,
    quantized,
    seen,
    sites_of,
)

from actcc.errors import PassError
from actcc.graph import Graph
from actcc.pass_api import apply_candidates, find_sites
from actcc.targets import load_target


def test_without_samples_nothing_is_offered() -> None:
    survey = find_sites(mobile_network(), [QUANTIZE], CPU)
    assert survey.sites == ()
    assert {refusal.reason for _, refusal in survey.refusals} == {
        "ranges need calibration data; give --calib"
    }


def test_a_target_without_such_kernels_is_offered_nothing() -> None:
    graph = mobile_network()
    survey = find_sites(graph, [QUANTIZE], load_target("npu1"), samples=seen(graph))
    assert survey.sites == ()
    assert "npu1" in survey.refusals[0][1].reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = Conv(x, x)", "its weights are not constant"),
        ("y = Add(x, w)", "an operand is constant"),
        ("y = MatMul(x, w)", "its weights are no matrix"),
    ],
)
def test_what_has_no_int8_kernel_is_refused_with_the_reason(body: str, reason: str) -> None:
    graph = graph_of(body, (4, 4, 1, 1), {"w": floats(4, 4, 1, 1)})
    refusals = find_sites(graph, [QUANTIZE], CPU, samples=seen(graph)).refusals
    assert [refusal.reason for _, refusal in refusals] == [reason]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("b = ReduceMean<axes=[0], keepdims=0>(x) y = Gemm(x, w, b)", "its bias is not constant"),
        ("y = Gemm(x, w, rows)", "its bias is no vector"),
    ],
)
def test_a_bias_that_is_not_one_number_for_each_output_is_refused(body: str, reason: str) -> None:
    graph = graph_of(body, (4, 4), {"w": floats(4, 4), "rows": floats(4, 1)})
    refusals = find_sites(graph, [QUANTIZE], CPU, samples=seen(graph)).refusals
    assert [refusal.reason for _, refusal in refusals] == [reason]


def test_a_mask_that_is_not_finite_keeps_no_other_layer_from_int8() -> None:
    constants = {
        "w": floats(4, 4, 1, 1),
        "zero": np.zeros(1, np.float32),
        "least": np.full(1, -np.inf, np.float32),
    }
    body = (
        "y = Conv(x, w) off = Less(x, zero) m = Where(off, least, x) "
        "n = MaxPool<kernel_shape=[6, 6]>(m)"
    )
    graph = graph_of(body, constants=constants, outputs="y n")
    conv, pool = sites_of(graph)
    assert (
        error(graph, apply_candidates(graph, [QUANTIZE], [(conv, conv.candidates[0].name)])) < 0.1
    )
    with pytest.raises(PassError, match="nothing is known of the values of 'm'"):
        apply_candidates(graph, [QUANTIZE], [(pool, pool.candidates[0].name)])


def test_operators_of_other_domains_are_no_layers() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "own" : 1]> '
        "network (float[1, 4] x) => (float[1, 4] y) { y = own.Add(x, x) } "
        '<domain: "own", opset_import: ["" : 17]> Add (a, b) => (c) { c = Mul(a, b) }'
    )
    assert sites_of(Graph.load(model)) == []


def test_what_is_in_int8_already_stays() -> None:
    result = quantized(mobile_network())
    assert sites_of(result) == []


def test_two_activations_in_a_row_may_stand_behind_a_layer(tmp_path: Path) -> None:
    build = Builder()
    x = build.conv("images", 3, 8)
    x = build.add("Relu", build.add("Relu", x))  # one activation, in which nothing is observed
    build.nodes[-1].output[0] = "y"
    graph = Graph.load(build.model((1, 3, 8, 8), {"y": (1, 8, 8, 8)}))
    int8 = quantized(graph, "Conv")
    assert error(graph, int8) < 0.1
    assert kernels(int8, tmp_path)["QLinearConv"] == 1
