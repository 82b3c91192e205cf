"""Where no plan fits, the user learns how far away each budget is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from selection_instances import feasible_totals, large_problem, small_problem

from actcc.errors import ActccError, InfeasibleError
from actcc.selection import Choice, Option, PairTerm, Problem, UndecidedError, solve, solver
from actcc.selection.arrays import Program
from actcc.selection.expansion import Outcome, minimise

FIGURES = {
    "max_cost_ns": "cost_ns",
    "max_loss_ppm": "loss_ppm",
    "max_peak_bytes": "peak_bytes",
    "max_size_bytes": "size_bytes",
}
SLOW_OR_WRONG = (Choice("a", (Option("keep", 4_195_001, 0), Option("Relu", 2_000_000, 30_000))),)


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_nearest_values_are_those_of_brute_force(first: int) -> None:
    for seed in range(first, first + 50):
        problem = small_problem(seed)
        if feasible_totals(problem):
            continue
        with pytest.raises(InfeasibleError) as caught:
            solve(problem, workers=1)
        expected = {}
        for budget, figure in FIGURES.items():
            if getattr(problem, budget) is None:
                continue
            reachable = feasible_totals(replace(problem, **{budget: None}))
            if reachable:
                expected[budget] = min(getattr(totals, figure) for totals in reachable)
        assert caught.value.nearest == expected, seed


def test_the_message_names_each_budget_with_its_nearest_value_rounded_up() -> None:
    problem = Problem(SLOW_OR_WRONG, max_cost_ns=3_000_000, max_loss_ppm=10_000)
    with pytest.raises(InfeasibleError) as caught:
        solve(problem)
    assert str(caught.value) == (
        "no plan meets all budgets: "
        "latency <= 3.00 ms is out of reach with the other budgets (nearest 4.20 ms); "
        "accuracy loss <= 1.00 % is out of reach with the other budgets (nearest 3.00 %); "
        "loosen one of them to its nearest value or beyond"
    )
    assert caught.value.nearest == {"max_cost_ns": 4_195_001, "max_loss_ppm": 30_000}


def test_a_budget_that_alone_would_not_help_is_left_out() -> None:
    problem = Problem(SLOW_OR_WRONG, max_cost_ns=1_000_000, max_loss_ppm=40_000)
    with pytest.raises(InfeasibleError, match=r"nearest 2.00 ms\); loosen it to") as caught:
        solve(problem)
    assert caught.value.nearest == {"max_cost_ns": 2_000_000}


def test_where_two_budgets_must_give_way_both_are_named() -> None:
    choices = (Choice("a", (Option("keep", 5, 0, size_bytes=7),)),)
    with pytest.raises(InfeasibleError) as caught:
        solve(Problem(choices, max_cost_ns=4, max_size_bytes=6))
    assert caught.value.nearest == {}
    assert "latency <= 4 ns is out of reach (nearest 5 ns)" in str(caught.value)
    assert "size <= 6 B is out of reach (nearest 7 B)" in str(caught.value)
    assert "loosen at least two of them" in str(caught.value)


def test_a_large_infeasible_network_is_explained_in_seconds() -> None:
    problem = large_problem(500, seed=1, joined=0.1)
    keep = sum(choice.options[0].cost_ns for choice in problem.choices)
    impossible = replace(problem, max_cost_ns=keep // 3, max_loss_ppm=500)
    with pytest.raises(InfeasibleError) as caught:
        solve(impossible, time_limit_s=20.0, gap_limit=1e-4)
    nearest = caught.value.nearest
    assert set(nearest) == {"max_cost_ns", "max_loss_ppm"}
    for budget, value in nearest.items():
        assert solve(replace(impossible, **{budget: value}), time_limit_s=20.0)


def test_running_out_of_time_is_not_called_infeasible() -> None:
    problem = large_problem(300, seed=0, correlation="strong", joined=1.0, memory_steps=100)
    with pytest.raises(ActccError) as caught:
        solve(problem, time_limit_s=0.001)
    assert isinstance(caught.value, UndecidedError)
    assert "allow more time or loosen a budget" in str(caught.value)


def test_where_the_time_ends_without_a_plan_one_within_the_latency_is_sought(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A search that finds nothing of little loss, as it may where costs are pairwise."""

    def finds_no_loss(program: Program, *arguments: Any, **options: Any) -> Outcome:
        if program.quantity == "loss":
            return Outcome(None, None, 0, infeasible=False, present=program.present)
        return minimise(program, *arguments, **options)

    monkeypatch.setattr(solver, "minimise", finds_no_loss)
    sites = [Choice(name, (Option("keep", 0, 0), Option("int8", 10, 5))) for name in "ab"]
    pair = PairTerm("a", "int8", "b", "int8", -40)
    problem = Problem(sites, pairs=[pair], objective="accuracy", max_cost_ns=80, base_cost_ns=100)
    found = solve(problem)
    assert dict(found.chosen) == {"a": "int8", "b": "int8"}
    assert found.cost_ns == 80
    assert found.status == "feasible"
    with pytest.raises(InfeasibleError) as caught:
        solve(replace(problem, max_cost_ns=79))
    assert caught.value.nearest == {"max_cost_ns": 80}
