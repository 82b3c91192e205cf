"""Layers with fewer channels, fitted to those of the original that they have."""

from __future__ import annotations

import numpy as np
import pytest
from network_pairs import error, floats, model, weights

from actcc.graph import Graph
from actcc.pass_api import apply_candidates, find_sites
from actcc.passes.narrow_blocks import NarrowBlocks
from actcc.passes.swap_activation import SwapActivation
from actcc.repair import repair
from actcc.repair.refits import plan_refits
from actcc.targets import load_target

TEXT = """network (float[1,6,9,9] x) => (float[1,4,9,9] y) {
    s = Conv(x, first, shift) t = Softplus(s)
    a = Conv(t, up, bias) b = Relu(a)
    c = Conv <pads = [1, 1, 1, 1], group = 32> (b, depthwise) d = Relu(c)
    y = Conv(d, down)
}"""


def original() -> Graph:
    return Graph.load(
        model(
            TEXT,
            first=weights(12, 6, 1, 1),
            shift=floats(12, scale=0.3),
            up=weights(32, 12, 1, 1),
            bias=floats(32, scale=0.3),
            depthwise=weights(32, 1, 3, 3),
            down=weights(4, 32, 1, 1),
        )
    )


def feeds(count: int) -> list[dict[str, np.ndarray]]:
    return [{"x": floats(1, 6, 9, 9)} for _ in range(count)]


def rewritten(graph: Graph, *, swapped: bool) -> Graph:
    passes = [SwapActivation(), NarrowBlocks()]
    sites = find_sites(graph, passes, load_target("npu1")).sites
    chosen = [(s, "1/2 of the units") for s in sites if s.id == "narrow-blocks:y"]
    if swapped:
        chosen += [(s, "Relu") for s in sites if s.site.reads == "s"]
    return apply_candidates(graph, passes, chosen)


def test_layers_before_the_last_stay_as_they_are_where_nothing_has_changed_before_them() -> None:
    graph = original()
    plan = plan_refits(graph, rewritten(graph, swapped=False))
    (refit,) = plan.refits
    assert refit.layer.writes == "y"
    assert refit.reference is not None
    kept = refit.kept.inputs
    assert kept is not None
    np.testing.assert_array_equal(refit.reference.weights, refit.layer.weights)
    assert len(kept) == 16
    assert not plan.refused


def test_all_layers_of_a_narrower_block_are_fitted_behind_a_change() -> None:
    graph = original()
    plan = plan_refits(graph, rewritten(graph, swapped=True))
    assert [refit.layer.writes for refit in plan.refits] == ["s", "a", "c", "y"]
    assert not plan.refused
    outputs = [refit.kept.outputs for refit in plan.refits]
    assert [None if o is None else len(o) for o in outputs] == [None, 16, 16, None]


@pytest.mark.parametrize("swapped", [False, True])
def test_the_repair_brings_a_narrower_network_closer(swapped: bool) -> None:
    graph = original()
    other = rewritten(graph, swapped=swapped)
    repaired = repair(graph, other, feeds(24)).graph
    held_out = feeds(8)
    assert error(graph, repaired, held_out) < 0.6 * error(graph, other, held_out)


def test_weights_that_are_none_of_the_originals_are_left_alone() -> None:
    graph = original()
    other = rewritten(graph, swapped=True)
    node = next(n for n in other.nodes("Conv") if n.outputs[0].name == "a")
    other.set_input(node, 1, other.constant(node.inputs[1]) * 1.01)
    plan = plan_refits(graph, other)
    assert [refit.layer.writes for refit in plan.refits] == ["s", "y"]
    assert "nothing of that name and shape" in plan.refused[node.name]
