"""The allowance finds the largest predicted loss whose measured drop holds."""

import math
from collections.abc import Callable

import pytest

from actcc.trials import Allowance, LatencyAllowance

BUDGET = 0.01


def search(drop: Callable[[float], float], trials: int = 8) -> list[float]:
    """Allowances that held, for a network whose drop is a function of the allowance."""
    allowance = Allowance.first(BUDGET)
    held = []
    for _ in range(trials):
        if allowance.settled:
            break
        measured = drop(allowance.value)
        if measured <= BUDGET:
            held.append(allowance.value)
        allowance.learn(held=measured <= BUDGET, spent=measured / BUDGET)
    return held


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0, 30.0])
def test_losses_that_grow_in_proportion_use_most_of_the_budget(factor: float) -> None:
    best = max(search(lambda allowance: factor * allowance))
    assert 0.85 * BUDGET <= factor * best <= BUDGET


def test_losses_that_grow_with_the_square_use_most_of_the_budget() -> None:
    best = max(search(lambda allowance: (allowance / 0.004) ** 2 * BUDGET))
    assert best == pytest.approx(0.004, rel=0.15)


def test_an_allowance_that_never_holds_goes_down_and_never_up() -> None:
    allowance = Allowance.first(BUDGET)
    values = []
    for _ in range(8):
        allowance.learn(held=False, spent=math.inf)
        values.append(allowance.value)
    assert values == sorted(values, reverse=True)
    assert values[-1] > 0


def test_an_improved_metric_raises_the_allowance() -> None:
    allowance = Allowance.first(BUDGET)
    before = allowance.value
    allowance.learn(held=True, spent=-0.5)
    assert allowance.value == pytest.approx(4 * before)


def test_a_predicted_latency_is_corrected_by_the_measured_one() -> None:
    allowance = LatencyAllowance(100.0)
    for _ in range(4):
        if not allowance.settled:
            spent = 1.2 * allowance.value / 100.0
            allowance.learn(held=spent <= 1.0, spent=spent)
    assert allowance.settled
