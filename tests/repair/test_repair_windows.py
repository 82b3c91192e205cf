"""Rows of a window times the weights are the operator, for every geometry that ONNX has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from actcc.graph import Graph
from actcc.repair.layers import count_positions, find_layers, rows_of, targets_of
from actcc.runtime import run, session


@st.composite
def geometries(draw, op):
    """Attributes of a convolution, the shapes of its input and weights, and a seed."""
    rank = draw(st.integers(1, 3))
    axes = range(rank)
    groups, inner, outer = (draw(st.integers(1, 3)) for _ in range(3))
    if draw(st.booleans()):
        inner = 1  # depthwise
    kernel = [draw(st.integers(1, 3)) for _ in axes]
    strides = [draw(st.integers(1, 3)) for _ in axes]
    auto = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    # ONNX Runtime refuses dilated windows where it has to find the padding itself.
    wide = op == "ConvTranspose" or auto in ("NOTSET", "VALID")
    dilations = [draw(st.integers(1, 2)) if wide else 1 for _ in axes]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    size = [draw(st.integers(max(r, 2), 7)) for r in reach]
    attributes = {"group": groups, "strides": strides, "dilations": dilations, "auto_pad": auto}
    if auto == "NOTSET":
        attributes["pads"] = [
            draw(st.integers(0, reach[axis % rank] - 1)) for axis in range(2 * rank)
        ]
    channels = groups * inner
    weights = (
        [channels, outer, *kernel] if op == "ConvTranspose" else [groups * outer, inner, *kernel]
    )
    if op == "ConvTranspose":
        extra = [draw(st.integers(0, stride - 1)) for stride in strides]
        if draw(st.booleans()):
            attributes["output_padding"] = extra
        if auto != "VALID" and draw(st.booleans()):
            full = [(n - 1) * s + r for n, s, r in zip(size, strides, reach, strict=True)]
            attributes["output_shape"] = [draw(st.integers(max(f - 2, 1), f)) for f in full]
            attributes.pop("pads", None)
    batch = draw(st.integers(1, 2))
    return attributes, [batch, channels, *size], weights, groups * outer, draw(st.integers(0, 99))


def check(op, geometry):
    """Compare with ONNX Runtime at all positions."""
    attributes, shape, weight_shape, outputs, seed = geometry
    random = np.random.default_rng(seed)
    weights = random.standard_normal(weight_shape).astype(np.float32)
    bias = random.standard_normal(outputs).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w", "b"], ["y"], name="layer", **attributes)],
        "one_layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    values = random.standard_normal(shape).astype(np.float32)
    expected = run(session(model, optimise=False), {"x": values})["y"]
    layer = find_layers(Graph.load(model))[0]["y"]
    positions = np.arange(count_positions(layer, expected.shape))
    rows = rows_of(layer, values, positions, expected.shape)
    targets = targets_of(layer, expected, positions)
    assert rows.shape == (layer.groups, len(positions), layer.columns)
    found = rows @ layer.matrix + layer.offset[:, None]
    np.testing.assert_allclose(found, targets, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(layer.tensor(layer.matrix), weights)
    np.testing.assert_array_equal(layer.vector(layer.offset), bias)
    some = random.permutation(positions)[:3]
    np.testing.assert_array_equal(rows_of(layer, values, some, expected.shape), rows[:, some])


@settings(max_examples=120, deadline=None, derandomize=True)
@given(geometries("Conv"))
def test_rows_times_weights_are_the_convolution(geometry):
    check("Conv", geometry)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(geometries("ConvTranspose"))
def test_rows_times_weights_are_the_transposed_convolution(geometry):
    check("ConvTranspose", geometry)


@pytest.mark.parametrize("auto", ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("padding", [[0], [1]])
@pytest.mark.parametrize("length", [8, 9, 10, 11, 12])
def test_output_shape_decides_the_pads_of_a_transposed_convolution(auto, padding, length):
    attributes = {
        "strides": [2],
        "auto_pad": auto,
        "output_padding": padding,
        "output_shape": [length],
    }
    if auto == "NOTSET":
        attributes["pads"] = [1, 0]  # which the specification says are ignored
    check("ConvTranspose", (attributes, [1, 2, 5], [2, 1, 3], 1, 0))


@pytest.mark.parametrize("auto", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("padding", [[0, 0], [1, 2]])
def test_automatic_padding_takes_output_padding_into_account(auto, padding):
    attributes = {"strides": [2, 3], "auto_pad": auto, "output_padding": padding}
    check("ConvTranspose", (attributes, [1, 2, 5, 4], [2, 3, 4, 5], 3, 1))


def test_what_lies_outside_the_input_is_zero_even_beside_nan():
    attributes = {"pads": [1, 1], "auto_pad": "NOTSET"}
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="layer", **attributes)
    graph = helper.make_graph(
        [node],
        "one_layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 3])],
        [numpy_helper.from_array(np.ones((1, 1, 3), np.float32), "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    layer = find_layers(Graph.load(helper.make_model(graph, opset_imports=opset)))[0]["y"]
    values = np.array([[[np.nan, 1, 2]]], np.float32)
    rows = rows_of(layer, values, np.array([0, 2]), (1, 1, 3))
    np.testing.assert_array_equal(rows[0], [[0, np.nan, 1], [1, 2, 0]])
