"""Channels made alike by the layers around a feature map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Builder

from actcc.activations import find_activations
from actcc.calibration import SampleSet, load_samples
from actcc.graph import Array, Graph
from actcc.quantization.equalization import equalizable_pairs, equalized
from actcc.runtime import run, session

SIZE = 8


def two_layers(
    activation: str, *, groups: int = 1, kernel: int = 3, stride: int = 1, channels: int = 12
) -> Graph:
    """Convolutions whose feature map between has channels of very different ranges."""
    build = Builder()
    x = build.conv("images", 3, channels)
    unlike = np.logspace(-1, 2, channels)
    weights = build.random.standard_normal((channels, 3, 3, 3)) * unlike[:, None, None, None]
    build.nodes[-1].input[1] = build.weight(weights)
    if activation == "PRelu":
        x = build.add("PRelu", x, build.weight(np.linspace(-0.5, 0.5, channels)[:, None, None]))
    elif activation:
        x = build.add(activation, x)
    x = build.conv(x, channels, channels, kernel=kernel, groups=groups, stride=stride)
    build.nodes[-1].output[0] = "y"
    size = -(-SIZE // stride)
    return Graph.load(build.model((1, 3, SIZE, SIZE), {"y": (1, channels, size, size)}))


def samples(graph: Graph, count: int = 4) -> SampleSet:
    shape = (count, *graph.inputs[0].shape[1:])
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return load_samples({graph.inputs[0].name: values}, graph)


def nodes(graph: Graph) -> set[str]:
    return {node.name for node in graph.nodes()}


def outputs(graph: Graph) -> list[Array]:
    runner = session(graph, optimise=False)
    return [v for s in samples(graph) for v in run(runner, s.inputs).values()]


@settings(deadline=None, max_examples=25)
@given(
    activation=st.sampled_from(["Relu", "LeakyRelu", "PRelu", ""]),
    groups=st.sampled_from([1, 3, 12]),
    kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]),
)
def test_the_network_computes_the_same(
    activation: str, groups: int, kernel: int, stride: int
) -> None:
    graph = two_layers(activation, groups=groups, kernel=kernel, stride=stride)
    (pair,) = equalizable_pairs(graph, nodes(graph))
    result = equalized(graph, [pair], samples(graph))
    for found, wanted in zip(outputs(result), outputs(graph), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(("groups", "left"), [(12, 1.01), (1, 40.0)])
def test_channels_become_alike(groups: int, left: float) -> None:
    graph = two_layers("Relu", groups=groups)
    (pair,) = equalizable_pairs(graph, nodes(graph))
    result = equalized(graph, [pair], samples(graph))

    def spread(one: Graph) -> float:
        model = one.to_proto()
        model.graph.output[0].name = pair.between
        model.graph.output[0].ClearField("type")
        model.graph.output[0].type.tensor_type.elem_type = 1
        runner = session(model, optimise=False)
        found = [run(runner, s.inputs)[pair.between].max(axis=(0, 2, 3)) for s in samples(one)]
        largest = np.mean(found, axis=0)
        return float(largest.max() / largest.min())

    assert spread(graph) > 400
    assert spread(result) < left


def test_two_gemms_are_a_pair() -> None:
    build = Builder()
    x = "images"
    for _ in range(2):
        weights = build.weight(build.random.standard_normal((6, 6)) * np.logspace(-1, 1, 6))
        x = build.add("Relu", build.add("Gemm", x, weights, build.weight(np.ones(6)), transB=1))
    build.add("Identity", x, output="y")
    graph = Graph.load(build.model((1, 6), {"y": (1, 6)}))
    (pair,) = equalizable_pairs(graph, nodes(graph))
    result = equalized(graph, [pair], samples(graph))
    for found, wanted in zip(outputs(result), outputs(graph), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ["Sigmoid", "HardSwish"])
def test_what_is_not_homogeneous_is_left_alone(activation: str) -> None:
    graph = two_layers(activation)
    assert equalizable_pairs(graph, nodes(graph)) == []


def test_a_bound_for_all_channels_is_left_alone() -> None:
    build = Builder()
    bounds = [build.weight(np.array(bound)) for bound in (0.0, 6.0)]
    x = build.add("Clip", build.conv("images", 3, 4), *bounds)
    build.add("Relu", build.conv(x, 4, 4), output="y")
    graph = Graph.load(build.model((1, 3, SIZE, SIZE), {"y": (1, 4, SIZE, SIZE)}))
    assert equalizable_pairs(graph, nodes(graph)) == []


def test_an_activation_that_is_rounded_inside_is_left_alone() -> None:
    build = Builder()
    scale = build.weight(np.array(0.02))
    x = build.conv("images", 3, 4)
    stored = build.add("QuantizeLinear", build.add("Mul", x, build.weight(np.array(0.1))), scale)
    x = build.add("Max", x, build.add("DequantizeLinear", stored, scale))
    build.add("Relu", build.conv(x, 4, 4), output="y")
    graph = Graph.load(build.model((1, 3, SIZE, SIZE), {"y": (1, 4, SIZE, SIZE)}))
    assert next(match.activation.name for match in find_activations(graph)) == "LeakyRelu"
    assert equalizable_pairs(graph, nodes(graph)) == []


def test_a_feature_map_that_others_see_is_left_alone() -> None:
    build = Builder()
    x = build.add("Relu", build.conv("images", 3, 4))
    build.add("Add", build.conv(x, 4, 4), x, output="y")
    build.conv(build.add("Relu", build.conv("images", 3, 4), output="map"), 4, 4)
    build.nodes[-1].output[0] = "z"
    shape = (1, 4, SIZE, SIZE)
    graph = Graph.load(build.model((1, 3, SIZE, SIZE), dict.fromkeys(("y", "map", "z"), shape)))
    assert equalizable_pairs(graph, nodes(graph)) == []


def test_a_pair_has_a_layer_that_was_asked_for() -> None:
    graph = two_layers("Relu")
    first, second = (node.name for node in graph.nodes("Conv"))
    assert equalizable_pairs(graph, []) == []
    for name in (first, second):
        (pair,) = equalizable_pairs(graph, [name])
        assert (pair.first, pair.second) == (first, second)


def test_channels_that_are_always_zero_keep_their_weights() -> None:
    build = Builder()
    x = build.add("Relu", build.add("Conv", "images", build.weight(np.zeros((4, 3, 1, 1)))))
    build.add("Conv", x, build.weight(np.ones((4, 4, 1, 1))), output="y")
    graph = Graph.load(build.model((1, 3, SIZE, SIZE), {"y": (1, 4, SIZE, SIZE)}))
    result = equalized(graph, equalizable_pairs(graph, nodes(graph)), samples(graph))
    assert result.to_proto() == graph.to_proto()
