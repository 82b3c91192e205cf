"""Estimators that give a network a score of its own, without looking at its outputs.

What a change loses is the score of the original minus the score of the changed network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from actcc.accuracy.estimate import Estimates, Tally
from actcc.calibration import SampleSet
from actcc.errors import ModelError
from actcc.estimators.estimator import Subject, as_losses
from actcc.estimators.measured import MeasuredLoss, run_through, single_losses
from actcc.graph import Array, Graph


class ScoreTally(Protocol):
    """What was seen of one network so far."""

    def add(self, index: int, tensors: Mapping[str, Array]) -> None:
        """Count sample `index`; samples come in order."""

    @property
    def score(self) -> float:
        """Of the samples counted so far; higher is better."""


class Score(Protocol):
    """A score of a network by some of its tensors; picklable."""

    def tally(self) -> ScoreTally:
        """A tally of nothing."""


@dataclass(frozen=True)
class ScoreDrop:
    """A yardstick: how far a score falls below the original's."""

    score: Score
    original: float

    def tally(self) -> _DropTally:
        """See `actcc.accuracy.estimate.Yardstick`."""
        return _DropTally(self.score.tally(), self.original)


@dataclass
class _DropTally:
    tally: ScoreTally
    original: float

    def add(self, index: int, outputs: Mapping[str, Array]) -> None:
        self.tally.add(index, outputs)

    @property
    def loss(self) -> float:
        return self.original - self.tally.score


def score_drop(
    graph: Graph, score: Score, observed: tuple[str, ...], samples: SampleSet
) -> MeasuredLoss:
    """The loss of a score, held against the original network's.

    Raises:
        ModelError: the score of the original itself is not finite.
    """
    from_zero: Tally = ScoreDrop(score, 0.0).tally()
    original = -run_through(graph, observed, samples, from_zero)
    if not math.isfinite(original):
        raise ModelError(
            "the score of the original network is not finite: its activations do not tell the "
            "samples apart; choose another --estimator"
        )
    return MeasuredLoss(observed, samples, ScoreDrop(score, original))


def score_losses(subject: Subject, drop: MeasuredLoss, title: str) -> Estimates:
    """Losses of single changes from the drops of a score."""
    found = single_losses(replace(subject, enough_loss=math.inf), drop, title)
    return Estimates(as_losses(found.losses), found.failed)
