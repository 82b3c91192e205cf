"""Losses are shares of what a constant would lose, and weights have one scale."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'actcc[distill]'")

from networks import Builder  # noqa: E402

from actcc.graph import Graph  # noqa: E402
from actcc.repair.distill.losses import Losses  # noqa: E402
from actcc.repair.distill.matching import Feature, Leaf, OutputGroup  # noqa: E402
from actcc.repair.distill.parameters import free_parameters  # noqa: E402
from actcc.repair.layers import find_layers  # noqa: E402

GENERATOR = torch.Generator().manual_seed(0)
VALUES = torch.randn(4, 3, 8, 8, generator=GENERATOR) * torch.tensor([1, 3, 0.5])[:, None, None]
DETECTOR = OutputGroup(
    (Leaf("box", "value"), Leaf("seen", "sigmoid"), Leaf("class", "sigmoid")), axis=1
)


def detections(seen: float) -> dict[str, torch.Tensor]:
    """Two positions: at the first something is seen."""
    objectness = torch.tensor([[[seen, 0.001]]])
    classes = torch.tensor([[[0.9, 0.9], [0.1, 0.1]]])
    return {"box": torch.tensor([[[5.0, 1.0]]]), "seen": objectness, "class": classes}


def share(losses: Losses, found: torch.Tensor, target: torch.Tensor) -> float:
    """The term of feature `x`, without its logarithm."""
    return float(losses.total({"x": found}, {"x": target}).exp()) - 1e-4


def test_a_feature_that_agrees_loses_nothing_and_a_constant_loses_all_of_it():
    losses = Losses.of([Feature("x", 1)], [], {"x": VALUES})

    same = share(losses, VALUES, VALUES)
    constant = share(losses, torch.zeros_like(VALUES), VALUES)

    assert same == pytest.approx(0, abs=1e-6)
    assert constant == pytest.approx(0.9, abs=0.1)


def test_a_feature_is_compared_free_of_its_channels_means():
    losses = Losses.of([Feature("x", 1)], [], {"x": VALUES})
    shifted = VALUES + torch.tensor([3.0, -20.0, 0.5])[:, None, None]

    assert share(losses, shifted, VALUES) == pytest.approx(0, abs=1e-4)


def test_the_mean_counts_where_a_channel_is_a_single_value():
    pooled = VALUES.mean((2, 3))
    losses = Losses.of([Feature("x", -1)], [], {"x": pooled})

    assert share(losses, pooled + 1, pooled) > 0.1


def test_an_error_counts_where_the_original_is_sure():
    targets = detections(seen=0.9)
    losses = Losses.of([], [DETECTOR], targets)

    def loss(name: str, position: int) -> float:
        found = {key: value.clone() for key, value in targets.items()}
        found[name][0, 0, position] *= 0.5
        return float(losses.outputs(found, targets))

    assert float(losses.outputs(targets, targets)) == pytest.approx(0, abs=1e-6)
    assert loss("class", 0) > 5 * loss("class", 1)
    assert loss("box", 0) > 50 * loss("box", 1)


def test_each_kind_of_error_counts_by_what_is_left_of_it():
    targets = detections(seen=0.9)
    losses = Losses.of([], [DETECTOR], targets)

    def gain(name: str) -> float:
        """What it brings to make one error, of two that are there, a tenth."""
        found = {key: value * 0.9 for key, value in targets.items()}
        better = {**found, name: targets[name] * 0.99}
        return float(losses.total(found, targets) - losses.total(better, targets))

    assert gain("box") > 1
    assert gain("seen") > 0.1


def test_softmax_outputs_are_compared_as_distributions():
    logits = torch.randn(16, 5, generator=GENERATOR)
    targets = {"p": torch.softmax(3 * logits, -1)}
    losses = Losses.of([], [OutputGroup((Leaf("p", "softmax"),))], targets)

    assert float(losses.outputs(targets, targets)) == pytest.approx(0, abs=1e-6)
    mean = targets["p"].mean(0, keepdim=True).expand(16, 5)
    assert float(losses.outputs({"p": mean}, targets)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_step_moves_an_output_alike_whatever_scale_is_folded_into_the_weights(groups):
    build = Builder()
    build.conv("images", 4, 8, groups=groups)
    build.nodes[-1].output[0] = "y"
    graph = Graph.load(build.model((1, 4, 8, 8), {"y": (1, 8, 8, 8)}))
    (layer,) = find_layers(graph)[0].values()
    weights = {
        name: torch.from_numpy(np.array(graph.constant(name)))
        for name in (layer.weight, layer.bias)
    }
    images = torch.randn(2, 4, 8, 8, generator=GENERATOR)
    outputs = torch.randn(2, 8, 8, 8, generator=GENERATOR)
    sizes = torch.tensor([1e-3, 1.0, 50.0, 1e4])
    plain = free_parameters([layer], weights, {"images": images, "y": outputs})
    scaled = free_parameters(
        [layer], weights, {"images": images * sizes[:, None, None], "y": outputs}
    )
    by_group = sizes.reshape(groups, 1, -1).expand(groups, 8 // groups, -1).reshape(8, -1, 1, 1)

    # Channels far smaller than the mean of all are held by the floor.
    bounded = by_group.abs() + 0.05 * sizes.mean()
    ratio = plain[0].scale / scaled[0].scale
    torch.testing.assert_close(ratio, bounded / 1.05, rtol=0.2, atol=0)


@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 8, 8), 1), ((5, 3), -1), ((90, 3), -1)])
def test_the_slope_of_a_feature_is_that_of_its_formula(shape, axis):
    target, found = (torch.randn(shape, generator=GENERATOR) for _ in range(2))
    found.requires_grad_()
    losses = Losses.of([Feature("x", axis)], [], {"x": target})
    others = [i for i in range(len(shape)) if i != axis % len(shape)]

    losses.total({"x": found}, {"x": target}).backward()
    slope, found.grad = found.grad, None
    difference = found - target
    if difference.numel() >= 64 * 3:
        difference = difference - difference.mean(others, keepdim=True)
    (1e-4 + (difference.square() * losses.precisions["x"]).mean()).log().backward()

    torch.testing.assert_close(slope, found.grad, rtol=1e-5, atol=1e-7)
