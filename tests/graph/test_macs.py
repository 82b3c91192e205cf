"""Multiply-accumulates and parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from actcc.errors import ModelError
from actcc.graph import Graph
from actcc.graph.macs import (
    Contraction,
    contraction,
    count_macs,
    count_parameters,
    node_macs,
)


def model(
    op: str,
    inputs: Mapping[str, Sequence[int | str | None]],
    weights: Mapping[str, tuple[int, ...]],
    output: Sequence[int | str | None],
    **attributes: Any,
) -> Graph:
    """One node that reads `inputs`, then `weights`."""
    node = helper.make_node(op, [*inputs, *weights], ["y"], name="node", **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(np.zeros(s, np.float32), n) for n, s in weights.items()],
    )
    return Graph.load(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    )


def only(graph: Graph) -> Contraction:
    found = contraction(graph, graph.node("node"))
    assert found is not None
    return found


def test_a_convolution_multiplies_positions_by_weights() -> None:
    graph = model(
        "Conv", {"x": (1, 4, 9, 7)}, {"w": (6, 4, 3, 3), "b": (6,)}, (1, 6, 4, 3), strides=[2, 2]
    )
    work = only(graph)
    assert (work.rows, work.columns, work.inputs, work.outputs) == (4, 3, 4, 6)
    assert count_macs(graph) == 4 * 3 * 6 * 4 * 9
    assert count_parameters(graph) == 6 * 4 * 9 + 6


def test_groups_divide_the_multiplications() -> None:
    graph = model("Conv", {"x": (2, 6, 4, 4)}, {"w": (6, 2, 1, 1)}, (2, 6, 4, 4), group=3)
    assert count_macs(graph) == 2 * 16 * 6 * 2
    assert not only(graph).depthwise


def test_a_depthwise_convolution_reads_one_channel_for_each_output() -> None:
    graph = model("Conv", {"x": (1, 6, 4, 4)}, {"w": (12, 1, 3, 3)}, (1, 12, 2, 2), group=6)
    assert only(graph).depthwise
    assert count_macs(graph) == 4 * 12 * 9


def test_a_convolution_over_a_line_has_one_row() -> None:
    graph = model("Conv", {"x": (1, 3, 10)}, {"w": (5, 3, 3)}, (1, 5, 8))
    assert (only(graph).rows, only(graph).columns, only(graph).kernel) == (1, 8, (1, 3))
    assert count_macs(graph) == 8 * 5 * 3 * 3


def test_a_convolution_over_a_volume_is_counted_but_has_no_plane() -> None:
    graph = model("Conv", {"x": (1, 2, 4, 4, 4)}, {"w": (3, 2, 2, 2, 2)}, (1, 3, 3, 3, 3))
    assert contraction(graph, graph.node("node")) is None
    assert count_macs(graph) == 27 * 3 * 2 * 8


def test_a_transposed_convolution_lays_its_kernel_at_each_input() -> None:
    graph = model(
        "ConvTranspose", {"x": (1, 4, 5, 5)}, {"w": (4, 3, 2, 2)}, (1, 3, 10, 10), strides=[2, 2]
    )
    assert count_macs(graph) == 25 * 4 * 3 * 4
    assert only(graph).stride == (2, 2)


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_counts_the_same_for_either_layout(transposed: int) -> None:
    left, right = ((3, 7), (7, 5)) if not transposed else ((7, 3), (5, 7))
    graph = model(
        "Gemm", {"x": left}, {"w": right, "b": (5,)}, (3, 5), transA=transposed, transB=transposed
    )
    assert count_macs(graph) == 3 * 7 * 5


@pytest.mark.parametrize(
    ("left", "right", "output"),
    [
        ((7,), (7, 5), (5,)),
        ((3, 7), (7, 5), (3, 5)),
        ((2, 3, 7), (7, 5), (2, 3, 5)),
        ((2, 3, 7), (2, 7, 5), (2, 3, 5)),
        ((1, 3, 7), (2, 7, 5), (2, 3, 5)),
    ],
)
def test_matmul_counts_every_product_of_the_batch(
    left: tuple[int, ...], right: tuple[int, ...], output: tuple[int, ...]
) -> None:
    graph = model("MatMul", {"x": left}, {"w": right}, output)
    assert count_macs(graph) == int(np.prod(output)) * 7


def test_a_product_of_two_computed_matrices_has_no_parameters() -> None:
    graph = model("MatMul", {"a": (4, 3, 7), "b": (4, 7, 5)}, {}, (4, 3, 5))
    assert count_macs(graph) == 4 * 3 * 7 * 5
    assert count_parameters(graph) == 0


def test_an_lstm_counts_its_four_gates_in_each_step() -> None:
    graph = model(
        "LSTM", {"x": (6, 2, 3)}, {"w": (1, 16, 3), "r": (1, 16, 4)}, (6, 1, 2, 4), hidden_size=4
    )
    assert count_macs(graph) == 6 * 2 * 4 * 4 * (3 + 4)


def test_element_wise_nodes_count_nothing() -> None:
    graph = model("Add", {"x": (1, 8, 4, 4)}, {"w": (8, 1, 1)}, (1, 8, 4, 4))
    assert node_macs(graph, graph.node("node")) == 0


def test_a_shared_weight_counts_once() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Add(x, w)  y = Mul(a, w) }"""
    graph = Graph.load(onnx.parser.parse_model(text))
    assert count_parameters(graph) == 2


def test_a_shape_that_is_not_static_is_refused_with_the_tensor() -> None:
    graph = model("Conv", {"x": (1, 4, "h", 7)}, {"w": (6, 4, 1, 1)}, (1, 6, "h", 7))
    with pytest.raises(ModelError, match=r"'y' has no static shape.*--shape"):
        count_macs(graph)


@pytest.mark.shared
def test_mobilenet_v2_has_the_multiplications_of_its_paper(shared: Path) -> None:
    # Sandler et al. 2018, table 4: 300 M multiply-adds and 3.4 M parameters.
    graph = Graph.load(shared / "models" / "mobilenet_v2.onnx")
    assert count_macs(graph) == pytest.approx(300e6, rel=0.01)
    assert count_parameters(graph) == pytest.approx(3.4e6, rel=0.03)
