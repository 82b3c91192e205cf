"""Weights rounded with a view to each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actcc.graph import Array
from actcc.quantization.rounding import round_weights


def rows(groups: int, columns: int, seed: int = 0) -> Array:
    """Inputs that go together: a few causes, many columns."""
    random = np.random.default_rng(seed)
    causes = random.standard_normal((groups, 400, max(columns // 3, 1)))
    mixed = causes @ random.standard_normal((groups, causes.shape[2], columns))
    return mixed + 0.1 * random.standard_normal(mixed.shape)


def gram_of(inputs: Array) -> Array:
    return inputs.transpose(0, 2, 1) @ inputs / inputs.shape[1]


def error(inputs: Array, weights: Array, numbers: Array, steps: Array) -> float:
    return float(np.square(inputs @ (numbers * steps[:, None] - weights)).mean())


@pytest.mark.parametrize(("groups", "columns", "outputs"), [(1, 30, 8), (1, 150, 4), (6, 9, 1)])
def test_outputs_lose_less_than_by_rounding_to_the_nearest(
    groups: int, columns: int, outputs: int
) -> None:
    inputs = rows(groups, columns)
    weights = np.random.default_rng(1).standard_normal((groups, columns, outputs))
    steps = np.abs(weights).max(axis=1) / 7
    numbers = round_weights(gram_of(inputs), weights, steps, 7)
    nearest = np.clip(np.round(weights / steps[:, None]), -7, 7)
    together = error(inputs, weights, numbers, steps)
    assert together < 0.6 * error(inputs, weights, nearest, steps)


def test_weights_of_inputs_that_have_nothing_in_common_are_rounded_to_the_nearest() -> None:
    weights = np.random.default_rng(0).standard_normal((2, 20, 3))
    steps = np.full((2, 3), 0.05)
    numbers = round_weights(np.stack([np.eye(20)] * 2), weights, steps, 127)
    np.testing.assert_array_equal(numbers, np.round(weights / 0.05))


@settings(deadline=None, max_examples=25)
@given(
    groups=st.integers(1, 4),
    columns=st.integers(1, 70),
    outputs=st.integers(1, 5),
    highest=st.sampled_from([1, 63, 127]),
    dead=st.booleans(),
)
def test_numbers_are_whole_and_within_bounds(
    groups: int, columns: int, outputs: int, highest: int, dead: bool
) -> None:
    inputs = rows(groups, columns) * (0.0 if dead else 1.0)
    weights = 3 * np.random.default_rng(2).standard_normal((groups, columns, outputs))
    steps = np.full((groups, outputs), 0.02)
    before = weights.copy()
    numbers = round_weights(gram_of(inputs), weights, steps, highest)
    assert numbers.shape == weights.shape
    np.testing.assert_array_equal(numbers, np.round(numbers))
    assert np.abs(numbers).max() <= highest
    np.testing.assert_array_equal(weights, before)


def test_groups_do_not_see_each_other() -> None:
    inputs = rows(3, 9)
    weights = np.random.default_rng(1).standard_normal((3, 9, 2))
    steps = np.abs(weights).max(axis=1) / 15
    whole = round_weights(gram_of(inputs), weights, steps, 15)
    for group in range(3):
        one = slice(group, group + 1)
        alone = round_weights(gram_of(inputs[one]), weights[one], steps[one], 15)
        np.testing.assert_array_equal(whole[one], alone)
