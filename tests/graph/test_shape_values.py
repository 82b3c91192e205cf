"""Sizes that a network computes from static shapes are known."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from actcc.graph import Graph
from actcc.runtime import random_feeds, run, session

RESIZED = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N,4,H,W] x) => (float[N,4,P,Q] y)
  <int64[1] two = {2}, int64[1] four = {4}, int64[2] front = {1, 4}>
{
  a = Relu(x)
  shape = Shape(a)
  size = Slice(shape, two, four)
  half = Div(size, two)
  sides = Concat<axis = 0>(front, half)
  b = Resize<mode = "nearest">(a, , , sides)
  again = Shape<start = 2>(b)
  third = Mul(again, two)
  larger = Concat<axis = 0>(front, third)
  y = Resize<mode = "nearest">(b, , , larger)
}
"""


def graph_of(text: str, **shapes: tuple[int, ...]) -> Graph:
    return Graph.load(onnx.parser.parse_model(text), shapes or None)


def test_sizes_computed_by_division_and_slices_are_known_one_after_the_other() -> None:
    graph = graph_of(RESIZED, x=(1, 4, 6, 10))
    assert graph.shape("b") == (1, 4, 3, 5)
    assert graph.shape("y") == (1, 4, 6, 10)
    assert not graph.contradiction
    outputs = run(session(graph), random_feeds(graph, 0))
    assert outputs["y"].shape == graph.shape("y")


def test_without_numbers_for_its_symbols_they_stay_unknown() -> None:
    shape = graph_of(RESIZED).shape("b")
    assert shape is not None
    assert not all(isinstance(size, int) for size in shape)


def test_sizes_that_depend_on_data_stay_unknown() -> None:
    graph = graph_of("""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[4] x) => (int64[1,K] y) { z = Relu(x) y = NonZero(z) }
    """)
    shape = graph.shape("y")
    assert shape is not None
    assert shape[0] == 1
    assert not isinstance(shape[1], int)


@pytest.mark.parametrize("handed", ["x", "w"])
def test_an_output_that_is_an_input_or_a_weight_takes_no_shape_away(handed: str) -> None:
    graph = graph_of(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[2,2] x) => (float[2,2] y, float[2,2] {handed})
          <float[2,2] w = {{1.0, 2.0, 3.0, 4.0}}>
        {{ h = MatMul(x, w) y = Relu(h) }}
    """)
    assert graph.shape("h") == (2, 2)
    assert graph.shape(handed) == (2, 2)


def test_a_large_range_is_not_computed() -> None:
    graph = graph_of("""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[1,64,64] x) => (float[1,K] y)
        {
          n = Size(x)
          one = Constant<value_ints = [1]>()
          size = Reshape(n, one)
          zeros = ConstantOfShape(size)
          r = Relu(x)
          two = Constant<value_ints = [1, -1]>()
          flat = Reshape(r, two)
          y = Add(flat, zeros)
        }
    """)
    assert graph.shape("flat") == (1, 4096)
    values = random_feeds(graph, 0)["x"]
    found = run(session(graph), {"x": values})["y"]
    np.testing.assert_array_equal(found, np.maximum(values, 0).reshape(1, -1))
