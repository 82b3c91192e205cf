"""Which activations are non-decreasing."""

from __future__ import annotations

import numpy as np
import pytest

from actcc.activations import Activation
from actcc.activations.functions import NAMES
from actcc.activations.movement import is_non_decreasing

X = np.linspace(-6, 6, 24001)
PARAMETERS = {
    "Clip": [{"min": -1.0}, {"max": 2.0}, {"min": 1.0, "max": -1.0}],
    "LeakyRelu": [{"alpha": 0.1}, {"alpha": -0.1}, {"alpha": 0.0}],
    "ThresholdedRelu": [{"alpha": 1.0}, {"alpha": -1.0}],
    "Elu": [{"alpha": 1.0}, {"alpha": -1.0}],
    "Selu": [{}, {"alpha": -1.0}, {"gamma": -1.0}],
    "Celu": [{"alpha": 2.0}],
    "HardSigmoid": [{"alpha": 0.2}, {"alpha": -0.2}],
}
FUNCTIONS = [
    Activation.of(name, **parameters)
    for name in NAMES
    if name not in ("PRelu", "Identity")
    for parameters in PARAMETERS.get(name, [{}])
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=str)
def test_non_decreasing_is_what_the_values_say(function: Activation) -> None:
    assert is_non_decreasing(function) is bool((np.diff(function(X)) >= 0).all())


def test_what_has_a_slope_for_each_channel_is_not_taken_for_non_decreasing() -> None:
    slopes = (("trailing_axes", 2.0), ("slope", 0.1), ("slope", 0.2))
    assert not is_non_decreasing(Activation("PRelu", slopes))
