"""Prices in the whole network: one compilation for each candidate, at all sites that offer it.

A compiler that schedules a network as a whole says what every part of it costs. The network is
therefore compiled as it is, and once more for each candidate with that candidate at every site
that offers it. What the two differ by is shared out among those sites: each node belongs to the
site that is nearest to it, so that the differences of all sites add up to that of the networks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from actcc.errors import ActccError
from actcc.graph import Graph, Interface, Node, verify
from actcc.pass_api import Pass, apply_pass
from actcc.price_cache import PriceCache, cached_network_times
from actcc.prices import NetworkBackend, NetworkTimes, Price, Unpriced
from actcc.progress import PRICING, Progress
from actcc.site import KEEP, OfferedSite
from actcc.tasks import map_tasks

_UNTRIED = Unpriced("no network was compiled with it")


@dataclass(frozen=True)
class _Variant:
    """The network with one candidate at some of its sites."""

    candidate: str
    sites: tuple[OfferedSite, ...]
    graph: Graph


def price_in_network(
    graph: Graph,
    sites: Sequence[OfferedSite],
    passes: Sequence[Pass],
    backend: NetworkBackend,
    executor: Executor,
    progress: Progress,
    cache: PriceCache | None = None,
) -> dict[str, dict[str, Price | Unpriced]]:
    """Prices by site id and candidate name; every candidate of every site has an entry.

    Args:
        cache: what networks are looked up in before they are compiled; None for none.
    """
    pricing = _NetworkPricing(graph, sites, passes, backend)
    waiting = _uniform_choices(sites)
    with progress.stage(PRICING, None) as advance:

        def run_tasks(function: Callable[[Any], Any], tasks: Sequence[Any]) -> list[Any]:
            return map_tasks(executor, function, tasks, advance)

        def times_of(networks: Sequence[Graph]) -> list[NetworkTimes | Unpriced]:
            return cached_network_times(cache, backend, networks, run_tasks)

        baseline: NetworkTimes | None = None
        while waiting:
            variants = [found for choice in waiting for found in pricing.variants(*choice)]
            models = [variant.graph for variant in variants]
            if baseline is None:
                first, *times = times_of([graph, *models])
                if isinstance(first, Unpriced):
                    pricing.refuse_all(first)
                    break
                baseline = first
            else:
                times = times_of(models)
            waiting = []
            for variant, found in zip(variants, times, strict=True):
                if isinstance(found, NetworkTimes):
                    pricing.share_out(variant, baseline, found)
                else:
                    waiting += pricing.divided(variant, found)
    return pricing.prices


_Choice = tuple[str, str, tuple[OfferedSite, ...]]
"""Name of a pass and of a candidate, and the sites at which to take it."""


def _uniform_choices(sites: Sequence[OfferedSite]) -> list[_Choice]:
    """For each candidate of each pass all sites that offer it, without claiming a node twice."""
    offering: dict[tuple[str, str], list[OfferedSite]] = {}
    for offered in sites:
        for candidate in offered.candidates:
            offering.setdefault((offered.pass_name, candidate.name), []).append(offered)
    return [
        (pass_name, name, together)
        for (pass_name, name), members in offering.items()
        for together in _apart(members)
    ]


def _apart(sites: Iterable[OfferedSite]) -> list[tuple[OfferedSite, ...]]:
    """Sites in groups in which no two claim the same node."""
    groups: list[tuple[list[OfferedSite], set[str]]] = []
    for offered in sites:
        claimed = set(offered.site.nodes)
        for members, taken in groups:
            if not claimed & taken:
                members.append(offered)
                taken |= claimed
                break
        else:
            groups.append(([offered], claimed))
    return [tuple(members) for members, _ in groups]


class _NetworkPricing:
    """Prices of one network's sites as they are found."""

    def __init__(
        self,
        graph: Graph,
        sites: Sequence[OfferedSite],
        passes: Sequence[Pass],
        backend: NetworkBackend,
    ) -> None:
        self._graph = graph
        self._passes = {found.name: found for found in passes}
        self._backend = backend
        self.prices: dict[str, dict[str, Price | Unpriced]] = {
            offered.id: dict.fromkeys((KEEP, *(c.name for c in offered.candidates)), _UNTRIED)
            for offered in sites
        }

    def refuse_all(self, reason: Unpriced) -> None:
        """Nothing has a price where the network as it is has none."""
        for found in self.prices.values():
            found.update(dict.fromkeys(found, reason))

    def variants(self, pass_name: str, name: str, sites: tuple[OfferedSite, ...]) -> list[_Variant]:
        """The network with a candidate at all of these sites but those where it cannot be applied,
        which are left unpriced.
        """
        rewrite = self._passes[pass_name]
        rewritten = self._graph.copy()
        fitting: list[OfferedSite] = []
        for offered in sites:
            try:
                _apply(rewrite, rewritten, offered, name)
            except ActccError as error:
                self.prices[offered.id][name] = Unpriced(f"cannot be applied here: {error}")
                rewritten = self._rewritten(rewrite, fitting, name)  # without what was begun there
                continue
            fitting.append(offered)
        if not fitting:
            return []
        try:
            verify(rewritten, Interface.of(self._graph), [pass_name])
        except ActccError as error:
            for offered in fitting:
                self.prices[offered.id][name] = Unpriced(f"cannot be applied here: {error}")
            return []
        return [_Variant(name, tuple(fitting), rewritten)]

    def _rewritten(self, rewrite: Pass, sites: Sequence[OfferedSite], name: str) -> Graph:
        rewritten = self._graph.copy()
        for offered in sites:
            _apply(rewrite, rewritten, offered, name)
        return rewritten

    def share_out(self, variant: _Variant, before: NetworkTimes, after: NetworkTimes) -> None:
        """What the variant costs more or less, site by site."""
        ids = [offered.id for offered in variant.sites]
        claimed = {name: s.id for s in variant.sites for name in s.site.nodes}
        owners = nearest_sites(self._graph, claimed)
        old = _by_site(before, owners, ids)
        new = _by_site(after, {**owners, **_made_nodes(self._graph, variant)}, ids)
        for offered in variant.sites:
            difference = new[offered.id] - old[offered.id]
            found = self.prices[offered.id]
            keep = found[KEEP]
            if isinstance(keep, Unpriced):
                keep = Price(old[offered.id], 0.0, 0.0, before.source, before.tool)
                found[KEEP] = keep
            # What is nearest to a site is another set of nodes where other sites are taken with it.
            latency = keep.latency_ns + difference
            found[variant.candidate] = Price(latency, difference, 0.0, after.source, after.tool)

    def divided(self, variant: _Variant, reason: Unpriced) -> list[_Choice]:
        """The halves of a variant that has no price, until the site is found that is to blame."""
        if len(variant.sites) == 1:
            self.prices[variant.sites[0].id][variant.candidate] = reason
            return []
        middle = len(variant.sites) // 2
        pass_name = variant.sites[0].pass_name
        halves = (variant.sites[:middle], variant.sites[middle:])
        return [(pass_name, variant.candidate, half) for half in halves]


def _apply(rewrite: Pass, graph: Graph, offered: OfferedSite, name: str) -> None:
    """Apply a candidate so that its nodes tell which site they are of."""
    with graph.marking(rewrite.name, offered.id, name):
        apply_pass(rewrite, graph, offered.site, offered.candidate(name))


def _made_nodes(original: Graph, variant: _Variant) -> dict[str, str]:
    """The site by name of each node that a variant's candidate made."""
    ids = {offered.id for offered in variant.sites}
    there = {node.name for node in original.nodes()}  # may be marked by an earlier run
    return {
        node.name: entry.value
        for node in variant.graph.frame().graph.node
        if node.name not in there
        for entry in node.metadata_props
        if entry.key == "actcc.site" and entry.value in ids
    }


def nearest_sites(graph: Graph, claimed: Mapping[str, str]) -> dict[str, str]:
    """The site that each node of a graph belongs to, by name: the one that the fewest edges lie
    between; of two, the one that it feeds, since an activation fuses into the layer before it.

    Args:
        claimed: sites by the name of the nodes that they rewrite.
    """
    owners = dict(claimed)
    waiting = deque(node for node in graph.nodes() if node.name in claimed)
    while waiting:
        level, waiting = waiting, deque()
        for towards_inputs in (True, False):
            for node in level:
                for other in _neighbours(graph, node, towards_inputs):
                    if other.name not in owners:
                        owners[other.name] = owners[node.name]
                        waiting.append(other)
    return owners


def _neighbours(graph: Graph, node: Node, towards_inputs: bool) -> list[Node]:
    if towards_inputs:
        writers = [graph.producer(t) for t in node.inputs if not t.is_empty()]
        return [writer for writer in writers if writer is not None]
    return [r for t in node.outputs if not t.is_empty() for r in graph.readers(t)]


def _by_site(
    times: NetworkTimes, owners: Mapping[str, str], ids: Sequence[str]
) -> dict[str, float]:
    """Latency by site. What belongs to none is shared out evenly, so that nothing is lost."""
    found = dict.fromkeys(ids, 0.0)
    for name, latency in times.node_ns.items():
        owner = owners.get(name)
        if owner is not None:
            found[owner] += latency
        else:
            for identity in ids:
                found[identity] += latency / len(ids)
    return found
