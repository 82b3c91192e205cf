"""The algebra of convolutions, without a graph."""

from __future__ import annotations

import numpy as np
import pytest

from actcc.graph import Array
from actcc.linear import (
    Axis,
    Convolution,
    Obstacle,
    add,
    added_weights,
    average,
    common_axis,
    compose,
    composed_axis,
    composed_weights,
    identity,
    on_axes,
    per_channel,
    regrouped,
)


def convolution(axis: Axis, inputs: int = 4, outputs: int = 4, groups: int = 1) -> Convolution:
    random = np.random.default_rng(0)
    weights = random.standard_normal((outputs, inputs // groups, axis.kernel))
    return on_axes(weights, random.standard_normal(outputs), [axis], groups)


def computed(layer: Convolution, x: Array) -> Array:
    """By the definition, for one spatial axis; [inputs, size] → [outputs, size]."""
    (axis,), channels = layer.axes, layer.weights.shape[1]
    padded = np.pad(x, ((0, 0), (axis.before, axis.after)))
    rows = []
    for row in range(layer.outputs):
        start = row // (layer.outputs // layer.groups) * channels
        rows.append(
            [
                layer.bias[row]
                + sum(
                    layer.weights[row, :, tap]
                    @ padded[start : start + channels, at * axis.stride + tap * axis.dilation]
                    for tap in range(axis.kernel)
                )
                for at in range(axis.outputs(x.shape[1]))
            ]
        )
    return np.asarray(rows)


X = np.random.default_rng(1).standard_normal((4, 9))


def test_groups_are_written_as_one_with_zeros() -> None:
    grouped = convolution(Axis(3, before=1, after=1), groups=4)
    for groups in (1, 2):
        wide = regrouped(grouped, groups)
        assert wide.weights.shape == (4, 4 // groups, 3)
        np.testing.assert_allclose(computed(wide, X), computed(grouped, X))


def test_the_identity_and_the_mean_are_convolutions() -> None:
    np.testing.assert_array_equal(computed(identity(4, 1), X), X)
    mean = computed(average(4, [Axis(3, stride=2)]), X)
    np.testing.assert_allclose(mean, [[row[i : i + 3].mean() for i in (0, 2, 4, 6)] for row in X])


def test_what_a_composition_weighs_is_known_before() -> None:
    first = convolution(Axis(3, stride=2, dilation=2, before=2), outputs=6, groups=2)
    second = convolution(Axis(2), inputs=6, outputs=9, groups=3)
    merged = compose(first, second, [9])
    assert isinstance(merged, Convolution)
    assert merged.weights.size == composed_weights(first, second)
    assert merged.axes == (composed_axis(*first.axes, *second.axes),)
    np.testing.assert_allclose(computed(merged, X), computed(second, computed(first, X)))


def test_what_a_sum_weighs_is_known_before() -> None:
    terms = [
        convolution(Axis(3, dilation=2, before=2, after=2), groups=2),
        per_channel(np.arange(4.0), np.ones(4), 1),
    ]
    merged = add(terms, [None])
    assert isinstance(merged, Convolution)
    assert merged.weights.size == added_weights(terms, [None])
    np.testing.assert_allclose(computed(merged, X), sum(computed(term, X) for term in terms))


def test_a_padded_layer_takes_in_one_that_is_zero_there() -> None:
    """With the padding k − 1 nothing of the input is seen from beyond the first one's outputs."""
    first = convolution(Axis(3, before=2, after=2))
    bare = on_axes(first.weights, np.zeros(4), first.axes, 1)
    second = convolution(Axis(3, before=1, after=1))
    for sizes in ([9], [None]):
        assert isinstance(compose(first, second, sizes), Obstacle)
        merged = compose(bare, second, sizes)
        assert isinstance(merged, Convolution)
        np.testing.assert_allclose(computed(merged, X), computed(second, computed(bare, X)))


@pytest.mark.parametrize("size", [9, None])
def test_padding_that_no_output_reaches_is_no_obstacle(size: int | None) -> None:
    """At stride 2 the last zero is not read where the size is even; one has to know it, though."""
    first = convolution(Axis(2))
    second = convolution(Axis(2, stride=2, after=1))
    merged = compose(first, second, [size])
    assert isinstance(merged, Obstacle) == (size is None)


def test_outputs_of_one_size_at_a_stride_may_come_of_different_pads() -> None:
    short, long = Axis(2, stride=2), Axis(3, stride=2, before=1, after=1)
    found = common_axis([short, long], 8)
    assert isinstance(found, Axis)
    assert (found.kernel, found.outputs(8)) == (3, 4)
    assert isinstance(common_axis([short, long], 9), Obstacle)
    assert isinstance(common_axis([short, long], None), Obstacle)
