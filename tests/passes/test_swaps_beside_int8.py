"""Which candidates of other passes may be chosen together with an activation in int8."""

from __future__ import annotations

import numpy as np
import pytest
from normalizing import graph_of

from actcc.calibration import SampleSet, load_samples
from actcc.graph import Graph
from actcc.pass_api import find_sites
from actcc.passes.move_activation import MoveActivation
from actcc.passes.quantize_layers import QuantizeLayers
from actcc.passes.swap_activation import SwapActivation
from actcc.targets import load_target

INT8 = QuantizeLayers()
CPU = load_target("cpu")


def network(body: str, element: str = "float") -> Graph:
    """From x [1, 3, 8, 8] through a layer to a feature map k, and from p to y."""
    kind = {"float": np.float32, "float16": np.float16}[element]
    random = np.random.default_rng(0)
    weights = {
        "w": random.standard_normal((8, 3, 3, 3)).astype(kind),
        "v": random.standard_normal((8, 4, 3, 3)).astype(kind),
    }
    places = {"first": np.array([0]), "last": np.array([4]), "axis": np.array([1])}
    layers = f"k = Conv<pads = [1,1,1,1]>(x, w) {body} y = Conv<pads = [1,1,1,1]>(p, v)"
    return graph_of(layers, (1, 3, 8, 8), weights | places, element=element)


def seen(graph: Graph, kind: type = np.float32) -> SampleSet:
    values = np.random.default_rng(0).standard_normal((4, 1, 3, 8, 8)).astype(kind)
    return load_samples([{"x": sample} for sample in values], graph)


@pytest.mark.parametrize(
    ("activation", "in_int8"),
    [("s = Sigmoid(k) a = Mul(k, s)", "HardSwish"), ("a = HardSwish(k)", "HardSwish as")],
)
def test_an_activation_that_may_move_too_is_still_swapped_beside_int8(activation, in_int8):
    graph = network(f"{activation} p = Slice(a, first, last, axis)")
    passes = [SwapActivation(), MoveActivation(), INT8]
    sites = find_sites(graph, passes, CPU, samples=seen(graph)).sites
    assert "move-activation" in {site.pass_name for site in sites}
    groups = [{site.id: names for site, names in group} for group in INT8.neighbours(graph, sites)]
    named = {frozenset(group): group for group in groups}
    swallowed = named[frozenset({"quantize-layers:k", "swap-activation:a"})]
    assert swallowed["swap-activation:a"] == ("Relu", "Relu6")
    both = named[frozenset({"swap-activation:a", "quantize-layers:a"})]
    assert both["swap-activation:a"][0].startswith(in_int8)
    assert not any("move-activation:p" in group for group in groups)


def test_an_activation_in_float16_is_refused():
    graph = network("a = HardSwish(k) p = Slice(a, first, last, axis)", "float16")
    survey = find_sites(graph, [INT8], CPU, samples=seen(graph, np.float16))
    assert not survey.sites
    reasons = {refusal.subject: refusal.reason for _, refusal in survey.refusals}
    assert reasons["a"] == "not in float32"
