"""Nothing that the search takes for proved is ever wrong: bounds, fixing, domination, gaps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection_instances import feasible_totals, large_problem, objectives, plans, small_problem

from actcc.selection import Problem, solve
from actcc.selection.arrays import Integers, Program
from actcc.selection.ascent import ascend
from actcc.selection.assembly import program_of
from actcc.selection.check import total
from actcc.selection.dominance import dominated
from actcc.selection.linear import dual_multipliers
from actcc.selection.problem import CRITERIA
from actcc.selection.relaxation import Multipliers, Relaxation, certify
from actcc.selection.solution import relative_gap

SEEDS = st.integers(0, 100_000)


def primary_program(problem: Problem) -> Program:
    quantity, _ = CRITERIA[problem.objective]
    return program_of(problem, quantity, problem.budgets)


def choices_of(problem: Problem) -> Iterator[tuple[dict[str, str], Integers]]:
    for plan in plans(problem):
        picked = [problem.positions[site][1][option] for site, option in plan.items()]
        yield plan, np.array(picked, dtype=np.int64)


def least_value(program: Program, problem: Problem) -> int | None:
    """The optimum by trying every choice of options that are present."""
    sites = np.arange(program.sites)
    return min(
        (
            program.value(chosen)
            for _, chosen in choices_of(problem)
            if program.present[sites, chosen].all() and program.admits(chosen)
        ),
        default=None,
    )


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_the_arrays_mean_what_the_problem_says(seed: int) -> None:
    problem = small_problem(seed)
    program = primary_program(problem)
    admitted = sum(program.admits(chosen) for _, chosen in choices_of(problem))
    assert admitted == len(feasible_totals(problem))
    for plan, chosen in choices_of(problem):
        assert program.value(chosen) == objectives(problem, total(problem, plan))[0]


@settings(max_examples=200, deadline=None)
@given(SEEDS, st.integers(0, 2**32 - 1), st.sampled_from([0.01, 1.0, 50.0, 1e9]))
def test_whatever_the_multipliers_the_bound_is_below_the_optimum(
    seed: int, multiplier_seed: int, size: float
) -> None:
    problem = small_problem(seed)
    program = primary_program(problem)
    rng = np.random.default_rng(multiplier_seed)
    zero = Multipliers.zero(program)
    multipliers = Multipliers(
        size * rng.random(zero.rows.shape), size * (rng.random(zero.messages.shape) - 0.5)
    )
    certificate = certify(program, multipliers)
    optimum = least_value(program, problem)
    assert certificate.height == pytest.approx(
        Relaxation(program).evaluate(multipliers).bound, rel=1e-5, abs=1e-2 * max(size, 1.0)
    )
    if optimum is None:
        return
    assert certificate.bound <= optimum
    reduced = program.without(~certificate.allowed(optimum))
    assert least_value(reduced, problem) == optimum


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_no_plan_that_reaches_the_optimum_is_fixed_away(seed: int) -> None:
    problem = small_problem(seed)
    program = primary_program(problem)
    optimum = least_value(program, problem)
    if optimum is None:
        return
    allowed = certify(program, ascend(program).multipliers).allowed(optimum)
    sites = np.arange(program.sites)
    for _, chosen in choices_of(problem):
        if program.admits(chosen) and program.value(chosen) == optimum:
            assert allowed[sites, chosen].all()


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_dominated_options_are_not_needed_for_either_criterion(seed: int) -> None:
    problem = small_problem(seed)
    program = primary_program(problem)
    present = program.present & ~dominated(program)
    sites = np.arange(program.sites)
    feasible, left = [], []
    for plan, chosen in choices_of(problem):
        if program.admits(chosen):
            feasible.append(objectives(problem, total(problem, plan)))
            if present[sites, chosen].all():
                left.append(feasible[-1])
    assert present.any(axis=1).all()
    assert min(left, default=None) == min(feasible, default=None)


@pytest.mark.parametrize(
    "instance",
    [
        {},
        {"joined": 0.1},
        {"joined": 1.0},
        {"joined": 0.1, "memory_steps": 10, "sized": True},
        {"joined": 0.1, "objective": "accuracy"},
        {"joined": 0.1, "sized": True, "objective": "size"},
    ],
    ids=["budget", "some conflicts and pairs", "all joined", "memory and size", "accuracy", "size"],
)
def test_the_simplex_proves_no_less_than_the_subgradient_and_both_come_close(
    instance: dict[str, object],
) -> None:
    """Both attain the linear relaxation; they differ by rounding and by convergence."""
    program = primary_program(large_problem(100, seed=5, **instance))  # type: ignore[arg-type]
    by_simplex = dual_multipliers(program)
    assert by_simplex is not None
    simplex = certify(program, by_simplex).height
    subgradient = certify(program, ascend(program).multipliers).height
    assert subgradient <= simplex + 1
    assert subgradient >= simplex - 1 - 1e-3 * abs(simplex)


@pytest.mark.parametrize("time_limit_s", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("objective", ["latency", "accuracy", "size"])
def test_a_search_that_is_cut_short_still_brackets_the_optimum(
    time_limit_s: float, objective: str
) -> None:
    problem = large_problem(
        60,
        seed=2,
        correlation="strong",
        joined=0.2,
        sized=objective == "size",
        objective=objective,  # type: ignore[arg-type]
    )
    best = solve(problem, time_limit_s=60.0)
    assert best.status == "optimal"
    short = solve(problem, time_limit_s=time_limit_s)
    value, _ = objectives(problem, total(problem, short.chosen))
    assert short.bound <= best.bound <= value


def test_the_gap_is_measured_against_what_is_saved_where_that_is_less() -> None:
    assert relative_gap(1_000_900, 1_000_890, keep_objective=1_001_000) == pytest.approx(1 / 11)
    assert relative_gap(90, 80, keep_objective=1000) == pytest.approx(1 / 9)
    assert relative_gap(-90, -100, keep_objective=0) == pytest.approx(0.1)
    assert relative_gap(5, 0, keep_objective=0) == 1.0
    assert relative_gap(7, 7, keep_objective=7) == 0.0


def test_a_constant_beside_the_network_does_not_flatter_the_gap() -> None:
    plain = relative_gap(600, 590, keep_objective=1000)
    beside = relative_gap(10**12 + 600, 10**12 + 590, keep_objective=10**12 + 1000)
    assert plain == beside == pytest.approx(10 / 410)
