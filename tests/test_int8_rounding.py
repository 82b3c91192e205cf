"""Layers in int8 rounded with a view to what they read and give."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import Builder, images, residual_network

from actcc.calibration import SampleSet, load_samples
from actcc.graph import Graph
from actcc.int8_rounding import fit_int8_weights, quantize_network, round_to_reference
from actcc.pass_api import OfferedSite, apply_candidates, find_sites
from actcc.passes.quantize_layers import QuantizeLayers
from actcc.quantization.int8_layers import dequantized_twin, find_int8_layers
from actcc.repair import RepairMethod
from actcc.rewriting import rewrite_network
from actcc.runtime import run, session
from actcc.targets import Target, load_target

QUANTIZE = QuantizeLayers()
# Where products of 8 bits saturate, the numbers of the runtime would be others.
CPU = load_target("cpu").profile
SEVEN_BITS = Target(CPU.model_copy(update={"settings": {**CPU.settings, "int8_weight_bits": 7}}))


def mixed_network() -> Graph:
    """Dense, depthwise and grouped convolutions, with and without a bias, and a Gemm."""
    build = Builder()
    x = build.add("Relu", build.conv("images", 3, 24, stride=2))
    inner = build.add("Relu", build.conv(x, 24, 24, groups=24))
    inner = build.conv(inner, 24, 24, kernel=1, groups=4)
    bare = build.add("Conv", inner, build.weight(build.random.standard_normal((24, 24, 1, 1)) / 5))
    x = build.add("Add", x, build.add("Relu", bare))
    pooled = build.add("Flatten", build.add("GlobalAveragePool", x))
    weights = build.weight(build.random.standard_normal((24, 10)))
    bias = build.weight(build.random.standard_normal(10))
    build.add("Gemm", pooled, weights, bias, output="y")
    return Graph.load(build.model((1, 3, 16, 16), {"y": (1, 10)}))


def seen(graph: Graph, count: int = 24, seed: int = 1) -> SampleSet:
    return load_samples({"images": images(count, seed=seed)}, graph)


def sites(graph: Graph, samples: SampleSet) -> list[tuple[OfferedSite, str]]:
    found = find_sites(graph, [QUANTIZE], SEVEN_BITS, samples=samples).sites
    return [(site, site.candidates[0].name) for site in found]


def quantized(graph: Graph, samples: SampleSet) -> Graph:
    return apply_candidates(graph, [QUANTIZE], sites(graph, samples))


def error(graph: Graph, reference: Graph, samples: SampleSet) -> float:
    """Squared error of the outputs in parts of their energy."""
    runners = [session(one, optimise=False) for one in (graph, reference)]
    found = 0.0
    for sample in samples:
        ours, theirs = (run(runner, sample.inputs) for runner in runners)
        found += sum(
            float(np.square(ours[n] - v).mean() / np.square(v).mean()) for n, v in theirs.items()
        )
    return found / len(samples)


@pytest.mark.parametrize(
    ("graph", "left"), [(mixed_network(), 0.8), (Graph.load(residual_network()), 0.95)]
)
def test_outputs_come_nearer_on_samples_that_nothing_was_fitted_to(
    graph: Graph, left: float
) -> None:
    samples = seen(graph)
    nearest = quantized(graph, samples)
    rounded = round_to_reference(graph, nearest, samples)
    others = seen(graph, 16, seed=7)
    assert error(rounded, graph, others) < left * error(nearest, graph, others)


def test_nothing_but_whole_numbers_changes() -> None:
    graph = mixed_network()
    samples = seen(graph)
    nearest = quantized(graph, samples)
    layers = find_int8_layers(graph, nearest)
    assert [layer.reference.op for layer in layers] == ["Conv"] * 4 + ["Gemm"]
    rounded = fit_int8_weights(graph, nearest, samples, layers)
    before, after = nearest.to_proto().graph, rounded.to_proto().graph
    assert [(n.op_type, n.output[:]) for n in before.node] == [
        (n.op_type, n.output[:]) for n in after.node
    ]
    found = zip(before.node, after.node, strict=True)
    held = [{t.name: t for t in model.initializer} for model in (before, after)]
    changed = set()
    for one, other in found:
        for names in zip(one.input, other.input, strict=True):
            if names[0] not in held[0]:
                continue
            values = [onnx.numpy_helper.to_array(held[at][name]) for at, name in enumerate(names)]
            assert values[0].dtype == values[1].dtype
            assert values[0].shape == values[1].shape
            if not np.array_equal(*values):
                changed.add(values[0].dtype.name)
                if values[0].dtype == np.int8:
                    assert np.abs(values[1].astype(int)).max() <= 63  # in 7 bits
    assert changed == {"int8", "int32"}
    onnx.checker.check_model(rounded.to_proto(), full_check=True)


def test_the_twin_dequantized_twin_computes_what_the_kernels_do() -> None:
    graph = mixed_network()
    samples = seen(graph, 4)
    nearest = quantized(graph, samples)
    twin = dequantized_twin(nearest, find_int8_layers(graph, nearest))
    assert (
        error(twin, nearest, samples) < 1e-4
    )  # a rounding that falls the other way, here and there


def test_the_same_samples_give_the_same_file() -> None:
    graph = mixed_network()
    samples = seen(graph)
    nearest = quantized(graph, samples)
    files = [
        round_to_reference(graph, nearest, samples).to_proto().SerializeToString(deterministic=True)
        for _ in range(2)
    ]
    assert files[0] == files[1]


def test_a_network_that_cannot_gain_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = mixed_network()
    samples = seen(graph)
    nearest = quantized(graph, samples)
    assert round_to_reference(graph, nearest, samples[:1]) is nearest
    assert round_to_reference(graph, graph, samples) is graph  # no layer is in int8
    # Fitted to the network in int8 itself, which it reproduces already.
    assert round_to_reference(nearest, nearest, samples) is nearest
    losses = "actcc.int8_rounding._losses"
    monkeypatch.setattr(losses, lambda *_: [0.1, 0.1])
    assert round_to_reference(graph, nearest, samples) is nearest


def unlike_network() -> Graph:
    """A depthwise convolution whose channels are very different from each other."""
    build = Builder()
    x = build.conv("images", 3, 16)
    unlike = np.logspace(-1, 2, 16)[:, None, None, None]
    build.nodes[-1].input[1] = build.weight(unlike * build.random.standard_normal((16, 3, 3, 3)))
    x = build.conv(build.add("Relu", x), 16, 16, groups=16)
    weights = build.random.standard_normal((16, 1, 3, 3)) / unlike
    build.nodes[-1].input[1] = build.weight(weights)
    x = build.conv(build.add("Relu", x), 16, 4)
    build.nodes[-1].output[0] = "y"
    return Graph.load(build.model((1, 3, 16, 16), {"y": (1, 4, 16, 16)}))


def test_channels_that_are_unlike_are_made_alike_first() -> None:
    graph = unlike_network()
    samples = seen(graph)
    alone = round_to_reference(graph, quantized(graph, samples), samples)
    found = quantize_network(graph, lambda one: quantized(one, samples), samples)
    others = seen(graph, 16, seed=7)
    assert error(found, graph, others) < 0.3 * error(alone, graph, others)


def test_channels_stay_where_held_out_samples_gain_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = unlike_network()
    samples = seen(graph, 6)
    nearest = quantized(graph, samples)
    monkeypatch.setattr("actcc.int8_rounding._losses", lambda *_: [0.1, 0.1])
    assert error(quantize_network(graph, lambda _: nearest, samples), nearest, samples) == 0


def test_plans_are_rounded_where_the_repair_is_on() -> None:
    graph = mixed_network()
    samples = seen(graph)
    chosen = sites(graph, samples)
    nearest = quantized(graph, samples)

    def repaired(before: Graph, after: Graph) -> Graph:
        return RepairMethod().run(before, after, samples).graph

    on = rewrite_network(graph, [QUANTIZE], chosen, repair=repaired, samples=samples).graph
    off = rewrite_network(graph, [QUANTIZE], chosen, repair=None, samples=samples).graph
    assert error(off, nearest, samples) == 0
    assert error(on, graph, samples) < error(off, graph, samples)


@pytest.mark.parametrize("weight", [3e38, 1e30])
def test_a_layer_that_overflows_keeps_its_numbers(weight: float) -> None:
    build = Builder()
    x = build.add("Conv", "images", build.weight(np.full((4, 3, 1, 1), weight)))
    bounds = [build.weight(np.array(bound)) for bound in (0.0, 6.0)]
    build.add("Clip", x, *bounds, output="y")
    graph = Graph.load(build.model((1, 3, 16, 16), {"y": (1, 4, 16, 16)}))
    samples = seen(graph, 4)
    nearest = quantized(graph, samples)
    layers = find_int8_layers(graph, nearest)
    assert len(layers) == 1
    rounded = fit_int8_weights(graph, nearest, samples, layers)
    assert rounded.to_proto().SerializeToString() == nearest.to_proto().SerializeToString()
