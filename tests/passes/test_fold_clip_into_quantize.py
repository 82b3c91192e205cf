"""Relu and Clip in front of QuantizeLinear: gone where the type cuts off as much, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from normalizing import assert_kept, graph_of, operators

from actcc.graph import Array, Graph, Interface, verify
from actcc.passes.fold_clip_into_quantize import FoldClipIntoQuantize
from actcc.runtime import run, session

FOLD = FoldClipIntoQuantize()
SIZE = 600
TYPES = st.sampled_from([np.uint8, np.int8])
SCALES = st.floats(2.0**-13, 10, width=32)


def network(
    body: str,
    scale: object,
    zero_point: object,
    outputs: str = "uint8:q",
    bounds: tuple[float, float] = (0.0, 6.0),
    x: tuple[int, ...] = (SIZE,),
) -> Graph:
    constants: dict[str, object] = {
        "s": np.asarray(scale, np.float32),
        "z": np.asarray(zero_point),
        "low": np.float32(bounds[0]),
        "high": np.float32(bounds[1]),
    }
    kind = np.asarray(zero_point).dtype.name
    used = {name: value for name, value in constants.items() if name in body.replace("(", " ")}
    return graph_of(body, x, used, outputs.replace("uint8", kind))


def around_the_steps(scale: float) -> Array:
    """Values on, between and just beside the steps, and far outside."""
    steps = np.arange(-290, 290, dtype=np.float64) / 2
    far = [np.inf, -np.inf, 1e30, -1e30, 6.0, -6.0, 0.0, -0.0]
    values = np.concatenate([steps * scale, far, np.zeros(SIZE)])[:SIZE].astype(np.float32)
    return np.nextafter(values, np.float32(np.inf)) if scale > 1 else values


def assert_equal_bits(graph: Graph, rewritten: Graph, values: Array) -> None:
    before, after = (run(session(g, optimise=False), {"x": values}) for g in (graph, rewritten))
    for name, wanted in before.items():
        np.testing.assert_array_equal(after[name], wanted)


@settings(max_examples=40, deadline=None)
@given(SCALES, TYPES, st.integers(0, 255))
def test_a_relu_goes_exactly_where_no_negative_number_is_stored(scale, dtype, above):
    least = np.iinfo(dtype).min
    point = np.array(least + above).astype(dtype)
    graph = network("r = Relu(x) q = QuantizeLinear(r, s, z)", scale, point)
    result, _ = FOLD.run(graph.copy())
    assert operators(result) == (["Relu"] if above else []) + ["QuantizeLinear"]
    assert_equal_bits(graph, result, around_the_steps(scale))


@settings(max_examples=60, deadline=None)
@given(SCALES, TYPES, st.integers(0, 255), st.floats(-20, 20), st.floats(0, 40))
def test_a_clip_goes_only_where_that_changes_no_bit(scale, dtype, above, low, width):
    point = np.array(np.iinfo(dtype).min + above).astype(dtype)
    body = "r = Clip(x, low, high) q = QuantizeLinear(r, s, z)"
    graph = network(body, scale, point, bounds=(low, low + width))
    result, _ = FOLD.run(graph.copy())
    assert_equal_bits(graph, result, around_the_steps(scale))


@pytest.mark.parametrize(("scale", "goes"), [(6 / 255, True), (5 / 255, True), (6.1 / 255, False)])
def test_a_relu6_goes_where_the_range_ends_at_6_or_before(scale: float, goes: bool) -> None:
    body = "r = Clip(x, low, high) q = QuantizeLinear(r, s, z)"
    graph = network(body, scale, np.uint8(0))
    result, notes = FOLD.run(graph.copy())
    assert (operators(result) == ["QuantizeLinear"]) == goes
    assert bool(notes) == goes
    assert_equal_bits(graph, result, around_the_steps(scale))


@settings(max_examples=30, deadline=None)
@given(SCALES, TYPES)
def test_a_relu_between_dequantize_and_quantize_goes_with_both(scale, dtype):
    point = np.array(np.iinfo(dtype).min).astype(dtype)
    body = (
        "p = QuantizeLinear(x, s, z) d = DequantizeLinear(p, s, z) "
        "r = Relu(d) q = QuantizeLinear(r, s, z) y = DequantizeLinear(q, s, z)"
    )
    graph = network(body, scale, point, outputs="y")
    result, notes = FOLD.run(graph.copy())
    assert operators(result) == ["QuantizeLinear", "DequantizeLinear"]
    assert len(notes) == 2
    assert_equal_bits(graph, result, around_the_steps(scale))


def test_a_scale_for_each_channel_has_to_cut_off_in_all_of_them() -> None:
    body = "r = Clip(x, low, high) q = QuantizeLinear<axis=0>(r, s, z)"
    points = np.zeros(2, np.uint8)
    fits = network(body, [0.01, 0.02], points, x=(2, SIZE))
    exceeds = network(body, [0.01, 0.05], points, x=(2, SIZE))
    assert operators(FOLD.run(fits.copy())[0]) == ["QuantizeLinear"]
    assert operators(FOLD.run(exceeds.copy())[0]) == ["Clip", "QuantizeLinear"]


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("r = Relu(x) q = QuantizeLinear(r, s, z) y = Neg(r)", "uint8:q y"),
        ("r = Relu(x) q = QuantizeLinear(r, s, z)", "uint8:q r"),
        ("a = Abs(s) r = Relu(x) q = QuantizeLinear(r, a, z)", "uint8:q"),
    ],
    ids=["another reader", "an output", "a computed scale"],
)
def test_a_relu_stays_where_something_else_needs_it_or_the_scale_is_unknown(
    body: str, outputs: str
) -> None:
    graph = graph_of(body, (SIZE,), {"s": np.float32(0.1), "z": np.uint8(0)}, outputs)
    assert_kept(graph, FOLD)


def test_the_result_is_valid_and_its_output_keeps_its_name() -> None:
    graph = network("r = Relu(x) q = QuantizeLinear(r, s, z)", 0.1, np.uint8(0))
    result, _ = FOLD.run(graph.copy())
    verify(result, Interface.of(graph), [FOLD.name])
    assert [tensor.name for tensor in result.outputs] == ["q"]
