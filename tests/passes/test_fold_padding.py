"""Pad into the layer behind it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from normalizing import assert_kept, graph_of, operators, rewritten

from actcc.passes.fold_padding import FoldPadding

FOLD = FoldPadding()
W = np.random.default_rng(0).standard_normal((5, 4, 3, 3)).astype(np.float32)
AMOUNTS = st.lists(st.integers(0, 2), min_size=4, max_size=4)


def pads(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    return np.array([0, 0, top, left, 0, 0, bottom, right])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    AMOUNTS,
    AMOUNTS,
    st.lists(st.integers(1, 2), min_size=4, max_size=4),
    st.sampled_from([1, 2, 4]),
    st.sampled_from(["whole", "axes", "attribute"]),
)
def test_zeros_become_the_pads_of_a_convolution(
    outer: list[int], own: list[int], steps: list[int], groups: int, form: str
) -> None:
    weights = np.random.default_rng(1).standard_normal((4, 4 // groups, 3, 2)).astype(np.float32)
    constants: dict[str, object] = {"w": weights}
    if form == "attribute":
        pad = f"a = Pad <pads = {pads(*outer).tolist()}> (x)"
    elif form == "axes":
        constants |= {"p": np.array(outer), "v": np.float32(0), "axes": np.array([-2, 3])}
        pad = "a = Pad(x, p, v, axes)"
    else:
        constants |= {"p": pads(*outer)}
        pad = "a = Pad(x, p)"
    layer = (
        f"y = Conv <pads = {own}, group = {groups}, strides = {steps[:2]}, "
        f"dilations = {steps[2:]}> (a, w)"
    )
    opset = {"attribute": 10, "axes": 18}.get(form, 17)
    graph = graph_of(f"{pad} {layer}", (2, 4, 7, 6), constants, opset=opset)
    result, _ = rewritten(graph, FOLD)
    assert operators(result) == ["Conv"]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 1), min_size=4, max_size=4),
    st.lists(st.integers(0, 1), min_size=4, max_size=4),
    st.integers(1, 3),
    st.sampled_from(["lowest", "behind Relu", "average", "counting"]),
)
def test_padding_becomes_that_of_pooling(
    outer: list[int], own: list[int], stride: int, form: str
) -> None:
    value = np.float32(-np.inf if form == "lowest" else 0)
    start = "r = Relu(x)" if form == "behind Relu" else "r = Neg(x)"
    own = [0, 0, 0, 0] if form == "average" else own
    op = "AveragePool" if form in ("average", "counting") else "MaxPool"
    counting = ", count_include_pad = 1" if form == "counting" else ""
    body = (
        f"{start} a = Pad(r, p, v) y = {op} <kernel_shape = [3, 3], pads = {own}, "
        f"strides = [{stride}, {stride}]{counting}> (a)"
    )
    graph = graph_of(body, (1, 2, 7, 6), {"p": pads(*outer), "v": value})
    result, _ = rewritten(graph, FOLD)
    assert operators(result)[1:] == [op]


def test_one_pad_goes_into_all_layers_that_read_it() -> None:
    body = "a = Pad(x, p) b = Conv(a, w) c = Conv <strides = [1, 1]> (a, w) y = Add(b, c)"
    result, _ = rewritten(graph_of(body, constants={"w": W, "p": pads(1, 1, 1, 1)}), FOLD)
    assert operators(result) == ["Conv", "Conv", "Add"]


POOL = "kernel_shape = [2, 2]"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("a = Pad(x, p, one) y = Conv(a, w)", "pads with 0, not 1"),
        ("a = Pad(x, minus) y = Conv(a, w)", "crops"),
        ("a = Pad(x, channels) y = Conv(a, u)", "the batch or the channels"),
        ('a = Pad <mode = "reflect"> (x, p) y = Conv(a, w)', "repeats elements"),
        ('a = Pad(x, p) y = Conv <auto_pad = "SAME_UPPER"> (a, w)', "auto_pad"),
        (f"a = Pad(x, p) y = MaxPool <{POOL}> (a)", "largest element"),
        (f"a = Pad(x, p, low) y = MaxPool <{POOL}, pads = [1, 1, 1, 1]> (a)", "large as the"),
        (f"a = Pad(x, p, low) y = MaxPool <{POOL}, ceil_mode = 1> (a)", "ceil_mode"),
        (f"a = Pad(x, p, low) y, z = MaxPool <{POOL}> (a)", "indices"),
        ("a = Pad(x, p) y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a)", "count"),
        ("a = Pad(x, p) b = Conv(a, w) y = Add(a, a)", "not all that reads it"),
        ("a = Pad(x, p) q = QuantizeLinear(a, one, zero) y = DequantizeLinear(q, one, zero)",
         "QDQ"),
    ],
)  # fmt: skip
def test_what_stays_and_why(body: str, reason: str) -> None:
    constants = {
        "w": W,
        "u": np.ones((5, 6, 3, 3), np.float32),
        "p": pads(1, 1, 1, 1),
        "minus": pads(-1, 0, 0, 0),
        "channels": np.array([0, 1, 0, 0, 0, 1, 0, 0]),
        "one": np.float32(1),
        "low": np.float32(-np.inf),
        "zero": np.uint8(0),
    }
    inputs = {
        part.strip(" ()") for call in body.split("(")[1:] for part in call.split(")")[0].split(",")
    }
    used = {name: value for name, value in constants.items() if name in inputs}
    outputs = "y z" if "y, z" in body else "y"
    graph = graph_of(body, constants=used, outputs=outputs)
    before = operators(graph)
    result, notes = FOLD.run(graph.copy())
    assert operators(result) == before
    assert reason in "; ".join(notes)
    assert_kept(graph_of("y = Relu(x)"), FOLD)


def test_pads_in_a_row_all_go() -> None:
    constants = {"w": W, "p": pads(1, 0, 2, 1)}
    graph = graph_of("a = Pad(x, p) b = Pad(a, p) y = Conv(b, w)", constants=constants)
    result, _ = rewritten(graph, FOLD)
    assert operators(result) == ["Conv"]


def test_not_a_number_wins_over_every_element() -> None:
    constants = {"p": pads(1, 1, 1, 1), "v": np.float32("nan")}
    body = "r = Relu(x) a = Pad(r, p, v) y = MaxPool <kernel_shape = [3, 3]> (a)"
    graph = graph_of(body, constants=constants)
    result, _ = FOLD.run(graph.copy())
    assert operators(result) == operators(graph)
