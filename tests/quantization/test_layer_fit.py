"""Numbers and bias of one layer in int8."""

from __future__ import annotations

import numpy as np

from actcc.graph import Array
from actcc.quantization.layer_fit import FitSteps, Rounding, Rows, fit_rounded

COLUMNS, OUTPUTS = 6, 4
WHOLE = (-np.inf, np.inf)


def weights() -> Array:
    return np.random.default_rng(1).standard_normal((1, COLUMNS, OUTPUTS))


def problem(keeps: tuple[float, float] = WHOLE, bias: bool = True) -> Rounding:
    matrix = weights()
    offset = np.full((1, OUTPUTS), 0.5) if bias else None
    return Rounding(matrix, offset, np.abs(matrix).max(axis=1) / 15, 15, keeps)


def samples(count: int = 6, shift: float = 0.0, factor: float = 1.0) -> list[Rows]:
    """Inputs in int8 are shifted, and scaled, against those in floating point."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(count):
        exact = random.standard_normal((1, 200, COLUMNS)) + 1
        wanted = exact @ weights() + 0.5
        inputs = exact * factor + shift
        found.append(Rows(inputs.astype(np.float32), wanted.astype(np.float32)))
    return found


def given(rows: Rows, case: Rounding, numbers: Array, bias: Array) -> Array:
    outputs: Array = rows.inputs @ (numbers * case.steps[:, None]) + bias[:, None]
    return np.clip(outputs, *case.keeps)


def test_the_bias_makes_means_behind_the_cut_agree() -> None:
    case, seen = problem(keeps=(0.0, 2.0)), samples(shift=0.3)
    numbers, bias = fit_rounded(case, seen)
    assert bias is not None
    wanted = np.mean([np.clip(rows.wanted, 0, 2).mean(axis=1) for rows in seen], axis=0)
    found = np.mean([given(rows, case, numbers, bias).mean(axis=1) for rows in seen], axis=0)
    np.testing.assert_allclose(found, wanted, atol=0.01)


def test_weights_are_refitted_where_inputs_have_changed() -> None:
    case, seen = problem(), samples(factor=0.7)
    errors = []
    for steps in (FitSteps(), FitSteps(refit=False)):
        numbers, bias = fit_rounded(case, seen, steps)
        assert bias is not None
        off = [given(rows, case, numbers, bias) - rows.wanted for rows in seen]
        errors.append(float(np.square(off).mean()))
    assert errors[0] < 0.7 * errors[1]


def test_weights_stay_where_samples_that_were_not_fitted_gain_nothing() -> None:
    case = problem()
    random = np.random.default_rng(3)
    # Four rows cannot say anything of six columns, and what is wanted is what there is, and noise.
    seen = [
        Rows(rows.inputs[:, :2], rows.wanted[:, :2] + random.normal(0, 5, (1, 2, OUTPUTS)))
        for rows in samples(2)
    ]
    with_fit, without = (fit_rounded(case, seen, FitSteps(refit=refit)) for refit in (True, False))
    np.testing.assert_array_equal(with_fit[0], without[0])


def test_a_layer_without_a_bias_gets_none() -> None:
    numbers, bias = fit_rounded(problem(bias=False), samples())
    assert bias is None
    assert numbers.shape == (1, COLUMNS, OUTPUTS)


def test_one_sample_moves_the_bias_and_nothing_is_refitted() -> None:
    case, seen = problem(), samples(1, shift=0.3)
    numbers, bias = fit_rounded(case, seen, FitSteps(together=False))
    np.testing.assert_array_equal(numbers, np.round(case.matrix / case.steps[:, None]))
    assert bias is not None
    off = given(seen[0], case, numbers, bias) - seen[0].wanted
    assert np.abs(off.mean(axis=1)).max() < 0.02
