"""Arithmetic with constants into the layers beside it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from normalizing import assert_kept, graph_of, operators, rewritten

from actcc.activations import find_activations
from actcc.graph import Array, Graph
from actcc.passes.fold_scale_and_shift import FoldScaleAndShift

FOLD = FoldScaleAndShift()
RANDOM = np.random.default_rng(0)


def values(*shape: int, seed: int = 0) -> Array:
    signs = np.random.default_rng(seed + 1).choice([-1.0, 1.0], shape)
    return (np.random.default_rng(seed).uniform(0.3, 2, shape) * signs).astype(np.float32)


W, B = values(5, 4, 3, 3), values(5, seed=1)
CHANNELS = {"w": W, "b": B, "c": values(5, 1, 1, seed=2), "d": values(1, 5, 1, 1, seed=3)}
CONV = "a = Conv <pads = [1, 1, 1, 1]> (x, w, b)"


@dataclass(frozen=True)
class Steps:
    """Arithmetic with constants, some of one value and some with one a channel."""

    operators: tuple[str, ...]
    wide: tuple[bool, ...]
    seed: int

    def write(self, reads: str, writes: str, channels: int, trailing: int) -> tuple[str, dict]:
        lines, constants, tensor = [], {}, reads
        for index, op in enumerate(self.operators):
            following = writes if index == len(self.operators) - 1 else f"{writes}{index}"
            name = f"{writes}_constant{index}"
            operands = {
                "Neg": tensor,
                "c-x": f"{name}, {tensor}",
                "c*x": f"{name}, {tensor}",
            }.get(op, f"{tensor}, {name}")
            lines.append(f"{following} = { {'c-x': 'Sub', 'c*x': 'Mul'}.get(op, op) }({operands})")
            if op != "Neg":
                shape = (channels, *[1] * trailing) if self.wide[index] else ()
                constants[name] = values(*shape, seed=self.seed + index)
            tensor = following
        return " ".join(lines), constants


@st.composite
def steps(draw: st.DrawFn) -> Steps:
    names = ["Add", "Sub", "Mul", "Div", "Neg", "c-x", "c*x"]
    found = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3))
    wide = tuple(draw(st.booleans()) for _ in found)
    return Steps(tuple(found), wide, draw(st.integers(0, 1000)))


@dataclass(frozen=True)
class Layer:
    transposed: bool
    groups: int
    channels: int
    filters: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    bias: bool

    @property
    def inputs(self) -> int:
        return self.channels * self.groups

    @property
    def outputs(self) -> int:
        return self.filters * self.groups

    def write(self, reads: str, writes: str) -> tuple[str, dict]:
        first = (self.inputs, self.filters) if self.transposed else (self.outputs, self.channels)
        constants: dict = {"w": values(*first, *self.kernel)}
        if self.bias:
            constants["b"] = values(self.outputs, seed=9)
        op = "ConvTranspose" if self.transposed else "Conv"
        text = (
            f"{writes} = {op} <group = {self.groups}, strides = {list(self.strides)}, "
            f"dilations = {list(self.dilations)}, pads = {list(self.pads)}> "
            f"({reads}, w{', b' if self.bias else ''})"
        )
        return text, constants


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    def each(low: int, high: int, count: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(count))

    found = Layer(
        draw(st.booleans()),
        *each(1, 3, 3),
        kernel=each(1, 3, 2),
        strides=each(1, 2, 2),
        dilations=each(1, 2, 2),
        pads=draw(st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 2, 0)])),
        bias=draw(st.booleans()),
    )
    for axis in range(2):
        reach = found.dilations[axis] * (found.kernel[axis] - 1) + 1
        assume(not found.transposed or reach > found.pads[axis] + found.pads[axis + 2])
    return found


@settings(max_examples=40, deadline=None, derandomize=True)
@given(layers(), steps())
def test_steps_behind_any_convolution_all_go(layer: Layer, behind: Steps) -> None:
    text, constants = layer.write("x", "a")
    arithmetic, more = behind.write("a", "y", layer.outputs, 2)
    graph = graph_of(f"{text} {arithmetic}", (2, layer.inputs, 7, 6), {**constants, **more})
    result, _ = rewritten(graph, FOLD)
    assert len(operators(result)) == 1


@settings(max_examples=40, deadline=None, derandomize=True)
@given(layers(), steps())
def test_steps_before_any_convolution_leave_one_add_at_most(layer: Layer, before: Steps) -> None:
    arithmetic, more = before.write("x", "a", layer.inputs, 2)
    text, constants = layer.write("a", "y")
    graph = graph_of(f"{arithmetic} {text}", (2, layer.inputs, 7, 6), {**constants, **more})
    result, _ = rewritten(graph, FOLD)
    padded = layer.transposed or any(layer.pads)
    single = len(before.operators) == 1 and before.operators[0] in ("Add", "Sub", "c-x")
    assert len(operators(result)) == 1 or (padded and len(operators(result)) == 2)
    assert not (padded and single) or operators(result) == operators(graph)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.booleans(), st.sampled_from([None, (), (5,), (1, 5)]), steps(), st.booleans())
def test_steps_beside_a_gemm_all_go(
    transposed: bool, bias: tuple[int, ...] | None, arithmetic: Steps, behind: bool
) -> None:
    constants = {"w": values(*((5, 4) if transposed else (4, 5)))}
    if bias is not None:
        constants["b"] = values(*bias, seed=5)
    reads, writes = ("x", "a") if behind else ("a", "y")
    gemm = (
        f"{writes} = Gemm <transB = {int(transposed)}, alpha = 0.5, beta = 3.0> "
        f"({reads}, w{'' if bias is None else ', b'})"
    )
    text, more = arithmetic.write(
        "a" if behind else "x", "y" if behind else "a", 5 if behind else 4, 0
    )
    body = f"{gemm} {text}" if behind else f"{text} {gemm}"
    result, _ = rewritten(graph_of(body, (3, 4), {**constants, **more}), FOLD)
    assert operators(result) == ["Gemm"]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.booleans(), st.booleans(), steps(), st.sampled_from([(3, 4), (2, 3, 4)]))
def test_steps_beside_a_product_of_matrices_go_where_it_has_a_bias(
    biased: bool, behind: bool, arithmetic: Steps, x: tuple[int, ...]
) -> None:
    constants = {"w": values(4, 5), "b": values(5, seed=5)}
    reads, writes = ("x", "a") if behind else ("a", "y")
    layer = f"{writes} = MatMul({reads}, w)"
    if biased:
        layer = f"m = MatMul({reads}, w) {writes} = Add(b, m)"
    text, more = arithmetic.write(
        "a" if behind else "x", "y" if behind else "a", 5 if behind else 4, 0
    )
    body = f"{layer} {text}" if behind else f"{text} {layer}"
    result, _ = rewritten(graph_of(body, x, {**constants, **more}), FOLD)
    if biased:
        assert operators(result) == ["MatMul", "Add"]
    if set(arithmetic.operators) <= {"Mul", "Div", "Neg", "c*x"}:
        assert len(operators(result)) == 1 + biased


def test_a_scale_goes_into_all_layers_that_read_it() -> None:
    body = "a = Mul(x, s) p = Conv(a, w) q = Conv(a, w) y = Concat <axis = 1> (p, q)"
    result, notes = rewritten(graph_of(body, constants={"w": W, "s": values(4, 1, 1)}), FOLD)
    assert operators(result) == ["Conv", "Conv", "Concat"]
    assert "folded 1 Mul into the Conv behind" in notes


def test_a_layer_of_another_domain_is_no_layer_that_takes_the_scale() -> None:
    body = "a = Mul(x, s) b = Conv(a, v) c = com.microsoft.Conv(a, v) y = Add(b, c)"
    graph = graph_of(body, constants={"s": np.float32(3), "v": values(4, 4, 1, 1)})
    left, notes = FOLD.run(graph.copy())
    assert operators(left) == ["Mul", "Conv", "Conv", "Add"]
    assert not notes


def test_a_padded_layer_keeps_one_add_of_a_scale_and_a_shift() -> None:
    body = "a = Mul(x, s) e = Add(a, t) y = Conv <pads = [1, 1, 1, 1]> (e, w)"
    constants = {"w": W, "s": values(4, 1, 1), "t": values(4, 1, 1, seed=4)}
    result, notes = rewritten(graph_of(body, constants=constants), FOLD)
    assert operators(result) == ["Add", "Conv"]
    assert "folded 1 Mul into the Conv behind" in notes


def test_an_output_of_the_graph_keeps_its_name() -> None:
    result, _ = rewritten(graph_of(f"{CONV} y = Mul(a, c)", constants=CHANNELS), FOLD)
    assert [tensor.name for tensor in result.outputs] == ["y"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("a = Add(x, one) y = Conv <pads = [1, 1, 1, 1]> (a, w)", "pads with zeros"),
        ("a = Add(x, one) y = Conv <auto_pad = \"SAME_UPPER\"> (a, w)", "pads with zeros"),
        ("a = Add(x, one) y = ConvTranspose(a, v)", "border of a ConvTranspose"),
        ("a = Conv(x, w) y = Mul(a, plane)", "other axes than the channels"),
        ("a = Mul(x, rows) y = Conv(a, w)", "other axes than the channels"),
        ("a = Conv(x, w) b = Mul(a, c) s = Sigmoid(a) y = Mul(b, s)", "read elsewhere"),
        ("a = Mul(x, tiny) y = Conv(a, w)", "overflow or lose digits"),
        ("a = Mul(x, two) p = MatMul(a, m) q = Conv(a, w) s = Relu(p) y = Relu(q)",
         "different axes"),
        ("r = ReduceMean <axes = [1]> (x) q = Sqrt(r) n = Div(x, q) g = Mul(n, two) y = Conv(g, w)",
         "ends a normalization"),
    ],
)  # fmt: skip
def test_what_stays_and_why(body: str, reason: str) -> None:
    constants = {
        "w": W,
        "v": values(4, 2, 3, 3),
        "c": CHANNELS["c"],
        "one": np.float32(1),
        "two": np.float32(2),
        "tiny": np.float32(1e-43),
        "plane": values(1, 1, 4, 4),
        "rows": values(6, 6),
        "m": values(6, 4),
    }
    used = {
        name: value
        for name, value in constants.items()
        if f"{name})" in body or f" {name} " in body or f"{name}," in body
    }
    assert_kept(graph_of(body, constants=used), FOLD, reason)


@pytest.mark.parametrize(
    "body",
    [
        f"{CONV} e = Add(a, three) k = Clip(e, zero, six) m = Mul(a, k) y = Div(m, six)",
        f"{CONV} e = Add(a, three) k = Clip(e, zero, six) y = Div(k, six)",
        f"{CONV} e = Div(a, root) f = Erf(e) g = Add(f, one) m = Mul(a, g) h = Mul(m, half)"
        " y = Conv(h, u)",
        f"{CONV} m = Mul(a, half) t = Tanh(m) g = Add(t, one) h = Mul(g, half) y = Mul(h, a)",
    ],
)
def test_activations_stay_what_they_were(body: str) -> None:
    constants = {
        "three": np.float32(3), "zero": np.float32(0), "six": np.float32(6), "one": np.float32(1),
        "half": np.float32(0.5), "root": np.float32(np.sqrt(2)), "u": values(2, 5, 1, 1),
        **CHANNELS,
    }  # fmt: skip
    graph = graph_of(body, constants=constants)
    result, _ = rewritten(graph, FOLD)

    def found(seen: Graph) -> Counter[str]:
        return Counter(f"{each.activation} {each.spelling}" for each in find_activations(seen))

    assert found(graph)
    assert found(result) == found(graph)
    assert operators(result) == operators(graph)


def test_what_is_around_an_activation_goes() -> None:
    body = f"{CONV} n = Add(a, one) s = Sigmoid(n) m = Mul(n, s) h = Mul(m, half) y = Conv(h, u)"
    constants = {"one": np.float32(1), "half": np.float32(0.5), "u": values(2, 5, 1, 1), **CHANNELS}
    result, _ = rewritten(graph_of(body, constants=constants), FOLD)
    assert operators(result) == ["Conv", "Sigmoid", "Mul", "Conv"]


@pytest.mark.parametrize(
    ("between", "shape"),
    [
        ("r = Transpose <perm = [0, 2, 3, 1]> (a)", (5,)),
        ("r = Transpose <perm = [3, 1, 2, 0]> (a)", (5, 1, 1)),
        ("r = Reshape(a, flat)", (5, 1)),
        ("t = Transpose <perm = [0, 2, 3, 1]> (a) r = Reshape(t, rows)", (1, 5)),
        ("t = Transpose <perm = [0, 2, 3, 1]> (a) r = Reshape(t, rows)", ()),
    ],
)
def test_a_constant_goes_past_what_rearranges(between: str, shape: tuple[int, ...]) -> None:
    constants = {**CHANNELS, "s": values(*shape, seed=7), "flat": [2, 5, -1], "rows": [-1, 5]}
    body = f"{CONV} {between} m = Mul(r, s) y = Add(s, m)"
    graph = graph_of(body, (2, 4, 6, 6), constants)
    result, _ = rewritten(graph, FOLD)
    assert operators(result) == operators(graph)[:-2]


@pytest.mark.parametrize(
    ("body", "x", "left"),
    [
        ("n = BatchNormalization(x, s, t, m, v) y = Conv(n, w)", (2, 4, 6, 6), ["Conv"]),
        ("n = BatchNormalization(x, s, t, m, v) y = Gemm(n, g)", (3, 4), ["Gemm"]),
        ("n = BatchNormalization(x, s, t, m, v) a = Mul(n, k)"
         " y = Conv <pads = [1, 1, 1, 1]> (a, w)", (2, 4, 6, 6), ["Add", "Conv"]),
        ("p = MatMul(x, g) r = Add(p, b) a = Transpose <perm = [0, 2, 1]> (r)"
         " y = BatchNormalization(a, b, b, b, d)", (2, 3, 4), ["MatMul", "Add", "Transpose"]),
    ],
    ids=["conv", "gemm", "padded", "linear and transpose"],
)  # fmt: skip
def test_batch_normalization_is_a_scale_and_a_shift(
    body: str, x: tuple[int, ...], left: list[str]
) -> None:
    """Before a layer, and where others stand between; directly behind one see fold-batch-norm."""
    statistics = {"s": values(4), "t": values(4, seed=1), "m": values(4, seed=2)}
    spread = {"v": abs(values(4, seed=3)), "d": abs(values(5, seed=3))}
    constants = {**statistics, **spread, "w": W, "g": values(4, 5), "b": B, "k": np.float32(2)}
    result, _ = rewritten(graph_of(body, x, constants), FOLD)
    assert operators(result) == left


def test_a_layer_scale_goes_past_a_transpose_into_the_bias_and_weights_of_a_linear() -> None:
    body = """
        m = MatMul(x, w) a = Add(b, m) t = Transpose <perm = [0, 3, 1, 2]> (a) y = Mul(s, t)
    """
    constants = {"w": values(4, 5), "b": values(5, seed=1), "s": values(5, 1, 1, seed=2)}
    result, _ = rewritten(graph_of(body, (1, 6, 6, 4), constants), FOLD)
    assert operators(result) == ["MatMul", "Add", "Transpose"]


@pytest.mark.parametrize(
    ("x", "between", "shape", "pads", "left"),
    [
        ((1, 6, 6, 4), "Transpose <perm = [0, 3, 1, 2]> (a)", (4,), 0, 0),
        ((1, 6, 6, 4), "Transpose <perm = [0, 3, 1, 2]> (a)", (4,), 1, 1),
        ((1, 6, 6, 4), "Transpose <perm = [0, 3, 1, 2]> (a)", (), 1, 1),
        ((1, 4, 36), "Reshape(a, square)", (4, 1), 0, 0),
        ((1, 4, 36), "Reshape(a, square)", (4, 1), 1, 1),
        ((1, 144), "Reshape(a, square)", (1,), 0, 0),
    ],
)
def test_a_scale_and_a_shift_go_past_what_rearranges_before_a_layer(
    x: tuple[int, ...], between: str, shape: tuple[int, ...], pads: int, left: int
) -> None:
    """As inputs are scaled in channels-last exports; where the layer pads one Add is left."""
    constants = {"s": values(*shape), "t": values(*shape, seed=4), "square": [1, 4, 6, 6], "w": W}
    conv = f"y = Conv <pads = {[pads] * 4}> (r, w)"
    graph = graph_of(f"m = Mul(x, s) a = Add(m, t) r = {between} {conv}", x, constants)
    result, notes = rewritten(graph, FOLD)
    assert operators(result) == ["Add"] * left + operators(graph)[2:]
    assert ("1 Add" in notes) == (not left)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("m = Mul(x, c) t = Reshape(m, merged) z = Reshape(t, same) y = Conv(z, k)",
         "other axes than the channels"),
        (f"{CONV} t = Transpose <perm = [0, 2, 3, 1]> (a) m = Mul(t, c) y = Relu(m)",
         "other axes than the channels"),
        (f"{CONV} t = Reshape(a, merged) m = Mul(t, s) y = Relu(m)",
         "other axes than the channels"),
        (f"{CONV} t = Flatten(a) r = Relu(a) f = Flatten(r) m = Mul(t, half) y = Add(m, f)",
         "also read elsewhere"),
    ],
)  # fmt: skip
def test_what_does_not_go_past_what_rearranges(body: str, reason: str) -> None:
    constants = {"merged": [1, -1, 6], "s": values(30, 1), "half": np.float32(0.5), **CHANNELS}
    constants |= {"c": values(6, 1), "same": [1, 4, 6, 6], "k": W}
    used = {name: value for name, value in constants.items() if name in body}
    assert_kept(graph_of(body, constants=used), FOLD, reason)


def test_a_quantized_layer_says_why() -> None:
    body = "v = DequantizeLinear(q, scale) a = Conv(x, v) y = Mul(a, half)"
    constants = {
        "q": RANDOM.integers(-9, 9, (5, 4, 3, 3)).astype(np.int8),
        "scale": np.float32(0.1),
        "half": np.float32(0.5),
    }
    assert_kept(graph_of(body, constants=constants), FOLD, "inside QDQ")


def test_half_precision_is_rounded_once() -> None:
    body = f"{CONV} y = Mul(a, c)"
    constants = {name: value.astype(np.float16) for name, value in CHANNELS.items()}
    graph = graph_of(body, constants=constants, element="float16")
    result, _ = rewritten(graph, FOLD, tolerance=4e-3)
    assert operators(result) == ["Conv"]
