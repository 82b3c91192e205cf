"""Channels of like range in front of depthwise convolutions: the same in float, better in int8."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Builder

from actcc.backends.ethos_u.equalization import (
    equalized,
    find_chains,
    scale_channels,
)
from actcc.calibration import Sample
from actcc.graph import Graph
from actcc.quantization import observed_ranges
from actcc.runtime import run, session

ACTIVATIONS = ("Relu", "LeakyRelu", "Silu", "HardSwish", "QuickGelu")


def network(activation: str, spread: float, multiplier: int = 1, stride: int = 1) -> Graph:
    """Convolution, activation, depthwise convolution; channels differ in size by `spread`, which
    the depthwise weights make up for.
    """
    channels, draw = 8, np.random.default_rng(0)
    sizes = np.float32(spread ** np.linspace(0, 1, channels))
    build = Builder()
    weights = draw.standard_normal((channels, 3, 1, 1)).astype(np.float32) / 3
    before = build.add(
        "Conv",
        "images",
        build.weight(weights * sizes.reshape(-1, 1, 1, 1)),
        build.weight(sizes / 8),
    )
    taps = draw.standard_normal((channels, multiplier, 3, 3)).astype(np.float32)
    taps /= sizes.reshape(-1, 1, 1, 1)
    build.add(
        "Conv",
        _activation(build, activation, before),
        build.weight(taps.reshape(-1, 1, 3, 3)),
        output="y",
        group=channels,
        strides=[stride, stride],
        pads=[1, 1, 1, 1],
    )
    size = -(-9 // stride)
    return Graph.load(build.model((1, 3, 9, 9), {"y": (1, channels * multiplier, size, size)}))


def _activation(build: Builder, name: str, source: str) -> str:
    if name == "Silu":
        return build.add("Mul", source, build.add("Sigmoid", source))
    if name == "QuickGelu":
        scaled = build.add("Mul", source, build.weight(np.float32(1.702)))
        return build.add("Mul", source, build.add("Sigmoid", scaled))
    return build.add(name, source)


def images(count: int = 4) -> list[Sample]:
    """Samples of the network's input."""
    draw = np.random.default_rng(1)
    return [
        Sample(f"#{index}", {"images": draw.standard_normal((1, 3, 9, 9)).astype(np.float32)}, {})
        for index in range(count)
    ]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(ACTIVATIONS),
    st.floats(1.0, 1e4),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2]),
    st.integers(0, 100),
)
def test_scaled_channels_compute_the_same(
    activation: str, spread: float, multiplier: int, stride: int, seed: int
) -> None:
    graph = network(activation, spread, multiplier, stride)
    (chain,) = find_chains(graph)
    scales = np.exp(np.random.default_rng(seed).uniform(-3, 8, 8))
    scaled = graph.copy()
    scale_channels(scaled, chain, scales)
    for sample in images(1):
        wanted = run(session(graph, optimise=False), sample.inputs)["y"]
        found = run(session(scaled, optimise=False), sample.inputs)["y"]
        assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_small_channels_with_large_weights_behind_are_kept_in_int8(
    activation: str, run_int8
) -> None:
    graph, samples = network(activation, 300.0), images()
    ranges = observed_ranges(graph, samples)
    better = equalized(graph, ranges, samples)
    feeds = [sample.inputs for sample in samples]
    found = run_int8(better, feeds, observed_ranges(better, samples))
    assert found.worst < 0.25 * run_int8(graph, feeds, ranges).worst


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_channels_of_like_size_stay_as_they_are(activation: str) -> None:
    graph, samples = network(activation, 1.0), images()
    assert equalized(graph, observed_ranges(graph, samples), samples) is graph


def test_a_channel_that_is_always_zero_is_not_blown_up() -> None:
    graph, samples = network("Relu", 300.0), images()
    (chain,) = find_chains(graph)
    layer = graph.node(chain.layer.name)
    weights = graph.constant(layer.inputs[1])
    assert weights is not None
    weights = weights.copy()
    weights[0] = 0.0
    graph.set_input(layer, 1, weights)
    graph.set_input(layer, 2, np.zeros(8, np.float32))
    better = equalized(graph, observed_ranges(graph, samples), samples)
    scaled = better.constant(better.node(chain.depthwise.name).inputs[1])
    assert scaled is not None
    assert np.isfinite(scaled).all()
    assert np.abs(scaled).max() > 0


def test_what_is_read_elsewhere_or_not_homogeneous_is_left_alone() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y, float[1, 2, 4, 4] z)
        <float[2, 2, 1, 1] w = {1.0, 2.0, 3.0, 4.0}, float[2, 1, 1, 1] d = {1.0, 2.0}> {
            a = Conv (x, w)
            b = Relu (a)
            y = Conv <group = 2> (b, d)
            c = Conv (b, w)
            e = Tanh (c)
            z = Conv <group = 2> (e, d)
        }"""
    )
    assert find_chains(Graph.load(model)) == []
