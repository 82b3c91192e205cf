"""Fidelity: the definition by hand-made cases, its edges, and its laws."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actcc.accuracy.fidelity import (
    LARGEST_LOSS,
    Fidelity,
    FidelityReference,
    feature_axis,
)
from actcc.calibration import SampleSet
from actcc.errors import DataError


def outputs_of(arrays, name="y"):
    return [{name: array} for array in arrays]


def random_outputs(shape, count=6, seed=0):
    return list(np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32))


def test_identical_outputs_lose_nothing() -> None:
    originals = outputs_of(random_outputs((1, 5, 7)))
    assert FidelityReference(originals).loss(originals) == 0.0


@pytest.mark.parametrize("shape", [(1, 10), (4,), (1, 6, 3), (1, 3, 4, 4)])
def test_noise_of_a_tenth_of_the_signal_energy_loses_a_tenth(shape) -> None:
    signs = np.ones((4, *shape))
    signs[::2] = -1  # mean 0, energy 1 at every position
    noise = np.sqrt(0.1) * np.where(np.random.default_rng(0).random(signs.shape) < 0.5, 1, -1)
    reference = FidelityReference(outputs_of(signs))
    assert reference.loss(outputs_of(signs + noise)) == pytest.approx(0.1)


def test_the_mean_of_each_position_is_no_signal() -> None:
    plain = random_outputs((1, 8))
    grid = np.arange(8, dtype=np.float32) * 100
    noisy = [array + 0.1 for array in plain]
    expected = FidelityReference(outputs_of(plain)).loss(outputs_of(noisy))
    shifted = FidelityReference(outputs_of([array + grid for array in plain]))
    found = shifted.loss(outputs_of([array + grid for array in noisy]))
    assert found == pytest.approx(expected, rel=1e-3)


def test_below_four_samples_the_mean_over_all_elements_is_taken() -> None:
    original = np.array([[0.0, 2.0, 4.0, 6.0]])  # mean 3, energy 20
    reference = FidelityReference(outputs_of([original]))
    assert reference.loss(outputs_of([original + np.array([0, 0, 0, 2])])) == pytest.approx(4 / 20)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((1, 1000), None),
        ((10,), None),
        ((1, 3549, 85), 2),
        ((1, 84, 8400), 1),
        ((1, 4420, 2), 2),
        ((1, 85, 22, 22), 1),  # 22 x 22 is a map
        ((1, 22, 22, 85), 3),
        ((1, 21, 512, 512), 1),
        ((1, 1, 64, 48), 3),
        ((1, 64, 64, 64), 1),
        ((1, 3, 80, 80, 85), 1),
        ((2, 1, 1), None),
    ],
)
def test_the_feature_axis_is_the_smallest_that_is_no_side_of_a_square(shape, axis) -> None:
    assert feature_axis(shape) == axis


def test_features_count_alike_however_large_they_are() -> None:
    originals = np.array(random_outputs((1, 50, 3), count=8)) * [1.0, 30.0, 1000.0]
    reference = FidelityReference(outputs_of(originals))
    energy = np.sum((originals - originals.mean(0)) ** 2, axis=(0, 1, 2)) / 8
    noise = np.zeros(3)
    noise[2] = 500.0
    expected = (50 * 500.0**2 / energy[2]) / 3
    assert reference.loss(outputs_of(originals + noise)) == pytest.approx(expected)


def test_a_rare_feature_is_measured_against_the_median_feature() -> None:
    originals = np.array(random_outputs((1, 50, 5), count=8)) * [1.0, 1.0, 1.0, 1.0, 1e-4]
    reference = FidelityReference(outputs_of(originals))
    noise = np.zeros(5)
    noise[4] = 0.1
    energy = np.sum((originals - originals.mean(0)) ** 2, axis=(0, 1, 2)) / 8
    expected = (50 * 0.1**2 / np.median(energy)) / 5
    assert reference.loss(outputs_of(originals + noise)) == pytest.approx(expected)


@pytest.mark.parametrize("element", [np.int64, bool, np.uint8])
def test_integers_and_booleans_lose_the_share_that_differs(element) -> None:
    original = np.array([[0, 1, 1, 0]]).astype(element)
    changed = np.array([[0, 1, 0, 1]]).astype(element)
    reference = FidelityReference(outputs_of([original, original]))
    assert reference.sample_losses(outputs_of([original, changed])) == [0.0, 0.5]
    assert reference.loss(outputs_of([original, changed])) == 0.25


def test_the_loss_is_the_mean_over_outputs() -> None:
    floats, integers = random_outputs((1, 4)), [np.array([[1, 2]])] * 6
    originals = [{"y": y, "label": label} for y, label in zip(floats, integers, strict=True)]
    reference = FidelityReference(originals)
    changed = [{"y": o["y"], "label": o["label"] + 1, "more": o["y"]} for o in originals]
    assert reference.loss(changed) == 0.5


@given(st.integers(1, 9), st.integers(0, 9), st.sampled_from([(1, 6), (1, 4, 3), (1, 2, 3, 3)]))
def test_single_samples_add_up_to_the_loss_anywhere(count, seed, shape) -> None:
    originals = outputs_of(random_outputs(shape, count, seed))
    changed = outputs_of(random_outputs(shape, count, seed + 100))
    reference = FidelityReference(originals)
    received = pickle.loads(pickle.dumps(reference))
    parts = [received.sample_loss(i, changed[i]) for i in reversed(range(count))]
    assert np.mean(parts) == pytest.approx(reference.loss(changed), rel=1e-12)


@given(st.floats(1e-3, 1e3), st.integers(0, 9))
def test_the_unit_of_an_output_does_not_matter(factor, seed) -> None:
    originals = np.array(random_outputs((1, 5, 3), seed=seed), np.float64)
    changed = np.array(random_outputs((1, 5, 3), seed=seed + 50), np.float64)
    expected = FidelityReference(outputs_of(originals)).loss(outputs_of(changed))
    scaled = FidelityReference(outputs_of(originals * factor))
    assert scaled.loss(outputs_of(changed * factor)) == pytest.approx(expected, rel=1e-9)


def test_a_constant_output_is_measured_against_its_own_size() -> None:
    originals = outputs_of([np.full((1, 4), 10.0, np.float32)] * 5)
    reference = FidelityReference(originals)
    assert reference.loss(originals) == 0.0
    changed = outputs_of([np.full((1, 4), 11.0, np.float32)] * 5)
    assert reference.loss(changed) == pytest.approx(0.01)


def test_an_output_that_is_zero_everywhere_is_measured_against_a_thousandth() -> None:
    originals = outputs_of([np.zeros((1, 4))] * 5)
    reference = FidelityReference(originals)
    assert reference.loss(originals) == 0.0
    assert reference.loss(outputs_of([np.full((1, 4), 1e-3)] * 5)) == pytest.approx(1.0)


def test_features_that_are_constant_do_not_divide_by_zero() -> None:
    originals = np.zeros((6, 1, 50, 5))
    originals[..., 0] = np.array(random_outputs((1, 50), count=6))
    reference = FidelityReference(outputs_of(originals))
    assert reference.loss(outputs_of(originals)) == 0.0
    assert 0 < reference.loss(outputs_of(originals + 1e-6)) < 1e-3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38])
def test_a_broken_sample_loses_the_most_there_is_and_fits_in_json(value) -> None:
    originals = outputs_of(random_outputs((1, 4)))
    reference = FidelityReference(originals)
    changed = [{"y": output["y"].copy()} for output in originals]
    changed[2]["y"][0, 1] = value
    assert reference.sample_loss(2, changed[2]) == LARGEST_LOSS
    loss = reference.loss(changed)
    assert loss == pytest.approx(LARGEST_LOSS / 6)
    assert json.loads(json.dumps(1 - loss, allow_nan=False)) == 1 - loss


def test_elements_that_are_not_finite_in_the_original_do_not_count() -> None:
    rows = random_outputs((1, 4), count=8)
    masked = [row.copy() for row in rows]
    for row in masked:
        row[0, 3] = -np.inf
    masked[5][0, 0] = np.nan
    reference = FidelityReference(outputs_of(masked))
    assert reference.loss(outputs_of(masked)) == 0.0
    assert reference.loss(outputs_of(rows)) == 0.0
    assert 0 < reference.loss(outputs_of([row + 1 for row in rows])) < 10


def test_outputs_of_another_shape_have_lost_everything() -> None:
    originals = [np.ones((count, 4), np.float32) * count for count in (3, 5, 2, 4)]
    reference = FidelityReference(outputs_of(originals))
    changed = [originals[0], originals[1][:-1], originals[2], originals[3]]
    assert reference.sample_losses(outputs_of(changed)) == [0.0, 1.0, 0.0, 0.0]


def test_half_precision_is_measured_in_double() -> None:
    originals = [np.full((1, 4), 6e4 + 100 * i, np.float16) for i in range(5)]
    reference = FidelityReference(outputs_of(originals))
    changed = outputs_of([-array for array in originals])
    assert np.isfinite(reference.loss(changed))
    assert reference.loss(changed) > 1


def test_sequences_and_maps_are_compared_as_one_tensor_each() -> None:
    random = np.random.default_rng(0)
    values = [random.standard_normal(6).astype(np.float32) for _ in range(5)]
    lists = [{"y": [value[:2], value[2:].reshape(2, 2)]} for value in values]
    maps = [{"y": [dict(enumerate(value.tolist()))]} for value in values]
    rows = FidelityReference(outputs_of(values))
    changed = [value + 0.1 for value in values]
    expected = rows.loss(outputs_of(changed))
    found = FidelityReference(lists).loss([{"y": [c[:2], c[2:].reshape(2, 2)]} for c in changed])
    assert found == pytest.approx(expected)
    found = FidelityReference(maps).loss([{"y": [dict(enumerate(c.tolist()))]} for c in changed])
    assert found == pytest.approx(expected, rel=1e-5)
    assert FidelityReference(lists).loss(lists) == 0


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(DataError, match="at least one sample"):
        FidelityReference([])
    with pytest.raises(DataError, match=r"output 'y' is a NoneType and no tensor"):
        FidelityReference([{"y": [None]}])
    reference = FidelityReference(outputs_of(random_outputs((1, 4))))
    with pytest.raises(DataError, match="no output 'y'"):
        reference.sample_loss(0, {"z": np.zeros((1, 4))})
    with pytest.raises(DataError, match="outputs of 1 samples, the original has 6"):
        reference.loss([{"y": np.zeros((1, 4))}])


def test_fidelity_is_one_minus_the_mean_loss_of_the_samples() -> None:
    metric, samples = Fidelity(), SampleSet("arrays", None, ())
    originals = outputs_of(random_outputs((1, 4)))
    changed = [{"y": output["y"] + 0.1 * index} for index, output in enumerate(originals)]
    judge = metric.judge([metric.observe(o, None) for o in originals], samples)
    every = np.arange(len(originals))
    assert judge(originals).value(every) == 1.0
    scores = judge(changed)
    assert scores.value(every) == pytest.approx(1 - FidelityReference(originals).loss(changed))
    assert scores.value(np.array([0, 0])) == 1.0
    assert len(scores) == len(originals)
