"""Convolutions that collapse: what is offered, what is written, and what the repair makes of it."""

from __future__ import annotations

import numpy as np
import pytest
from block_networks import (
    BLOCKS,
    WIDTH,
    inverted_residual,
    missed,
    network,
    offers,
    rewritten,
    samples,
)
from networks import Builder
from normalizing import graph_of

from actcc.errors import PassError
from actcc.graph import Graph
from actcc.pass_api import apply_candidates, find_sites
from actcc.passes.collapse_convolutions import CollapseConvolutions
from actcc.repair import repair
from actcc.runtime import run, session
from actcc.targets import load_target

COLLAPSE = CollapseConvolutions()
WHOLE = "1x1, dw 3x3, 1x1+Add"


def operators(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes()]


def test_an_inverted_residual_becomes_one_convolution_with_its_residual() -> None:
    graph = network(inverted_residual)
    collapsed = rewritten(graph, COLLAPSE, offers(graph, COLLAPSE)[WHOLE], "Conv 3x3")
    assert operators(collapsed) == ["Conv", "Tanh", "Conv", "Tanh", "Conv"]


def test_the_first_two_layers_leave_a_fused_block() -> None:
    graph = network(inverted_residual)
    collapsed = rewritten(graph, COLLAPSE, offers(graph, COLLAPSE)["1x1, dw 3x3"], "Conv 3x3")
    assert operators(collapsed) == ["Conv", "Tanh", "Conv", "Relu", "Conv", "Add", "Tanh", "Conv"]


def test_a_linear_block_may_get_a_relu_in_front() -> None:
    graph = network(inverted_residual)
    (site,) = (
        s
        for s in find_sites(graph, [COLLAPSE], load_target("npu1")).sites
        if s.site.kind == "1x1, dw 3x3, 1x1"
    )
    assert [c.name for c in site.candidates] == ["Relu, Conv 3x3"]  # the residual is outside of it
    collapsed = rewritten(graph, COLLAPSE, site, "Relu, Conv 3x3")
    assert operators(collapsed) == ["Conv", "Tanh", "Relu", "Conv", "Add", "Tanh", "Conv"]


@pytest.mark.parametrize("seed", range(3))
def test_where_activations_do_nothing_the_composition_is_the_block(seed: int) -> None:
    """With inputs and biases that keep every ReLU open, inside and at a border of zeros alike."""
    build = Builder(seed)
    x = build.add("Abs", "images")
    inner = x
    for inputs, outputs, kernel in ((3, 8, 1), (8, 8, 3), (8, 4, 1)):
        shape = (outputs, inputs, kernel, kernel)
        weights = build.weight(np.abs(build.random.standard_normal(shape)))
        pads = [0] * 4
        inner = build.add("Conv", inner, weights, pads=pads)
        inner = build.add("Relu", inner) if kernel != 1 or inputs == 3 else inner
    build.nodes[-1].output[0] = "map"
    graph = Graph.load(build.model((1, 3, 8, 8), {"map": (1, 4, 6, 6)}))
    (site,) = (
        s
        for s in find_sites(graph, [COLLAPSE], load_target("npu1")).sites
        if s.site.kind == "1x1, 3x3, 1x1"
    )
    collapsed = rewritten(graph, COLLAPSE, site, "Conv 3x3")
    feed = {"images": np.random.default_rng(seed).standard_normal((1, 3, 8, 8)).astype(np.float32)}
    expected, found = (run(session(g), feed)["map"] for g in (graph, collapsed))
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_the_repair_brings_a_collapsed_block_closer(name: str) -> None:
    graph = network(BLOCKS[name])
    survey = find_sites(graph, [COLLAPSE], load_target("npu1"))
    widest = max(survey.sites, key=lambda s: len(s.site.nodes))
    collapsed = rewritten(graph, COLLAPSE, widest, widest.candidates[0].name)
    repaired = repair(graph, collapsed, samples(40)).graph
    held_out = samples(16, seed=7)
    before, after = (missed(graph, g, held_out) for g in (collapsed, repaired))
    assert after < 0.35
    assert after < 0.5 * before


def test_layers_with_nothing_between_are_left_to_the_exact_merge() -> None:
    build = Builder()
    inner = build.conv("images", 3, WIDTH)
    build.conv(inner, WIDTH, 4, kernel=1)
    build.nodes[-1].output[0] = "map"
    graph = Graph.load(build.model((1, 3, 8, 8), {"map": (1, 4, 8, 8)}))
    survey = find_sites(graph, [COLLAPSE], load_target("npu1"))
    assert survey.sites == ()
    assert "merge-convolutions does it exactly" in survey.refusals[0][1].reason


def test_too_many_weights_or_products_are_refused() -> None:
    build = Builder()
    inner = build.add("Relu", build.conv("images", 3, 320, kernel=1))
    inner = build.add("Relu", build.conv(inner, 320, 320))
    inner = build.conv(inner, 320, 320, kernel=1)
    inner = build.add("Relu", build.conv(inner, 320, 16, groups=16, kernel=1))
    build.conv(inner, 16, 16, kernel=1)
    build.nodes[-1].output[0] = "map"
    graph = Graph.load(build.model((1, 3, 8, 8), {"map": (1, 16, 8, 8)}))
    reasons = {r.reason for _, r in find_sites(graph, [COLLAPSE], load_target("npu1")).refusals}
    assert any("2880 weights an output" in reason for reason in reasons)


def test_a_tensor_that_leaves_on_the_way_ends_the_chain() -> None:
    build = Builder()
    inner = build.conv("images", 3, WIDTH)
    build.conv(build.add("Relu", inner, output="side"), WIDTH, 4, kernel=1)
    build.nodes[-1].output[0] = "map"
    sizes = {"map": (1, 4, 8, 8), "side": (1, WIDTH, 8, 8)}
    graph = Graph.load(build.model((1, 3, 8, 8), sizes))
    assert find_sites(graph, [COLLAPSE], load_target("npu1")).sites == ()


def test_weights_that_overflow_are_said_to() -> None:
    constants = {"w": np.full((4, 4, 1, 1), 300, np.float16)}
    body = "a = Conv(x, w) b = Relu(a) y = Conv(b, w)"
    graph = graph_of(body, constants=constants, element="float16")
    (site,) = find_sites(graph, [COLLAPSE], load_target("npu1")).sites
    with pytest.raises(PassError, match="overflow or lose digits in float16"):
        apply_candidates(graph, [COLLAPSE], [(site, "Conv 1x1")])
