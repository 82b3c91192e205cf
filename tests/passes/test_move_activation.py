"""Activations on the other side of pooling and changes of layout, under ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from moving import INCREASING, OTHERS, POOL, SELECTING, assert_same, graph_of, operators, survey

# -------------------------------------------------------------------- MaxPool


@st.composite
def poolings(draw: st.DrawFn) -> tuple[str, str]:
    rank = draw(st.integers(1, 2))
    sizes = draw(st.lists(st.integers(2, 9), min_size=rank, max_size=rank))
    kernel = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    strides = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    dilations = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    attributes = f"kernel_shape = {kernel}, strides = {strides}, dilations = {dilations}"
    automatic = draw(st.sampled_from(["", "", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    pads = [draw(st.integers(0, size - 1)) for _ in range(2) for size in kernel]
    padded = [s + pads[i] + pads[i + rank] for i, s in enumerate(sizes)] if not automatic else sizes
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    assume(all(r <= p for r, p in zip(reach, padded, strict=True)))
    # ONNX Runtime refuses what SAME makes of it: negative padding.
    assume("SAME" not in automatic or all(s <= k for s, k in zip(strides, kernel, strict=True)))
    attributes += f', auto_pad = "{automatic}"' if automatic else f", pads = {pads}"
    attributes += f", ceil_mode = {draw(st.integers(0, 1))}"
    return f"1, 2, {', '.join(map(str, sizes))}", f"y = MaxPool <{attributes}> (b)"


@settings(max_examples=120, deadline=None, derandomize=True)
@given(poolings(), st.sampled_from(SELECTING + INCREASING), st.integers(0, 9))
def test_behind_any_pooling_it_computes_the_same_or_is_refused(
    pooling: tuple[str, str], activation: str, seed: int
) -> None:
    shape, body = pooling
    graph = graph_of(f"a = Neg(x) {activation} {body}", x=shape)
    found = survey(graph)
    if found.sites:
        assert_same(graph, bitwise=activation in SELECTING, seed=seed)
    else:
        ((_, refusal),) = found.refusals
        assert refusal.reason.endswith(("its padding alone", "no fewer elements there"))


def test_a_strided_pooling_comes_before_the_activation() -> None:
    graph = graph_of("b = Relu(x) y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (b)")
    (rewritten,) = assert_same(graph, bitwise=True)
    assert operators(rewritten) == ["MaxPool", "Relu"]
    assert rewritten.shape("y") == (1, 4, 3, 3)
    node = next(rewritten.nodes("MaxPool"))
    assert node.attrs == {"kernel_shape": [2, 2], "strides": [2, 2]}


def test_a_whole_path_is_passed_at_once() -> None:
    body = "b = Tanh(x) p = Transpose <perm = [0, 1, 3, 2]> (b) q = GlobalMaxPool(p) y = Flatten(q)"
    (rewritten,) = assert_same(graph_of(body), bitwise=False)
    assert operators(rewritten) == ["Transpose", "GlobalMaxPool", "Tanh", "Flatten"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (f"g = Sigmoid(x) b = Mul(x, g) {POOL}", "decreases somewhere"),
        (f"b = PRelu(x, slope) {POOL}", "has a slope for each channel"),
        (
            f"b = Relu(x) {POOL.replace('y =', 'y, i =')} z = Cast <to = 1> (i)",
            "also gives indices",
        ),
        ("b = Relu(x) y = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (b)", "no fewer"),
        (
            "b = Relu(x) y = MaxPool <kernel_shape = [2, 2], strides = [2, 2], "
            "pads = [1, 1, 1, 1], dilations = [7, 7]> (b)",
            "may lie in its padding alone",
        ),
        (
            "b = Relu(x) y = MaxPool <kernel_shape = [2, 2], strides = [2, 2], "
            'auto_pad = "SAME_UPPER", dilations = [2, 2]> (b)',
            "may lie in its padding alone",
        ),
        (f"b = Relu(x) {POOL} z = Neg(b)", "is read by node"),
        (
            "q = QuantizeLinear(x, scale, point) d = DequantizeLinear(q, scale, point) "
            f"b = Relu(d) {POOL}",
            "inside QDQ",
        ),
    ],
)
def test_what_is_not_exact_or_no_gain_is_refused_with_a_reason(body: str, reason: str) -> None:
    found = survey(graph_of(body, outputs="y z" if "z =" in body else "y"))
    assert found.sites == ()
    assert reason in " ".join(refusal.reason for _, refusal in found.refusals)


def test_an_activation_that_leaves_the_graph_stays() -> None:
    found = survey(graph_of(f"b = Relu(x) {POOL}", outputs="y b"))
    assert [refusal.reason for _, refusal in found.refusals] == ["'b' is an output of the graph"]


def test_a_tensor_that_a_subgraph_reads_stays() -> None:
    body = (
        f"b = Relu(x) {POOL} t = Constant <value = bool {{1}}> () "
        "z = If (t) <then_branch = g () => (float[1, 4, 6, 6] u) { u = Neg(b) }, "
        "else_branch = h () => (float[1, 4, 6, 6] v) { v = Abs(b) }>"
    )
    found = survey(graph_of(body, outputs="y z"))
    assert found.sites == ()
    assert "'b' is read in a subgraph" in [refusal.reason for _, refusal in found.refusals]


@pytest.mark.parametrize(
    "attributes", ["kernel_shape = [2, 2], pads = [0]", "kernel_shape = [2], strides = [2]"]
)
def test_a_pooling_that_is_not_well_formed_is_refused(attributes: str) -> None:
    found = survey(graph_of(f"b = Relu(x) y = MaxPool <{attributes}> (b)"))
    assert found.sites == ()
    (refusal,) = [refusal for _, refusal in found.refusals]
    assert refusal.reason.endswith("do not fit its input")


def test_a_window_that_depends_on_a_symbolic_size_is_refused() -> None:
    body = POOL.replace("strides", "ceil_mode = 1, strides")
    fixed = graph_of(f"b = Relu(x) {body}")
    assert survey(fixed).sites
    symbolic = graph_of(f"b = Relu(x) {body}", x="1, 4, H, 6").with_input_shapes(
        {"x": (1, 4, 6, 6)}
    )
    (refusal,) = [refusal for _, refusal in survey(symbolic).refusals]
    assert refusal.reason.endswith("may lie in its padding alone")


# -------------------------------------------------------------------- data movement

BEHIND = (
    "y = Slice(b, start, stop, axes, steps)",
    'y = Resize <mode = "nearest"> (b, , down)',
    "y = Gather <axis = 2> (b, rows)",
    "f = Flatten(b) y = Slice(f, start, stop, one, steps)",
)
BEFORE = (
    'a = Resize <mode = "nearest"> (x, , up)',
    'a = Resize <mode = "nearest", nearest_mode = "floor",'
    'coordinate_transformation_mode = "asymmetric"> (x, , up)',
    "a = Tile(x, repeats)",
    'a = Pad <mode = "reflect"> (x, pads)',
    "k = Conv(x, weights) a = Reshape(k, flat)",
    "k = Conv(x, weights) a = Transpose <perm = [0, 2, 3, 1]> (k)",
    "k = Conv(x, weights) a = Flatten(k)",
    "k = Conv(x, weights) a = DepthToSpace <blocksize = 2> (k)",
    "k = Conv(x, weights) t = Transpose <perm = [0, 2, 3, 1]> (k) a = Reshape(t, flat)",
    "k = Conv(x, weights) u = Unsqueeze(k, one) a = Squeeze(u, one)",
    "k = Conv(x, weights) a = Slice(k, start, stop, axes, steps)",
    "k = Conv(x, weights) a = Concat <axis = 1> (k, x)",
    "k = Conv(x, weights) m = Neg(x) a = Concat <axis = 2> (k, m, m)",
)
ARGUMENTS = {
    "start": [1],
    "stop": [-1],
    "axes": [2],
    "one": [1],
    "steps": [2],
    "rows": [0, 3, 3],
    "down": np.array([1, 1, 0.5, 0.5], np.float32),
    "up": np.array([1, 1, 2, 1.5], np.float32),
    "repeats": [1, 1, 2, 1],
    "pads": [0, 0, 1, 2, 0, 0, 1, 0],
    "flat": [0, -1],
    "roi": np.zeros(8, np.float32),
    "zeros": np.zeros((1, 4, 6, 6), np.float32),
}


@pytest.mark.parametrize("activation", SELECTING + INCREASING + OTHERS)
@pytest.mark.parametrize("path", BEHIND)
def test_behind_what_drops_elements_it_computes_the_same(path: str, activation: str) -> None:
    graph = graph_of(f"a = Neg(x) {activation} {path}", **ARGUMENTS)
    for rewritten in assert_same(graph, bitwise=activation in SELECTING):
        assert operators(rewritten)[1] in path


@pytest.mark.parametrize("activation", (SELECTING + INCREASING + OTHERS)[::2])
@pytest.mark.parametrize("path", BEFORE)
def test_before_what_moves_data_it_computes_the_same(path: str, activation: str) -> None:
    graph = graph_of(f"{path} {activation} y = Neg(b)", **ARGUMENTS)
    for rewritten in assert_same(graph, bitwise=activation in SELECTING):
        assert operators(rewritten)[-1] == "Neg"
        assert operators(rewritten)[-2] == operators(graph_of(path, outputs="a", **ARGUMENTS))[-1]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 5), min_size=4, max_size=4),
    st.lists(st.sampled_from([1.0, 1.5, 2.0, 3.0]), min_size=2, max_size=2),
    st.sampled_from(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]),
    st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    st.sampled_from(SELECTING),
)
def test_before_any_nearest_resize_no_bit_changes(
    shape: list[int], scales: list[float], coordinates: str, rounding: str, activation: str
) -> None:
    assume(max(scales) > 1 and max(shape[2:]) > 1)
    attributes = f'coordinate_transformation_mode = "{coordinates}", nearest_mode = "{rounding}"'
    graph = graph_of(
        f'a = Resize <mode = "nearest", {attributes}> (x, , up) {activation} y = Neg(b)',
        x=", ".join(map(str, shape)),
        up=np.array([1, 1, *scales], np.float32),
    )
    if survey(graph).sites:
        assert_same(graph, bitwise=True)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.permutations([0, 1, 2, 3]),
    st.integers(0, 3),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.sampled_from(SELECTING + OTHERS),
)
def test_before_a_join_or_transpose_of_any_axis_nothing_changes(
    order: list[int], axis: int, sizes: list[int], activation: str
) -> None:
    parts = " ".join(
        f"s{i} = Slice(x, z{i}, e{i}, along) n{i} = Neg(s{i})" for i in range(len(sizes))
    )
    joined = ", ".join(["k", *(f"n{i}" for i in range(len(sizes)))])
    graph = graph_of(
        f"k = Mul(x, x) {parts} j = Concat <axis = {axis}> ({joined}) "
        f"a = Transpose <perm = {order}> (j) {activation} y = Neg(b)",
        x="4, 4, 4, 4",
        along=[axis],
        **{f"z{i}": [0] for i in range(len(sizes))},
        **{f"e{i}": [size] for i, size in enumerate(sizes)},
    )
    for rewritten in assert_same(graph, bitwise=activation in SELECTING):
        assert operators(rewritten)[-3:] == ["Concat", "Transpose", "Neg"]


def test_before_a_join_of_what_others_read_too_it_could_not_fuse() -> None:
    body = "k = Mul(x, x) s = Slice(k, start, stop, axes, steps) j = Concat <axis = 2> (k, s)"
    found = survey(graph_of(f"{body} b = Relu(j) y = Neg(b)", **ARGUMENTS))
    assert found.sites == ()
    (refusal,) = [refusal for _, refusal in found.refusals]
    assert refusal.reason.endswith("no layer that it could fuse with")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('a = Resize <mode = "linear"> (x, , up) y = Relu(a)', "computes new values (linear)"),
        (
            'a = Resize <mode = "nearest", coordinate_transformation_mode = "tf_crop_and_resize"> '
            "(x, roi, up) y = Relu(a)",
            "a value of its own outside",
        ),
        ("a = Pad(x, pads) y = Sigmoid(a)", "writes 0, and Sigmoid of that is 0.5"),
        ("a = Pad(x, pads, c) y = Relu(a)", ""),
        ("a = Pad(x, pads, below) y = Relu(a)", "writes -1, and Relu of that is 0"),
        ("n = ReduceMax <keepdims = 0> (x) a = Pad(x, pads, n) y = Relu(a)", "is not constant"),
        ("a = Transpose <perm = [0, 2, 3, 1]> (x) y = Relu(a)", "no layer that it could fuse with"),
        ("a = Concat <axis = 0> (x, zeros) y = Relu(a)", "also moves a constant"),
        ('a = Resize <mode = "nearest"> (x, , up) y = Relu(a) z = Neg(a)', "is read by node"),
        ("k = Conv(x, weights) a = Flatten(k) y = Relu(a) z = Neg(k)", "no layer that it could"),
        (
            "k = Conv(x, weights) j = MaxPool <kernel_shape = [2, 2]> (k) "
            "g = Sigmoid(j) y = Mul(j, g)",
            "decreases somewhere",
        ),
    ],
)
def test_what_moves_data_otherwise_is_refused_before_it(body: str, reason: str) -> None:
    found = survey(graph_of(body, outputs="y z" if "z =" in body else "y", **ARGUMENTS))
    assert bool(found.sites) is (reason == "")
    assert reason in " ".join(refusal.reason for _, refusal in found.refusals)


def test_next_to_a_convolution_it_goes_before_a_pooling_too() -> None:
    body = f"k = Conv(x, weights) {POOL.replace('y', 'p').replace('(b)', '(k)')} y = Relu(p)"
    (rewritten,) = assert_same(graph_of(body), bitwise=True)
    assert operators(rewritten) == ["Conv", "Relu", "MaxPool"]
