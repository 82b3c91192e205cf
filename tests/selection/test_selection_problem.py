"""A problem that contradicts itself is refused in three parts: what, where, what next."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from selection_instances import large_problem

from actcc.selection import (
    Choice,
    MemoryStep,
    Option,
    PairTerm,
    Problem,
    ProblemError,
    Solution,
    ViolationError,
    check,
    solve,
)

SITE = Choice("a", (Option("keep", 0, 0), Option("Relu", -1, 5)))
OTHER = replace(SITE, id="b")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: Problem((SITE, OTHER), pairs=(PairTerm("a", "Relu", "c", "Relu", 1),)),
            "unknown site 'c' in pair term 'a' and 'c'; name a site that is among the choices",
        ),
        (
            lambda: Problem((SITE, OTHER), pairs=(PairTerm("a", "Relu", "b", "Tanh", 1),)),
            "unknown option 'Tanh' of site 'b' in pair term 'a' and 'b'; use one of: keep, Relu",
        ),
        (
            lambda: Problem((SITE,), pairs=(PairTerm("a", "Relu", "a", "keep", 1),)),
            "a pair term joins a site with itself in pair term 'a' and 'a'; "
            "add its cost to the option instead",
        ),
        (
            lambda: Problem((SITE,), memory=(MemoryStep("conv", 0, (("a", "Tanh", 1),)),)),
            "unknown option 'Tanh' of site 'a' in memory step 'conv'; use one of: keep, Relu",
        ),
        (
            lambda: Problem((Choice("a", (Option("keep", 0, 0), Option("keep", 1, 0))),)),
            "duplicate option 'keep' in site 'a'; give each option a name of its own",
        ),
        (
            lambda: Problem((Choice("a", ()),)),
            "the first option is not 'keep' at site 'a'; put 'keep' before all candidates",
        ),
        (
            lambda: Problem((Choice("a", (Option("keep", 0.5, 0),)),)),  # type: ignore[arg-type]
            "cost_ns is 0.5 in option 'keep' of site 'a'; round it to an integer",
        ),
        (
            lambda: Problem((SITE,), base_cost_ns=2**53),
            "the figures add up to more than 2**52 in the problem; "
            "check that costs are in ns, losses in ppm and sizes in bytes",
        ),
        (
            lambda: Problem((SITE,), objective="energy"),  # type: ignore[arg-type]
            "unknown objective 'energy' in the problem; use one of: latency, accuracy, size",
        ),
    ],
)
def test_the_message_says_what_is_wrong_where_and_what_to_do(build: object, message: str) -> None:
    assert callable(build)
    with pytest.raises(ProblemError) as caught:
        build()
    assert str(caught.value) == message
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"a": "Relu"}, "no option at site 'b'"),
        ({"a": "Relu", "b": "Tanh"}, "unknown option 'Tanh' at site 'b'"),
        ({"a": "Relu", "b": "keep", "c": "keep"}, "unknown site 'c'"),
        ({"a": "Relu", "b": "Relu"}, "loss 10 exceeds its budget 9"),
    ],
)
def test_the_check_refuses_plans_that_break_a_rule(chosen: dict[str, str], message: str) -> None:
    with pytest.raises(ViolationError, match=message):
        check(Problem((SITE, OTHER), max_loss_ppm=9), chosen)


def test_no_site_is_a_plan_too() -> None:
    solution = solve(Problem((), base_cost_ns=7))
    assert (solution.status, solution.cost_ns, solution.chosen) == ("optimal", 7, {})


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"time_limit_s": 0.0}, {"gap_limit": -0.1}])
def test_a_call_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ProblemError, match=next(iter(wrong))):
        solve(Problem((SITE,)), **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"chosen": {}}'])
def test_json_that_is_no_solution_is_refused(text: str) -> None:
    with pytest.raises(ProblemError, match="not a solution"):
        Solution.from_json(text)


def test_other_seeds_and_workers_reach_the_same_optimum() -> None:
    problem = large_problem(80, seed=9, joined=0.1)
    found = [solve(problem, seed=seed, workers=workers) for seed in (0, 5) for workers in (1, 3)]
    assert {(one.cost_ns, one.loss_ppm, one.status) for one in found} == {
        (found[0].cost_ns, found[0].loss_ppm, "optimal")
    }


def test_importing_the_package_loads_no_solver() -> None:
    code = "import sys, actcc.selection; sys.exit('ortools' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 0


def test_ctrl_c_ends_a_search_at_once() -> None:
    code = (
        "import signal, threading, _thread\n"
        "from selection_instances import large_problem\n"
        "from actcc.selection import solve\n"
        "problem = large_problem(300, 1, correlation='strong', joined=1.0)\n"
        "threading.Timer(2.0, signal.raise_signal, [signal.SIGINT]).start()\n"
        "try:\n"
        "    solve(problem, time_limit_s=120.0)\n"
        "except KeyboardInterrupt:\n"
        "    raise SystemExit(7)\n"
    )
    folder = __file__.rpartition("/")[0]
    ended = subprocess.run([sys.executable, "-c", code], cwd=folder, timeout=60, check=False)
    assert ended.returncode == 7
