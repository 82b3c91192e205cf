"""Residual branches and layers of equal width that go."""

from __future__ import annotations

from block_networks import (
    WIDTH,
    inverted_residual,
    missed,
    network,
    offers,
    pair,
    rewritten,
    samples,
)
from networks import Builder

from actcc.graph import Graph
from actcc.pass_api import find_sites
from actcc.passes.prune_branch import PruneBranch
from actcc.repair import repair
from actcc.targets import load_target

PRUNE = PruneBranch()


def test_of_a_residual_block_the_skip_connection_is_left() -> None:
    graph = network(inverted_residual)
    site = offers(graph, PRUNE)["residual branch"]
    pruned = rewritten(graph, PRUNE, site, "Identity")
    assert [node.op for node in pruned.nodes()] == ["Conv", "Tanh", "Tanh", "Conv"]


def test_a_layer_of_equal_width_goes_and_its_activation_stays() -> None:
    graph = network(pair)
    survey = find_sites(graph, [PRUNE], load_target("npu1"))
    assert [site.site.kind for site in survey.sites] == ["Conv of equal width"] * 2
    pruned = rewritten(graph, PRUNE, survey.sites[0], "Identity")
    assert [n.op for n in pruned.nodes()] == ["Conv", "Tanh", "Relu", "Conv", "Tanh", "Conv"]


def test_the_repair_makes_up_for_a_branch() -> None:
    graph = network(inverted_residual)
    pruned = rewritten(graph, PRUNE, offers(graph, PRUNE)["residual branch"], "Identity")
    repaired = repair(graph, pruned, samples(40)).graph
    held_out = samples(16, seed=7)
    assert missed(graph, repaired, held_out) < 0.8 * missed(graph, pruned, held_out)


def test_depthwise_layers_and_branches_that_others_read_stay() -> None:
    build = Builder()
    x = build.conv("images", 3, WIDTH)
    inner = build.add("Relu", build.conv(x, WIDTH, WIDTH, groups=WIDTH))
    total = build.add("Add", x, inner)
    build.add("Concat", total, inner, axis=1, output="map")
    graph = Graph.load(build.model((1, 3, 8, 8), {"map": (1, 2 * WIDTH, 8, 8)}))
    assert find_sites(graph, [PRUNE], load_target("npu1")).sites == ()


def test_a_branch_whose_block_changes_the_shape_stays() -> None:
    build = Builder()
    x = build.conv("images", 3, WIDTH)
    inner = build.add("GlobalAveragePool", build.conv(x, WIDTH, WIDTH))
    build.add("Add", inner, x, output="map")
    graph = Graph.load(build.model((1, 3, 8, 8), {"map": (1, WIDTH, 8, 8)}))
    kinds = [site.site.kind for site in find_sites(graph, [PRUNE], load_target("npu1")).sites]
    assert kinds == ["Conv of equal width"]
