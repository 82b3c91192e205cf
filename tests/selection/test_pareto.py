"""The front is swept from the most accurate plan to the fastest."""

from __future__ import annotations

from dataclasses import replace

import pytest
from selection_instances import feasible_totals, large_problem, small_problem

from actcc.selection import ProblemError, pareto, solve


@pytest.mark.parametrize("seed", range(40))
def test_every_point_is_the_fastest_plan_of_its_loss(seed: int) -> None:
    problem = replace(small_problem(seed), max_cost_ns=None, max_peak_bytes=None)
    reachable = feasible_totals(problem)
    if not reachable:
        return
    front = pareto(problem, 4, workers=1)
    assert front[0].loss_ppm == min(totals.loss_ppm for totals in reachable)
    assert front[-1].cost_ns == min(totals.cost_ns for totals in reachable)
    for point in front:
        dominating = [
            totals
            for totals in reachable
            if totals.loss_ppm <= point.loss_ppm
            and totals.cost_ns <= point.cost_ns
            and (totals.loss_ppm, totals.cost_ns) != (point.loss_ppm, point.cost_ns)
        ]
        assert not dominating


def test_points_grow_in_loss_and_fall_in_cost() -> None:
    problem = large_problem(40, seed=3, joined=0.1)
    front = pareto(problem, 6)
    assert len(front) == 6
    assert [point.loss_ppm for point in front] == sorted({point.loss_ppm for point in front})
    assert [-point.cost_ns for point in front] == sorted({-point.cost_ns for point in front})
    assert front[-1].chosen == solve(problem).chosen


def test_one_point_is_no_front() -> None:
    with pytest.raises(ProblemError, match="two or more"):
        pareto(large_problem(3, seed=0), 1)
