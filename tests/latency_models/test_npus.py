"""The profiles npu1 and npu2: against figures of Arm's Vela compiler, and on real models.

Vela's cycles and bytes are those of ethos-u-vela 5.2.0 for int8 networks with random weights, with
--accelerator-config ethos-u55-256 --system-config Ethos_U55_High_End_Embedded
--memory-mode Shared_Sram.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from actcc.graph import Graph
from actcc.targets import load_target

CYCLES_PER_NS = 0.5


def load(body: str, weights: Mapping[str, tuple[int, ...]], inputs: str, outputs: str) -> Graph:
    text = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}{index}"
    for name, shape in weights.items():
        values = np.zeros(shape, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return Graph.load(model)


def written(act: str, source: str, result: str) -> str:
    if act == "Silu":
        return f"{result}s = Sigmoid({source})  {result} = Mul({source}, {result}s)"
    return f"{result} = {act}({source})"


def convolution(act: str, size: int, inputs: int, outputs: int, kernel: int) -> Graph:
    pad = kernel // 2
    return load(
        f"c = Conv<pads = [{pad}, {pad}, {pad}, {pad}]>(x, w)  {written(act, 'c', 'y')}",
        {"w": (outputs, inputs, kernel, kernel)},
        f"float[1,{inputs},{size},{size}] x",
        f"float[1,{outputs},{size},{size}] y",
    )


@pytest.mark.parametrize(
    ("shape", "cycles"),
    [
        ((56, 64, 64, 3), {"Relu": 463_208, "HardSwish": 464_176, "Silu": 664_380}),
        ((28, 48, 288, 1), {"Relu": 107_038, "HardSwish": 228_628, "Silu": 304_766}),
        ((40, 48, 288, 1), {"Relu": 211_300, "HardSwish": 463_616, "Silu": 615_588}),
    ],
)
def test_npu1_agrees_with_vela_on_single_layers(
    shape: tuple[int, int, int, int], cycles: dict[str, int]
) -> None:
    backend = load_target("npu1").backend
    for act, expected in cycles.items():
        (timing,) = backend.time_models([convolution(act, *shape)])
        assert timing.latency_ns * CYCLES_PER_NS == pytest.approx(expected, rel=0.01), act


def test_the_price_belongs_to_the_site() -> None:
    backend = load_target("npu1").backend
    for shape, low, high in (((56, 64, 64, 3), 0.0, 0.02), ((28, 48, 288, 1), 0.8, 1.7)):
        relu, hard_swish = (convolution(act, *shape) for act in ("Relu", "HardSwish"))
        _, timing = backend.time_models([relu, hard_swish])
        assert low < timing.ratio - 1 < high


def inverted_residual(act: str) -> Graph:
    body = f"""c = Conv(x, w)  {written(act, "c", "f")}
        d = Conv<group = 288, pads = [1, 1, 1, 1]>(f, v)  {written(act, "d", "h")}
        e = Conv(h, u)  y = Add(x, e)"""
    weights = {"w": (288, 48, 1, 1), "v": (288, 1, 3, 3), "u": (48, 288, 1, 1)}
    return load(body, weights, "float[1,48,40,40] x", "float[1,48,40,40] y")


def test_npu1_agrees_with_vela_on_an_inverted_residual() -> None:
    timings = load_target("npu1").backend.time_models(
        [inverted_residual(act) for act in ("Relu", "HardSwish", "Silu")]
    )
    relu, hard_swish, silu = (timing.latency_ns * CYCLES_PER_NS for timing in timings)
    assert relu == pytest.approx(492e3, rel=0.02)
    assert hard_swish == pytest.approx(1086e3, rel=0.02)
    assert hard_swish < silu


@pytest.mark.parametrize("target", ["npu1", "npu2"])
def test_both_npus_order_the_activations_alike(target: str) -> None:
    timings = load_target(target).backend.time_models(
        [inverted_residual(act) for act in ("Relu", "HardSwish", "Silu")]
    )
    assert timings[0].latency_ns < timings[1].latency_ns < timings[2].latency_ns


def test_peak_memory_agrees_with_vela() -> None:
    # The widest part of MobileNetV2: Vela 5.2.0 needs 1474 KiB, and 2354 KiB with SiLU, of which
    # up to 4 KiB are buffers.
    backend = load_target("npu1").backend
    for act, kibibytes in (("HardSwish", 1470), ("Silu", 2352)):
        graph = load(
            f"c = Conv(x, w)  {written(act, 'c', 'f')}  y = Conv<group = 96, strides = [2, 2], "
            "pads = [1, 1, 1, 1]>(f, v)",
            {"w": (96, 16, 1, 1), "v": (96, 1, 3, 3)},
            "float[1,16,112,112] x",
            "float[1,96,56,56] y",
        )
        assert backend.time_models([graph])[0].peak_bytes == kibibytes * 1024


@pytest.mark.shared
@pytest.mark.parametrize("target", ["npu1", "npu2"])
def test_real_models_run_without_the_host(shared: Path, target: str) -> None:
    backend = load_target(target).backend
    for name in ("yolox_nano_416", "FastestDet", "mobilenet_v2", "mobilenet_v3_small"):
        graph = Graph.load(shared / "models" / f"{name}.onnx")
        found = backend.layers(graph)
        (timing,) = backend.time_models([graph])
        assert sum(row.latency_ns for row in found) == pytest.approx(timing.latency_ns)
        assert "host" not in {row.bound for row in found}
