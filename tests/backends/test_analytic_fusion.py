"""What the analytic backend fuses, by hand on a device of round numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper
from round_device import CONVOLUTION, LOOKUP, device, load, rows, total

from actcc.backends.analytic import AnalyticBackend
from actcc.errors import ModelError, TargetError
from actcc.graph import Graph
from actcc.latency_models import Profile


@pytest.mark.parametrize("op", ["Relu", "Clip"])
def test_a_clamp_behind_a_convolution_is_free(tmp_path: Path, op: str) -> None:
    graph = load(f"c = Conv(x, w)  y = {op}(c{', low' if op == 'Clip' else ''})", {
        "w": (8, 4, 1, 1), "low": ()
    })  # fmt: skip
    assert [(ns, bound) for _, ns, bound in rows(device(tmp_path), graph)] == [
        (CONVOLUTION, "compute")
    ]


@pytest.mark.parametrize(
    "spelled",
    [
        "y = HardSwish(c)",
        "h = HardSigmoid<alpha = 0.16666667, beta = 0.5>(c)  y = Mul(c, h)",
        "y = Sigmoid(c)",
        "y = LeakyRelu<alpha = 0.1>(c)",
        "y = HardSigmoid(c)",
    ],
)
def test_a_lookup_runs_behind_its_convolution(tmp_path: Path, spelled: str) -> None:
    graph = load(f"c = Conv(x, w)  {spelled}")
    ((op, latency, bound),) = rows(device(tmp_path), graph)
    assert op.startswith("Conv+")
    assert (latency, bound) == (LOOKUP, "lookup")


def test_a_lookup_runs_while_the_next_block_is_computed(tmp_path: Path) -> None:
    # 4 blocks of 4 positions: each takes 8 cycles to multiply and 4 to look up.
    more = "[settings.lookup]\nfused_elements_per_cycle = 8\n[settings.blocks]\naccumulators = 32\n"
    graph = load("c = Conv(x, w)  y = HardSwish(c)")
    assert total(device(tmp_path, more), graph) == CONVOLUTION + 4


def test_a_table_is_loaded_before_the_operation_starts(tmp_path: Path) -> None:
    more = (
        "[settings.lookup]\ntable_bytes = 256\n"
        "[settings.dram]\nbytes_per_cycle = 4\nlatency_cycles = 50\n"
    )
    graph = load("c = Conv(x, w)  y = HardSwish(c)")
    assert total(device(tmp_path, more), graph) == LOOKUP + 256 / 4 + 50


def test_silu_is_a_lookup_and_a_product_each_over_memory(tmp_path: Path) -> None:
    # 128 / 2 for the table, 128 / 4 for the product.
    graph = load("c = Conv(x, w)  s = Sigmoid(c)  y = Mul(c, s)")
    assert rows(device(tmp_path), graph) == [
        ("Conv", CONVOLUTION, "compute"),
        ("Sigmoid", 64.0, "compute"),
        ("Mul", 32.0, "compute"),
    ]


def test_an_activation_does_not_fuse_where_something_else_reads_its_input(tmp_path: Path) -> None:
    graph = load("c = Conv(x, w)  r = Relu(c)  y = Add(c, r)")
    assert [op for op, _, _ in rows(device(tmp_path), graph)] == ["Conv", "Relu", "Add"]


def test_an_activation_does_not_fuse_where_its_input_leaves_the_graph(tmp_path: Path) -> None:
    graph = load("c = Conv(x, w)  y = Relu(c)", outputs="float[1,8,4,4] y, float[1,8,4,4] c")
    assert [op for op, _, _ in rows(device(tmp_path), graph)] == ["Conv", "Relu"]


def test_one_activation_fits_behind_an_operation(tmp_path: Path) -> None:
    graph = load("c = Conv(x, w)  r = Relu(c)  y = Tanh(r)")
    assert [op for op, _, _ in rows(device(tmp_path), graph)] == ["Conv+Relu", "Tanh"]


def test_an_activation_fuses_through_nodes_that_are_free(tmp_path: Path) -> None:
    graph = load("c = Conv(x, w)  i = Identity(c)  y = Relu(i)")
    backend = device(tmp_path)
    assert rows(backend, graph) == [("Conv+Relu", CONVOLUTION, "compute")]
    assert backend.time_models([graph])[0].peak_bytes == 64 + 128


def test_quantization_is_free_and_weights_behind_it_are_constant(tmp_path: Path) -> None:
    body = """v = DequantizeLinear(q, s)  c = Conv(x, v)  d = QuantizeLinear(c, s)
        e = DequantizeLinear(d, s)  r = Relu(e)  f = QuantizeLinear(r, s)
        y = DequantizeLinear(f, s)"""
    graph = load(body, {"s": ()})
    model = graph.to_proto()
    weights = helper.make_tensor("q", TensorProto.INT8, (8, 4, 1, 1), [0] * 32)
    model.graph.initializer.append(weights)
    backend = device(tmp_path)
    assert rows(backend, Graph.load(model)) == [("Conv+Relu", CONVOLUTION, "compute")]
    assert backend.time_models([Graph.load(model)])[0].peak_bytes == 64 + 128


def test_a_model_with_control_flow_is_refused(tmp_path: Path) -> None:
    body = """y = If<then_branch = t () => (float[1,4,4,4] p) { p = Relu(x) },
        else_branch = e () => (float[1,4,4,4] q) { q = Tanh(x) }>(k)"""
    graph = load(body, {}, "float[1,4,4,4] x, bool k", "float[1,4,4,4] y")
    with pytest.raises(ModelError, match=r"node 'If0' .* holds a subgraph"):
        device(tmp_path).time_models([graph])


def test_a_model_without_static_shapes_is_refused(tmp_path: Path) -> None:
    graph = load("y = Relu(x)", {}, "float[1,n] x", "float[1,n] y")
    with pytest.raises(ModelError, match=r"no static shape.*--shape"):
        device(tmp_path).layers(graph)


def test_a_profile_that_does_not_fit_is_refused_at_once() -> None:
    profile = Profile(name="bad", description="d", backend="analytic", settings={"cores": 1})
    with pytest.raises(TargetError, match=r"target 'bad': 'settings"):
        AnalyticBackend(profile)
