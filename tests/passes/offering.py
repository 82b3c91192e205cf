"""What a pass offers on a graph, and a check that each of its exact candidates changes nothing."""

from __future__ import annotations

from collections.abc import Mapping

from actcc.graph import Array, Graph
from actcc.graph.compare import compare
from actcc.pass_api import Pass, Survey, apply_candidates, find_sites
from actcc.runtime import random_feeds
from actcc.targets import load_target

NPU1 = load_target("npu1")


def survey(graph: Graph, by: Pass) -> Survey:
    return find_sites(graph, [by], NPU1, exact_only=True)


def all_applied(
    graph: Graph, by: Pass, tolerance: float = 1e-5, feed: Mapping[str, Array] | None = None
) -> list[Graph]:
    """Every candidate of every site alone, equal without the runtime's optimisations."""
    feeds = [feed or random_feeds(graph, 3)]
    applied = []
    for site in survey(graph, by).sites:
        for candidate in site.candidates:
            rewritten = apply_candidates(graph, [by], [(site, candidate.name)])
            assert compare(graph, rewritten, feeds, optimise=False).worst_relative <= tolerance
            applied.append(rewritten)
    return applied
