"""An allowance starts from what trials under other budgets have measured."""

import math

import pytest

from actcc.trials import Allowance


def known(budget: float, *drops: tuple[float, float]) -> list[tuple[float, bool, float]]:
    """Trials (predicted loss, measured drop) as a search under `budget` sees them."""
    return [(loss, drop <= budget, drop / budget) for loss, drop in drops]


def test_without_trials_it_starts_as_ever() -> None:
    assert Allowance.warm(0.01, []) == Allowance.first(0.01)


def test_a_wider_budget_starts_above_what_held() -> None:
    allowance = Allowance.warm(0.02, known(0.02, (0.004, 0.009), (0.005, 0.012)))
    assert allowance.low == 0.005
    assert math.isinf(allowance.high)
    assert allowance.value > 0.005


def test_between_what_held_and_what_did_not_the_guess_is_in_proportion() -> None:
    allowance = Allowance.warm(0.02, known(0.02, (0.004, 0.008), (0.012, 0.030)))
    assert (allowance.low, allowance.high) == (0.004, 0.012)
    assert 0.004 < allowance.value < 0.012
    # A unit of loss spends 100 and 125 budgets; the second, closer to the budget, counts more.
    assert allowance.value == pytest.approx(0.95 / 120.8, rel=0.001)


def test_one_unlucky_trial_near_the_border_does_not_move_the_guess_alone() -> None:
    lucky = known(0.02, (0.006, 0.012), (0.008, 0.015), (0.009, 0.017), (0.013, 0.024))
    unlucky = known(0.02, (0.006, 0.012), (0.008, 0.015), (0.009, 0.017), (0.013, 0.036))
    assert Allowance.warm(0.02, unlucky).value > 0.9 * Allowance.warm(0.02, lucky).value


def test_a_trial_that_lost_by_chance_bounds_nothing_below_one_that_held() -> None:
    allowance = Allowance.warm(0.02, known(0.02, (0.003, 0.025), (0.006, 0.010)))
    assert allowance.low == 0.006
    assert allowance.high > allowance.low


def test_plans_that_lose_nothing_by_prediction_say_nothing() -> None:
    assert Allowance.warm(0.01, known(0.01, (0.0, 0.0), (0.0, 0.02))) == Allowance.first(0.01)


def test_a_known_border_needs_no_further_trial() -> None:
    assert Allowance.warm(0.02, known(0.02, (0.0100, 0.019), (0.0105, 0.021))).settled
