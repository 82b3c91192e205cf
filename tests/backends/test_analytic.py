"""What operators take in the analytic backend, by hand on a device of round numbers."""

from __future__ import annotations

from pathlib import Path

from onnx import TensorProto, helper
from round_device import CONVOLUTION, device, load, rows, total

from actcc.graph import Graph


def test_a_convolution_takes_its_multiplications(tmp_path: Path) -> None:
    graph = load("y = Conv(x, w)")
    assert rows(device(tmp_path), graph) == [("Conv", CONVOLUTION, "compute")]


def test_an_operator_that_the_toolchain_lacks_costs_and_holds_what_it_is_written_as(
    tmp_path: Path,
) -> None:
    spelled = load("c = Conv(x, w)  s = Sigmoid(c)  y = Mul(c, s)")
    model = spelled.to_proto()
    del model.graph.node[1:]
    quick = helper.make_node("QuickGelu", ["c"], ["y"], "q", domain="com.microsoft", alpha=1.0)
    model.graph.node.append(quick)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    first, second = device(tmp_path).time_models([spelled, Graph.load(model)])
    assert (second.latency_ns, second.peak_bytes) == (first.latency_ns, first.peak_bytes)
    assert first.peak_bytes == 128 + 128


def test_a_depthwise_convolution_has_its_own_rate(tmp_path: Path) -> None:
    graph = load("y = Conv<group = 4, pads = [1, 1, 1, 1]>(x, w)", {"w": (4, 1, 3, 3)})
    assert total(device(tmp_path), graph) == 16 * 4 * 9 / 4


def test_a_transposed_convolution_multiplies_the_zeros_too(tmp_path: Path) -> None:
    graph = load(
        "y = ConvTranspose<strides = [2, 2]>(x, w)",
        {"w": (4, 8, 2, 2)},
        outputs="float[1,8,8,8] y",
    )
    assert total(device(tmp_path), graph) == 64 * 8 * 4 * 4 / 16


def test_a_matrix_product_has_its_own_rate(tmp_path: Path) -> None:
    graph = load("y = Gemm(x, w)", {"w": (8, 5)}, inputs="float[3,8] x", outputs="float[3,5] y")
    assert total(device(tmp_path), graph) == 3 * 8 * 5 / 8


def test_channels_and_positions_are_rounded_up_to_what_is_computed_together(tmp_path: Path) -> None:
    more = "[settings.blocks]\noutput_channels = 16\ninput_channels = 32\nrows = 8\ncolumns = 3\n"
    more += "narrow_input_channels = 32\n"
    graph = load("y = Conv(x, w)")
    assert total(device(tmp_path, more), graph) == 8 * 6 * 16 * 32 / 16


def test_few_input_channels_take_the_mode_with_several_kernel_elements(tmp_path: Path) -> None:
    more = "[settings.blocks]\ninput_channels = 32\nnarrow_input_channels = 8\nnarrow_kernel = 4\n"
    graph = load("y = Conv<pads = [1, 1, 1, 1]>(x, w)", {"w": (8, 4, 3, 3)})
    assert total(device(tmp_path, more), graph) == 16 * 8 * (8 * 12) / 16


def test_two_cores_halve_the_work_and_share_the_memory(tmp_path: Path) -> None:
    graph = load("y = Conv(x, w)")
    assert total(device(tmp_path, "[settings]\ncores = 2\n"), graph) == CONVOLUTION / 2
    slow = "[settings]\ncores = 2\n[settings.sram]\nbytes_per_cycle = 2\n"
    # The one block is read, computed and written one after the other.
    assert total(device(tmp_path, slow), graph) == (64 + 128) / 2 + CONVOLUTION / 2


def test_an_unknown_operator_runs_on_the_host_with_transfers(tmp_path: Path) -> None:
    # 100 for the call, 64 bytes in and 64 out at 2 a cycle, 64 elements at 0.5 a cycle.
    graph = load("y = Erf(x)", {}, outputs="float[1,4,4,4] y")
    assert rows(device(tmp_path), graph) == [("Erf", 100 + 64 + 128.0, "host")]


def test_nothing_is_transferred_between_operators_of_the_host(tmp_path: Path) -> None:
    graph = load("e = Erf(x)  y = Sqrt(e)", {}, outputs="float[1,4,4,4] y")
    assert [ns for _, ns, _ in rows(device(tmp_path), graph)] == [100 + 32 + 128] * 2


def test_a_product_of_two_computed_matrices_runs_on_the_host(tmp_path: Path) -> None:
    graph = load("y = MatMul(x, x)", {}, "float[4,4] x", "float[4,4] y")
    ((_, latency, bound),) = rows(device(tmp_path), graph)
    assert (latency, bound) == (100 + (16 + 16) / 2 + 64, "host")


def test_division_by_a_constant_is_a_product(tmp_path: Path) -> None:
    graph = load("y = Div(x, w)", {"w": (1,)}, outputs="float[1,4,4,4] y")
    assert rows(device(tmp_path), graph) == [("Div", 64 / 4, "compute")]


def test_concatenation_is_free_where_nothing_else_reads_its_operands(tmp_path: Path) -> None:
    joined = "y = Concat<axis = 1>(a, b)"
    free = load(f"a = Conv(x, w)  b = Conv(x, w)  {joined}", outputs="float[1,16,4,4] y")
    assert [op for op, _, _ in rows(device(tmp_path), free)] == ["Conv", "Conv"]
    copied = load(
        f"a = Conv(x, w)  b = Conv(x, w)  {joined}  z = Relu(a)",
        outputs="float[1,16,4,4] y, float[1,8,4,4] z",
    )
    assert ("Concat", 64.0, "compute") in rows(device(tmp_path), copied)


def test_slices_and_changes_of_layout_are_free(tmp_path: Path) -> None:
    body = """a, b = Split<axis = 1>(x)  g = Gather<axis = 3>(b, k)
        t = Transpose<perm = [0, 2, 3, 1]>(a)  y = Add(t, t)  z = Add(g, g)"""
    graph = load(body, {}, outputs="float[1,4,4,2] y, float[1,2,4] z")
    model = graph.to_proto()
    model.graph.initializer.append(helper.make_tensor("k", TensorProto.INT64, (), [1]))
    assert [op for op, _, _ in rows(device(tmp_path), Graph.load(model))] == ["Add", "Add"]
