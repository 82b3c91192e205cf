"""A device of round numbers for the analytic backend, and small graphs for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from actcc.backends.analytic import AnalyticBackend
from actcc.graph import Graph
from actcc.latency_models import load_profile

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
