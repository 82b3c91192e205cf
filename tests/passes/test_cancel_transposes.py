"""Transposes that cancel around element-wise operators."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from normalizing import assert_kept, graph_of, operators, rewritten

from actcc.graph import Graph
from actcc.passes.cancel_transposes import CancelTransposes

CANCEL = CancelTransposes()
LAST, FIRST = "Transpose <perm = [0, 2, 3, 1]>", "Transpose <perm = [0, 3, 1, 2]>"
MEAN = "ReduceMean <axes = [1, 2], keepdims = 1>"


def test_transposes_around_an_activation_go() -> None:
    body = f"c = Neg(x) a = {LAST}(c) b = HardSwish(a) d = {FIRST}(b) y = Abs(d)"
    result, notes = rewritten(graph_of(body), CANCEL)
    assert operators(result) == ["Neg", "HardSwish", "Abs"]
    assert notes == "removed 2 Transpose or Reshape around 1 other nodes"


@pytest.mark.parametrize("shape", [(), (1,), (4,), (1, 1, 4), (1, 1, 1, 4), (6, 5, 4), (6, 1, 1)])
def test_constants_are_transposed(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    body = f"a = {LAST}(x) b = Mul(k, a) d = {FIRST}(b) y = Neg(d)"
    result, _ = rewritten(graph_of(body, (1, 4, 6, 5), {"k": values}), CANCEL, 0)
    assert operators(result) == ["Mul", "Neg"]


def test_a_sum_of_transposed_tensors_loses_them_all() -> None:
    body = f"n = Neg(x) a = {LAST}(x) b = {LAST}(n) c = Add(a, b) d = {FIRST}(c) y = Relu(d)"
    result, _ = rewritten(graph_of(body), CANCEL, 0)
    assert operators(result) == ["Neg", "Add", "Relu"]


def test_a_sum_is_transposed_once_rather_than_each_of_its_terms() -> None:
    body = f"n = Neg(x) a = {LAST}(x) b = {LAST}(n) c = Add(a, b) y = MatMul(c, w)"
    result, _ = rewritten(graph_of(body, constants={"w": np.eye(4, dtype=np.float32)}), CANCEL, 0)
    assert operators(result) == ["Neg", "Add", "Transpose", "MatMul"]


def test_joins_go_with_their_axis() -> None:
    body = f"n = Neg(x) a = {LAST}(x) b = {LAST}(n) c = Concat <axis = -1> (a, b) y = {FIRST}(c)"
    result, _ = rewritten(graph_of(body), CANCEL, 0)
    assert operators(result) == ["Neg", "Concat"]
    assert next(result.nodes("Concat")).attrs["axis"] == 1


def test_a_gate_of_a_squeeze_and_excitation_goes_along() -> None:
    """The mean leaves, and the gate enters, by a Reshape that moves axes of one element only."""
    body = f"""
        a = {LAST}(x) h = HardSwish(a) m = {MEAN}(h) f = Reshape(m, first) c = Conv(f, w)
        g = Sigmoid(c) l = Reshape(g, last) p = Mul(h, l) t = {FIRST}(p) y = Conv(t, w)
    """
    constants = {
        "first": np.asarray([1, 4, 1, 1]),
        "last": np.asarray([1, 1, 1, 4]),
        "w": np.random.default_rng(0).standard_normal((4, 4, 1, 1)).astype(np.float32),
    }
    result, _ = rewritten(graph_of(body, constants=constants), CANCEL)
    assert operators(result) == ["HardSwish", "ReduceMean", "Conv", "Sigmoid", "Mul", "Conv"]
    assert next(result.nodes("ReduceMean")).attrs["axes"] == [2, 3]


def test_axes_that_are_an_input_are_named_anew() -> None:
    body = f"a = {LAST}(x) m = ReduceMax(a, axes) b = Sub(a, m) y = {FIRST}(b)"
    axes = {"axes": np.asarray([1, -2])}
    result, _ = rewritten(graph_of(body, constants=axes, opset=18), CANCEL, 0)
    assert operators(result) == ["ReduceMax", "Sub"]


def test_quantization_by_tensor_goes_along() -> None:
    body = f"a = {LAST}(x) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) y = {FIRST}(d)"
    constants = {"s": np.asarray(0.1, np.float32), "z": np.asarray(3, np.int8)}
    result, _ = rewritten(graph_of(body, constants=constants), CANCEL, 0)
    assert operators(result) == ["QuantizeLinear", "DequantizeLinear"]


def test_what_reads_the_tensor_elsewhere_gets_a_transpose_where_that_still_pays() -> None:
    body = f"""
        a = {LAST}(x) b = Relu(a) c = {FIRST}(b) d = {FIRST}(b) y = Add(c, d)
        s = MatMul(b, w)
    """
    weights = {"w": np.eye(4, dtype=np.float32)}
    result, _ = rewritten(graph_of(body, constants=weights, outputs="y s"), CANCEL, 0)
    assert Counter(operators(result)) == {"Relu": 1, "Transpose": 1, "Add": 1, "MatMul": 1}


def test_outputs_keep_their_names() -> None:
    body = f"a = {LAST}(x) b = Relu(a) y = {FIRST}(b) z = {FIRST}(b)"
    result, _ = rewritten(graph_of(body, outputs="y z"), CANCEL, 0)
    assert operators(result) == ["Relu", "Identity"]


@pytest.mark.parametrize(
    "body",
    [
        f"a = {LAST}(x) b = Relu(a) y = MatMul(b, w)",
        f"a = {LAST}(x) b = Relu(a) c = Softmax(b) y = {FIRST}(c)",
        f"m = {MEAN}(x) r = Squeeze(m) a = {LAST}(x) b = Mul(a, r) y = {FIRST}(b)",
        f"a = {LAST}(x) m = ReduceMean <axes = [1], keepdims = 0> (a) y = Neg(m)",
        f"a = {LAST}(x) z = Relu(a) y = {FIRST}(z)",
    ],
    ids=["no way back", "softmax", "operand of another rank", "axes go", "output inside"],
)
def test_transposes_that_are_needed_stay(body: str) -> None:
    weights = {"w": np.eye(4, dtype=np.float32)}
    assert_kept(graph_of(body, (1, 4, 6, 4), weights, "y z" if "z =" in body else "y"), CANCEL)


def test_a_normalization_over_the_channels_keeps_its_transposes() -> None:
    """Runtimes know LayerNormalization over the last axis only."""
    body = f"""
        a = {LAST}(x) m = ReduceMean <axes = [-1], keepdims = 1> (a) c = Sub(a, m)
        s = Mul(c, c) v = ReduceMean <axes = [-1], keepdims = 1> (s) e = Add(v, k)
        d = Sqrt(e) q = Div(c, d) t = {FIRST}(q) u = {FIRST}(c) y = Add(t, u)
    """
    assert_kept(graph_of(body, constants={"k": np.float32(1e-5)}), CANCEL)


def test_symbolic_batches_are_no_obstacle_where_nothing_is_added() -> None:
    text = f"""
        <ir_version: 8, opset_import: ["" : 17]>
        network (float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y) {{
            a = {LAST}(x) b = Relu(a) c = {FIRST}(b) y = Neg(c)
        }}
    """
    graph = Graph.load(onnx.parser.parse_model(text))
    result, _ = CANCEL.run(graph.copy())
    assert operators(result) == ["Relu", "Neg"]
    assert result.shape("y") == ("N", 4, 6, 6)


def moved(graph: Graph) -> int:
    """Elements that Transposes move."""
    return sum(int(np.prod(graph.shape(n.outputs[0]))) for n in graph.nodes("Transpose"))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["last", "first", "Relu", "Sigmoid", "Add", "Mul", "Concat", "mean"]),
            st.integers(0, 9),
            st.integers(0, 9),
        ),
        min_size=3,
        max_size=12,
    ),
    st.sampled_from([(1, 4, 6, 5), (2, 3, 1, 4), (1, 4, 4, 4)]),
)
def test_any_network_stays_equal_and_moves_no_more(
    steps: list[tuple[str, int, int]], shape: tuple[int, ...]
) -> None:
    """Each tensor is known with its layout, and nodes read what has theirs."""
    lines: list[str] = []
    tensors: dict[str, list[str]] = {"first": ["x"], "last": []}
    for index, (op, one, other) in enumerate(steps):
        name = f"t{index}"
        if op in tensors:
            source = tensors["first" if op == "last" else "last"]
            if source:
                call = LAST if op == "last" else FIRST
                lines.append(f"{name} = {call}({source[one % len(source)]})")
                tensors[op].append(name)
            continue
        layout = "last" if other % 2 and tensors["last"] else "first"
        known = tensors[layout]
        first, second = known[one % len(known)], known[other % len(known)]
        axes = "[1, 2]" if layout == "last" else "[2, 3]"
        if op == "mean":
            lines.append(f"m{index} = ReduceMean <axes = {axes}, keepdims = 1> ({first})")
            lines.append(f"{name} = Mul({second}, m{index})")
        elif op == "Concat":
            axis = 3 if layout == "last" else 1
            lines.append(f"c{index} = Concat <axis = {axis}> ({first}, {second})")
            lines.append(f"{name} = Slice(c{index}, zero, stop, {layout}_axis)")
        else:
            operands = first if op in ("Relu", "Sigmoid") else f"{first}, {second}"
            lines.append(f"{name} = {op}({operands})")
        known.append(name)
    ends = [f"y{index}" for index in range(2)]
    lines.append(f"y0 = Relu({tensors['first'][-1]})")
    lines.append(f"y1 = Relu({(tensors['last'] or ['x'])[-1]})")
    constants = {
        "zero": np.asarray([0]),
        "stop": np.asarray([shape[1]]),
        "first_axis": np.asarray([1]),
        "last_axis": np.asarray([3]),
    }
    graph = graph_of(" ".join(lines), shape, constants, " ".join(ends))
    graph.prune()
    result, _ = rewritten(graph, CANCEL)
    assert moved(result) <= moved(graph)
