"""The order in which units go, against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from actcc.linear.elimination import elimination_order


def problem(units: int, outputs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((units, units)) * random.uniform(0.1, 2, units)
    return mixed @ mixed.T / units, random.standard_normal((units, outputs))


def by_definition(covariance: np.ndarray, weights: np.ndarray, least: int) -> list[int]:
    """Of all units that could go next, the one whose best re-fit of the others loses least."""
    ridge = 1e-3 * covariance.diagonal().mean()
    metric = covariance + ridge * np.eye(len(covariance))
    wanted = metric @ weights
    left, gone = list(range(len(metric))), []

    def error(units: list[int]) -> float:
        inside = metric[np.ix_(units, units)]
        fitted = np.linalg.solve(inside, wanted[units])
        return float(-(fitted * wanted[units]).sum())

    while len(left) > least:
        losses = [error([unit for unit in left if unit != other]) for other in left]
        gone.append(left.pop(int(np.argmin(losses))))
    return gone


@given(seed=st.integers(0, 2**16), units=st.integers(3, 14), outputs=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_the_unit_of_the_least_loss_goes_first(seed: int, units: int, outputs: int) -> None:
    covariance, weights = problem(units, outputs, seed)
    order = elimination_order(covariance, weights, 2)
    assert sorted(order) == list(range(units))
    assert list(order[:1:-1]) == by_definition(covariance, weights, 2)


def test_many_units_go_in_the_same_order_as_few_at_a_time() -> None:
    covariance, weights = problem(120, 10, 0)
    order = elimination_order(covariance, weights, 8)
    assert list(order[:7:-1])[:40] == by_definition(covariance, weights, 80)


@pytest.mark.parametrize("still", ["one", "all"])
def test_units_that_never_move_go_first(still: str) -> None:
    covariance, weights = problem(6, 3, 0)
    moving = np.ones(6) if still == "one" else np.zeros(6)
    moving[4] = 0
    order = elimination_order(covariance * np.outer(moving, moving), weights, 1)
    assert sorted(order) == list(range(6))
    assert still == "all" or order[-1] == 4


def test_the_order_of_equals_does_not_depend_on_the_number_of_threads() -> None:
    random = np.random.default_rng(0)
    rows, outgoing = random.standard_normal((2000, 256)), random.standard_normal((256, 300))
    covariance = np.cov(np.hstack([rows, rows]), rowvar=False)
    orders = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            orders.append(elimination_order(covariance, np.vstack([outgoing, outgoing]), 128))
    np.testing.assert_array_equal(*orders)
