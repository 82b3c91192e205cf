"""Greedy: the steepest saving first, in chunks, backing off where the budget breaks."""

from simulated_search import ORIGINAL_NS, many_sites, simulate, site

from actcc.search.greedy import steps
from actcc.selection import Problem


def test_steps_follow_the_hull_of_each_site_the_steepest_first() -> None:
    problem = Problem(
        (
            site("a", ("free", 10, 0), ("below the hull", 20, 90), ("all", 110, 100)),
            site("b", ("some", 60, 20), ("more", 70, 40)),
        ),
        base_cost_ns=ORIGINAL_NS,
    )
    found = [(step.site, step.option) for step in steps(simulate("greedy", problem).space)]
    assert found == [("a", "free"), ("b", "some"), ("a", "all"), ("b", "more")]


def test_chunks_are_halved_until_the_budget_holds() -> None:
    problem = Problem(
        tuple(site(f"s{index}", ("fast", 1000 - index, 1000)) for index in range(8)),
        base_cost_ns=ORIGINAL_NS,
    )
    attempted = simulate("greedy", problem, drop=lambda loss: 2.4 * loss, most=12).attempted
    # 4 of 8 fit into 1 %; each further one is over it and is left out.
    assert [len(chosen) for chosen in attempted[:4]] == [4, 8, 6, 5]
    assert all(len(chosen) == 5 for chosen in attempted[4:])
    assert len(attempted) == 7


def test_what_loses_nothing_is_in_every_plan() -> None:
    problem = Problem(
        (*many_sites(6).choices, site("exact", ("free", 50, 0))), base_cost_ns=ORIGINAL_NS
    )
    attempted = simulate("greedy", problem).attempted
    assert all(chosen["exact"] == "free" for chosen in attempted)
