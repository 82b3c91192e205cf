"""The measured backend, on graphs whose latencies differ by far more than any noise."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from actcc.backends import measured
from actcc.backends.measure import Measurement
from actcc.backends.measured import MeasuredBackend
from actcc.backends.onnx_fusion import join, probe_fusion
from actcc.backends.onnx_layers import fused_operators
from actcc.backends.onnx_runtime import OnnxRuntimeBackend
from actcc.backends.onnx_session import (
    Settings,
    bound_run,
    host_values,
    open_session,
)
from actcc.errors import ModelError, TargetError
from actcc.graph import Graph
from actcc.latency_models import Profile
from actcc.prices import Price, PriceQuery, Unpriced
from actcc.runtime import session_source
from actcc.targets import load_target

CHANNELS, SIZE = 96, 40
EXPANDED = (1, CHANNELS, SIZE, SIZE)

ACTIVATIONS: Mapping[str, str] = {
    "Identity": "",
    "Relu": "y = Relu(z)",
    "Silu": "s = Sigmoid(z)\ny = Mul(z, s)",
    "HardSwish": "y = HardSwish(z)",
    "HardSigmoid+Mul": "s = HardSigmoid<alpha = 0.16666667, beta = 0.5>(z)\ny = Mul(z, s)",
    "Clip+Mul": "a = Add(z, three)\nb = Clip(a, zero, six)\nc = Mul(z, b)\ny = Div(c, six)",
    "Gelu": "e = Div(z, root)\nf = Erf(e)\ng = Add(f, one)\nh = Mul(z, g)\ny = Mul(h, half)",
}
CONSTANTS = {"zero": 0.0, "half": 0.5, "one": 1.0, "root": 2**0.5, "three": 3.0, "six": 6.0}


def layers(*parts: str, reads: str = "x", writes: str = "out", opset: int = 14) -> Graph:
    """Some of: "expand" (1x1, x to z), an activation (z to y), "project" (1x1, y to out)."""
    body = []
    last = "z"
    for part in parts:
        if part == "expand":
            body.append("z = Conv(x, expand)")
        elif part == "project":
            body.append(f"out = Conv({last}, project)")
        elif ACTIVATIONS[part]:
            body.append(ACTIVATIONS[part])
            last = "y"
    shapes = {"x": (1, 16, SIZE, SIZE), "z": EXPANDED, "y": EXPANDED, "out": (1, 24, SIZE, SIZE)}
    typed = {name: f"float[{','.join(map(str, shape))}] {name}" for name, shape in shapes.items()}
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]>'
        f"part ({typed[reads]}) => ({typed[writes]}) {{\n" + "\n".join(body) + "\n}"
    )
    random = np.random.default_rng(0)
    weights = {
        "expand": random.standard_normal((CHANNELS, 16, 1, 1)) / 4,
        "project": random.standard_normal((24, CHANNELS, 1, 1)) / 10,
        **{name: np.array(value) for name, value in CONSTANTS.items()},
    }
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(values.astype(np.float32), name)
        for name, values in weights.items()
        if name in used
    )
    return Graph.load(model)


def block(activation: str, opset: int = 14) -> Graph:
    return layers("expand", activation, "project", opset=opset)


def backend(**settings: Any) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(
        Profile(name="mine", description="", backend="onnxruntime", settings=settings)
    )


def unloadable() -> Graph:
    graph = block("Relu").to_proto()
    graph.graph.node[1].domain = "nowhere"
    graph.opset_import.append(helper.make_opsetid("nowhere", 1))
    return Graph.load(graph)


def failing_when_run() -> Graph:
    """Loads, but gathers rows that are not there."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Add", ["i", "far"], ["j"]),
        helper.make_node("Gather", ["table", "j"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "gather",
        [value("x", TensorProto.FLOAT, [4])],
        [value("out", TensorProto.FLOAT, [4])],
        [
            numpy_helper.from_array(np.array(1000, np.int64), "far"),
            numpy_helper.from_array(np.zeros(4, np.float32), "table"),
        ],
    )
    return Graph.load(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    )


# ---------------------------------------------------------------- settings


def test_a_provider_that_is_not_installed_is_refused_with_those_that_are() -> None:
    with pytest.raises(
        TargetError, match=r"'mine'.*no execution provider 'NoSuchProvider'"
    ) as told:
        backend(providers=["NoSuchProvider", "CPUExecutionProvider"])
    assert "CPUExecutionProvider" in str(told.value).partition("it has:")[2]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"threads": 0}, "settings.threads"),
        ({"optimization": "most"}, "settings.optimization"),
        ({"providers": []}, "settings.providers"),
        ({"providers": [{"options": {}}]}, "settings.providers.0.name"),
        ({"neighborhood_seconds": 1}, "settings.neighborhood_seconds"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_by_name(
    settings: dict[str, Any], field: str
) -> None:
    with pytest.raises(TargetError, match=f"target 'mine': '{field}'"):
        backend(**settings)


def test_the_tool_names_everything_that_decides_a_latency() -> None:
    mine = backend()
    assert mine.tool.startswith(
        f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider, level all, 1 thread, "
    )
    assert (mine.source, mine.cacheable) == ("measured", True)
    provider = {"name": "CPUExecutionProvider", "options": {"arena_extend_strategy": "same"}}
    changes: list[dict[str, Any]] = [
        {"threads": 2},
        {"optimization": "basic"},
        {"clock": "wall"},
        {"providers": [provider]},
    ]
    tools = [mine.tool, *(backend(**change).tool for change in changes)]
    assert len(set(tools)) == len(tools)


def test_processor_time_is_counted_only_where_one_thread_of_the_cpu_does_the_work() -> None:
    assert Settings().counts_processor_time
    assert not Settings(threads=2).counts_processor_time
    assert not Settings(clock="wall").counts_processor_time
    other = Settings(providers=("CPUExecutionProvider", "CUDAExecutionProvider"))  # type: ignore[arg-type]
    assert not other.counts_processor_time


def test_the_built_in_target_cpu_is_this_backend() -> None:
    target = load_target("cpu")
    assert isinstance(target.backend, OnnxRuntimeBackend)
    assert target.backend.settings == Settings(int8_weight_bits="auto")


# ---------------------------------------------------------------- prices


def test_candidates_are_ordered_as_the_runtime_runs_them() -> None:
    names = ("Relu", "HardSwish", "Clip+Mul", "Gelu")
    query = PriceQuery(block("Silu"), {name: block(name) for name in names})
    prices = backend().price(query)
    assert list(prices) == ["keep", *names]
    found = {name: price for name, price in prices.items() if isinstance(price, Price)}
    assert len(found) == len(prices)
    assert found["Relu"].difference_ns < -found["Relu"].noise_ns
    assert found["Relu"].latency_ns < found["Gelu"].latency_ns
    assert found["Clip+Mul"].difference_ns > found["HardSwish"].difference_ns
    for price in found.values():
        assert price.source == "measured"
        assert price.tool == backend().tool
    assert (found["keep"].difference_ns, found["keep"].noise_ns) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("difference", "expected"), [(900.0, 0.0), (-900.0, 0.0), (4_000.0, 4_000.0)]
)
def test_a_difference_within_the_noise_counts_as_none(
    difference: float, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = Measurement(1e5, 500.0, 0.0, 0.0, 1.0, 0.0, 50)
    other = Measurement(1e5 + difference, 500.0, difference, 1_000.0, 1.0, 0.01, 50)
    monkeypatch.setattr(measured, "interleaved_anew", lambda *_, **__: [keep, other])
    price = backend().price(PriceQuery(block("Silu"), {"Relu": block("Relu")}))["Relu"]
    assert isinstance(price, Price)
    assert price.difference_ns == expected
    # The samples' own noise, and that of where two sessions of a graph lie in memory.
    assert 1_000.0 < price.noise_ns < 2_000.0


def test_graphs_of_equal_structure_share_one_measurement() -> None:
    prices = backend().price(PriceQuery(block("Relu"), {"again": block("Relu")}))
    assert prices["again"] == prices["keep"]


@pytest.mark.parametrize("broken", [unloadable, failing_when_run])
def test_a_candidate_that_cannot_run_is_unpriced_and_the_others_are_priced(broken: Any) -> None:
    query = PriceQuery(block("Silu"), {"broken": broken(), "Relu": block("Relu")})
    prices = backend(neighbourhood_seconds=0.1).price(query)
    assert isinstance(prices["broken"], Unpriced)
    assert prices["broken"].reason.startswith("ONNX Runtime cannot ")
    assert "\n" not in prices["broken"].reason
    assert isinstance(prices["keep"], Price)
    assert isinstance(prices["Relu"], Price)


def test_where_the_neighbourhood_itself_cannot_run_nothing_has_a_price() -> None:
    prices = backend().price(PriceQuery(unloadable(), {"Relu": block("Relu")}))
    assert set(prices) == {"keep", "Relu"}
    for price in prices.values():
        assert isinstance(price, Unpriced)
        assert "the neighbourhood as it is cannot be timed" in price.reason


# ---------------------------------------------------------------- whole models


def test_whole_models_are_timed_against_the_first() -> None:
    timings = backend(model_seconds=0.5).time_models([block("Relu"), block("Gelu")])
    first, second = timings
    assert (first.ratio, first.ratio_noise) == (1.0, 0.0)
    assert second.ratio - second.ratio_noise > 1.0
    assert second.ratio == pytest.approx(second.latency_ns / first.latency_ns, rel=0.3)
    assert first.noise_ns < first.latency_ns
    assert first.peak_bytes >= CHANNELS * SIZE * SIZE * 4
    assert first.source == "measured"


def test_two_threads_are_timed_by_the_wall_clock() -> None:
    (timing,) = backend(threads=2, model_seconds=0.2).time_models([block("Relu")])
    assert timing.latency_ns > 0
    assert "2 threads" in timing.tool
    assert "wall time" in timing.tool


def test_an_input_without_a_static_shape_cannot_be_timed() -> None:
    model = block("Relu").to_proto()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    with pytest.raises(ModelError, match="--shape x="):
        backend().time_models([Graph.load(model)])


def test_layers_share_out_the_latency_under_the_names_of_the_models_nodes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recorded_measurements: Callable[[MeasuredBackend], list[Measurement]],
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = block("Silu")
    mine = backend(model_seconds=0.5)
    timed = recorded_measurements(mine)
    rows = mine.layers(model)
    assert sum(row.latency_ns for row in rows) == pytest.approx(timed[0].latency_ns)
    operators = {row.name: row.op for row in rows}
    expand, project = (node.name for node in model.nodes("Conv"))
    assert (operators[expand], operators[project]) == ("Conv", "Conv")
    assert "QuickGelu" in operators.values()
    assert not list(tmp_path.iterdir())


def test_the_time_of_a_subgraph_is_counted_once() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 14]>
        loop (float[64, 64] x) => (float[64, 64] y) <int64 trips = {50}, bool yes = {1}> {
            y = Loop(trips, yes, x) <body = body (int64 i, bool go, float[64, 64] before)
                => (bool again, float[64, 64] after) {
                again = Identity(go)
                after = MatMul(before, before)
            }>
        }
    """)
    (row,) = backend(model_seconds=0.2).layers(Graph.load(model))
    assert row.op == "Loop"


# ---------------------------------------------------------------- fusion


def test_the_runtime_fuses_relu_into_the_convolution() -> None:
    operators = fused_operators(block("Relu"))
    assert any(name.endswith("Conv+Relu") for name in operators)
    assert "Relu" not in operators


@pytest.mark.parametrize("opset", [11, 14])
def test_the_runtime_makes_one_separate_operator_of_silu(opset: int) -> None:
    operators = fused_operators(block("Silu", opset))
    assert operators.count("QuickGelu") == 1
    assert not {"Sigmoid", "Mul"} & set(operators)


def test_hard_swish_and_its_spelling_with_hard_sigmoid_run_as_the_same_operators() -> None:
    assert fused_operators(block("HardSwish")) == fused_operators(block("HardSigmoid+Mul"))


def test_hard_swish_spelled_with_clip_stays_four_operators() -> None:
    operators = fused_operators(block("Clip+Mul"))
    assert {"Add", "Clip", "Mul", "Div"} <= set(operators)


def test_without_optimisation_nothing_fuses() -> None:
    operators = fused_operators(block("Silu"), Settings(optimization="disabled"))
    assert operators == ["Conv", "Sigmoid", "Mul", "Conv"]


def test_timing_shows_that_relu_fuses_and_gelu_does_not() -> None:
    expand = layers("expand", writes="z")
    relu = probe_fusion(expand, layers("Relu", reads="z", writes="y"))
    assert relu.fused
    assert relu.saved_ns > 0.5 * relu.activation_ns
    gelu = probe_fusion(expand, layers("Gelu", reads="z", writes="y"))
    assert not gelu.fused
    assert gelu.together_ns > gelu.producer_ns + 0.5 * gelu.activation_ns
    assert any(name.endswith("Conv+Relu") for name in relu.operators)


def test_graphs_that_do_not_fit_together_are_refused() -> None:
    expand = layers("expand", writes="z")
    with pytest.raises(ModelError, match="do not fit together"):
        join(expand, layers("Relu", reads="z", writes="y", opset=13))


# ---------------------------------------------------------------- sessions


def test_an_output_that_is_no_tensor_can_be_timed() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 14]>
        split (float[4, 2] x) => (seq(float[2, 2]) y) <int64 two = {2}> {
            y = SplitToSequence(x, two)
        }
    """)
    with session_source(Graph.load(model)) as source:
        opened = open_session(source, Settings())
        run = bound_run(opened, host_values({"x": np.zeros((4, 2), np.float32)}))
    assert opened.get_outputs()[0].type == "seq(tensor(float))"
    run()


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint8", "int64", "bool"])
def test_every_element_type_of_numpy_can_be_fed(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    assert np.array_equal(host_values({"x": array})["x"].numpy(), array)


@pytest.mark.shared
def test_a_real_network_is_no_slower_than_itself(shared: Path) -> None:
    graph = Graph.load(shared / "models" / "mobilenet_v3_small.onnx")
    first, second = backend(model_seconds=2.0).time_models([graph, graph.copy()])
    assert first.peak_bytes == second.peak_bytes
    assert abs(second.ratio - 1.0) < max(3 * second.ratio_noise, 0.05)
