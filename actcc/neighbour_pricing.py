"""What neighbours cost together beyond what each costs alone.

A layer in int8 between layers in floating point pays for the way into int8 and back; beside another
one in int8 it does not, and an activation that becomes a Relu between them costs nothing at all.
Such groups of candidates are rewritten in one neighbourhood, and what that costs more or less than
its members and the smaller groups among them is the price of the group.

Where a larger group saves less than the smaller ones in it do together, they save the same thing
each: three poolings behind one activation in int8 may each save beside it all that it costs alone.
The group's saving is then shared among them, in proportion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from actcc.graph import Graph
from actcc.pass_api import Group, Pass, apply_pass
from actcc.prices import Price
from actcc.pricing import SitePrices, price_sites
from actcc.progress import PRICING_TOGETHER, Progress
from actcc.site import Candidate, OfferedSite, Refusal, Site
from actcc.targets import Target


@dataclass(frozen=True)
class GroupTerm:
    """A cost in nanoseconds, of either sign, added where all of these are chosen.

    Attributes:
        members: of each its site, and the candidates of which any will do; at least two.
    """

    members: tuple[tuple[str, tuple[str, ...]], ...]
    cost_ns: int

    def others(self, site: str, candidate: str) -> tuple[tuple[str, tuple[str, ...]], ...] | None:
        """The members beside a candidate; None where it is not one of them."""
        mine = [member for member in self.members if member[0] == site and candidate in member[1]]
        return tuple(m for m in self.members if m not in mine) if mine else None


def price_neighbours(
    graph: Graph,
    sites: Sequence[OfferedSite],
    prices: Mapping[str, SitePrices],
    passes: Sequence[Pass],
    target: Target,
    executor: Executor,
    progress: Progress,
    cache: Path | None,
) -> tuple[GroupTerm, ...]:
    """Prices of the groups that passes name; larger ones only where they save something."""
    named = [group for found in passes for group in found.neighbours(graph, sites)]
    priced = [group for group in named if all(_priced(prices, *member) for member in group)]
    # What one place reads and what reads one tensor may be the same.
    groups = list(
        {frozenset((s.id, names) for s, names in group): group for group in priced}.values()
    )
    if not groups:
        return ()
    together = _Together(groups, passes)
    sites = list(together.offered)
    found = price_sites(
        graph, sites, [together], target, executor, progress, cache, stage=PRICING_TOGETHER
    )
    costs: dict[_Members, int] = {}
    pairs_first = sorted(zip(together.offered, groups, strict=True), key=lambda one: len(one[1]))
    for offered, group in pairs_first:
        whole = found[offered.id][offered.candidates[0].name]
        alone = [_priced(prices, *member) for member in group]
        if isinstance(whole, Price):
            members = tuple((site.id, names) for site, names in group)
            apart = sum(price.difference_ns for price in alone if price is not None)
            _settle(costs, members, round(whole.difference_ns - apart))
    return tuple(
        GroupTerm(members, cost) for members, cost in costs.items() if cost < 0 or len(members) == 2
    )


_Members = tuple[tuple[str, tuple[str, ...]], ...]


def _settle(costs: dict[_Members, int], members: _Members, together_ns: int) -> None:
    """Take in what a group costs beyond its members: as its own, or shared among its parts."""
    parts = {part: cost for part, cost in costs.items() if set(part) < set(members)}
    own = together_ns - sum(parts.values())
    savings = [part for part, cost in parts.items() if cost < 0]
    if own > 0 and len(savings) > 1:
        share = max(0.0, 1 + own / sum(parts[part] for part in savings))
        costs.update({part: round(share * parts[part]) for part in savings})
    elif own < 0 or len(members) == 2:  # two of no difference may be chosen together
        costs[members] = own


def _priced(
    prices: Mapping[str, SitePrices], site: OfferedSite, names: Sequence[str]
) -> Price | None:
    price = prices[site.id].get(names[0])
    return price if isinstance(price, Price) else None


class _Together(Pass):
    """Rewrites all sites of a group; only for prices."""

    name = "neighbours"

    def __init__(self, groups: Iterable[Group], passes: Sequence[Pass]) -> None:
        self._passes = {found.name: found for found in passes}
        self._groups: dict[str, Group] = {}
        self.offered: list[OfferedSite] = []
        for group in groups:
            places = [offered.site for offered, _ in group]
            nodes = dict.fromkeys(name for place in places for name in place.nodes)
            # Equal structure is equal cost only for the same candidates, which this one names.
            name = " and ".join(f"{offered.pass_name} {names[0]}" for offered, names in group)
            identity = " and ".join(f"{offered.id} {names[0]}" for offered, names in group)
            site = Site(nodes, places[0].reads, places[-1].writes, "group", None, identity)
            self._groups[identity] = group
            own = (Candidate(name, exact=False),)
            self.offered.append(OfferedSite(site, self.name, own))

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """Those that were given."""
        return [offered.site for offered in self.offered]

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """All members at once."""
        return next(offered.candidates for offered in self.offered if offered.id == site.id)

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """One after the other, late passes last."""
        members = self._groups[site.id]
        for late in (False, True):
            for offered, names in members:
                found = self._passes[offered.pass_name]
                if found.late is late:
                    apply_pass(found, graph, offered.site, offered.candidate(names[0]))
