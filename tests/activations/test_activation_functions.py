from __future__ import annotations

import math

import numpy as np
import pytest

from actcc.activations import Activation
from actcc.activations.error_function import erf
from actcc.activations.functions import NAMES
from actcc.errors import PassError


def test_erf_agrees_with_the_c_library_to_the_last_bits():
    x = np.concatenate([np.linspace(-7, 7, 20001), [0.0, np.inf, -np.inf]])
    expected = [math.erf(value) for value in x]
    np.testing.assert_allclose(erf(x), expected, rtol=1e-15, atol=0)


def test_erf_keeps_nan_shape_and_precision():
    values = erf(np.array([[np.nan, 1.0]], np.float32))
    assert values.dtype == np.float32
    assert values.shape == (1, 2)
    assert np.isnan(values[0, 0])


@pytest.mark.parametrize(
    ("activation", "x", "expected"),
    [
        (Activation("Silu"), 1.0, 1 / (1 + math.exp(-1))),
        (Activation("Silu"), -800.0, 0.0),
        (Activation("QuickGelu"), 2.0, 2 / (1 + math.exp(-3.404))),
        (Activation("Gelu"), -1.5, -1.5 * 0.5 * math.erfc(1.5 / math.sqrt(2))),
        (Activation("GeluTanh"), 1.0, 0.8411919906082768),
        (Activation("Mish"), 1.0, math.tanh(math.log1p(math.e))),
        (Activation("HardSwish"), 1.5, 1.5 * 4.5 / 6),
        (Activation("Softplus"), 1000.0, 1000.0),
        (Activation.of("Elu", alpha=2.0), -1.0, 2 * math.expm1(-1)),
        (Activation.of("Celu", alpha=2.0), -1.0, 2 * math.expm1(-0.5)),
        (Activation.of("Clip", max=2.0), 5.0, 2.0),
        (Activation.of("ThresholdedRelu", alpha=1.0), 1.0, 0.0),
        (Activation("Identity"), -3.25, -3.25),
    ],
)
def test_values_in_double_precision(activation, x, expected):
    assert activation(np.array([x]))[0] == pytest.approx(expected, rel=1e-14, abs=1e-300)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("Clip", "PRelu")])
def test_values_keep_type_and_shape_of_the_input(name, dtype):
    x = np.linspace(-4, 4, 24, dtype=dtype).reshape(2, 3, 4)
    values = Activation(name)(x)
    assert values.dtype == dtype
    assert values.shape == x.shape
    double = Activation(name)(x.astype(np.float64))
    tolerance = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(values, double, rtol=tolerance, atol=2 * tolerance)


def test_prelu_has_one_slope_for_each_channel():
    slopes = (("slope", 0.5), ("slope", 0.25))
    activation = Activation("PRelu", (("trailing_axes", 1.0), *slopes))
    x = -np.ones((1, 2, 3), np.float32)
    np.testing.assert_array_equal(activation(x)[0, :, 0], [-0.5, -0.25])


def test_defaults_are_those_of_onnx_so_that_equal_functions_are_equal_values():
    assert Activation("LeakyRelu") == Activation.of("LeakyRelu", alpha=0.01)
    assert Activation.of("HardSigmoid", beta=0.5) == Activation("HardSigmoid")
    assert str(Activation.of("LeakyRelu", alpha=0.1)) == "LeakyRelu(alpha=0.1)"


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("Swish", {}, "there is no activation 'Swish'"),
        ("Relu", {"alpha": 1.0}, r"Relu takes the parameters \(\), not \(alpha\)"),
        ("Clip", {}, r"Clip takes the parameters \(min, max\)"),
    ],
)
def test_unknown_names_and_parameters_are_refused(name, parameters, message):
    with pytest.raises(PassError, match=message):
        Activation.of(name, **parameters)


def test_a_missing_parameter_is_an_error():
    with pytest.raises(PassError, match="has no parameter 'max'"):
        Activation.of("Clip", min=0.0).parameter("max")
