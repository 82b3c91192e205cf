"""What a fine-tune gives back; free of PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actcc.graph import Graph


@dataclass(frozen=True)
class SpanFigures:
    """What became of one span of the network.

    Attributes:
        stage: `block` or `whole`.
        first: name of the span's first node.
        last: name of its last node.
        layers: how many layers it has whose weights were free.
        steps: of the optimiser.
        loss_before: on the held-out samples, a logarithm, so that −0.1 is 10 % less of one kind of
            error; NaN where the span was left alone.
        loss_after: that of the weights that are kept.
        reason: why the span's weights are what they were; empty where they are new.
    """

    stage: str
    first: str
    last: str
    layers: int
    steps: int
    loss_before: float
    loss_after: float
    reason: str = ""

    @property
    def kept(self) -> bool:
        """Whether the span's weights are new."""
        return not self.reason


@dataclass(frozen=True)
class Distilled:
    """A rewritten network with fine-tuned weights, and what that brought.

    Attributes:
        graph: the rewritten network; the one that was given where nothing helped.
        spans: blocks in topological order, then whole segments.
        output_loss_before: how far the outputs are from the original's on the held-out samples,
            as a share of how far constants would be.
        output_loss_after: of `graph`.
        seconds: wall time.
        refused: by node, why its weights were not free, or why it could not be run in PyTorch.
    """

    graph: Graph
    spans: tuple[SpanFigures, ...]
    output_loss_before: float
    output_loss_after: float
    seconds: float
    refused: Mapping[str, str]

    @property
    def improved(self) -> bool:
        """Whether the outputs have come closer to the original's."""
        return self.output_loss_after < self.output_loss_before
