"""Numeric comparison of two models."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest

from actcc.errors import ModelError
from actcc.graph import Graph
from actcc.graph.compare import Comparison, compare, compare_outputs

NAN, INF = float("nan"), float("inf")


def compared(a: object, b: object, dtype: type = np.float32) -> Comparison:
    return compare_outputs([{"y": np.array(a, dtype)}], [{"y": np.array(b, dtype)}])


def test_equal_outputs_agree_exactly() -> None:
    result = compared([1, -2, 0], [1, -2, 0])
    assert (result.outputs[0].largest_difference, result.worst_relative) == (0, 0)
    assert result.outputs[0].cosine == pytest.approx(1)
    assert result.agrees(0)


def test_the_difference_is_relative_to_the_largest_magnitude_of_the_reference() -> None:
    only = compared([0.001, -10], [0.002, -10]).outputs[0]
    assert only.largest_difference == pytest.approx(0.001, rel=1e-4)
    assert only.relative == pytest.approx(1e-4, rel=1e-4)
    assert not compared([0.001, -10], [0.002, -10]).agrees(0.9e-4)
    assert compared([0.001, -10], [0.002, -10]).agrees(1.1e-4)


def test_the_same_nan_and_infinities_count_as_equal() -> None:
    assert compared([NAN, INF, -INF, 1], [NAN, INF, -INF, 1]).agrees(0)
    only = compared([NAN, 4], [NAN, 3]).outputs[0]
    assert only.relative == pytest.approx(0.25)


@pytest.mark.parametrize(("a", "b"), [(NAN, 1), (1, NAN), (INF, -INF), (INF, 1), (1, INF)])
def test_a_nan_or_infinity_on_one_side_differs_infinitely(a: float, b: float) -> None:
    result = compared([a, 2], [b, 2])
    assert math.isinf(result.worst_relative)
    assert not result.agrees(1e9)


def test_all_nan_on_both_sides_agree() -> None:
    assert compared([NAN, NAN], [NAN, NAN]).agrees(0)


def test_zeros_agree_with_zeros_only() -> None:
    assert compared([0, 0], [0, 0]).agrees(0)
    assert compared([0, 0], [0, 0]).outputs[0].cosine == 1
    assert not compared([0, 0], [0, 1e-6]).agrees(1e-5)


def test_another_shape_or_type_differs_infinitely() -> None:
    assert math.isinf(compared([1, 2], [[1, 2]]).worst_relative)
    other = compare_outputs([{"y": np.ones(2, np.float32)}], [{"y": np.ones(2, np.float16)}])
    assert math.isinf(other.worst_relative)


def test_wide_integers_are_compared_exactly() -> None:
    large = 2**62
    assert compared([large], [large], np.int64).agrees(0)
    assert not compared([True, False], [True, True], np.bool_).agrees(0)
    assert compared([100, 4], [100, 3], np.int64).worst_relative == pytest.approx(0.01)


def test_text_sequences_and_maps_are_compared() -> None:
    def outcome(a: object, b: object) -> float:
        return compare_outputs([{"y": a}], [{"y": b}]).worst_relative

    words = np.array(["a", "b"], object)
    assert outcome(words, words.copy()) == 0
    assert math.isinf(outcome(words, np.array(["a", "c"], object)))
    assert outcome([np.ones(2)], [np.ones(2)]) == 0
    assert math.isinf(outcome([np.ones(2)], [np.ones(2), np.ones(1)]))
    assert outcome([{0: 0.5, 1: 1.0}], [{0: 0.5, 1: 0.75}]) == pytest.approx(0.25)
    assert math.isinf(outcome([{0: 0.5}], [{1: 0.5}]))
    assert outcome(None, None) == 0
    assert outcome([], []) == 0


def test_an_empty_output_agrees() -> None:
    assert compared(np.zeros((0, 3)), np.zeros((0, 3))).agrees(0)


def test_the_worst_run_and_the_worst_output_count() -> None:
    ones = np.ones(2, np.float32)
    reference = [{"y": ones, "z": ones}, {"y": ones, "z": ones}]
    other = [{"y": ones, "z": ones}, {"y": ones, "z": np.array([1, 0.5], np.float32)}]
    result = compare_outputs(reference, other)
    assert [output.relative for output in result.outputs] == [0, 0.5]
    assert result.worst_relative == 0.5
    assert result.outputs[1].cosine == pytest.approx(1.5 / np.sqrt(2 * 1.25))


def test_a_missing_output_is_named() -> None:
    with pytest.raises(ModelError, match="output 'z' is missing; it has: y"):
        compare_outputs([{"z": np.ones(1)}], [{"y": np.ones(1)}])


def test_two_models_are_run_on_every_feed() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[2] x) => (float[2] y) {{ y = {}(x) }}
    """
    relu, clip = (onnx.parser.parse_model(text.format(op)) for op in ("Relu", "Abs"))
    positive, mixed = np.array([1, 2], np.float32), np.array([1, -2], np.float32)
    assert compare(relu, Graph.load(clip), [{"x": positive}]).agrees(0)
    assert compare(relu, clip, [{"x": positive}, {"x": mixed}]).worst_relative == 2
    with pytest.raises(ModelError, match="give at least one sample"):
        compare(relu, clip, [])
