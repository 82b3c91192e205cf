"""ONNX Runtime on fp32, fp16 and QDQ int8 graphs: prices, timings, layers, memory, fusion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import residual_network
from onnxruntime import quantization
from onnxruntime.transformers.float16 import convert_float_to_float16

from actcc.backends.onnx_layers import fused_operators
from actcc.backends.onnx_runtime import OnnxRuntimeBackend
from actcc.graph import Graph, extract
from actcc.latency_models import Profile
from actcc.neighbourhood import neighbouring_nodes
from actcc.pass_api import apply_pass
from actcc.passes.swap_activation import SwapActivation, activation_sites
from actcc.prices import Price, PriceQuery
from actcc.runtime import random_feeds
from actcc.site import Candidate, Site

PRECISIONS = ("fp32", "fp16", "int8")
SETTINGS = {"neighbourhood_seconds": 0.3, "model_seconds": 0.5}
BACKEND = OnnxRuntimeBackend(
    Profile(name="mine", description="", backend="onnxruntime", settings=SETTINGS)
)


class Samples(quantization.CalibrationDataReader):
    def __init__(self, graph: Graph) -> None:
        self.feeds: Iterator[Mapping[str, np.ndarray]] = iter([random_feeds(graph, 0)])

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        return next(self.feeds, None)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Graph]:
    """One network with SiLU between its convolutions in three precisions."""
    folder = tmp_path_factory.mktemp("networks")
    model = residual_network(channels=32, size=32, opset=14)
    onnx.save(model, folder / "fp32.onnx")
    quantization.quantize_static(
        folder / "fp32.onnx",
        folder / "int8.onnx",
        Samples(Graph.load(model)),
        op_types_to_quantize=["Conv", "Add", "Concat"],
        activation_type=quantization.QuantType.QUInt8,
    )
    onnx.save(convert_float_to_float16(model, keep_io_types=True), folder / "fp16.onnx")
    return {name: Graph.load(folder / f"{name}.onnx") for name in PRECISIONS}


def silu(graph: Graph) -> Site:
    """The second of the SiLUs: it lies between two convolutions."""
    return [site for site in activation_sites(graph) if isinstance(site, Site)][1]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_candidate_is_priced_in_the_precision_of_its_network(
    networks: Mapping[str, Graph], precision: str
) -> None:
    graph = networks[precision]
    site = silu(graph)
    part = extract(graph, neighbouring_nodes(graph, site))
    relu = part.copy()
    apply_pass(SwapActivation(), relu, site, Candidate("Relu"))
    convolution = "QLinearConv" if precision == "int8" else "Conv"
    assert sum(convolution in name for name in fused_operators(part)) >= 2
    prices = BACKEND.price(PriceQuery(part, {"Relu": relu}))
    found = prices["Relu"]
    assert isinstance(found, Price)
    assert found.difference_ns < -found.noise_ns
    assert "QuickGelu" in fused_operators(part) or "Sigmoid" in fused_operators(part)
    assert not {"QuickGelu", "Sigmoid"} & set(fused_operators(relu))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_network_is_no_slower_than_itself(networks: Mapping[str, Graph], precision: str) -> None:
    graph = networks[precision]
    first, second = BACKEND.time_models([graph, graph.copy()])
    assert abs(second.ratio - 1.0) < max(3 * second.ratio_noise, 0.05)
    assert first.peak_bytes == second.peak_bytes == BACKEND.memory(graph).peak_bytes


def test_activations_in_half_precision_take_half_of_the_memory(
    networks: Mapping[str, Graph],
) -> None:
    peak = {name: BACKEND.memory(graph).peak_bytes for name, graph in networks.items()}
    assert peak["fp16"] < 0.6 * peak["fp32"]
    assert peak["int8"] <= peak["fp32"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_convolution_has_its_share_of_the_latency(
    networks: Mapping[str, Graph], precision: str
) -> None:
    graph = networks[precision]
    rows = BACKEND.layers(graph)
    found = {row.name for row in rows if "Conv" in row.op}
    assert found == {str(node.name) for node in graph.nodes("Conv")}
    assert all(row.latency_ns >= 0 for row in rows)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenet_v2_qdq"])
def test_the_convolutions_of_a_real_network_are_found_in_its_profile(
    shared: Path, name: str
) -> None:
    path = shared / "models" / f"{name}.onnx"
    graphs = [Graph.load(path)]
    if name == "mobilenet_v3_small":
        graphs.append(Graph.load(convert_float_to_float16(onnx.load(path), keep_io_types=True)))
    for graph in graphs:
        names = {str(node.name) for node in graph.nodes("Conv")}
        found = {row.name for row in BACKEND.layers(graph) if "Conv" in row.op}
        assert len(found & names) >= 0.9 * len(names)
