"""Groups of candidates cost what the whole costs beyond its parts, and the program adds it so."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from networks import residual_network

from actcc.accuracy.estimate import Estimates
from actcc.budget import Amount, Budget
from actcc.graph import Graph
from actcc.neighbour_pricing import GroupTerm, price_neighbours
from actcc.pass_api import Group, Pass
from actcc.prices import Price
from actcc.program import Evidence, build_problem, site_plans
from actcc.progress import Silent
from actcc.search.cpsat import solve_within
from actcc.search.space import Space
from actcc.selection import solve
from actcc.selection.check import total
from actcc.site import KEEP, Candidate, OfferedSite, Refusal, Site
from actcc.targets import Target, load_target

OFFERS = {"a": ("int8",), "s": ("Relu", "Relu6", "HardSwish"), "b": ("int8",)}
ALONE = {
    ("a", "int8"): 300.0,
    ("s", "Relu"): -100.0,
    ("s", "Relu6"): -90.0,
    ("s", "HardSwish"): -150.0,
    ("b", "int8"): 200.0,
}
GROUPS = (
    GroupTerm((("a", ("int8",)), ("s", ("Relu", "Relu6"))), -250),
    GroupTerm((("a", ("int8",)), ("s", ("Relu", "Relu6")), ("b", ("int8",))), -900),
)


def evidence(losses: dict[tuple[str, str], float]) -> Evidence:
    sites, prices = [], {}
    for name, candidates in OFFERS.items():
        offered = tuple(Candidate(candidate, exact=False) for candidate in candidates)
        place = Site([f"n_{name}"], f"r_{name}", f"w_{name}", "layer", None, name)
        sites.append(OfferedSite(place, "pass", offered))
        prices[name] = {
            candidate: Price(1e4, ALONE[name, candidate], 0.0, "measured", "tool")
            for candidate in candidates
        }
    return Evidence(sites, prices, Estimates(losses, {}), 1e6, 1e6, None, groups=GROUPS)


def cost(chosen: dict[str, str]) -> float:
    alone = sum(ALONE.get((site, name), 0.0) for site, name in chosen.items())
    together = sum(
        group.cost_ns
        for group in GROUPS
        if all(chosen.get(site) in names for site, names in group.members)
    )
    return 1e6 + alone + together


@pytest.mark.parametrize("allowed", [0.0, 0.02, 0.05, 0.09, 0.2])
def test_the_solver_finds_what_enumeration_finds(allowed: float) -> None:
    losses = {("a", "int8"): 0.01, ("s", "Relu"): 0.05, ("s", "Relu6"): 0.04,
              ("s", "HardSwish"): 0.015, ("b", "int8"): 0.02}  # fmt: skip
    plans = [
        dict(zip(OFFERS, names, strict=True))
        for names in itertools.product(*((KEEP, *names) for names in OFFERS.values()))
    ]
    within = [p for p in plans if sum(losses.get(one, 0.0) for one in p.items()) <= allowed + 1e-9]
    problem = build_problem(evidence(losses))
    from actcc.program import within as limited

    found = solve(
        limited(problem, max_loss=allowed, max_latency_ns=None, max_peak_bytes=None), seed=0
    )
    assert total(problem, found.chosen).cost_ns == min(map(cost, within))
    assert cost({site: found.chosen[site] for site in OFFERS}) == min(map(cost, within))


@pytest.mark.parametrize("chosen", [{}, {"s": "Relu"}, {"a": "int8", "s": "Relu6"},
                                    {"a": "int8", "s": "Relu", "b": "int8"}])  # fmt: skip
def test_a_plan_says_nothing_of_groups_and_costs_what_they_do(chosen: dict[str, str]) -> None:
    known = evidence({(site, name): 0.01 for site, names in OFFERS.items() for name in names})
    space = Space.of(known, Budget(Amount(0.2, relative=True)), "fidelity", 0)
    assert space.totals(chosen).cost_ns == cost(chosen)
    best = solve_within(space, max_loss=None, max_latency_ns=None)
    assert best == {"a": "int8", "s": "Relu", "b": "int8"}
    assert set(space.savings) == {"s"}  # what other strategies choose from


def test_a_group_of_which_a_member_is_not_offered_is_left_out() -> None:
    problem = build_problem(evidence({("a", "int8"): 0.01, ("b", "int8"): 0.02}))
    assert problem.pairs == ()
    assert [choice.id for choice in problem.choices] == ["a", "s", "b"]


def test_precision_is_chosen_beside_a_swap_of_the_same_nodes_where_a_pass_says_so() -> None:
    place = Site(["sigmoid", "mul"], "x", "y", "Silu", None, "s")
    swaps = tuple(Candidate(name, exact=False) for name in ("HardSwish", "Relu"))
    early = OfferedSite(place, "swap", swaps)
    late = OfferedSite(replace(place, id="q"), "int8", (Candidate("int8", exact=False),), late=True)
    costs = {"s": {"HardSwish": -50.0, "Relu": -90.0}, "q": {"int8": -100.0}}
    prices = {
        site: {name: Price(1e4, cost, 0.0, "measured", "tool") for name, cost in of_site.items()}
        for site, of_site in costs.items()
    }
    losses = {(site, name): 0.01 for site, of_site in costs.items() for name in of_site}
    named = (GroupTerm((("s", ("HardSwish",)), ("q", ("int8",))), 0),)
    chosen = {}
    for groups in ((), named):
        known = Evidence(
            [early, late], prices, Estimates(losses, {}), 1e6, 1e6, None, groups=groups
        )
        chosen[groups] = dict(solve(build_problem(known), seed=0).chosen)
    assert chosen == {
        (): {"s": KEEP, "q": "int8"},
        named: {"s": "HardSwish", "q": "int8"},
    }


def test_what_is_shown_of_the_chosen_adds_up_to_the_plan() -> None:
    known = evidence({(site, name): 0.01 for site, names in OFFERS.items() for name in names})
    chosen = {"a": "int8", "s": "Relu", "b": "int8"}
    shown = sum(
        figures.difference_ns or 0.0
        for site in site_plans(known, chosen)
        for figures in site.candidates
        if figures.name == site.chosen
    )
    assert shown == pytest.approx(cost(chosen) - 1e6)


class Fan(Pass):
    """A writer and two that read it, in int8; names three groups, the last twice."""

    name = "fan"
    members = tuple(
        OfferedSite(
            Site([f"n_{name}"], "x", name, "layer", None, name),
            "fan",
            (Candidate("int8", exact=False),),
        )
        for name in ("w", "a", "b")
    )

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        return [member.site for member in self.members]

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        return self.members[0].candidates

    def neighbours(self, graph: Graph, sites: Sequence[OfferedSite]) -> Iterable[Group]:
        writer, one, other = ((member, ("int8",)) for member in self.members)
        return [(writer, one), (writer, other), (writer, one, other), (one, other, writer)]

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("together", "expected"),
    [
        # Each pair saves the 500 that the writer costs alone; all three save them once.
        ({"aw": 100, "bw": 100, "abw": 200}, {"aw": -250, "bw": -250}),
        ({"aw": 100, "bw": 300, "abw": 300}, {"aw": -250, "bw": -150}),
        # The three save nothing at all, or cost even more.
        ({"aw": 100, "bw": 100, "abw": 900}, {"aw": 0, "bw": 0}),
        # A pair that costs more is no part of what is shared.
        ({"aw": 100, "bw": 700, "abw": 700}, {"aw": -500, "bw": 100}),
        # What is saved only where both readers are in int8 is the three's own.
        ({"aw": 600, "bw": 600, "abw": 200}, {"aw": 0, "bw": 0, "abw": -500}),
    ],
)
def test_what_pairs_save_of_one_overhead_is_shared_among_them(
    monkeypatch: pytest.MonkeyPatch,
    together: dict[str, float],
    expected: dict[str, int],
) -> None:
    def price(difference_ns: float) -> Price:
        return Price(1e4, difference_ns, 0.0, "measured", "tool")

    def priced(graph: Graph, sites: Sequence[OfferedSite], *_: object, **__: object) -> object:
        names = ["".join(sorted(part.split()[0] for part in s.id.split(" and "))) for s in sites]
        return {
            site.id: {site.candidates[0].name: price(together[name])}
            for site, name in zip(sites, names, strict=True)
        }

    monkeypatch.setattr("actcc.neighbour_pricing.price_sites", priced)
    alone = {"w": {"int8": price(500.0)}, "a": {"int8": price(100.0)}, "b": {"int8": price(100.0)}}
    graph, target = Graph.load(residual_network()), load_target("npu1")
    with ThreadPoolExecutor(1) as pool:
        terms = price_neighbours(graph, Fan.members, alone, [Fan()], target, pool, Silent(), None)
    found = [("".join(sorted(site for site, _ in term.members)), term.cost_ns) for term in terms]
    assert sorted(found) == sorted(expected.items())
