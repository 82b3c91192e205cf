"""BatchNormalization into the layer before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from actcc.graph import Array, Graph, Interface, verify
from actcc.graph.compare import compare
from actcc.passes.fold_batch_norm import FoldBatchNorm
from actcc.runtime import random_feeds

FLOAT = onnx.TensorProto.FLOAT


def model_of(
    nodes: Sequence[onnx.NodeProto],
    x: Sequence[int],
    weights: dict[str, Array],
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
    element: int = FLOAT,
) -> Graph:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", element, x)],
        [helper.make_tensor_value_info(name, element, None) for name in outputs],
        [onnx.numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return Graph.load(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def statistics(channels: int, seed: int = 0) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    return {
        "gamma": generator.uniform(-2, 2, channels).astype(np.float32),
        "beta": generator.standard_normal(channels).astype(np.float32),
        "mean": generator.standard_normal(channels).astype(np.float32),
        "variance": generator.uniform(0.1, 3, channels).astype(np.float32),
    }


def batch_norm(reads: str = "a", writes: str = "y", **attributes: Any) -> onnx.NodeProto:
    inputs = [reads, "gamma", "beta", "mean", "variance"]
    return helper.make_node("BatchNormalization", inputs, [writes], name="norm", **attributes)


def folded(graph: Graph) -> tuple[Graph, list[str]]:
    """The pass's result, verified; the original is compared where the pass did anything."""
    result, notes = FoldBatchNorm().run(graph.copy())
    verify(result, Interface.of(graph), ["fold-batch-norm"])
    return result, notes


def assert_folded(graph: Graph, tolerance: float = 1e-5) -> Graph:
    result, notes = folded(graph)
    assert not list(result.nodes("BatchNormalization")), notes
    assert compare(graph, result, [random_feeds(graph, 3)]).agrees(tolerance)
    return result


def assert_kept(graph: Graph, reason: str) -> None:
    before = graph.to_proto().graph.node
    result, notes = folded(graph)
    assert list(result.to_proto().graph.node) == list(before)
    assert len(notes) == 1
    assert reason in notes[0]


@dataclass(frozen=True)
class Convolution:
    transposed: bool
    groups: int
    channels: int
    filters: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    bias: bool
    epsilon: float
    size: tuple[int, ...]
    seed: int

    def graph(self) -> Graph:
        generator = np.random.default_rng(self.seed)
        shape = (
            (self.channels * self.groups, self.filters)
            if self.transposed
            else (self.filters * self.groups, self.channels)
        )
        weights = statistics(self.filters * self.groups, self.seed)
        weights["w"] = generator.standard_normal((*shape, *self.kernel)).astype(np.float32)
        if self.bias:
            bias = generator.standard_normal(self.filters * self.groups)
            weights["b"] = bias.astype(np.float32)
        layer = helper.make_node(
            "ConvTranspose" if self.transposed else "Conv",
            ["x", "w", "b"] if self.bias else ["x", "w"],
            ["a"],
            name="layer",
            group=self.groups,
            strides=self.strides,
            dilations=self.dilations,
            pads=self.pads,
        )
        norm = batch_norm(epsilon=self.epsilon)
        return model_of([layer, norm], (2, self.channels * self.groups, *self.size), weights)


@st.composite
def convolutions(draw: st.DrawFn) -> Convolution:
    rank = draw(st.integers(1, 3))

    def each(low: int, high: int, length: int = rank) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(length))

    found = Convolution(
        transposed=draw(st.booleans()),
        groups=draw(st.integers(1, 3)),
        channels=draw(st.integers(1, 4)),
        filters=draw(st.integers(1, 4)),
        kernel=each(1, 3),
        strides=each(1, 3),
        dilations=each(1, 2),
        pads=each(0, 2, 2 * rank),
        bias=draw(st.booleans()),
        epsilon=draw(st.sampled_from([1e-5, 1e-3, 0.1])),
        size=each(3, 7),
        seed=draw(st.integers(0, 2**16)),
    )
    for axis in range(rank):
        reach = found.dilations[axis] * (found.kernel[axis] - 1) + 1
        padded = found.pads[axis] + found.pads[axis + rank]
        if found.transposed:
            assume((found.size[axis] - 1) * found.strides[axis] + reach - padded >= 1)
        else:
            assume(found.size[axis] + padded >= reach)
    return found


@settings(max_examples=40, deadline=None, derandomize=True)
@given(convolutions())
def test_any_convolution_takes_in_its_batch_normalization(convolution: Convolution) -> None:
    graph = convolution.graph()
    result = assert_folded(graph)
    assert [node.name for node in result.nodes()] == ["layer"]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 4),
    inner=st.integers(1, 5),
    columns=st.integers(1, 5),
    trans_a=st.integers(0, 1),
    trans_b=st.integers(0, 1),
    alpha=st.sampled_from([1.0, 0.5, -2.0]),
    beta=st.sampled_from([1.0, 0.25, 0.0]),
    bias=st.sampled_from(["none", "left out", "scalar", "one", "columns", "row", "full"]),
    seed=st.integers(0, 2**16),
)
def test_any_gemm_takes_in_its_batch_normalization(
    rows: int,
    inner: int,
    columns: int,
    trans_a: int,
    trans_b: int,
    alpha: float,
    beta: float,
    bias: str,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    weights = statistics(columns, seed)
    shape = (columns, inner) if trans_b else (inner, columns)
    weights["w"] = generator.standard_normal(shape).astype(np.float32)
    shapes = {"scalar": (), "one": (1,), "columns": (columns,), "row": (1, columns)}
    if bias not in ("none", "left out"):
        wanted = shapes.get(bias, (rows, columns))
        weights["b"] = np.asarray(generator.standard_normal(wanted), np.float32)
    inputs = ["x", "w", *{"none": [], "left out": [""]}.get(bias, ["b"])]
    attributes = {"transA": trans_a, "transB": trans_b, "alpha": alpha, "beta": beta}
    layer = helper.make_node("Gemm", inputs, ["a"], name="layer", **attributes)
    x = (inner, rows) if trans_a else (rows, inner)
    assert_folded(model_of([layer, batch_norm()], x, weights))


def conv_net(**changes: Any) -> Graph:
    """A convolution and its normalization, with one thing changed."""
    weights = statistics(3)
    weights["w"] = np.random.default_rng(1).standard_normal((3, 2, 3, 3)).astype(np.float32)
    weights.update(changes.pop("weights", {}))
    layer = helper.make_node("Conv", ["x", "w", *changes.pop("bias", [])], ["a"], name="layer")
    nodes = [layer, changes.pop("norm", batch_norm()), *changes.pop("more", [])]
    return model_of(nodes, (1, 2, 5, 5), weights, **changes)


def test_what_was_folded_is_said() -> None:
    assert folded(conv_net())[1] == ["folded 1 BatchNormalization into Conv"]


def test_two_normalizations_in_a_row_are_both_folded() -> None:
    second = helper.make_node(
        "BatchNormalization", ["n", "gamma", "beta", "mean", "variance"], ["y"]
    )
    assert_folded(conv_net(norm=batch_norm(writes="n"), more=[second]))


def test_a_normalization_before_another_operator_is_folded() -> None:
    graph = conv_net(norm=batch_norm(writes="n"), more=[helper.make_node("Relu", ["n"], ["y"])])
    assert [node.op for node in assert_folded(graph).nodes()] == ["Conv", "Relu"]


@pytest.mark.parametrize("opset", [7, 9, 13, 15, 21])
def test_every_version_of_the_operator_is_folded(opset: int) -> None:
    assert_folded(conv_net(opset=opset))


def test_a_layer_that_shares_the_weights_keeps_them() -> None:
    twin = helper.make_node("Conv", ["x", "w"], ["z"], name="twin")
    graph = conv_net(more=[twin], outputs=["y", "z"])
    before = graph.constant("w").copy()
    result = assert_folded(graph)
    assert [t.name for t in result.node("twin").inputs] == ["x", "w"]
    np.testing.assert_array_equal(result.constant("w"), before)


def test_a_shared_bias_is_kept_for_the_other_layer() -> None:
    twin = helper.make_node("Conv", ["x", "w", "b"], ["z"], name="twin")
    weights = {"b": np.array([1, 2, 3], np.float32)}
    assert_folded(conv_net(bias=["b"], weights=weights, more=[twin], outputs=["y", "z"]))


def test_half_precision_is_computed_in_double_and_cast_back() -> None:
    weights = {name: v.astype(np.float16) for name, v in statistics(3).items()}
    weights["w"] = np.random.default_rng(1).standard_normal((3, 2, 3, 3)).astype(np.float16)
    layer = helper.make_node("Conv", ["x", "w"], ["a"])
    nodes = [layer, batch_norm()]
    graph = model_of(nodes, (1, 2, 5, 5), weights, element=onnx.TensorProto.FLOAT16)
    result = assert_folded(graph, tolerance=4e-3)
    assert result.constant(next(result.nodes()).inputs[1]).dtype == np.float16


def test_a_tiny_variance_is_folded_as_well() -> None:
    weights = {"variance": np.array([1e-30, 1e-12, 1], np.float32)}
    assert_folded(conv_net(weights=weights))


def test_an_intermediate_value_that_is_read_elsewhere_stops_it() -> None:
    graph = conv_net(more=[helper.make_node("Relu", ["a"], ["z"])], outputs=["y", "z"])
    assert_kept(graph, "the layer's output is also read elsewhere")


def test_an_intermediate_value_that_is_an_output_stops_it() -> None:
    assert_kept(conv_net(outputs=["y", "a"]), "the layer's output is also read elsewhere")


def test_training_mode_stops_it() -> None:
    norm = helper.make_node(
        "BatchNormalization",
        ["a", "gamma", "beta", "mean", "variance"],
        ["y", "m", "v"],
        training_mode=1,
    )
    assert_kept(conv_net(norm=norm), "training mode")


def test_statistics_for_each_activation_stop_it() -> None:
    weights = {name: np.ones((3, 3, 3), np.float32) for name in statistics(3)}
    graph = conv_net(norm=batch_norm(spatial=0), weights=weights, opset=7)
    assert_kept(graph, "not per channel")


def test_statistics_that_a_run_computes_stop_it() -> None:
    abs_node = helper.make_node("ReduceMax", ["x"], ["m"], axes=[0, 2, 3], keepdims=0)
    cat = helper.make_node("Concat", ["m", "one"], ["var"], axis=0)
    norm = helper.make_node("BatchNormalization", ["a", "gamma", "beta", "mean", "var"], ["y"])
    layer = helper.make_node("Conv", ["x", "w"], ["a"])
    weights = {**statistics(3), "one": np.ones(1, np.float32)}
    weights["w"] = np.ones((3, 2, 3, 3), np.float32)
    graph = model_of([abs_node, cat, layer, norm], (1, 2, 5, 5), weights)
    assert_kept(graph, "statistics are not constant")


def test_weights_that_a_caller_may_override_stop_it() -> None:
    proto = conv_net().to_proto()
    proto.graph.input.append(helper.make_tensor_value_info("w", FLOAT, (3, 2, 3, 3)))
    assert_kept(Graph.load(proto), "weights or bias are not constant")


def test_weights_that_would_overflow_stop_it() -> None:
    weights = {"gamma": np.full(3, 3e38, np.float32), "variance": np.full(3, 1e-3, np.float32)}
    assert_kept(conv_net(weights=weights), "would overflow")


def test_a_negative_variance_stops_it() -> None:
    assert_kept(conv_net(weights={"variance": np.full(3, -1, np.float32)}), "would overflow")


def test_no_layer_before_it_stops_it() -> None:
    weights = statistics(3)
    graph = model_of([helper.make_node("Relu", ["x"], ["a"]), batch_norm()], (1, 3, 5, 5), weights)
    assert_kept(graph, "no Conv, ConvTranspose or Gemm before it")
    assert_kept(model_of([batch_norm("x")], (1, 3, 5, 5), weights), "no Conv")


def test_a_gemm_bias_that_differs_by_row_stops_it() -> None:
    weights = statistics(3)
    weights["w"] = np.ones((2, 3), np.float32)
    weights["b"] = np.arange(4, dtype=np.float32).reshape(4, 1)
    layer = helper.make_node("Gemm", ["x", "w", "b"], ["a"])
    assert_kept(model_of([layer, batch_norm()], (4, 2), weights), "differs by row")
