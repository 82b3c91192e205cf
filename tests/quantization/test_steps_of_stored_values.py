"""Scales and zero points in the type that a model has, and values seen through a function."""

from __future__ import annotations

import numpy as np
import pytest

from actcc.activations import Activation
from actcc.graph.pairs import StoredAs
from actcc.quantization import Distribution
from actcc.quantization.steps import step_for


@pytest.mark.parametrize(("element", "least"), [("uint8", 0), ("int8", -128)])
def test_a_range_from_0_is_cut_off_at_0_in_either_type(element: str, least: int) -> None:
    like = StoredAs(np.array([0.5], np.float32), np.array([3], element))
    found = step_for((0.0, 5.1), like, symmetric=False)
    assert found.zero_point.dtype == element
    assert found.zero_point.tolist() == [least]
    np.testing.assert_allclose(found.scale, [0.02], rtol=1e-6)
    assert found.cuts_off(0.0, np.inf)


def test_a_symmetric_range_has_the_zero_point_0_and_holds_both_ends() -> None:
    like = StoredAs(np.float32(0.5), np.int8(0))
    found = step_for((-0.3, 12.7), like, symmetric=True)
    assert found.zero_point == 0
    np.testing.assert_allclose(found.scale, 0.1, rtol=1e-6)


def test_values_through_a_function_are_distributed_as_its_values_are() -> None:
    values = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    silu = Activation("Silu")
    seen, direct = Distribution(), Distribution()
    seen.add(values)
    direct.add(silu(values))
    low, high = seen.through(silu).best_range()
    assert (low, high) == pytest.approx(direct.best_range(), rel=0.1)
    assert seen.through(Activation("Relu")).extremes == (0.0, pytest.approx(values.max()))
