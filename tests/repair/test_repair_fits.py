"""The fits of single layers as functions of arrays: what they find, and what they leave alone."""

from __future__ import annotations

import numpy as np
import pytest

from actcc.activations import Activation
from actcc.repair.affine import affine_fit
from actcc.repair.asymmetric import asymmetric_fit
from actcc.repair.ridge import NormalEquations, input_slopes

SILU, RELU, HARD_SWISH = (Activation.of(name) for name in ("Silu", "Relu", "HardSwish"))


def random(seed=0):
    return np.random.default_rng(seed)


def layer(rows, outputs=5, seed=1):
    """Weights [1, columns, outputs], bias [1, outputs], and what they make of rows."""
    source = random(seed)
    matrix = source.standard_normal((1, rows.shape[-1], outputs))
    bias = source.standard_normal((1, outputs))
    return matrix, bias, (rows @ matrix + bias[:, None]).astype(np.float32)


def rows_of(count=2000, columns=8):
    return random().standard_normal((1, count, columns)).astype(np.float32)


# ---------------------------------------------------------------- ridge


def test_a_layer_is_recovered_exactly_where_rows_allow_it():
    rows = rows_of()
    matrix, bias, targets = layer(rows)
    found, offset = NormalEquations(rows, 1e-9).solve(targets, np.zeros(matrix.shape))
    np.testing.assert_allclose(found, matrix, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(offset, bias, rtol=1e-5, atol=1e-5)


def test_a_layer_that_is_right_already_stays_whatever_the_strength():
    rows = rows_of(count=5)  # fewer than columns
    matrix, bias, targets = layer(rows)
    for strength in (1e-2, 1.0):
        found, offset = NormalEquations(rows, strength).solve(targets, matrix)
        np.testing.assert_allclose(found, matrix, rtol=0, atol=1e-4)
        np.testing.assert_allclose(offset, bias, rtol=0, atol=1e-4)


def test_groups_are_systems_of_their_own():
    rows = random().standard_normal((6, 500, 9)).astype(np.float32)
    targets = random(1).standard_normal((6, 500, 2)).astype(np.float32)
    start = random(2).standard_normal((6, 9, 2))
    together = NormalEquations(rows, 1e-2).solve(targets, start)
    for group in range(6):
        where = slice(group, group + 1)
        alone = NormalEquations(rows[where], 1e-2).solve(targets[where], start[where])
        np.testing.assert_allclose(together[0][where], alone[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(together[1][where], alone[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, -3e4])
def test_constant_columns_keep_their_weights(value):
    rows = rows_of()
    rows[:, :, 2] = value
    matrix, _, targets = layer(rows)
    start = matrix + random(3).standard_normal(matrix.shape)
    equations = NormalEquations(rows, 1e-8)
    found, offset = equations.solve(targets, start)
    np.testing.assert_allclose(found[:, 2], start[:, 2], rtol=1e-6)
    bound = 1e-5 * max(1.0, abs(value) / 100)
    assert np.abs(np.delete(found - matrix, 2, axis=1)).max() < bound
    bound = 1e-5 * max(1.0, abs(value))
    np.testing.assert_allclose(equations.outputs(found, offset), targets, rtol=0, atol=bound)


def test_of_columns_that_are_equal_the_sum_is_found_and_the_difference_stays():
    rows = rows_of()
    rows[:, :, 3] = rows[:, :, 4]
    matrix, _, targets = layer(rows)
    start = matrix + random(3).standard_normal(matrix.shape)
    found, _ = NormalEquations(rows, 1e-8).solve(targets, start)
    np.testing.assert_allclose(found[:, 3:5].sum(1), matrix[:, 3:5].sum(1), rtol=0, atol=1e-4)
    difference = start[:, 3] - start[:, 4]
    np.testing.assert_allclose(found[:, 3] - found[:, 4], difference, rtol=0, atol=1e-3)


@pytest.mark.parametrize("mean", [10.0, 1e3])
def test_columns_that_hardly_vary_around_a_large_mean_spoil_no_others(mean):
    rows = rows_of()
    rows[:, :, 0] = mean + 1e-2 * rows[:, :, 0]
    rows[:, :, 1] += mean
    matrix, _, targets = layer(rows)
    start = matrix + 0.1 * random(3).standard_normal(matrix.shape)
    found, _ = NormalEquations(rows, 1e-6).solve(targets, start)
    assert np.abs(found - matrix)[:, 1:].max() < 5e-5
    assert np.abs(found - matrix)[:, 0].max() < np.abs(start - matrix)[:, 0].max()


def test_a_layer_that_reads_nothing_but_zeros_keeps_its_weights():
    rows = np.zeros((3, 100, 4), np.float32)
    start = random().standard_normal((3, 4, 2))
    targets = random(1).standard_normal((3, 100, 2)).astype(np.float32)
    found, offset = NormalEquations(rows, 1e-2).solve(targets, start)
    np.testing.assert_array_equal(found, start)
    np.testing.assert_allclose(offset, targets.mean(axis=1), rtol=1e-5, atol=1e-6)


def test_slopes_are_what_inputs_were_of_what_they_are():
    rows = random().standard_normal((2, 400, 12)).astype(np.float32)
    factors = np.array([[2.0, 0.5, -1.0], [1.0, 3.0, 20.0]], np.float32)
    original = rows * np.repeat(factors, 4, axis=1)[:, None] + 7
    found = input_slopes(rows, original, taps=4)
    expected = np.repeat(np.clip(factors, -10, 10), 4, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 5.0, 1e4])
def test_of_a_constant_input_the_slope_is_one(value):
    rows = np.full((1, 400, 4), value, np.float32)
    original = random().standard_normal((1, 400, 4)).astype(np.float32)
    np.testing.assert_array_equal(input_slopes(rows, original, taps=1), np.ones((1, 4)))


def test_the_slope_of_an_input_that_hardly_varies_is_found():
    rows = (1e3 + random().standard_normal((1, 4000, 4))).astype(np.float32)
    np.testing.assert_allclose(input_slopes(rows, 2 * rows, taps=1), 2, rtol=1e-3)


# ---------------------------------------------------------------- affine


def missed(before, after, values, found, *, centred):
    """Mean square of what a channel misses, as a share of the variance of what it is to give."""
    wanted = before(values)
    off = wanted - found.gain * after(found.scale * values + found.shift)
    error = off.var(axis=0) if centred else np.square(off).mean(axis=0)
    return error / wanted.var(axis=0)


def channels(means=(0.0,), spreads=(1.0,), count=4000):
    values = random().standard_normal((count, len(means)))
    return (values * np.array(spreads) + np.array(means)).astype(np.float32)


def test_where_silu_is_nearly_straight_relu_tracks_it():
    values = channels(means=(3.0, 0.6, 0.0), spreads=(0.3, 0.1, 0.05))
    found = affine_fit(SILU, RELU, values, gain_is_free=False, offset_is_free=True)
    assert missed(SILU, RELU, values, found, centred=True).max() < 0.004
    np.testing.assert_array_equal(found.gain, 1)


def test_relu_tracks_silu_much_better_than_unfitted_on_any_channel():
    values = channels(means=(-2, -1, 0, 1, 2), spreads=(0.5, 1.0, 0.7, 2.0, 1.0))
    found = affine_fit(SILU, RELU, values, gain_is_free=False, offset_is_free=True)
    plain = (SILU(values) - RELU(values)).var(axis=0) / SILU(values).var(axis=0)
    share = missed(SILU, RELU, values, found, centred=True) / plain
    assert share.max() < 0.85
    assert share.mean() < 0.5


def test_an_offset_that_nothing_absorbs_is_not_made():
    values = channels(means=(-0.5, 0.5), spreads=(1.0, 1.0))
    free, paid = (
        affine_fit(SILU, RELU, values, gain_is_free=False, offset_is_free=is_free)
        for is_free in (True, False)
    )
    offsets = [
        np.abs((SILU(values) - RELU(f.scale * values + f.shift)).mean(axis=0)) for f in (free, paid)
    ]
    assert (offsets[1] < offsets[0]).all()
    errors = [missed(SILU, RELU, values, f, centred=False) for f in (free, paid)]
    assert (errors[1] <= errors[0] + 1e-3).all()


def test_a_gain_is_found_only_where_it_is_free():
    """2 · Relu6(z) is out of reach of Relu6 itself, and of any scale and shift in it."""
    relu6 = Activation.of("Relu6")
    values = channels(means=(3.0,), spreads=(4.0,))
    held, free = (
        affine_fit(SILU, relu6, values, gain_is_free=is_free, offset_is_free=True)
        for is_free in (False, True)
    )
    np.testing.assert_array_equal(held.gain, 1)
    assert free.gain[0] > 1.2
    errors = [missed(SILU, relu6, values, f, centred=True)[0] for f in (held, free)]
    assert errors[1] < 0.3 * errors[0]


def test_the_same_function_is_left_as_it_is():
    values = channels(means=(-1, 0, 1), spreads=(1, 1, 1))
    for function in (RELU, SILU, HARD_SWISH):
        found = affine_fit(function, function, values, gain_is_free=True, offset_is_free=False)
        np.testing.assert_array_equal(found.scale, 1)
        np.testing.assert_array_equal(found.shift, 0)
        np.testing.assert_allclose(found.gain, 1, rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, -7.0, 4.0, 1e4])
def test_a_channel_that_is_constant_gives_finite_numbers(value):
    values = np.full((50, 2), value, np.float32)
    found = affine_fit(SILU, RELU, values, gain_is_free=True, offset_is_free=False)
    for part in (found.scale, found.shift, found.gain):
        assert np.isfinite(part).all()
    given = found.gain * RELU(found.scale * values + found.shift)
    assert np.abs(given - SILU(values)).max() <= np.abs(RELU(values) - SILU(values)).max() + 1e-6


@pytest.mark.parametrize("scale", [1e20, 1e30, 1e-30])
def test_huge_and_tiny_values_give_finite_numbers(scale):
    values = channels(means=(0.0, 1.0), spreads=(1.0, 1.0)) * np.float32(scale)
    with np.errstate(over="ignore", invalid="ignore"):
        found = affine_fit(SILU, RELU, values, gain_is_free=True, offset_is_free=True)
    for part in (found.scale, found.shift, found.gain):
        assert np.isfinite(part).all()


def test_a_single_row_is_enough():
    found = affine_fit(SILU, RELU, channels(count=1), gain_is_free=False, offset_is_free=False)
    assert np.isfinite([found.scale, found.shift, found.gain]).all()


# ---------------------------------------------------------------- asymmetric


def activation_error(equations, after, wanted, fitted, *, free):
    off = wanted - after(equations.outputs(*fitted))
    return off.var(axis=1) if free else np.square(off).mean(axis=1)


@pytest.mark.parametrize("offset_is_free", [True, False])
@pytest.mark.parametrize("after", [RELU, HARD_SWISH, Activation.of("LeakyRelu")], ids=str)
def test_no_output_ends_worse_than_it_starts(after, offset_is_free):
    rows = rows_of()
    matrix, bias, targets = layer(rows)
    wanted = SILU(targets)
    for seed in range(3):
        start = (
            matrix + 0.3 * random(seed).standard_normal(matrix.shape),
            bias + 0.3 * random(seed + 9).standard_normal(bias.shape),
        )
        equations = NormalEquations(rows, 1e-2)
        found = asymmetric_fit(
            equations, after, wanted, 0.0, start, start[0], rounds=5, offset_is_free=offset_is_free
        )
        before, behind = (
            activation_error(equations, after, wanted, fitted, free=offset_is_free)
            for fitted in (start, found)
        )
        assert (behind <= before * (1 + 1e-4) + 1e-7).all()
        assert behind.sum() < 0.8 * before.sum()


def test_a_layer_behind_relu_is_recovered_from_what_comes_out_of_the_relu():
    rows = rows_of()
    matrix, bias, targets = layer(rows)
    start = (matrix + 0.2 * random(3).standard_normal(matrix.shape), bias)
    found = asymmetric_fit(
        NormalEquations(rows, 1e-6),
        RELU,
        RELU(targets),
        0.0,
        start,
        start[0],
        rounds=60,
        offset_is_free=False,
    )
    assert np.abs(found[0] - matrix).max() < 0.02
    assert np.abs(found[1] - bias).max() < 0.02


def test_what_is_added_before_the_activation_is_taken_into_account():
    rows = rows_of()
    matrix, bias, targets = layer(rows)
    added = random(5).standard_normal(targets.shape).astype(np.float32)
    equations = NormalEquations(rows, 1e-6)
    found = asymmetric_fit(
        equations,
        RELU,
        RELU(targets + added),
        added,
        (0.7 * matrix, bias),
        0.7 * matrix,
        rounds=60,
        offset_is_free=False,
    )
    assert np.abs(found[0] - matrix).max() < 0.05


def test_an_offset_that_is_free_does_not_count():
    rows = rows_of()
    matrix, bias, targets = layer(rows)
    wanted = RELU(targets) + 3
    found = asymmetric_fit(
        NormalEquations(rows, 1e-6),
        RELU,
        wanted,
        0.0,
        (matrix, bias),
        matrix,
        rounds=4,
        offset_is_free=True,
    )
    np.testing.assert_allclose(found[0], matrix, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found[1], bias, rtol=0, atol=1e-4)


def test_outputs_that_are_dead_keep_finite_weights():
    rows = rows_of()
    matrix, bias, targets = layer(rows)
    dead = (matrix, bias - 100)
    equations = NormalEquations(rows, 1e-2)
    found = asymmetric_fit(
        equations, RELU, np.zeros_like(targets), 0.0, dead, matrix, rounds=3, offset_is_free=False
    )
    assert (RELU(equations.outputs(*found)) == 0).all()
    assert all(np.isfinite(part).all() for part in found)
    revived = asymmetric_fit(
        equations, RELU, RELU(targets), 0.0, dead, matrix, rounds=3, offset_is_free=False
    )
    assert all(np.isfinite(part).all() for part in revived)


def test_without_rounds_it_stays_where_it_starts():
    rows = rows_of()
    matrix, bias, targets = layer(rows)
    found = asymmetric_fit(
        NormalEquations(rows, 1e-2),
        RELU,
        targets,
        0.0,
        (matrix, bias),
        matrix,
        rounds=0,
        offset_is_free=True,
    )
    np.testing.assert_array_equal(found[0], matrix)
    np.testing.assert_array_equal(found[1], bias)
