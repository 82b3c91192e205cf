"""Ranges of least error: what is cut off, what takes no steps, and which channels count."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import Builder
from onnx import numpy_helper

from actcc.activations import Activation, find_activations
from actcc.calibration import Sample
from actcc.errors import PricingError
from actcc.graph import Graph
from actcc.quantization import Distribution, observed_ranges
from actcc.quantization.channel_weights import channel_weights, layer_outputs


def seen(values: np.ndarray) -> Distribution:
    found = Distribution()
    found.add(values.astype(np.float32))
    return found


def test_an_outlier_is_cut_off_and_a_bulk_is_not() -> None:
    values = np.random.default_rng(0).standard_normal(100_000)
    low, high = seen(values).best_range()
    assert -6 < low < -3.5
    assert 3.5 < high < 6
    with_outlier = seen(np.array([100.0]))
    with_outlier.add(values.astype(np.float32), np.array([100.0]))  # each a hundred times
    assert with_outlier.best_range()[1] < 50
    assert with_outlier.extremes[1] == 100.0


def test_values_of_which_none_lies_far_out_keep_their_range() -> None:
    found = seen(np.linspace(-1, 3, 10_001)).best_range()
    assert found == pytest.approx((-1, 3), rel=0.1)


@pytest.mark.parametrize(
    ("name", "lowest", "highest"), [("Silu", -8, 40), ("Sigmoid", -8, 8), ("HardSwish", -4, 40)]
)
def test_what_an_activation_flattens_takes_no_steps(
    name: str, lowest: float, highest: float
) -> None:
    values = seen(np.linspace(-40, 40, 100_001))
    low, high = values.best_range(Activation(name))
    assert lowest < low < -2
    assert 2 < high <= highest


def test_a_tensor_of_zeros_has_a_range() -> None:
    assert seen(np.zeros(10)).best_range() == (0.0, 0.0)


def conv_of(weights: np.ndarray) -> Graph:
    build = Builder()
    build.add("Conv", build.add("Sigmoid", "images"), build.weight(weights), output="y")
    return Graph.load(build.model((1, 2, 4, 4), {"y": (1, weights.shape[0], 4, 4)}))


def test_a_channel_counts_by_the_weights_that_read_it() -> None:
    weights = np.array([[[[1.0]], [[10.0]]], [[[0.0]], [[10.0]]]])
    graph = conv_of(weights)
    found = channel_weights(graph, find_activations(graph), {"y": np.array([1.0, 1.0])})
    for axis, of_channels in found.values():
        assert axis == 1
        assert of_channels[1] / of_channels[0] == pytest.approx(200)
        assert of_channels.mean() == pytest.approx(1)
    assert "images" in found  # through the activation


def test_a_channel_of_small_values_and_large_weights_narrows_the_range() -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal((1, 2, 40, 40)).astype(np.float32) * [[[[30.0]], [[0.3]]]]
    ranges = []
    for weight in (0.01, 1000.0):
        build = Builder()
        build.add("Conv", "images", build.weight(np.array([[[[1.0]], [[weight]]]])), output="y")
        graph = Graph.load(build.model((1, 2, 40, 40), {"y": (1, 1, 40, 40)}))
        sample = Sample("one", {"images": values.astype(np.float32)}, {})
        ranges.append(observed_ranges(graph, [sample])["images"])
    assert ranges[1][1] < 0.5 * ranges[0][1]


def test_a_value_that_is_not_finite_is_an_error_with_its_tensor() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Log (x) }'
    )
    sample = Sample("one", {"x": np.zeros(2, np.float32)}, {})
    with pytest.raises(PricingError, match=r"'y' takes the values -inf .* on sample 'one'"):
        observed_ranges(Graph.load(model), [sample])


@pytest.mark.parametrize("op", ["Pad", "Resize"])
def test_channels_that_a_reader_adds_have_no_weights_here(op: str) -> None:
    build = Builder()
    x = build.add("Sigmoid", "images")
    if op == "Pad":
        pads = numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 2, 0, 0]), "pads")
        build.weights.append(pads)
        wide = build.add("Pad", x, "pads")
    else:
        wide = build.add("Resize", x, "", build.weight(np.array([1, 2, 1, 1])))
    build.add("Add", build.conv(x, 2, 8), build.conv(wide, 4, 8), output="y")
    graph = Graph.load(build.model((1, 2, 4, 4), {"y": (1, 8, 4, 4)}))
    ones = np.ones(8)
    found = channel_weights(
        graph, find_activations(graph), dict.fromkeys(layer_outputs(graph), ones)
    )
    assert found[x][1].shape == (2,)
    assert found[wide][1].shape == (4,)
