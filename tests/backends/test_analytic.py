"""The analytic backend, by hand on a device of round numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from actcc.backends.analytic import AnalyticBackend
from actcc.errors import ModelError, TargetError
from actcc.graph import Graph
from actcc.latency_models import Profile, load_profile
from actcc.prices import Price, PriceQuery, Unpriced

# 1 GHz, so that a cycle is a nanosecond; nothing is rounded up; one block holds everything. The
# rates that a test does not look at are so high that they decide nothing.
ROUND = """
extends = "npu1"
name = "round"
description = "round numbers"
[settings]
clock_mhz = 1000
output_elements_per_cycle = 1e15
sram = { bytes = 1_000_000, bytes_per_cycle = 1e15, burst_bytes = 1, latency_cycles = 0 }
dram = { bytes_per_cycle = 1e15, latency_cycles = 0, burst_bytes = 1 }
macs_per_cycle = { convolution = 16, depthwise = 4, matrix = 8 }
weights = { bytes_per_weight = 1, bytes_per_channel = 0, bytes_per_filler = 0 }
lookup = { fused_elements_per_cycle = 1, separate_elements_per_cycle = 2, table_bytes = 0 }
pooling = { elements_per_cycle = 8, least_window = 1 }
[settings.blocks]
rows = 1
columns = 1
output_channels = 1
input_channels = 1
narrow_input_channels = 1
narrow_kernel = 1
depthwise_kernel = 1
least_positions = 1
accumulators = 1_000_000_000
stored_channels = 1
largest = [1_000_000, 1_000_000, 1_000_000]
buffer_bytes = 1_000_000_000
input_granule_bytes = 1
sum_granule_bytes = 1
in_flight = 1_000_000_000_000_000
[settings.elements_per_cycle]
add = 1e9
multiply = 4
[settings.host]
cycles_per_call = 100
bytes_per_cycle = 2
elements_per_cycle = 0.5
macs_per_cycle = 1
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def device(folder: Path, more: str = "") -> AnalyticBackend:
    base = folder / "round.toml"
    base.write_text(ROUND)
    own = folder / "own.toml"
    own.write_text(f'extends = "round"\n{more}')
    return AnalyticBackend(load_profile(own))


def load(
    body: str,
    weights: Mapping[str, tuple[int, ...]] | None = None,
    inputs: str = "float[1,4,4,4] x",
    outputs: str = "float[1,8,4,4] y",
) -> Graph:
    text = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}{index}"
    for name, shape in (weights or {"w": (8, 4, 1, 1)}).items():
        values = np.zeros(shape, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return Graph.load(model)


def rows(backend: AnalyticBackend, graph: Graph) -> list[tuple[str, float, str]]:
    return [(row.op, round(row.latency_ns, 6), row.bound) for row in backend.layers(graph)]


def total(backend: AnalyticBackend, graph: Graph) -> float:
    return round(backend.time_models([graph])[0].latency_ns, 6)


# 4 x 4 positions x 8 x 4 weights = 512 multiply-accumulates at 16 a cycle; 128 results, which go
# through a table once the one block has been computed.
CONVOLUTION = 32.0
LOOKUP = 128.0 + CONVOLUTION


def test_a_convolution_takes_its_multiplications(folder: Path) -> None:
    graph = load("y = Conv(x, w)")
    assert rows(device(folder), graph) == [("Conv", CONVOLUTION, "compute")]


@pytest.mark.parametrize("op", ["Relu", "Clip"])
def test_a_clamp_behind_a_convolution_is_free(folder: Path, op: str) -> None:
    graph = load(f"c = Conv(x, w)  y = {op}(c{', low' if op == 'Clip' else ''})", {
        "w": (8, 4, 1, 1), "low": ()
    })  # fmt: skip
    assert [(ns, bound) for _, ns, bound in rows(device(folder), graph)] == [
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
def test_a_lookup_runs_behind_its_convolution(folder: Path, spelled: str) -> None:
    graph = load(f"c = Conv(x, w)  {spelled}")
    ((op, latency, bound),) = rows(device(folder), graph)
    assert op.startswith("Conv+")
    assert (latency, bound) == (LOOKUP, "lookup")


def test_a_lookup_runs_while_the_next_block_is_computed(folder: Path) -> None:
    # 4 blocks of 4 positions: each takes 8 cycles to multiply and 4 to look up.
    more = "[settings.lookup]\nfused_elements_per_cycle = 8\n[settings.blocks]\naccumulators = 32\n"
    graph = load("c = Conv(x, w)  y = HardSwish(c)")
    assert total(device(folder, more), graph) == CONVOLUTION + 4


def test_a_table_is_loaded_before_the_operation_starts(folder: Path) -> None:
    more = (
        "[settings.lookup]\ntable_bytes = 256\n"
        "[settings.dram]\nbytes_per_cycle = 4\nlatency_cycles = 50\n"
    )
    graph = load("c = Conv(x, w)  y = HardSwish(c)")
    assert total(device(folder, more), graph) == LOOKUP + 256 / 4 + 50


def test_silu_is_a_lookup_and_a_product_each_over_memory(folder: Path) -> None:
    # 128 / 2 for the table, 128 / 4 for the product.
    graph = load("c = Conv(x, w)  s = Sigmoid(c)  y = Mul(c, s)")
    assert rows(device(folder), graph) == [
        ("Conv", CONVOLUTION, "compute"),
        ("Sigmoid", 64.0, "compute"),
        ("Mul", 32.0, "compute"),
    ]


def test_an_operator_that_the_toolchain_lacks_costs_and_holds_what_it_is_written_as(
    folder: Path,
) -> None:
    spelled = load("c = Conv(x, w)  s = Sigmoid(c)  y = Mul(c, s)")
    model = spelled.to_proto()
    del model.graph.node[1:]
    quick = helper.make_node("QuickGelu", ["c"], ["y"], "q", domain="com.microsoft", alpha=1.0)
    model.graph.node.append(quick)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    first, second = device(folder).time_models([spelled, Graph.load(model)])
    assert (second.latency_ns, second.peak_bytes) == (first.latency_ns, first.peak_bytes)
    assert first.peak_bytes == 128 + 128


def test_an_activation_does_not_fuse_where_something_else_reads_its_input(folder: Path) -> None:
    graph = load("c = Conv(x, w)  r = Relu(c)  y = Add(c, r)")
    assert [op for op, _, _ in rows(device(folder), graph)] == ["Conv", "Relu", "Add"]


def test_an_activation_does_not_fuse_where_its_input_leaves_the_graph(folder: Path) -> None:
    graph = load("c = Conv(x, w)  y = Relu(c)", outputs="float[1,8,4,4] y, float[1,8,4,4] c")
    assert [op for op, _, _ in rows(device(folder), graph)] == ["Conv", "Relu"]


def test_one_activation_fits_behind_an_operation(folder: Path) -> None:
    graph = load("c = Conv(x, w)  r = Relu(c)  y = Tanh(r)")
    assert [op for op, _, _ in rows(device(folder), graph)] == ["Conv+Relu", "Tanh"]


def test_an_activation_fuses_through_nodes_that_are_free(folder: Path) -> None:
    graph = load("c = Conv(x, w)  i = Identity(c)  y = Relu(i)")
    backend = device(folder)
    assert rows(backend, graph) == [("Conv+Relu", CONVOLUTION, "compute")]
    assert backend.time_models([graph])[0].peak_bytes == 64 + 128


def test_quantization_is_free_and_weights_behind_it_are_constant(folder: Path) -> None:
    body = """v = DequantizeLinear(q, s)  c = Conv(x, v)  d = QuantizeLinear(c, s)
        e = DequantizeLinear(d, s)  r = Relu(e)  f = QuantizeLinear(r, s)
        y = DequantizeLinear(f, s)"""
    graph = load(body, {"s": ()})
    model = graph.to_proto()
    weights = helper.make_tensor("q", TensorProto.INT8, (8, 4, 1, 1), [0] * 32)
    model.graph.initializer.append(weights)
    backend = device(folder)
    assert rows(backend, Graph.load(model)) == [("Conv+Relu", CONVOLUTION, "compute")]
    assert backend.time_models([Graph.load(model)])[0].peak_bytes == 64 + 128


def test_a_depthwise_convolution_has_its_own_rate(folder: Path) -> None:
    graph = load("y = Conv<group = 4, pads = [1, 1, 1, 1]>(x, w)", {"w": (4, 1, 3, 3)})
    assert total(device(folder), graph) == 16 * 4 * 9 / 4


def test_a_transposed_convolution_multiplies_the_zeros_too(folder: Path) -> None:
    graph = load(
        "y = ConvTranspose<strides = [2, 2]>(x, w)",
        {"w": (4, 8, 2, 2)},
        outputs="float[1,8,8,8] y",
    )
    assert total(device(folder), graph) == 64 * 8 * 4 * 4 / 16


def test_a_matrix_product_has_its_own_rate(folder: Path) -> None:
    graph = load("y = Gemm(x, w)", {"w": (8, 5)}, inputs="float[3,8] x", outputs="float[3,5] y")
    assert total(device(folder), graph) == 3 * 8 * 5 / 8


def test_channels_and_positions_are_rounded_up_to_what_is_computed_together(folder: Path) -> None:
    more = "[settings.blocks]\noutput_channels = 16\ninput_channels = 32\nrows = 8\ncolumns = 3\n"
    more += "narrow_input_channels = 32\n"
    graph = load("y = Conv(x, w)")
    assert total(device(folder, more), graph) == 8 * 6 * 16 * 32 / 16


def test_few_input_channels_take_the_mode_with_several_kernel_elements(folder: Path) -> None:
    more = "[settings.blocks]\ninput_channels = 32\nnarrow_input_channels = 8\nnarrow_kernel = 4\n"
    graph = load("y = Conv<pads = [1, 1, 1, 1]>(x, w)", {"w": (8, 4, 3, 3)})
    assert total(device(folder, more), graph) == 16 * 8 * (8 * 12) / 16


def test_two_cores_halve_the_work_and_share_the_memory(folder: Path) -> None:
    graph = load("y = Conv(x, w)")
    assert total(device(folder, "[settings]\ncores = 2\n"), graph) == CONVOLUTION / 2
    slow = "[settings]\ncores = 2\n[settings.sram]\nbytes_per_cycle = 2\n"
    # The one block is read, computed and written one after the other.
    assert total(device(folder, slow), graph) == (64 + 128) / 2 + CONVOLUTION / 2


def test_an_addition_reads_twice_and_writes_once(folder: Path) -> None:
    more = "[settings.sram]\nbytes_per_cycle = 4\n"
    graph = load("y = Add(x, z)", {}, "float[1,4,4,4] x, float[1,4,4,4] z", "float[1,4,4,4] y")
    assert rows(device(folder, more), graph) == [("Add", 3 * 64 / 4, "sram")]


def test_weights_come_from_outside_the_chip(folder: Path) -> None:
    more = "[settings.dram]\nbytes_per_cycle = 0.25\n[settings.weights]\nbytes_per_channel = 2\n"
    graph = load("y = Conv(x, w)")
    assert rows(device(folder, more), graph) == [("Conv", (32 + 8 * 2) / 0.25, "dram")]


def test_the_input_is_read_again_for_each_block_of_output_channels(folder: Path) -> None:
    # 256 sums: 16 channels at 16 positions, so 2 readings of 64 bytes for 32 channels. The plane is
    # one block, so the weights are used once.
    more = "[settings.sram]\nbytes_per_cycle = 1\n[settings.blocks]\naccumulators = 256\n"
    graph = load("y = Conv(x, w)", {"w": (32, 4, 1, 1)}, outputs="float[1,32,4,4] y")
    assert rows(device(folder, more), graph) == [("Conv", 2 * 64 + 512.0, "sram")]


def test_outputs_of_the_network_are_written_in_the_hosts_layout(folder: Path) -> None:
    more = "[settings.sram]\nbytes_per_cycle = 1\nburst_bytes = 8\n"
    more += "[settings.blocks]\ninterface_bytes = 4\ninput_channels = 4\nstored_channels = 4\n"
    graph = load("y = Conv(x, w)")
    backend = device(folder, more)
    # A block holds the 4 channels of the input, but 4 of the 8 of the output leave at once.
    assert total(backend, graph) == 64 + 2 * 128 + CONVOLUTION
    inside = backend.price(PriceQuery(graph, {}))["keep"]
    assert isinstance(inside, Price)
    assert inside.latency_ns == pytest.approx(64 + 128 + CONVOLUTION)


def test_what_the_sram_does_not_hold_moves_outside(folder: Path) -> None:
    # Alive at once: 64 + 128 bytes. The larger one goes.
    more = "[settings.sram]\nbytes = 191\nspills = true\n[settings.dram]\nbytes_per_cycle = 2\n"
    graph = load("y = Conv(x, w)")
    assert total(device(folder, more), graph) == CONVOLUTION + 128 / 2
    fits = more.replace("191", "192")
    assert rows(device(folder, fits), graph) == [("Conv", CONVOLUTION, "compute")]


def test_nothing_moves_outside_where_it_cannot_be_written(folder: Path) -> None:
    more = "[settings.sram]\nbytes = 1\nspills = false\n[settings.dram]\nbytes_per_cycle = 2\n"
    assert total(device(folder, more), load("y = Conv(x, w)")) == CONVOLUTION


def test_weights_are_brought_ahead_where_they_are_read_more_than_once(folder: Path) -> None:
    # Each of 4 blocks reads 64 bytes; they come in while the first Conv runs.
    more = "[settings.dram]\nbytes_per_cycle = 4\n[settings.blocks]\nlargest = [2, 2, 1000]\n"
    backend = device(folder, more)
    graph = load("c = Conv(x, w)  y = Conv(c, v)", {"w": (8, 4, 1, 1), "v": (8, 8, 1, 1)})
    (_, second) = backend.operations(graph)
    assert second[1].dram == 0
    assert second[1].total == pytest.approx(2 * CONVOLUTION)


@pytest.mark.parametrize(("shape", "bursts"), [((1, 4, 4, 4), 1), ((1, 4, 1, 1), 1), ((1,), 0)])
def test_a_constant_operand_is_read_once_for_each_result(
    folder: Path, shape: tuple[int, ...], bursts: int
) -> None:
    more = "[settings.dram]\nbytes_per_cycle = 0.25\n"
    graph = load("y = Mul(x, k)", {"k": shape}, outputs="float[1,4,4,4] y")
    ((_, cycles),) = device(folder, more).operations(graph)
    assert cycles.dram == bursts * 64 / 0.25


def test_an_unknown_operator_runs_on_the_host_with_transfers(folder: Path) -> None:
    # 100 for the call, 64 bytes in and 64 out at 2 a cycle, 64 elements at 0.5 a cycle.
    graph = load("y = Erf(x)", {}, outputs="float[1,4,4,4] y")
    assert rows(device(folder), graph) == [("Erf", 100 + 64 + 128.0, "host")]


def test_nothing_is_transferred_between_operators_of_the_host(folder: Path) -> None:
    graph = load("e = Erf(x)  y = Sqrt(e)", {}, outputs="float[1,4,4,4] y")
    assert [ns for _, ns, _ in rows(device(folder), graph)] == [100 + 32 + 128] * 2


def test_a_product_of_two_computed_matrices_runs_on_the_host(folder: Path) -> None:
    graph = load("y = MatMul(x, x)", {}, "float[4,4] x", "float[4,4] y")
    ((_, latency, bound),) = rows(device(folder), graph)
    assert (latency, bound) == (100 + (16 + 16) / 2 + 64, "host")


def test_division_by_a_constant_is_a_product(folder: Path) -> None:
    graph = load("y = Div(x, w)", {"w": (1,)}, outputs="float[1,4,4,4] y")
    assert rows(device(folder), graph) == [("Div", 64 / 4, "compute")]


def test_concatenation_is_free_where_nothing_else_reads_its_operands(folder: Path) -> None:
    joined = "y = Concat<axis = 1>(a, b)"
    free = load(f"a = Conv(x, w)  b = Conv(x, w)  {joined}", outputs="float[1,16,4,4] y")
    assert [op for op, _, _ in rows(device(folder), free)] == ["Conv", "Conv"]
    copied = load(
        f"a = Conv(x, w)  b = Conv(x, w)  {joined}  z = Relu(a)",
        outputs="float[1,16,4,4] y, float[1,8,4,4] z",
    )
    assert ("Concat", 64.0, "compute") in rows(device(folder), copied)


def test_slices_and_changes_of_layout_are_free(folder: Path) -> None:
    body = """a, b = Split<axis = 1>(x)  g = Gather<axis = 3>(b, k)
        t = Transpose<perm = [0, 2, 3, 1]>(a)  y = Add(t, t)  z = Add(g, g)"""
    graph = load(body, {}, outputs="float[1,4,4,2] y, float[1,2,4] z")
    model = graph.to_proto()
    model.graph.initializer.append(helper.make_tensor("k", TensorProto.INT64, (), [1]))
    assert [op for op, _, _ in rows(device(folder), Graph.load(model))] == ["Add", "Add"]


def test_prices_are_differences_to_keep(folder: Path) -> None:
    backend = device(folder)
    query = PriceQuery(
        load("c = Conv(x, w)  s = Sigmoid(c)  y = Mul(c, s)"),
        {
            "HardSwish": load("c = Conv(x, w)  y = HardSwish(c)"),
            "Relu": load("c = Conv(x, w)  y = Relu(c)"),
        },
    )
    prices = backend.price(query)
    assert list(prices) == ["keep", "HardSwish", "Relu"]
    for name, latency in (("keep", 128.0), ("HardSwish", LOOKUP), ("Relu", CONVOLUTION)):
        price = prices[name]
        assert isinstance(price, Price)
        assert price.latency_ns == pytest.approx(latency)
        assert price.difference_ns == pytest.approx(latency - 128)
        assert (price.noise_ns, price.source, price.tool) == (0, "estimated", backend.tool)


def foreign() -> Graph:
    model = load("c = Conv(x, w)  y = Relu(c)").to_proto()
    model.graph.node[1].op_type, model.graph.node[1].domain = "Magic", "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return Graph.load(model)


def test_a_candidate_that_nothing_can_run_has_no_price(folder: Path) -> None:
    query = PriceQuery(load("c = Conv(x, w)  y = Relu(c)"), {"Magic": foreign()})
    prices = device(folder).price(query)
    assert isinstance(prices["keep"], Price)
    refused = prices["Magic"]
    assert isinstance(refused, Unpriced)
    assert "com.example.Magic" in refused.reason


def test_nothing_has_a_price_where_the_neighbourhood_has_none(folder: Path) -> None:
    query = PriceQuery(foreign(), {"Relu": load("c = Conv(x, w)  y = Relu(c)")})
    prices = device(folder).price(query)
    assert {type(price) for price in prices.values()} == {Unpriced}
    assert list(prices) == ["keep", "Relu"]


def test_a_model_with_control_flow_is_refused(folder: Path) -> None:
    body = """y = If<then_branch = t () => (float[1,4,4,4] p) { p = Relu(x) },
        else_branch = e () => (float[1,4,4,4] q) { q = Tanh(x) }>(k)"""
    graph = load(body, {}, "float[1,4,4,4] x, bool k", "float[1,4,4,4] y")
    with pytest.raises(ModelError, match=r"node 'If0' .* holds a subgraph"):
        device(folder).time_models([graph])


def test_a_model_without_static_shapes_is_refused(folder: Path) -> None:
    graph = load("y = Relu(x)", {}, "float[1,n] x", "float[1,n] y")
    with pytest.raises(ModelError, match=r"no static shape.*--shape"):
        device(folder).layers(graph)


def test_ratios_are_relative_to_the_first_model(folder: Path) -> None:
    slow, fast = load("c = Conv(x, w)  y = Tanh(c)"), load("y = Conv(x, w)")
    first, second = device(folder).time_models([slow, fast])
    assert (first.ratio, second.ratio) == (1.0, pytest.approx(CONVOLUTION / LOOKUP))
    assert (first.noise_ns, first.ratio_noise) == (0, 0)


def test_the_tool_names_the_profile_and_changes_with_its_settings(folder: Path) -> None:
    first = device(folder).tool
    assert first.startswith("actcc analytic round ")
    assert device(folder).tool == first
    assert device(folder, "[settings]\ncores = 2\n").tool != first


def test_a_profile_that_does_not_fit_is_refused_at_once() -> None:
    profile = Profile(name="bad", description="d", backend="analytic", settings={"cores": 1})
    with pytest.raises(TargetError, match=r"target 'bad': 'settings"):
        AnalyticBackend(profile)
