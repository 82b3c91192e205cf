"""What an estimator is: it says what each candidate loses before anything of it is measured.

(network, sites, candidates) ──losses──> a loss for each (site, function) ──> the solver
(network, sites, candidates) ──network_loss──> judges whole rewritten networks ──> `actcc rank`
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from actcc.accuracy.estimate import Estimates, Key, LossTable
from actcc.calibration import SampleSet
from actcc.effort import PRESETS
from actcc.graph import Graph
from actcc.journal import Journal
from actcc.pass_api import Pass
from actcc.progress import Progress, Silent
from actcc.site import OfferedSite

Needs = Literal["nothing", "calibration data", "measured plans"]
TYPICAL_LOSS = 0.01
# No approximate candidate is free: at a loss of 0 no budget would ever hold it back.
_SMALLEST_SHARE = 0.01


@dataclass(frozen=True)
class Subject:
    """A network and the candidates whose losses are to be estimated.

    Attributes:
        graph: the normalized network.
        sites: with the candidates to estimate.
        calibration: unlabelled samples; None where there are none.
        value_ranges: smallest and largest value of each input, as far as they are known.
        seed: of noise.
        enough_loss: a loss of fidelity beyond it need not be known precisely.
        deadline: on `time.monotonic()`; what is not estimated by then is not offered.
        estimate_samples: how many of the calibration samples single sites are estimated on.
        journal: what an interrupted run has found already.
        repairs: whether plans are repaired, so that a loss is what is left behind a repair.
    """

    graph: Graph
    sites: Sequence[OfferedSite]
    passes: Sequence[Pass]
    calibration: SampleSet | None
    executor: Executor
    value_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    seed: int = 0
    enough_loss: float = math.inf
    deadline: float = math.inf
    progress: Progress = field(default_factory=Silent)
    estimate_samples: int = PRESETS["default"].estimate_samples
    journal: Journal = field(default_factory=Journal)
    repairs: bool = False


class NetworkLoss(Protocol):
    """Judges whole rewritten networks; picklable."""

    def __call__(self, rewritten: Graph) -> float:
        """What the network lost against the original; lower is better, below 0 is a gain.

        Raises:
            ModelError: the network cannot be run, or a shape is not static.
        """


class Estimator(Protocol):
    """Estimates losses without labels and without a metric."""

    @property
    def name(self) -> str:
        """What `--estimator` takes."""

    @property
    def needs(self) -> Needs:
        """What must be there besides the model."""

    def losses(self, subject: Subject) -> Estimates:
        """A loss ≥ 0 for every approximate (site, function), or why there is none.

        Raises:
            ActccError: the estimator cannot be used on this network at all.
        """

    def network_loss(self, subject: Subject) -> NetworkLoss | None:
        """How the estimator judges a whole network; None if it judges single sites only."""


def as_losses(raw: Mapping[Key, float]) -> LossTable:
    """Raw figures ≥ 0 of single changes as losses that a solver can spend.

    The ratios of positive figures are kept and their median becomes `TYPICAL_LOSS`. The scale is
    arbitrary: the search moves what it allows by what it measures. Figures below a hundredth of the
    typical one, and gains, become that hundredth; infinite ones become the largest; NaN, what the
    estimator cannot see, becomes typical, and so does everything where no figure is positive.
    """
    found = np.array(list(raw.values()), float)
    positive = found[np.isfinite(found) & (found > 0)]
    if not len(positive):
        return dict.fromkeys(raw, TYPICAL_LOSS)
    typical = float(np.median(positive))
    seen = np.nan_to_num(found, nan=typical, posinf=float(positive.max()), neginf=0.0)
    scaled = TYPICAL_LOSS * np.maximum(seen / typical, _SMALLEST_SHARE)
    return {key: float(value) for key, value in zip(raw, scaled, strict=True)}
