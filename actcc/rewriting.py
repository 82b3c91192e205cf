"""A plan's rewrites in their order: rewrite, repair, and what comes behind the repair."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from actcc.calibration import SampleSet
from actcc.errors import PassError
from actcc.graph import Graph
from actcc.int8_rounding import quantize_network
from actcc.pass_api import Pass, Survey, apply_candidates, sites_of
from actcc.site import OfferedSite, Site

Repairer = Callable[[Graph, Graph], Graph]
"""From the network before and behind its rewrite, the latter with new weights."""
Chosen = Sequence[tuple[OfferedSite, str]]


@dataclass(frozen=True)
class Rewritten:
    """What a plan makes of a network.

    Attributes:
        unrepaired: makes the same rewrites without the repair, for which late passes observe once
            more; None where nothing was repaired.
        exact: whether every candidate is exact.
        behind: what was rewritten behind the repair without having been chosen, and what was not.
    """

    graph: Graph
    unrepaired: Callable[[], Graph] | None
    exact: bool
    behind: Survey | None = None


def rewrite_network(
    graph: Graph,
    passes: Sequence[Pass],
    chosen: Chosen,
    *,
    repair: Repairer | None,
    samples: SampleSet | None,
    everywhere: Callable[[Graph], Survey] | None = None,
) -> Rewritten:
    """A copy of the graph with the chosen candidates applied, and repaired.

    Late passes come last: their sites are found and observed again in the repaired network. What
    they put into int8 is rounded with a view to that network, where anything is repaired at all.

    Args:
        repair: None where nothing is repaired.
        samples: what late passes observe, and what is rounded is fitted to.
        everywhere: sites of a late pass in the repaired network, all of which get their first
            candidate beside what is chosen.

    Raises:
        PassError: a pass left the graph invalid, or a site of a late pass is gone.
        RepairError: the repair cannot run the network.
        ModelError: the runtime cannot.
    """
    late = [found for found in passes if found.late]
    names = {found.name for found in late}
    early = [pair for pair in chosen if pair[0].pass_name not in names]
    rewritten = apply_candidates(graph, passes, early)
    repairs = repair is not None and not _exact(early)
    repaired = repair(graph, rewritten) if repair is not None and repairs else rewritten

    survey = None if everywhere is None else everywhere(repaired)
    behind = [pair for pair in chosen if pair[0].pass_name in names]
    behind += [] if survey is None else survey.first_candidates

    def finished(network: Graph) -> Graph:
        for found in late:
            own = [pair for pair in behind if pair[0].pass_name == found.name]
            network = _applied_late(network, found, own, samples) if own else network
        return network

    unrepaired = functools.partial(finished, rewritten) if repairs else None
    if behind and repair is not None and samples is not None:
        result = quantize_network(repaired, finished, samples)
    else:
        result = finished(repaired)
    return Rewritten(result, unrepaired, _exact([*early, *behind]), survey)


def _exact(chosen: Chosen) -> bool:
    return all(site.candidate(name).exact for site, name in chosen)


def _applied_late(graph: Graph, found: Pass, chosen: Chosen, samples: SampleSet | None) -> Graph:
    sites = {s.id: s for s in sites_of(graph, found, samples) if isinstance(s, Site)}
    gone = next((entry.id for entry, _ in chosen if entry.id not in sites), None)
    if gone is not None:
        raise PassError(f"site '{gone}' is gone in the rewritten network")
    again = [(replace(entry, site=sites[entry.id]), name) for entry, name in chosen]
    return apply_candidates(graph, [found], again)
