"""Where size counts: what is better, what is proposed, and what larger files teach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from simulated_search import ORIGINAL_NS

from actcc.budget import Budget
from actcc.plan import LatencyFigures
from actcc.search.cpsat import CpSat, solve_within
from actcc.search.greedy import steps
from actcc.search.space import Space
from actcc.selection import Choice, Option, Problem
from actcc.trials import Trial, Trials
from actcc.verify import Verdict

FILE = 10_000


def space(budget: Budget) -> Space:
    """Four layers of 1,000 bytes that may be stored in half or a quarter of them, for free."""
    choices = tuple(
        Choice(
            f"layer{index}",
            (
                Option("keep", 0, 0),
                Option("float16", 0, 10, frozenset({f"n{index}"}), -500),
                Option("int8", 0, 2000 + 100 * index, frozenset({f"n{index}"}), -750),
                Option("slow", 5000, 0, frozenset({f"n{index}"}), -900),
            ),
        )
        for index in range(4)
    )
    problem = Problem(choices, base_cost_ns=ORIGINAL_NS, base_size_bytes=FILE)
    passes = {choice.id: "compress-weights" for choice in choices}
    return Space(problem, budget, True, ORIGINAL_NS, None, 0, passes, FILE, float(ORIGINAL_NS))


def verdict(ratio: float, size: int, *, noise: float = 0.01, counts: bool = True) -> Verdict:
    figures = LatencyFigures(ORIGINAL_NS, ratio * ORIGINAL_NS, ratio, noise, "measured")
    return Verdict(
        None, figures, (None, None), 0.0, (), size_bytes=(FILE, size), size_counts=counts
    )


def trial(chosen: dict[str, str], found: Verdict) -> Trial:
    return Trial(chosen, 0.0, 0.0, Path("model.onnx"), found)


@pytest.mark.parametrize(
    ("ratio", "size", "counts", "better"),
    [
        (1.0, 9_000, True, True),
        (1.0, 9_000, False, False),
        (1.0, FILE, True, False),
        (0.9, FILE, True, True),
    ],
)
def test_where_size_counts_a_smaller_file_is_better(
    ratio: float, size: int, counts: bool, better: bool
) -> None:
    assert verdict(ratio, size, counts=counts).better is better


def test_the_best_trial_is_the_smallest_or_the_fastest_by_the_objective() -> None:
    small, fast = (
        trial({"layer0": "int8"}, verdict(1.0, 5_000)),
        trial({"layer0": "keep"}, verdict(0.8, 9_000)),
    )
    assert Trials(2, 0.0, "size", [fast, small]).best is small
    assert Trials(2, 0.0, "latency", [fast, small]).best is fast


def test_the_smallest_plan_is_no_slower_and_within_the_loss() -> None:
    found = space(Budget.parse(objective="size", max_drop="1%"))
    limit = found.latency_limit_ns
    best = solve_within(found, max_loss=0.005, max_latency_ns=limit)
    assert sorted(best.values()) == ["float16", "float16", "int8", "int8"]
    assert best["layer0"] == best["layer1"] == "int8"
    assert "slow" in solve_within(found, max_loss=0.005, max_latency_ns=None).values()


def test_a_size_budget_is_met_by_the_least_loss() -> None:
    found = space(Budget.parse(max_size="90%"))
    best = solve_within(found, max_loss=None, max_latency_ns=found.latency_limit_ns)
    assert sorted(best.values()) == ["float16", "float16"]


def test_a_file_that_is_larger_than_predicted_tightens_the_next_plan() -> None:
    first = space(Budget.parse(max_size="80%"))
    chosen = {f"layer{index}": "float16" for index in range(4)}
    found = replace(verdict(1.0, 8_200), failures=("the file is over the size budget",))
    strategy = CpSat(first, [trial(chosen, found)])
    proposed = strategy.propose()
    assert proposed is not None
    assert first.totals(proposed).size_bytes <= 8_000 - 200
    assert first.sized_by(trial(chosen, verdict(1.0, 7_000))).size_limit_bytes == 8_000


def test_greedy_takes_what_saves_most_bytes_for_its_loss() -> None:
    found = steps(space(Budget.parse(objective="size")))
    assert [step.option for step in found[:4]] == ["slow"] * 4  # loses nothing
    by_size = [step.option for step in steps(space(Budget.parse(max_size="80%")))]
    assert by_size == []  # nothing saves time
