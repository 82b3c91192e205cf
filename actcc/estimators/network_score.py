"""Estimators that give a network a score of its own, without looking at its outputs.

The papers look for the network with the highest score before training. Here the weights stay what
they were trained to be, and the network that they were trained in is the best there is for them:
what a change loses is how far it moves the score, up or down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from actcc.accuracy.estimate import Estimates
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
class ScoreShift:
    """A yardstick: how far a score is from the original's."""

    score: Score
    observed: tuple[str, ...]
    original: float

    def tally(self) -> _ShiftTally:
        """See `actcc.accuracy.estimate.Yardstick`."""
        return _ShiftTally(self.score.tally(), self)


@dataclass
class _ShiftTally:
    tally: ScoreTally
    shift: ScoreShift

    def add(self, index: int, outputs: Mapping[str, Array]) -> None:
        self.tally.add(index, {name: outputs[name] for name in self.shift.observed})

    @property
    def loss(self) -> float:
        return abs(self.tally.score - self.shift.original)


def score_shift(
    graph: Graph, score: Score, observed: tuple[str, ...], samples: SampleSet
) -> MeasuredLoss:
    """The shift of a score, held against the original network's.

    Raises:
        ModelError: the score of the original itself is not finite.
    """
    tally = score.tally()
    run_through(graph, observed, samples, tally)
    original = tally.score
    if not math.isfinite(original):
        raise ModelError(
            "the score of the original network is not finite: its activations do not tell the "
            "samples apart; choose another --estimator"
        )
    return MeasuredLoss(observed, samples, ScoreShift(score, observed, original))


def score_losses(subject: Subject, shift: MeasuredLoss, title: str) -> Estimates:
    """Losses of single changes from the shifts of a score."""
    found = single_losses(replace(subject, enough_loss=math.inf), shift, title)
    return Estimates(as_losses(found.losses), found.failed)
