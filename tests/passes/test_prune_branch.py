"""Residual branches and layers of equal width that go."""

from __future__ import annotations

import pytest
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
from actcc.pass_api import Pass, apply_candidates, find_sites
from actcc.passes.collapse_convolutions import CollapseConvolutions
from actcc.passes.prune_branch import PruneBranch
from actcc.passes.swap_activation import SwapActivation
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


@pytest.mark.parametrize(
    ("by", "candidate", "left"),
    [
        (SwapActivation(), "Relu", ["Conv", "Relu", "Conv"]),
        (CollapseConvolutions(), "Conv 5x5", ["Conv", "Conv"]),
        (PRUNE, "Identity", ["Conv", "HardSwish", "Conv"]),
    ],
)
def test_what_reads_a_pruned_branch_is_rewritten_too(
    by: Pass, candidate: str, left: list[str]
) -> None:
    build = Builder()
    x = build.conv("images", 3, WIDTH)
    x = total = build.add("Add", x, build.add("Tanh", build.conv(x, WIDTH, WIDTH)))
    if not isinstance(by, SwapActivation):
        x = build.conv(x, WIDTH, WIDTH)
    build.conv(build.add("HardSwish", x), WIDTH, 4)
    build.nodes[-1].output[0] = "map"
    graph = Graph.load(build.model((1, 3, 8, 8), {"map": (1, 4, 8, 8)}))
    passes = list(dict.fromkeys([PRUNE, by]))
    sites = find_sites(graph, passes, load_target("npu1")).sites
    branch = next(site for site in sites if site.site.kind == "residual branch")
    (behind,) = (s for s in sites if s.pass_name == by.name and s.site.reads == total)
    rest = apply_candidates(graph, passes, [(branch, "Identity"), (behind, candidate)])
    assert [node.op for node in rest.nodes()] == left
