"""What moves over memory in the analytic backend, by hand on a device of round numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from round_device import CONVOLUTION, device, load, rows, total

from actcc.prices import Price, PriceQuery


def test_an_addition_reads_twice_and_writes_once(tmp_path: Path) -> None:
    more = "[settings.sram]\nbytes_per_cycle = 4\n"
    graph = load("y = Add(x, z)", {}, "float[1,4,4,4] x, float[1,4,4,4] z", "float[1,4,4,4] y")
    assert rows(device(tmp_path, more), graph) == [("Add", 3 * 64 / 4, "sram")]


def test_weights_come_from_outside_the_chip(tmp_path: Path) -> None:
    more = "[settings.dram]\nbytes_per_cycle = 0.25\n[settings.weights]\nbytes_per_channel = 2\n"
    graph = load("y = Conv(x, w)")
    assert rows(device(tmp_path, more), graph) == [("Conv", (32 + 8 * 2) / 0.25, "dram")]


def test_the_input_is_read_again_for_each_block_of_output_channels(tmp_path: Path) -> None:
    # 256 sums: 16 channels at 16 positions, so 2 readings of 64 bytes for 32 channels. The plane is
    # one block, so the weights are used once.
    more = "[settings.sram]\nbytes_per_cycle = 1\n[settings.blocks]\naccumulators = 256\n"
    graph = load("y = Conv(x, w)", {"w": (32, 4, 1, 1)}, outputs="float[1,32,4,4] y")
    assert rows(device(tmp_path, more), graph) == [("Conv", 2 * 64 + 512.0, "sram")]


def test_outputs_of_the_network_are_written_in_the_hosts_layout(tmp_path: Path) -> None:
    more = "[settings.sram]\nbytes_per_cycle = 1\nburst_bytes = 8\n"
    more += "[settings.blocks]\ninterface_bytes = 4\ninput_channels = 4\nstored_channels = 4\n"
    graph = load("y = Conv(x, w)")
    backend = device(tmp_path, more)
    # A block holds the 4 channels of the input, but 4 of the 8 of the output leave at once.
    assert total(backend, graph) == 64 + 2 * 128 + CONVOLUTION
    inside = backend.price(PriceQuery(graph, {}))["keep"]
    assert isinstance(inside, Price)
    assert inside.latency_ns == pytest.approx(64 + 128 + CONVOLUTION)


def test_what_the_sram_does_not_hold_moves_outside(tmp_path: Path) -> None:
    # Alive at once: 64 + 128 bytes. The larger one goes.
    more = "[settings.sram]\nbytes = 191\nspills = true\n[settings.dram]\nbytes_per_cycle = 2\n"
    graph = load("y = Conv(x, w)")
    assert total(device(tmp_path, more), graph) == CONVOLUTION + 128 / 2
    fits = more.replace("191", "192")
    assert rows(device(tmp_path, fits), graph) == [("Conv", CONVOLUTION, "compute")]


def test_nothing_moves_outside_where_it_cannot_be_written(tmp_path: Path) -> None:
    more = "[settings.sram]\nbytes = 1\nspills = false\n[settings.dram]\nbytes_per_cycle = 2\n"
    assert total(device(tmp_path, more), load("y = Conv(x, w)")) == CONVOLUTION


def test_weights_are_brought_ahead_where_they_are_read_more_than_once(tmp_path: Path) -> None:
    # Each of 4 blocks reads 64 bytes; they come in while the first Conv runs.
    more = "[settings.dram]\nbytes_per_cycle = 4\n[settings.blocks]\nlargest = [2, 2, 1000]\n"
    backend = device(tmp_path, more)
    graph = load("c = Conv(x, w)  y = Conv(c, v)", {"w": (8, 4, 1, 1), "v": (8, 8, 1, 1)})
    (_, second) = backend.operations(graph)
    assert second[1].dram == 0
    assert second[1].total == pytest.approx(2 * CONVOLUTION)


@pytest.mark.parametrize(("shape", "bursts"), [((1, 4, 4, 4), 1), ((1, 4, 1, 1), 1), ((1,), 0)])
def test_a_constant_operand_is_read_once_for_each_result(
    tmp_path: Path, shape: tuple[int, ...], bursts: int
) -> None:
    more = "[settings.dram]\nbytes_per_cycle = 0.25\n"
    graph = load("y = Mul(x, k)", {"k": shape}, outputs="float[1,4,4,4] y")
    ((_, cycles),) = device(tmp_path, more).operations(graph)
    assert cycles.dram == bursts * 64 / 0.25
