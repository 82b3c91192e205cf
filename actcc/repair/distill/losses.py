"""How far a span is from the original: features free of their channels' means, and outputs.

Every term is a share: 0 where the tensors agree, 1 where the rewritten network does no better than
a constant, so that tensors of any scale add up.

    feature   mean over channels c of  Var(s_c − t_c) / Var(t_c)
    sigmoid   Σ w · KL(t ‖ s) / Σ w · KL(t ‖ mean t)          (Bernoulli, per value)
    softmax   Σ w · KL(t ‖ s) / Σ w · KL(t ‖ mean t)          (categorical, per position)
    value     Σ w · (s − t)² / Σ w · (t − mean t)²

t is the original's, s the rewritten network's; for w see `actcc.repair.distill.matching`. What is
minimised is the sum of the logarithms of the features' mean, the probabilities' share and the
values' share: a box that is off by a pixel is a small share of all that boxes can be, and matters
as much as a score that is off, so it is the relative gain of each kind that counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from actcc.repair.distill.matching import Feature, Leaf, OutputGroup
from actcc.repair.distill.network import Tensors

_FLOOR = 0.05
_NEGLIGIBLE = 1e-4
_LEAST_PROBABILITY = 1e-6
# Below so many rows a channel's mean is no matter of the next layer's bias, but what it says.
_ROWS_FOR_A_MEAN = 64
_UNSURE_PROBABILITY = 0.1
_UNSURE_VALUE = 0.01


@dataclass(frozen=True)
class Losses:
    """The terms of a span.

    Attributes:
        precisions: inverse variance of each feature's channels, shaped to broadcast.
        means: of each leaf.
    """

    features: tuple[Feature, ...]
    groups: tuple[OutputGroup, ...]
    precisions: Mapping[str, torch.Tensor]
    means: Mapping[str, torch.Tensor]

    @classmethod
    def of(
        cls, features: Sequence[Feature], groups: Sequence[OutputGroup], targets: Tensors
    ) -> Losses:
        """Terms that are scaled by the original's tensors on a few samples."""
        precisions = {f.name: _precision(targets[f.name], f.axis) for f in features}
        means = {leaf.name: _mean(leaf, targets[leaf.name]) for g in groups for leaf in g.leaves}
        return cls(tuple(features), tuple(groups), precisions, means)

    def total(self, found: Tensors, targets: Tensors) -> torch.Tensor:
        """The sum of the logarithms of the features' mean and of each kind of output's share."""
        terms = list(self._shares(found, targets).values())
        if self.features:
            features = [self._feature(feature, found, targets) for feature in self.features]
            terms.append(torch.stack(features).mean())
        return torch.stack([(term + _NEGLIGIBLE).log() for term in terms]).sum()

    def is_negligible(self, total: float) -> bool:
        """Whether a total says that no more than a ten-thousandth is missed of anything."""
        kinds = {leaf.kind for group in self.groups for leaf in group.leaves}
        return total <= (len(kinds) + bool(self.features)) * math.log(2 * _NEGLIGIBLE)

    def outputs(self, found: Tensors, targets: Tensors) -> torch.Tensor:
        """The mean of the shares of probabilities and of values."""
        return torch.stack(list(self._shares(found, targets).values())).mean()

    def _shares(self, found: Tensors, targets: Tensors) -> dict[str, torch.Tensor]:
        """The share of each kind of output."""
        sums: dict[str, list[torch.Tensor]] = {}
        for group in self.groups:
            for leaf in group.leaves:
                weight = _weight(group, leaf, targets)
                error, scale = self._leaf(leaf, found[leaf.name], targets[leaf.name], weight)
                held = sums.setdefault(leaf.kind, [error.new_zeros(()), error.new_zeros(())])
                held[0], held[1] = held[0] + error, held[1] + scale
        return {kind: error / (scale + 1e-9) for kind, (error, scale) in sums.items()}

    def _feature(self, feature: Feature, found: Tensors, targets: Tensors) -> torch.Tensor:
        name = feature.name
        share: torch.Tensor = _Share.apply(  # type: ignore[no-untyped-call]
            found[name], targets[name], self.precisions[name], feature.axis
        )
        return share

    def _leaf(
        self, leaf: Leaf, found: torch.Tensor, target: torch.Tensor, weight: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mean = self.means[leaf.name]
        if leaf.kind == "value":
            error, scale = (found - target).square(), (mean - target).square()
        elif leaf.kind == "sigmoid":
            error, scale = _bernoulli(target, found), _bernoulli(target, mean)
        else:
            error, scale = _categorical(target, found), _categorical(target, mean)
        return (weight * error).sum(), (weight * scale).sum()


class _Share(torch.autograd.Function):
    """A feature's term. Written out, it passes over the tensors a third as often as PyTorch would,
    and a feature behind each layer makes that half of a step's time.
    """

    @staticmethod
    def forward(
        ctx: Any, found: torch.Tensor, target: torch.Tensor, precision: torch.Tensor, axis: int
    ) -> torch.Tensor:
        """Mean over all values of the squared difference times precision."""
        difference = found - target
        others = _others(difference, axis)
        if difference.numel() >= _ROWS_FOR_A_MEAN * difference.shape[axis]:
            difference -= difference.mean(others, keepdim=True)
        rate = precision / difference.numel()
        ctx.save_for_backward(difference, rate)
        squares = torch.linalg.vector_norm(difference, dim=others, keepdim=True).square()
        share: torch.Tensor = (squares * rate).sum()
        return share

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """The slope by what was found."""
        difference, rate = ctx.saved_tensors
        return difference * (2 * slope * rate), None, None, None


def _weight(group: OutputGroup, leaf: Leaf, targets: Tensors) -> torch.Tensor:
    """How sure the original is of the other things that it says of a position."""
    sure = [
        targets[other.name].amax(group.axis, keepdim=True)
        for other in group.leaves
        if other.kind != "value" and other is not leaf
    ]
    if not sure:
        return torch.ones((), device=targets[leaf.name].device)
    least = _UNSURE_VALUE if leaf.kind == "value" else _UNSURE_PROBABILITY
    return least + (1 - least) * torch.stack(sure).amin(0)


def _bernoulli(target: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """Kullback–Leibler divergence of each value."""
    p, q = (x.clamp(_LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY) for x in (target, found))
    return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()


def _categorical(target: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """The part of each value in the divergence of its position."""
    p, q = (x.clamp_min(_LEAST_PROBABILITY) for x in (target, found))
    return p * (p / q).log()


def _mean(leaf: Leaf, target: torch.Tensor) -> torch.Tensor:
    """What a constant would say: for probabilities each channel's mean, else the mean of all."""
    if leaf.kind == "value" or target.ndim < 2:
        return target.mean()
    others = _others(target, leaf.axis if leaf.kind == "softmax" else 1)
    return target.mean(others, keepdim=True)


def _precision(target: torch.Tensor, axis: int) -> torch.Tensor:
    others = _others(target, axis)
    rows = target.numel() // target.shape[axis]
    variance = target.square() if not others else target.var(others, keepdim=True, correction=0)
    if rows < 2:
        variance = target.square().mean().expand_as(variance)
    return 1 / (variance + _FLOOR * variance.mean() + 1e-12)


def _others(values: torch.Tensor, axis: int) -> list[int]:
    return [index for index in range(values.ndim) if index != axis % values.ndim]
