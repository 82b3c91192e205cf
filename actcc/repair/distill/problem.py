"""One span to be fitted: how it runs in PyTorch, what it is fed with and compared by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from actcc.graph import Array
from actcc.repair.distill.feeding import Batch, Feeder
from actcc.repair.distill.losses import Losses
from actcc.repair.distill.network import Step, Tensors, execute
from actcc.repair.distill.parameters import Parameter, free_parameters
from actcc.repair.layers import Layer

_JOINED_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Problem:
    """A span with the weights that it starts from.

    Attributes:
        compared: names of the tensors that the losses look at.
    """

    layers: tuple[Layer, ...]
    steps: tuple[Step, ...]
    constants: Mapping[str, torch.Tensor]
    compared: tuple[str, ...]
    feeder: Feeder
    losses: Losses

    def loss(self, batch: Batch, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The mean over the batch's chunks."""
        found = [self.run(given, weights, self.compared) for given in batch.given]
        terms = [self.losses.total(f, t) for f, t in zip(found, batch.targets, strict=True)]
        return torch.stack(terms).mean()

    def run(
        self, given: Tensors, weights: Mapping[str, torch.Tensor], wanted: Sequence[str]
    ) -> Tensors:
        """Tensors of the span."""
        return execute(self.steps, self.constants, weights, given, wanted)

    def parameters(self, batch: Batch) -> list[Parameter]:
        """The span's free weights, scaled by what the layers read and write on a batch."""
        names = {name for layer in self.layers for name in (layer.reads, layer.writes)}
        with torch.no_grad():
            found = [self.run(given, {}, tuple(names)) for given in batch.given]
            whole = {name: torch.cat([part[name] for part in found]) for name in names}
        return free_parameters(self.layers, self.constants, whole)

    def joined(self, samples: Sequence[Mapping[str, Array]]) -> Problem:
        """The same problem with samples run together, if that gives what each gives alone."""
        together = replace(self.feeder, joins=True)
        try:
            with torch.no_grad():
                alone = [
                    self.run(given, {}, self.compared) for given in self.feeder.batch(samples).given
                ]
                batch = together.batch(samples)
                both = self.run(batch.given[0], {}, self.compared)
                wanted = {n: torch.cat([part[n] for part in alone]) for n in self.compared}
        except (RuntimeError, IndexError, ValueError):  # what PyTorch raises where shapes disagree
            return self
        same = all(_agree(both[name], wanted[name]) for name in self.compared)
        return replace(self, feeder=together) if same else self


def _agree(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    if found.shape != wanted.shape:
        return False
    scale = float(wanted.abs().max()) + 1e-12
    return float((found - wanted).abs().max()) <= _JOINED_TOLERANCE * scale
