"""Blocks and the activations inside them are decided together: the best mix, by brute force too."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from block_networks import inverted_residual
from networks import Builder
from selection_instances import feasible_totals, objectives

from actcc.accuracy.estimate import Estimates
from actcc.graph import Graph
from actcc.pass_api import OfferedSite, Pass, find_sites
from actcc.passes.collapse_convolutions import CollapseConvolutions
from actcc.passes.prune_branch import PruneBranch
from actcc.passes.swap_activation import SwapActivation
from actcc.pricing import price_sites
from actcc.program import Evidence, build_problem, within
from actcc.progress import Silent
from actcc.selection import Problem, check, solve
from actcc.site import KEEP
from actcc.targets import load_target

PASSES: list[Pass] = [SwapActivation(), CollapseConvolutions(), PruneBranch()]
LOSSES = {"Relu": 0.004, "HardSwish": 0.001, "Conv 3x3": 0.009, "Identity": 0.03}
NPU1 = load_target("npu1")


def network() -> Graph:
    """Two inverted residuals with Mish, which a swap of both makes faster, and one more Mish."""
    build = Builder(opset=18)
    x = build.add("Mish", build.conv("images", 3, 8))
    for _ in range(2):
        x = inverted_residual(build, x, act="Mish")
    build.conv(build.add("Mish", x), 8, 4, kernel=1)
    build.nodes[-1].output[0] = "map"
    return Graph.load(build.model((1, 3, 32, 32), {"map": (1, 4, 32, 32)}))


def offered(graph: Graph) -> list[OfferedSite]:
    """Sites with the candidates that have a loss above; brute force needs few."""
    found = []
    for site in find_sites(graph, PASSES, NPU1).sites:
        chosen = tuple(c for c in site.candidates if c.name in LOSSES)
        if chosen:
            found.append(replace(site, candidates=chosen))
    return found


@pytest.fixture(scope="module")
def problem() -> Problem:
    graph = network()
    sites = offered(graph)
    with ThreadPoolExecutor(1) as executor:
        prices = price_sites(graph, sites, PASSES, NPU1, executor, Silent(), None)
    losses = {
        # The second block is worth more than the first.
        (site.id, c.computes): LOSSES[c.name] * (1 + 4 * (index > len(sites) // 2))
        for index, site in enumerate(sites)
        for c in site.candidates
    }
    (timing,) = NPU1.backend.time_models([graph])
    latency = timing.latency_ns
    return build_problem(Evidence(sites, prices, Estimates(losses, {}), latency, latency, None))


@pytest.mark.parametrize("allowed", [0.002, 0.01, 0.02, 0.03, 0.05, 0.1])
def test_the_best_mix_of_blocks_and_activations_is_found(problem: Problem, allowed: float) -> None:
    limited = within(problem, max_loss=allowed, max_latency_ns=None, max_peak_bytes=None)
    best = min(objectives(limited, totals) for totals in feasible_totals(limited))
    solution = solve(limited, workers=1)
    assert objectives(limited, check(limited, solution.chosen)) == best


def test_one_plan_has_a_collapse_swaps_and_what_is_kept(problem: Problem) -> None:
    limited = within(problem, max_loss=0.03, max_latency_ns=None, max_peak_bytes=None)
    chosen = solve(limited, workers=1).chosen
    kinds = {site.split(":")[0] for site, name in chosen.items() if name != KEEP}
    assert kinds == {"swap-activation", "collapse-convolutions"}
    assert KEEP in chosen.values()
