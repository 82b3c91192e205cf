"""What two neighbours cost together beyond what each costs alone.

A layer in int8 between layers in floating point pays for the way into int8 and back; beside another
one in int8 it does not. Both are rewritten in one neighbourhood, and what that costs more or less
than the two by themselves is a price of the pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from actcc.graph import Graph
from actcc.pass_api import Pass, apply_pass
from actcc.prices import Price
from actcc.pricing import SitePrices, price_sites
from actcc.progress import Progress
from actcc.selection import PairTerm
from actcc.site import Candidate, OfferedSite, Refusal, Site
from actcc.targets import Target

Pair = tuple[OfferedSite, OfferedSite]


def price_neighbours(
    graph: Graph,
    sites: Sequence[OfferedSite],
    prices: Mapping[str, SitePrices],
    passes: Sequence[Pass],
    target: Target,
    executor: Executor,
    progress: Progress,
    cache: Path | None,
) -> tuple[PairTerm, ...]:
    """Prices of the pairs that passes name as neighbours; those of no difference are left out."""
    pairs = _pairs(graph, sites, passes)
    if not pairs:
        return ()
    by_name = {found.name: found for found in passes}
    together = _Together(pairs, by_name)
    found = price_sites(
        graph, list(together.offered), [together], target, executor, progress, cache
    )
    terms: list[PairTerm] = []
    for offered in together.offered:
        first, second = together.members(offered.site)
        for candidate in offered.candidates:
            names = _split(candidate)
            whole = found[offered.id].get(candidate.name)
            parts = [prices[s.id].get(n) for s, n in zip((first, second), names, strict=True)]
            if isinstance(whole, Price) and all(isinstance(part, Price) for part in parts):
                apart = sum(part.difference_ns for part in parts if isinstance(part, Price))
                cost = round(whole.difference_ns - apart)
                if cost:
                    terms.append(PairTerm(first.id, names[0], second.id, names[1], cost))
    return tuple(terms)


def _pairs(graph: Graph, sites: Sequence[OfferedSite], passes: Sequence[Pass]) -> list[Pair]:
    found: list[Pair] = []
    for one in passes:
        own = {offered.site.id: offered for offered in sites if offered.pass_name == one.name}
        places = [offered.site for offered in own.values()]
        for first, second in one.neighbours(graph, places):
            found.append((own[first.id], own[second.id]))
    return found


_JOINED = " and "


def _split(candidate: Candidate) -> list[str]:
    return candidate.name.split(_JOINED)


@dataclass(frozen=True)
class _Member:
    """One of two sites, and the pass that rewrites it."""

    offered: OfferedSite
    by: Pass


class _Together(Pass):
    """Rewrites two sites as one; only for prices."""

    name = "together"

    def __init__(self, pairs: Iterable[Pair], passes: Mapping[str, Pass]) -> None:
        self._members: dict[str, tuple[_Member, _Member]] = {}
        self.offered: list[OfferedSite] = []
        for first, second in pairs:
            nodes = dict.fromkeys((*first.site.nodes, *second.site.nodes))
            identity = f"{first.id}{_JOINED}{second.id}"
            site = Site(nodes, first.site.reads, second.site.writes, "", None, identity)
            candidates = tuple(
                Candidate(f"{one.name}{_JOINED}{other.name}", exact=False)
                for one in first.candidates
                for other in second.candidates
            )
            self._members[identity] = (
                _Member(first, passes[first.pass_name]),
                _Member(second, passes[second.pass_name]),
            )
            self.offered.append(OfferedSite(site, self.name, candidates))

    def members(self, site: Site) -> tuple[OfferedSite, OfferedSite]:
        """The two sites."""
        first, second = self._members[site.id]
        return first.offered, second.offered

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """Those that were given."""
        return [offered.site for offered in self.offered]

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """Every candidate of the one with every one of the other."""
        return next(o.candidates for o in self.offered if o.site.id == site.id)

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """One after the other."""
        for member, name in zip(self._members[site.id], _split(candidate), strict=True):
            chosen = member.offered.candidate(name)
            apply_pass(member.by, graph, member.offered.site, chosen)
